"""What every request passes first: a request id, and an end to bodies that come too slowly."""

import json
import logging
import re
import secrets
from contextvars import ContextVar
from urllib.parse import unquote_plus

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...settings import Settings

REQUEST_ID_HEADER = "X-Request-ID"
request_id: ContextVar[str] = ContextVar("request_id", default="-")
"""The id of the request that is being answered; ``-`` outside of one."""

_log = logging.getLogger(__name__)
_SANE = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}")


class RequestIds:
    """Gives each request an id: the client's, when it is sane, or a new one.

    It is echoed in the response, is in ``request.state.request_id`` and in the context variable
    `request_id`, which `RequestIdFilter` writes into log records.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its id."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        identity = given if _SANE.fullmatch(given) else secrets.token_hex(16)
        scope.setdefault("state", {})["request_id"] = identity

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message.setdefault("headers", [])
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = identity
            await send(message)

        token = request_id.set(identity)
        try:
            await self.app(scope, receive, send_with_id)
        finally:
            request_id.reset(token)


class RequestIdFilter(logging.Filter):
    """Adds ``request_id`` to log records, for a format that names it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass."""
        record.request_id = request_id.get()
        return True


class TicketFilter(logging.Filter):
    """Masks tickets in the lines of uvicorn's access log."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, without its ticket."""
        if isinstance(record.args, tuple):
            record.args = tuple(
                without_ticket(one) if isinstance(one, str) else one for one in record.args
            )
        return True


def without_ticket(target: str) -> str:
    """A request's target with the value of ``ticket`` masked."""
    path, mark, query = target.partition("?")
    if not mark or "ticket" not in unquote_plus(query):
        return target
    pairs = [pair.partition("=") for pair in query.split("&")]
    masked = [
        f"{name}=***" if unquote_plus(name) == "ticket" else f"{name}{sign}{value}"
        for name, sign, value in pairs
    ]
    return f"{path}?{'&'.join(masked)}"


def keep_tickets_out_of_access_logs() -> None:
    """Mask tickets in the access log of whichever uvicorn serves this process."""
    log = logging.getLogger("uvicorn.access")
    if not any(isinstance(one, TicketFilter) for one in log.filters):
        log.addFilter(TicketFilter())


class BodyPace:
    """Answers 408 to a client that sends its body too slowly, and closes the connection.

    Only the time that is spent waiting for the client counts, not what the application takes. The
    application sees a client that has left, so it keeps nothing of a body that came in part.

    Args:
        app: The application.
        settings: `receive_timeout`, `receive_total` and `min_receive_rate`.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; one without a body as it is."""
        if scope["type"] != "http" or not _has_body(scope):
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(receive, send, self._settings)
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except Exception:
            if not exchange.refusing:
                raise
            _log.debug("the application met a body that ended early", exc_info=True)
        if exchange.refusing:
            await _refuse(send, exchange.too_slow)


class _Exchange:
    """One request and its response.

    Attributes:
        too_slow: Why the body was given up, or nothing.
    """

    def __init__(self, receive: Receive, send: Send, settings: Settings) -> None:
        self._receive = receive
        self._send = send
        self._settings = settings
        self._complete = False
        self._started = False
        self._waited = 0.0
        self._received = 0
        self.too_slow = ""

    @property
    def refusing(self) -> bool:
        """Whether the response is ours, because the application's has not started."""
        return bool(self.too_slow) and not self._started

    async def receive(self) -> Message:
        """The next part of the body, or a disconnect when the client is too slow."""
        if self._complete:
            return await self._receive()
        if not self.too_slow:
            message = await self._next()
            if message is not None:
                return message
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Pass the response on, unless it will be ours."""
        if self.refusing:
            return
        self._started = True
        await self._send(message)

    async def _next(self) -> Message | None:
        left = self._settings.receive_total - self._waited
        began = anyio.current_time()
        message: Message | None = None
        with anyio.move_on_after(min(self._settings.receive_timeout, left)):
            message = await self._receive()
        self._waited += anyio.current_time() - began
        if message is None:
            self.too_slow = "No part of the body came in time."
            return None
        self._received += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        self.too_slow = "" if self._complete else self._complaint()
        return None if self.too_slow else message

    def _complaint(self) -> str:
        """What is too slow; a slow start is forgiven, then the average counts."""
        rate = self._settings.min_receive_rate
        if self._waited > self._settings.receive_total:
            return f"The body took more than {self._settings.receive_total:g} s."
        if self._waited > self._settings.receive_timeout and self._received < rate * self._waited:
            return f"The body came at less than {rate:g} B/s."
        return ""


def _has_body(scope: Scope) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])


async def _refuse(send: Send, detail: str) -> None:
    problem = {
        "type": "about:blank",
        "title": "Request Timeout",
        "status": 408,
        "detail": detail,
        "request_id": request_id.get(),
    }
    body = json.dumps(problem).encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 408, "headers": headers})
    await send({"type": "http.response.body", "body": body})
