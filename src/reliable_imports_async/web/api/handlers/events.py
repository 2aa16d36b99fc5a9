"""Progress as it happens, and the files of what failed."""

from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from ....repair.export import ExportFormat
from ...events.stream import EventStream
from ...http.authentication import COOKIE_SECONDS, TICKET_SECONDS, cookie_name, key_of, ticketed
from ...http.call import Call, reply
from ...http.payloads import EventQuery, ExportQuery

ANONYMOUS = ""


async def stream_events(call: Call) -> Response:
    """Follow a batch by server-sent events: `progress`, and `finished` at its end."""
    call.query(EventQuery)
    batch = await call.batch("view")

    async def allowed() -> bool:
        if await call.service.browsers.user_again(call.request) != call.user_id:
            return False
        await call.permit(batch, "view")
        return True

    return EventStream(call.service.feed, batch.id, allowed=allowed)


async def create_ticket(call: Call) -> Response:
    """Get a ticket for `…/events?ticket=…`, for a browser, whose EventSource sends no headers."""
    batch = await call.batch("view")
    key = key_of(call.request) if call.service.signs_in else None
    ticket = await _begin(
        call, key, seconds=TICKET_SECONDS, path=ticketed(f"/api/batches/{batch.id}/events")
    )
    return reply({"ticket": ticket, "expires_in": TICKET_SECONDS}, 201)


async def create_session(call: Call) -> Response:
    """Turn an API key into a cookie, with which a browser may read."""
    if call.user_id is None:
        raise HTTPException(409, "Everybody may come in here; there is nothing to sign in to.")
    if not call.service.signs_in:
        raise HTTPException(409, "The application around the API knows you; no cookie is needed.")
    answer = Response(status_code=204)
    answer.set_cookie(
        cookie_name(call.request),
        await _begin(call, key_of(call.request), seconds=COOKIE_SECONDS),
        max_age=COOKIE_SECONDS,
        httponly=True,
        samesite="strict",
        secure=call.request.url.scheme == "https",
        path=f"{call.base}/",
    )
    return answer


async def delete_session(call: Call) -> Response:
    """End the session; its cookie is worth nothing from now on."""
    name = cookie_name(call.request)
    if value := call.request.cookies.get(name):
        await call.manager.sessions.end(value)
    answer = Response(status_code=204)
    secure = call.request.url.scheme == "https"
    answer.delete_cookie(
        name, path=f"{call.base}/", httponly=True, samesite="strict", secure=secure
    )
    return answer


async def _begin(call: Call, key: bytes | None, *, seconds: float, path: str | None = None) -> str:
    try:
        return await call.manager.sessions.begin(
            call.user_id or ANONYMOUS, key, seconds=seconds, path=path
        )
    except ValueError as exc:
        raise HTTPException(422, str(exc)) from None


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
