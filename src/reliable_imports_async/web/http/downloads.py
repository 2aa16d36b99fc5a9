"""Downloads: the failures of a batch as a file."""

from starlette.responses import StreamingResponse

from ...models import ImportBatch
from ...repair.export import ExportFormat
from .call import Call

MEDIA_TYPES: dict[ExportFormat, str] = {
    "csv": "text/csv; charset=utf-8",
    "jsonl": "application/x-ndjson",
}


def failures_file(
    call: Call,
    batch: ImportBatch,
    format: ExportFormat,  # noqa: A002 - as elsewhere
    group: str | None,
) -> StreamingResponse:
    """Send the outstanding failures of a batch, or of one failure group, as a file."""
    chunks = call.manager.export_failures(
        batch.id, format=format, group=group, byte_order_mark=True
    )
    name = f"failures-{batch.batch_type}-{str(batch.id)[-8:]}.{format}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(chunks, headers=headers, media_type=MEDIA_TYPES[format])
