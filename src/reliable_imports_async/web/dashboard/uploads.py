"""Uploaded files: new batches, and corrected failures.

An uploaded file becomes a batch that is not started. Its detected format, its first rows and a dry
run can be checked before anything is imported, and nothing is kept in the server's memory.
"""

from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.responses import Response

from ...errors import ConflictError, SourceError
from ...loading.create import OnSameFile
from ...loading.sources import Source, read_file
from ...models import CorrectedFile, ImportBatch
from ..http import batch_actions
from ..http.payloads import CreateBatch
from .templating import render
from .visit import Refused, Visit

FORMATS = ("csv", "tsv", "jsonl", "json")
ENCODINGS = (
    "utf-8", "cp1252", "cp1250", "iso8859-2", "cp1251", "koi8-r", "shift_jis", "gb18030", "big5",
    "euc_kr", "utf-16",
)  # fmt: skip


async def upload_page(visit: Visit) -> Response:
    """Ask for a file."""
    return await _upload_form(visit, visit.given("batch_type"), None, 200)


async def _upload_form(
    visit: Visit, batch_type: str | None, error: Exception | None, status: int
) -> Response:
    names = visit.manager.registry.batch_types
    return await render(
        visit,
        "upload.html",
        code=status,
        types=[name for name in names if await visit.call.may_create(name)],
        any_type=bool(names),
        batch_type=batch_type,
        formats=FORMATS,
        encodings=ENCODINGS,
        error=error,
        earlier=getattr(error, "batch_id", None),
    )


async def upload(visit: Visit) -> Response:
    """Store the records of a file in a new batch, which is not started."""
    form = await visit.form(files=1)
    call = visit.call
    try:
        batch_type = str(form.get("batch_type", ""))
        endpoint = await batch_actions.permitted_endpoint(call, batch_type)
        asked = CreateBatch(batch_type=batch_type, process=False)
        data = await batch_actions.before_create(call, asked)
        data.allow_empty = data.allow_empty or "allow_empty" in form
        same_file: OnSameFile = "force" if "again" in form else "refuse"
        try:
            created = await batch_actions.create(
                call, endpoint, data, _source(visit, form), enqueue=False, on_same_file=same_file
            )
        except (SourceError, ConflictError) as exc:
            status = 409 if isinstance(exc, ConflictError) else 422
            return await _upload_form(visit, batch_type, await call.discreet(exc), status)
    finally:
        await form.close()
    call.ctx.info("dashboard: file uploaded", actor=call.user_id)
    await batch_actions.after_create(call, endpoint, created.batch_id, data)
    return visit.to(f"/batches/{created.batch_id}")


async def corrected_page(visit: Visit) -> Response:
    """Ask for a corrected file of failures."""
    row = await visit.call.batch("reprocess")
    await visit.call.permit(row, "edit")
    return await _corrected_form(visit, row)


async def _corrected_form(
    visit: Visit,
    row: ImportBatch,
    *,
    result: CorrectedFile | None = None,
    error: SourceError | None = None,
) -> Response:
    return await render(
        visit,
        "corrected.html",
        code=200 if error is None else 422,
        batch=row,
        error=error,
        result=result,
        encodings=ENCODINGS,
    )


async def corrected(visit: Visit) -> Response:
    """Rerun the rows of a corrected file, and show which rows were refused."""
    form = await visit.form(files=1)
    try:
        row = await visit.call.batch("reprocess")
        await visit.call.permit(row, "edit")  # the file replaces records
        await batch_actions.before_process(visit.call, row)
        try:
            result = await visit.manager.create_corrected_batch(
                row.id, _source(visit, form), actor=visit.call.user_id
            )
        except SourceError as exc:
            return await _corrected_form(visit, row, error=exc)
    finally:
        await form.close()
    visit.done(row, "corrected file uploaded")
    await visit.call.store_log(result.batch_id)
    await visit.manager.enqueue_batch(result.batch_id)
    if not result.refused_rows:
        return visit.to(f"/batches/{result.batch_id}")
    return await _corrected_form(visit, row, result=result)


def _source(visit: Visit, form: FormData) -> Source:
    file: Any = form.get("file")
    if not isinstance(file, UploadFile) or not file.filename:
        raise Refused(422, "Choose a file.")
    kind = str(form.get("format", ""))
    line = str(form.get("header_row", "")).strip()
    if line and not (line.isdecimal() and len(line) <= 9):
        raise Refused(422, "The header line must be a number, or empty.")
    return read_file(
        file.file,
        name=file.filename[-255:],
        format=kind if kind in FORMATS else None,
        encoding=str(form.get("encoding", "")).strip() or None,
        header_row=int(line) if line else None,
        max_ratio=visit.manager.settings.max_upload_ratio,
    )
