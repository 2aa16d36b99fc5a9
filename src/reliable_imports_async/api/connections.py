"""A connection that waits for no client for ever: it closes what uvicorn's own would leave open.

uvicorn ends connections that are idle after a response. It sets no limit to a client that says
nothing, sends its headers byte by byte or without end, does not take its response, or goes on
sending a body that was answered already. (Slow bodies are `receiving`'s.)
"""

import asyncio

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

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
