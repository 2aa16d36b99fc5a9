"""The server behind `APIManager.run`: uvicorn, with limits for clients that are slow or many."""

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
from uvicorn import Config
from uvicorn.config import LOGGING_CONFIG
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from ..errors import ConfigurationError
from ..settings import Settings

MAX_HEADER_BYTES = 65_536
TOO_LATE = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
TOO_LARGE = b"HTTP/1.1 431 Headers Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class BoundedConnection(HttpToolsProtocol):
    """One client's connection.

    Attributes:
        header_timeout: Seconds until the headers of a request have to be complete.
        send_timeout: Seconds a client may take nothing of its response.
    """

    header_timeout = 10.0
    send_timeout = 30.0

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._header_bytes = 0

    @property
    def _waiting(self) -> bool:
        """Whether no request is being answered: what comes in are headers, or left-overs."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def _left_over(self) -> bool:
        """Whether what comes in is the rest of a body that was answered without being read."""
        return self.cycle is not None and self.cycle.response_complete and self.cycle.more_body

    def connection_made(  # type: ignore[override]  # as uvicorn narrows it
        self, transport: asyncio.Transport
    ) -> None:
        """The first headers have as long as any others."""
        super().connection_made(transport)
        self._deadline = self.loop.call_later(self.header_timeout, self._too_late)

    def data_received(self, data: bytes) -> None:
        """The clock runs from the first byte until the headers are complete."""
        super().data_received(data)
        if not self._waiting:
            self._header_bytes = 0
            self._stop_deadline()
            return
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.header_timeout, self._too_late)
        if not self._left_over:
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES:
                self._close(TOO_LARGE)

    def on_message_complete(self) -> None:
        """Also of a body that was answered before it had come in."""
        super().on_message_complete()
        if self._left_over:
            self.cycle.more_body = False

    def on_response_complete(self) -> None:
        """A closing connection still has its response to deliver."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._abort_later()

    def timeout_keep_alive_handler(self) -> None:
        """Idle for too long."""
        super().timeout_keep_alive_handler()
        self._abort_later()

    def pause_writing(self) -> None:
        """The buffers towards the client are full."""
        super().pause_writing()
        self._abort_later()

    def resume_writing(self) -> None:
        """The client has taken something."""
        if not self.transport.is_closing():
            self._stop_stalled()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        self._stop_deadline()
        self._stop_stalled()
        super().connection_lost(exc)

    def _too_late(self) -> None:
        self._deadline = None
        if self._waiting:
            self._close(TOO_LATE if self._header_bytes else b"")

    def _close(self, answer: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()
            self._abort_later()

    def _abort_later(self) -> None:
        """Unless the client takes something, this is the end of it."""
        if self._stalled is None:
            self._stalled = self.loop.call_later(self.send_timeout, self.transport.abort)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _stop_stalled(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


def bounded(header_timeout: float, send_timeout: float) -> type[BoundedConnection]:
    """The connection class for a server with these limits, in seconds."""
    limits = {"header_timeout": header_timeout, "send_timeout": send_timeout}
    return type("BoundedConnection", (BoundedConnection,), limits)


if sys.platform != "win32":
    import resource

DESCRIPTORS_FOR_OTHERS = 256  # the pool, files, the loop's own


def refuse_open_door(host: str, *, authenticated: bool, allow_anonymous: bool) -> None:
    """Refuse to serve everybody on the network without asking who they are.

    Args:
        host: The address to listen on.
        authenticated: Whether API keys or an authentication backend are set up.
        allow_anonymous: Whether the caller has said that this is meant.

    Raises:
        ConfigurationError: The address is not a loopback one, and nobody would be asked.
    """
    if authenticated or allow_anonymous or is_loopback(host):
        return
    raise ConfigurationError(
        f"On {host or 'all addresses'} everybody who can reach this machine could import data: no "
        "authentication is set up.",
        hint="set RELIABLE_IMPORTS_API_KEYS (`reliable-imports api-key` makes one) or pass "
        "an authentication backend; or listen on 127.0.0.1; or, if access is controlled elsewhere, "
        "pass allow_anonymous=True.",
        cli_hint="set RELIABLE_IMPORTS_API_KEYS (`reliable-imports api-key` makes one); or listen "
        "on 127.0.0.1; or, if access is controlled elsewhere, add --allow-anonymous.",
        web_hint="",
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address or host name."""
    if not host:
        return False
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return all(_is_loopback_address(str(place[0])) for *_, place in found)


def _is_loopback_address(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


class Server(uvicorn.Server):
    """uvicorn's server; it ends event streams before it waits for responses to end.

    Args:
        config: What `configuration` makes.
        end_streams: Ends all event streams.
    """

    def __init__(self, config: uvicorn.Config, end_streams: Callable[[], None]) -> None:
        super().__init__(config)
        self._end_streams = end_streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, end the streams, let other requests finish."""
        self._end_streams()
        await super().shutdown(sockets)


def configuration(
    app: ASGIApp, settings: Settings, *, host: str, port: int, **options: Any
) -> uvicorn.Config:
    """How the API is served.

    Args:
        app: What is served; its lifespan has to work.
        settings: The limits.
        host: The address to listen on.
        port: The port; 0 for any that is free.
        options: Further ones of ``uvicorn.Config``; they win.
    """
    given: dict[str, Any] = {
        "http": bounded(settings.header_timeout, settings.send_timeout),
        "ws": "none",
        "lifespan": "on",
        "limit_concurrency": connections(settings.max_connections),
        "timeout_graceful_shutdown": settings.shutdown_timeout,
        "server_header": False,
        "log_config": _log_config(),
    }
    return uvicorn.Config(app, **(given | {"host": host, "port": port} | options))


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
    with suppress(KeyboardInterrupt):  # raised again once all has come to its end
        Server(config, end_streams).run()


def connections(wanted: int) -> int:
    """How many connections there may be: as many as wanted, if the system allows the files."""
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
    """uvicorn's own, with the request's id in each line about a request."""
    config = copy.deepcopy(LOGGING_CONFIG)
    config["filters"] = {"request": {"()": f"{__package__}.http.middleware.RequestIdFilter"}}
    config["handlers"]["access"]["filters"] = ["request"]
    config["formatters"]["access"]["fmt"] += " %(request_id)s"
    return config
