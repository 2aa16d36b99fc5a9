"""The file in a request: its raw body, or the one file of a multipart form."""

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from typing import BinaryIO

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

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
        "application/x-gzip",
        "application/x-ndjson",
        "application/x-www-form-urlencoded",  # what curl --data-binary says unless told otherwise
        "text/csv",
        "text/plain",
        "text/tab-separated-values",
    }
)

File = BinaryIO | AsyncIterable[bytes]


@asynccontextmanager
async def received(request: Request) -> AsyncIterator[tuple[File, str | None]]:
    """The file of a request, and its name if that is told.

    A form is received into a temporary file that is gone at the end of the block; a raw body is
    handed on as it arrives.

    Raises:
        HTTPException: 415, for what is no file; 400, for a broken form.
        InvalidRequest: The form has no file, or more than one.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == FORM:
        async with request.form(max_files=1, max_fields=20) as form:
            files = [value for value in form.values() if isinstance(value, UploadFile)]
            if len(files) != 1:
                missing = {"location": ["body", "file"], "message": "one file", "type": "missing"}
                raise InvalidRequest("The form has no file.", [missing])
            yield files[0].file, files[0].filename or None
    elif kind in MEDIA_TYPES:
        yield request.stream(), None
    else:
        known = ", ".join(sorted(MEDIA_TYPES - {""}))
        raise HTTPException(415, f"{kind} is no file of records; send one of {known}, {FORM}.")
