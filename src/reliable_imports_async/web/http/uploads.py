"""Uploaded files: the raw body of a request, or the file in a multipart form."""

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from typing import BinaryIO

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from ...loading.sources import LayoutOptions, Source, read_file
from .call import Call
from .payloads import CorrectionQuery, UploadQuery
from .problems import InvalidRequest

FORM = "multipart/form-data"
MEDIA_TYPES = frozenset(
    {
        "",
        "application/gzip",
        "application/json",
        "application/jsonl",
        "application/octet-stream",
        "application/vnd.ms-excel",  # what browsers on Windows send for CSV
        "application/x-bzip2",
        "application/x-gzip",
        "application/x-ndjson",
        "application/x-www-form-urlencoded",  # what curl --data-binary sends by default
        "application/x-xz",
        "application/zip",
        "text/csv",
        "text/plain",
        "text/tab-separated-values",
    }
)

File = BinaryIO | AsyncIterable[bytes]


@asynccontextmanager
async def uploaded_source(
    call: Call, query: UploadQuery | CorrectionQuery
) -> AsyncIterator[Source]:
    """Give the records of an uploaded file, read as the query says.

    A form is first received into a temporary file, which is deleted at the end of the block. A raw
    body is read while it arrives.

    Raises:
        HTTPException: 415, if the body is not a file; 400, for a broken form.
        InvalidRequest: The form does not have exactly one file.
    """
    async with _file(call.request) as (file, name):
        yield read_file(
            file,
            name=query.name or name,
            format=query.format,
            delimiter=query.delimiter,
            encoding=query.encoding,
            max_ratio=call.service.settings.max_upload_ratio,
            **_layout(query),
        )


def _layout(query: UploadQuery | CorrectionQuery) -> LayoutOptions:
    """Where the table in the file is; a corrected file is as the library exported it."""
    if isinstance(query, CorrectionQuery):
        return {}
    return {
        "skip_rows": query.skip_rows,
        "header_row": query.header_row,
        "skip_footer": query.skip_footer,
        "comment": query.comment,
        "member": query.member,
    }


@asynccontextmanager
async def _file(request: Request) -> AsyncIterator[tuple[File, str | None]]:
    """Give the file of a request, and its name if the client sent it."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == FORM:
        async with request.form(max_files=1, max_fields=20) as form:
            files = [value for value in form.values() if isinstance(value, UploadFile)]
            if len(files) != 1:
                missing = {"location": ["body", "file"], "message": "one file", "type": "missing"}
                raise InvalidRequest("The form must have exactly one file.", [missing])
            yield files[0].file, files[0].filename or None
    elif kind in MEDIA_TYPES:
        yield request.stream(), None
    else:
        known = ", ".join(sorted(MEDIA_TYPES - {""}))
        raise HTTPException(415, f"{kind} is not accepted. Send one of: {known}, {FORM}.")
