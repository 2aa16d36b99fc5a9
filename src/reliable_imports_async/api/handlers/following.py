"""Progress as it happens, and the files of what failed."""

from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from ...exporting import ExportFormat
from ..authentication import COOKIE, COOKIE_SECONDS, TICKET_SECONDS
from ..calls import Call, reply
from ..payloads import EventQuery, ExportQuery
from ..progress import EventStream

ANONYMOUS = ""


async def stream_events(call: Call) -> Response:
    """Follow a batch by server-sent events: `progress`, and `finished` at its end."""
    call.query(EventQuery)
    batch = await call.batch("view")
    return EventStream(call.service.feed, batch.id)


async def create_ticket(call: Call) -> Response:
    """Get a ticket for `…/events?ticket=…`, for a browser, whose EventSource sends no headers."""
    batch = await call.batch("view")
    path = f"{call.base}/api/batches/{batch.id}/events"
    ticket = call.service.signer.ticket(call.user_id or ANONYMOUS, path)
    return reply({"ticket": ticket, "expires_in": TICKET_SECONDS}, 201)


async def create_session(call: Call) -> Response:
    """Turn an API key into a cookie, with which a browser may read."""
    if call.user_id is None:
        raise HTTPException(409, "Everybody may come in here; there is nothing to sign in to.")
    answer = Response(status_code=204)
    answer.set_cookie(
        COOKIE,
        call.service.signer.cookie(call.user_id),
        max_age=COOKIE_SECONDS,
        httponly=True,
        samesite="strict",
        secure=call.request.url.scheme == "https",
        path=f"{call.base}/",
    )
    return answer


async def delete_session(call: Call) -> Response:
    """Forget the cookie."""
    answer = Response(status_code=204)
    answer.delete_cookie(COOKIE, path=f"{call.base}/", httponly=True, samesite="strict")
    return answer


async def export_csv(call: Call) -> Response:
    """Download the outstanding failures in their original columns, with number and error.

    Cells that a spreadsheet would run as a formula are made harmless; importing the corrected file
    undoes that.
    """
    return await _export(call, "csv", "text/csv; charset=utf-8")


async def export_jsonl(call: Call) -> Response:
    """Download the outstanding failures without loss, one JSON object per line."""
    return await _export(call, "jsonl", "application/x-ndjson")


async def _export(call: Call, format: ExportFormat, media_type: str) -> Response:  # noqa: A002
    query = call.query(ExportQuery)
    batch = await call.batch("view")
    chunks = call.manager.export_failures(
        batch.id, format=format, group=query.group, byte_order_mark=True
    )
    name = f"failures-{batch.batch_type}-{str(batch.id)[-8:]}.{format}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(chunks, headers=headers, media_type=media_type)
