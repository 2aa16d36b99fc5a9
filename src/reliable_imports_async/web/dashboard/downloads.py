"""The failures of a batch as a file: asked for on a page, noted in the log, then sent."""

from starlette.responses import Response, StreamingResponse

from ...repair.export import ExportFormat
from .templating import render
from .visit import Visit

MEDIA_TYPES: dict[ExportFormat, str] = {
    "csv": "text/csv; charset=utf-8",
    "jsonl": "application/x-ndjson",
}


async def ask(visit: Visit) -> Response:
    """Say what the file will have in it, and in which formats there is one."""
    group = visit.given("group")
    async with visit.call.reading():
        row = await visit.call.batch("view")
        summary = await visit.manager.batch_overview(row.id, causes=group is not None)
    return await render(
        visit,
        "download.html",
        batch=row,
        summary=summary,
        group=group,
        about=next((one for one in summary.groups if one.group == group), None),
    )


async def download(visit: Visit) -> Response:
    """Send the outstanding failures; who took them stays in the batch's log."""
    form = await visit.form()
    row = await visit.call.batch("view")
    kind: ExportFormat = "jsonl" if form.get("format") == "jsonl" else "csv"
    group = str(form.get("group", "")) or None
    visit.done(row, f"failures downloaded as {kind}")
    await visit.call.store_log(row.id)
    chunks = visit.manager.export_failures(row.id, format=kind, group=group, byte_order_mark=True)
    name = f"failures-{row.batch_type}-{str(row.id)[-8:]}.{kind}"
    headers = {
        "Content-Disposition": f'attachment; filename="{name}"',
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }
    return StreamingResponse(chunks, headers=headers, media_type=MEDIA_TYPES[kind])
