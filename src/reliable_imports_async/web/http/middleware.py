"""Middleware for every request: request ids, access logs without tickets, and slow bodies."""

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
"""The id of the current request; ``-`` outside of a request."""

_log = logging.getLogger(__name__)
_VALID_ID = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}")


class RequestIds:
    """Gives each request an id: the client's if it is well-formed, or a new one.

    The id is sent back in the response. It is also in ``request.state.request_id`` and in the
    context variable `request_id`, which `RequestIdFilter` copies to log records.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its id."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        sent = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        identity = sent if _VALID_ID.fullmatch(sent) else secrets.token_hex(16)
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
    """Adds ``request_id`` to log records, for use in a log format."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass."""
        record.request_id = request_id.get()
        return True


class TicketFilter(logging.Filter):
    """Masks tickets in uvicorn's access log."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, without its ticket."""
        if isinstance(record.args, tuple):
            record.args = tuple(
                without_ticket(arg) if isinstance(arg, str) else arg for arg in record.args
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
    """Mask tickets in uvicorn's access log, also if the application runs uvicorn itself."""
    log = logging.getLogger("uvicorn.access")
    if not any(isinstance(each, TicketFilter) for each in log.filters):
        log.addFilter(TicketFilter())


class BodyPace:
    """Answers 408 to a client that sends its body too slowly, and closes the connection.

    Only the time spent waiting for the client counts, not the application's own time. The
    application sees a disconnect, so it keeps nothing of a partial body.

    Args:
        app: The application.
        settings: `receive_timeout`, `receive_total` and `min_receive_rate`.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and measure its body if it has one."""
        if scope["type"] != "http" or not _has_body(scope):
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(receive, send, self._settings)
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except Exception:
            if not exchange.refusing:
                raise
            _log.debug("the application failed on a body that was cut off", exc_info=True)
        if exchange.refusing:
            await _refuse(send, exchange.too_slow)


class _Exchange:
    """One request and its response.

    Attributes:
        too_slow: Why receiving the body was stopped; empty while it was not.
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
        """Whether to answer 408, because the application's response has not started."""
        return bool(self.too_slow) and not self._started

    async def receive(self) -> Message:
        """Return the next part of the body, or a disconnect if the client is too slow."""
        if self._complete:
            return await self._receive()
        if not self.too_slow:
            message = await self._next()
            if message is not None:
                return message
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Pass the response on, unless the answer is 408."""
        if self.refusing:
            return
        self._started = True
        await self._send(message)

    async def _next(self) -> Message | None:
        remaining = self._settings.receive_total - self._waited
        began = anyio.current_time()
        message: Message | None = None
        with anyio.move_on_after(min(self._settings.receive_timeout, remaining)):
            message = await self._receive()
        self._waited += anyio.current_time() - began
        if message is None:
            self.too_slow = "The next part of the body did not arrive in time."
            return None
        self._received += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        self.too_slow = "" if self._complete else self._complaint()
        return None if self.too_slow else message

    def _complaint(self) -> str:
        """What is too slow. After the first `receive_timeout` seconds, the average rate counts."""
        rate = self._settings.min_receive_rate
        if self._waited > self._settings.receive_total:
            return f"The body took longer than {self._settings.receive_total:g} s."
        if self._waited > self._settings.receive_timeout and self._received < rate * self._waited:
            return f"The body arrived at less than {rate:g} B/s."
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
