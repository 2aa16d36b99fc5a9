"""Downloading the failures of a batch: confirmed on a page, noted in the log, then sent."""

from starlette.responses import Response

from ...repair.export import ExportFormat
from ..http.downloads import failures_file
from .actions import about_failures
from .templating import render
from .visit import Visit


async def ask(visit: Visit) -> Response:
    """Show what the file contains, and offer its formats."""
    return await render(visit, "download.html", **await about_failures(visit, "view"))


async def download(visit: Visit) -> Response:
    """Send the outstanding failures; the batch's log keeps who downloaded them."""
    form = await visit.form()
    row = await visit.call.batch("view")
    kind: ExportFormat = "jsonl" if form.get("format") == "jsonl" else "csv"
    visit.done(row, f"failures downloaded as {kind}")
    await visit.call.store_log(row.id)
    return failures_file(visit.call, row, kind, str(form.get("group", "")) or None)
