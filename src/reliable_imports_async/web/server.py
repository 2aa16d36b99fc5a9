"""The server behind `APIManager.run`: uvicorn, with limits for slow and for many clients.

uvicorn itself limits the number of connections and the time between two requests. Nothing in it
ends a connection that sends no request, sends its headers too slowly or without end, or does not
read its response; `BoundedConnection` adds that.
"""

import asyncio
import copy
import ipaddress
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import LOGGING_CONFIG
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from ..errors import ConfigurationError
from ..settings import Settings

if sys.platform != "win32":
    import resource

DESCRIPTORS_FOR_OTHERS = 256  # for the pool, files and the event loop
MAX_HEADER_BYTES = 65_536
TOO_LATE = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
TOO_LARGE = b"HTTP/1.1 431 Headers Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


def run(
    app: ASGIApp,
    settings: Settings,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    end_streams: Callable[[], None] = lambda: None,
    **options: Any,
) -> None:
    """Serve until SIGINT or SIGTERM; see `configuration` for the arguments.

    Args:
        end_streams: Ends all event streams; called before the server waits for responses.
    """
    config = configuration(app, settings, host=host, port=port, **options)
    with suppress(KeyboardInterrupt):  # uvicorn raises it again when everything has ended
        Server(config, end_streams).run()


def configuration(
    app: ASGIApp, settings: Settings, *, host: str, port: int, **options: Any
) -> uvicorn.Config:
    """Make the configuration of the server.

    Args:
        app: The application; its lifespan has to work.
        settings: The limits.
        host: The address to listen on.
        port: The port; 0 for any free one.
        options: Further options of ``uvicorn.Config``; they take precedence.
    """
    ours: dict[str, Any] = {
        "http": bounded(settings.header_timeout, settings.send_timeout),
        "ws": "none",
        "lifespan": "on",
        "limit_concurrency": connections(settings.max_connections),
        "timeout_graceful_shutdown": settings.shutdown_timeout,
        "server_header": False,
        "log_config": _log_config(),
    }
    return uvicorn.Config(app, **(ours | {"host": host, "port": port} | options))


class Server(uvicorn.Server):
    """uvicorn's server; it ends event streams before it waits for responses to end.

    Args:
        config: Made by `configuration`.
        end_streams: Ends all event streams.
    """

    def __init__(self, config: uvicorn.Config, end_streams: Callable[[], None]) -> None:
        super().__init__(config)
        self._end_streams = end_streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more connections, end the streams, and let other requests finish."""
        self._end_streams()
        await super().shutdown(sockets)


def refuse_open_door(host: str, *, authenticated: bool, allow_anonymous: bool) -> None:
    """Refuse to serve other machines without authentication.

    Args:
        host: The address to listen on.
        authenticated: Whether API keys or an authentication backend are set up.
        allow_anonymous: Whether the caller allows anonymous requests.

    Raises:
        ConfigurationError: Other machines can reach the address, and there is no authentication.
    """
    if authenticated or allow_anonymous or is_loopback(host):
        return
    raise ConfigurationError(
        f"Listening on {host or 'all addresses'} without authentication would let everybody who "
        "can reach this machine import data.",
        hint="set RELIABLE_IMPORTS_API_KEYS (`reliable-imports api-key` makes a key) or pass an "
        "authentication backend; or listen on 127.0.0.1; or, if access is controlled elsewhere, "
        "pass allow_anonymous=True.",
        cli_hint="set RELIABLE_IMPORTS_API_KEYS (`reliable-imports api-key` makes a key); or "
        "listen on 127.0.0.1; or, if access is controlled elsewhere, add --allow-anonymous.",
        web_hint="",
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address or host name."""
    if not host:
        return False
    try:
        addresses = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return all(_is_loopback_address(str(address[0])) for *_, address in addresses)


def _is_loopback_address(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def connections(wanted: int) -> int:
    """How many connections to allow: `wanted`, or fewer if the system limits open files."""
    if sys.platform == "win32":
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + DESCRIPTORS_FOR_OTHERS
    if soft != resource.RLIM_INFINITY and soft < needed:
        allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))
        return max(wanted + allowed - needed, 10)
    return wanted


def _log_config() -> dict[str, Any]:
    """uvicorn's log configuration, with the request id in the access log."""
    config = copy.deepcopy(LOGGING_CONFIG)
    config["filters"] = {"request": {"()": f"{__package__}.http.middleware.RequestIdFilter"}}
    config["handlers"]["access"]["filters"] = ["request"]
    config["formatters"]["access"]["fmt"] += " %(request_id)s"
    return config


def bounded(header_timeout: float, send_timeout: float) -> type["BoundedConnection"]:
    """The connection class for a server with these limits, in seconds."""
    limits = {"header_timeout": header_timeout, "send_timeout": send_timeout}
    return type("BoundedConnection", (BoundedConnection,), limits)


class BoundedConnection(HttpToolsProtocol):
    """A connection that is closed if its client is too slow.

    Attributes:
        header_timeout: How many seconds the headers of a request may take.
        send_timeout: For how many seconds a client may read nothing of its response.
    """

    header_timeout = 10.0
    send_timeout = 30.0

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._header_bytes = 0

    @property
    def _idle(self) -> bool:
        """Whether no response is being made: what arrives are headers, or the rest of a body."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def _in_unread_body(self) -> bool:
        """Whether what arrives is the rest of a body that was answered without being read."""
        return self.cycle is not None and self.cycle.response_complete and self.cycle.more_body

    def connection_made(  # type: ignore[override]  # as uvicorn narrows it
        self, transport: asyncio.Transport
    ) -> None:
        """Start the time for the first headers."""
        super().connection_made(transport)
        self._start_timer("headers", self.header_timeout, self._headers_too_late)

    def data_received(self, data: bytes) -> None:
        """Time further headers from their first byte until they are complete."""
        super().data_received(data)
        if not self._idle:
            self._header_bytes = 0
            self._stop_timer("headers")
            return
        self._start_timer("headers", self.header_timeout, self._headers_too_late)
        if not self._in_unread_body:
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES:
                self._close(TOO_LARGE)

    def on_message_complete(self) -> None:
        """Note the end of a body, also of one that was answered before it had arrived."""
        super().on_message_complete()
        if self._in_unread_body:
            self.cycle.more_body = False

    def on_response_complete(self) -> None:
        """If the connection closes now, its client still has to read the response in time."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._abort_later()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection; its client still has to read the response in time."""
        super().timeout_keep_alive_handler()
        self._abort_later()

    def pause_writing(self) -> None:
        """The client does not read, and the buffers towards it are full."""
        super().pause_writing()
        self._abort_later()

    def resume_writing(self) -> None:
        """The client reads again."""
        if not self.transport.is_closing():
            self._stop_timer("response")
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop both timers."""
        self._stop_timer("headers")
        self._stop_timer("response")
        super().connection_lost(exc)

    def _headers_too_late(self) -> None:
        self._stop_timer("headers")
        if self._idle:
            self._close(TOO_LATE if self._header_bytes else b"")

    def _close(self, response: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(response)
            self.transport.close()
            self._abort_later()

    def _abort_later(self) -> None:
        self._start_timer("response", self.send_timeout, self.transport.abort)

    def _start_timer(self, name: str, seconds: float, action: Callable[[], None]) -> None:
        """Start a timer unless it is running."""
        if name not in self._timers:
            self._timers[name] = self.loop.call_later(seconds, action)

    def _stop_timer(self, name: str) -> None:
        if timer := self._timers.pop(name, None):
            timer.cancel()
