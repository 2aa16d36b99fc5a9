"""Responses with server-sent events, for the API and for a user's own route.

This is not built on sse-starlette: importing that replaces a method of `uvicorn.Server` for the
whole process, and it starts the response before the first event, which decides the status here.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from uuid import UUID

import anyio
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ...errors import BatchNotFound, TooManyClients
from ...failures import is_outage
from ...manager import BatchManager
from .feed import ProgressFeed

__all__ = ["EventStream", "ProgressFeed", "progress_response"]

RECHECK_SECONDS = 3.0
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
RETRY_AFTER = {"Retry-After": "5"}

_log = logging.getLogger(__name__)


class EventStream(Response):
    """A response with the events of one batch.

    It is 204, which stops an EventSource, if the client has received the last event already.
    Errors of `ProgressFeed.stream` are raised before the response starts.

    Args:
        feed: The feed of events.
        batch_id: Any batch.
        last_event_id: The id of the last event that the client has received; by default from its
            Last-Event-ID header.
        allowed: Called every few seconds. The stream ends if it returns False or raises, except in
            an outage.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        feed: ProgressFeed,
        batch_id: UUID,
        last_event_id: str | None = None,
        *,
        allowed: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(HEADERS)
        self._feed = feed
        self._batch_id = batch_id
        self._last_event_id = last_event_id
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the batch has settled, the client disconnects, or the server stops."""
        last = self._last_event_id or Headers(scope=scope).get("last-event-id")
        async with aclosing(self._feed.stream(self._batch_id, last)) as chunks:
            first = await anext(chunks, None)
            if first is None:
                await Response(status_code=204, headers=HEADERS)(scope, receive, send)
                return
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            if scope["method"] == "HEAD":
                await send({"type": "http.response.body"})
                return
            async with anyio.create_task_group() as group:
                group.start_soon(_cancel_with_client, receive, group.cancel_scope)
                sending = anyio.CancelScope()
                if self._allowed is not None:
                    group.start_soon(_cancel_when_forbidden, self._allowed, sending)
                with sending:
                    await _send_all(first, chunks, send)
                if sending.cancelled_caught:
                    await send({"type": "http.response.body"})
                group.cancel_scope.cancel()


class _OwnRoute(Response):
    """An `EventStream` for an application that does not handle this library's errors."""

    def __init__(self, manager: BatchManager, batch_id: UUID, last_event_id: str | None) -> None:
        super().__init__(headers=HEADERS, media_type=EventStream.media_type)
        self._manager = manager
        self._batch_id = batch_id
        self._last_event_id = last_event_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events from the shared feed of this event loop."""
        feed = ProgressFeed.shared(self._manager)
        stream = EventStream(feed, self._batch_id, self._last_event_id)
        try:
            await stream(scope, receive, send)
        except BatchNotFound as exc:
            raise HTTPException(404, exc.message) from None
        except TooManyClients as exc:
            raise HTTPException(503, exc.message, RETRY_AFTER) from None
        except Exception as exc:
            if not is_outage(exc):
                raise
            text = "The database did not answer in time."
            raise HTTPException(503, text, RETRY_AFTER) from exc


def progress_response(
    manager: BatchManager, batch_id: UUID | str, *, last_event_id: str | None = None
) -> Response:
    """Send the progress of a batch as server-sent events, from your own route.

    This works in any Starlette or FastAPI application, with or without `APIManager`. All responses
    of a manager share one query.

    Args:
        manager: An open manager.
        batch_id: Any batch; the response is 404 if it does not exist.
        last_event_id: The id of the last event that the client has received; by default from its
            Last-Event-ID header.

    Raises:
        ValueError: `batch_id` is not an id.
    """
    return _OwnRoute(manager, UUID(str(batch_id)), last_event_id)


async def _cancel_with_client(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _cancel_when_forbidden(
    allowed: Callable[[], Awaitable[bool]], scope: anyio.CancelScope
) -> None:
    while True:
        await anyio.sleep(RECHECK_SECONDS)
        try:
            if await allowed():
                continue
        except Exception as exc:  # noqa: BLE001 - a hook may raise whatever it likes
            if is_outage(exc):
                continue
        scope.cancel()
        return


async def _send_all(first: bytes, following: AsyncIterator[bytes], send: Send) -> None:
    try:
        await send({"type": "http.response.body", "body": first, "more_body": True})
        async for chunk in following:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body"})
    except OSError:
        _log.debug("a client disconnected")
