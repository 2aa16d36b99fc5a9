"""Files that come in: new batches, and failures that were corrected.

An uploaded file becomes a batch that is not started. So what was detected, its first rows and a dry
run can be looked at before anything is imported, and nothing waits in the server's memory.
"""

from typing import Any, cast

from starlette.datastructures import FormData, UploadFile
from starlette.responses import Response

from ...errors import ConflictError, ReliableImportsError, SourceError
from ...loading.sources import Source, read_file
from .actions import before_process
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
    visit: Visit, batch_type: str | None, error: ReliableImportsError | None, status: int
) -> Response:
    names = visit.manager.registry.batch_types
    return await render(
        visit,
        "upload.html",
        code=status,
        types=[one for one in names if await visit.call.may_create(one)],
        any_type=bool(names),
        batch_type=batch_type,
        formats=FORMATS,
        encodings=ENCODINGS,
        error=error,
        earlier=getattr(error, "batch_id", None),
    )


async def upload(visit: Visit) -> Response:
    """Store the file's records as a batch that waits to be started."""
    form = await visit.form(files=1)
    try:
        batch_type = str(form.get("batch_type", ""))
        visit.manager.registry.get(batch_type)
        endpoint = visit.call.endpoint(batch_type)
        await visit.call.require(endpoint, "create")
        data = await visit.call.about_to_upload(batch_type)
        try:
            created = await visit.manager.create_or_find_batch(
                data.batch_type,
                _source(visit, form),
                metadata=data.metadata,
                created_by=visit.call.user_id,
                on_same_file="force" if "again" in form else "refuse",
                visible=await visit.call.visible(),
                max_failures=data.max_failures,
                max_failure_rate=data.max_failure_rate,
                min_processed=data.min_processed,
                expect=None if data.expect is None else data.expect.model_dump(),
                allow_empty="allow_empty" in form or data.allow_empty,
                after_create=visit.call.after_create(endpoint, data),
            )
        except (SourceError, ConflictError) as exc:
            status = 409 if isinstance(exc, ConflictError) else 422
            shown = cast("ReliableImportsError", await visit.call.discreet(exc))
            return await _upload_form(visit, batch_type, shown, status)
    finally:
        await form.close()
    visit.call.ctx.info("dashboard: file uploaded", actor=visit.call.user_id)
    await visit.call.created(endpoint, created.batch_id, data)
    return visit.to(f"/batches/{created.batch_id}")


async def corrected_page(visit: Visit) -> Response:
    """Ask for a corrected file of failures."""
    row = await visit.call.batch("reprocess")
    await visit.call.permit(row, "edit")
    return await render(
        visit, "corrected.html", batch=row, error=None, result=None, encodings=ENCODINGS
    )


async def corrected(visit: Visit) -> Response:
    """Take the rows of a corrected file, run them, and say which were refused."""
    form = await visit.form(files=1)
    try:
        row = await visit.call.batch("reprocess")
        await visit.call.permit(row, "edit")  # the file replaces records
        await before_process(visit, row)
        try:
            result = await visit.manager.create_corrected_batch(
                row.id, _source(visit, form), actor=visit.call.user_id
            )
        except SourceError as exc:
            return await render(
                visit,
                "corrected.html",
                code=422,
                batch=row,
                error=exc,
                result=None,
                encodings=ENCODINGS,
            )
    finally:
        await form.close()
    visit.done(row, "corrected file uploaded")
    await visit.call.store_log(result.batch_id)
    await visit.manager.enqueue_batch(result.batch_id)
    if not result.refused_rows:
        return visit.to(f"/batches/{result.batch_id}")
    return await render(
        visit, "corrected.html", batch=row, error=None, result=result, encodings=ENCODINGS
    )


def _source(visit: Visit, form: FormData) -> Source:
    file: Any = form.get("file")
    if not isinstance(file, UploadFile) or not file.filename:
        raise Refused(422, "Choose a file.")
    kind = str(form.get("format", ""))
    return read_file(
        file.file,
        name=file.filename[-255:],
        format=kind if kind in FORMATS else None,
        encoding=str(form.get("encoding", "")).strip() or None,
        max_ratio=visit.manager.settings.max_upload_ratio,
    )
