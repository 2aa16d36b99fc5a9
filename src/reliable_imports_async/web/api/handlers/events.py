"""Live progress, tickets and sessions for browsers, and the files of failures."""

from starlette.exceptions import HTTPException
from starlette.responses import Response

from ....repair.export import ExportFormat
from ...events.stream import EventStream
from ...http.authentication import TICKET_SECONDS, key_of, ticketed
from ...http.call import Call, reply
from ...http.cookies import SESSION_SECONDS, cookie_name, set_cookie
from ...http.downloads import failures_file
from ...http.payloads import EventQuery, ExportQuery

ANONYMOUS = ""


async def stream_events(call: Call) -> Response:
    """Follow a batch by server-sent events: `progress`, and `finished` when it ends."""
    call.query(EventQuery)
    batch = await call.batch("view")

    async def allowed() -> bool:
        if await call.service.authenticator.user_again(call.request) != call.user_id:
            return False
        await call.permit(batch, "view")
        return True

    return EventStream(call.service.feed, batch.id, allowed=allowed)


async def create_ticket(call: Call) -> Response:
    """Create a ticket for `…/events?ticket=…`, since a browser's EventSource sends no headers."""
    batch = await call.batch("view")
    key = key_of(call.request) if call.service.authenticator.signs_in else None
    ticket = await _begin(
        call, key, seconds=TICKET_SECONDS, path=ticketed(f"/api/batches/{batch.id}/events")
    )
    return reply({"ticket": ticket, "expires_in": TICKET_SECONDS}, 201)


async def create_session(call: Call) -> Response:
    """Exchange an API key for a session cookie, with which a browser may read."""
    if call.user_id is None:
        raise HTTPException(409, "This API has no authentication, so there are no sessions.")
    if not call.service.authenticator.signs_in:
        raise HTTPException(
            409, "The application around this API authenticates you. You need no session here."
        )
    value = await _begin(call, key_of(call.request), seconds=SESSION_SECONDS)
    response = Response(status_code=204)
    set_cookie(call.request, response, value, seconds=SESSION_SECONDS)
    return response


async def delete_session(call: Call) -> Response:
    """End the session; its cookie is then worthless."""
    if value := call.request.cookies.get(cookie_name(call.request)):
        await call.service.authenticator.sessions.end(value)
    response = Response(status_code=204)
    set_cookie(call.request, response, "")
    return response


async def _begin(call: Call, key: bytes | None, *, seconds: float, path: str | None = None) -> str:
    try:
        return await call.service.authenticator.sessions.begin(
            call.user_id or ANONYMOUS, key, seconds=seconds, path=path
        )
    except ValueError as exc:
        raise HTTPException(422, str(exc)) from None


async def export_csv(call: Call) -> Response:
    """Download the outstanding failures in their original columns, with item number and error.

    Cells that a spreadsheet would run as a formula are escaped; uploading the corrected file
    reverses that.
    """
    return await _export(call, "csv")


async def export_jsonl(call: Call) -> Response:
    """Download the outstanding failures without any loss, one JSON object per line."""
    return await _export(call, "jsonl")


async def _export(call: Call, format: ExportFormat) -> Response:  # noqa: A002 - as elsewhere
    query = call.query(ExportQuery)
    return failures_file(call, await call.batch("view"), format, query.group)
