"""A TCP proxy before PostgreSQL's unix socket, to cut connections at the worst moment.

BEGIN and COMMIT are simple queries ('Q'), COMMIT often together with the statement that settles;
the server answers it with a CommandComplete ('C') that says COMMIT. Whole messages are forwarded, so a fault hits exactly one.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, quote, urlsplit

HEADER = 5  # type and length


class Fault(StrEnum):
    """What happens to the next message that fits; each takes its connection with it."""

    LOSE_COMMIT = "lose_commit"
    """COMMIT never reaches the server: the transaction is rolled back."""
    LOSE_ANSWER = "lose_answer"
    """The answer to COMMIT never reaches the client: the transaction is committed."""
    ABANDON_COMMIT = "abandon_commit"
    """COMMIT is forwarded, the client is cut at once, the server never learns that it is gone."""
    CUT_REQUEST = "cut_request"
    """Any message of the client's is lost."""
    CUT_REPLY = "cut_reply"
    """Any message of the server's is lost."""


def messages(buffer: bytearray) -> Iterator[tuple[bytes, bytes]]:
    """Take the complete messages out of a buffer: type and the whole of each."""
    position = 0
    try:
        while len(buffer) - position >= HEADER:
            end = position + 1 + int.from_bytes(buffer[position + 1 : position + HEADER], "big")
            if end > len(buffer):
                break
            yield bytes(buffer[position : position + 1]), bytes(buffer[position:end])
            position = end
    finally:
        del buffer[:position]


class Link:
    """One client's connection, forwarded."""

    def __init__(
        self, client: asyncio.StreamWriter, server: asyncio.StreamWriter, proxy: "Proxy"
    ) -> None:
        self.client = client
        self.server = server
        self.proxy = proxy

    def cut(self, *, server: bool = True) -> None:
        """Reset the connection, as a firewall would."""
        self.client.transport.abort()
        if server:
            self.server.transport.abort()

    async def requests(self, reader: asyncio.StreamReader) -> None:
        """Forward what the client says."""
        first = await reader.readexactly(4)  # the startup message has no type
        self.server.write(first + await reader.readexactly(int.from_bytes(first, "big") - 4))
        buffer, passed = bytearray(), bytearray()
        while data := await reader.read(65_536):
            buffer += data
            for kind, message in messages(buffer):
                commit = kind == b"Q" and b"COMMIT" in message[HEADER:].upper()
                if commit and self.proxy.strikes(Fault.ABANDON_COMMIT):
                    self.server.write(passed + message)
                    self.proxy.abandoned.append(self)
                    return self.cut(server=False)
                if (commit and self.proxy.strikes(Fault.LOSE_COMMIT)) or (
                    kind != b"X" and self.proxy.strikes(Fault.CUT_REQUEST)
                ):
                    self.server.write(passed)
                    return self.cut()
                passed += message
            if self.server.is_closing():
                return None
            self.server.write(passed)
            passed = bytearray()
            await self.proxy.open_road.wait()
            await self.server.drain()
        return None

    async def replies(self, reader: asyncio.StreamReader) -> None:
        """Forward what the server says."""
        buffer, passed = bytearray(), bytearray()
        while data := await reader.read(65_536):
            buffer += data
            for kind, message in messages(buffer):
                committed = kind == b"C" and message[HEADER:].startswith(b"COMMIT")
                if (committed and self.proxy.strikes(Fault.LOSE_ANSWER)) or (
                    kind in b"123CDIZ" and self.proxy.strikes(Fault.CUT_REPLY)
                ):
                    self.client.write(passed)
                    return self.cut()
                passed += message
            if self.client.is_closing():
                return None
            self.client.write(passed)
            passed = bytearray()
            await self.proxy.open_road.wait()
            await self.client.drain()
        return None


class Proxy:
    """Listens on 127.0.0.1 and forwards to the unix socket that a URL of PostgreSQL's names.

    Attributes:
        struck: How often each fault has hit.
        hit: Set whenever a fault hits.
        on_strike: Called whenever a fault hits.
        open_road: Cleared, nothing passes: connections are accepted and stay silent.
        refusing: New connections are closed at once.
        abandoned: Connections whose client is gone and whose server does not know it.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        self._socket = Path(query["host"][0]) / f".s.PGSQL.{query.get('port', ['5432'])[0]}"
        self._user = parts.username or "postgres"
        self._database = parts.path.lstrip("/")
        self._armed: Counter[Fault] = Counter()
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.struck: Counter[Fault] = Counter()
        self.hit = asyncio.Event()
        self.on_strike: Callable[[Fault], object] | None = None
        self.open_road = asyncio.Event()
        self.open_road.set()
        self.abandoned: list[Link] = []
        self.refusing = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.open_road.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in self.abandoned:
            link.cut()
        await self._server.wait_closed()

    def url(self, database: str | None = None) -> str:
        """The DSN of a database through this proxy."""
        port = self._server.sockets[0].getsockname()[1]
        name = quote(database or self._database, safe="")
        return f"postgresql://{self._user}@127.0.0.1:{port}/{name}?sslmode=disable"

    def arm(self, fault: Fault, times: int = 1) -> None:
        """Let a fault hit the next messages that fit."""
        self._armed[fault] += times

    def disarm(self) -> None:
        """Forget the faults that have not hit."""
        self._armed.clear()
        self.open_road.set()

    def strikes(self, fault: Fault) -> bool:
        """Whether an armed fault hits now."""
        if not self._armed[fault]:
            return False
        self._armed[fault] -= 1
        self.struck[fault] += 1
        self.hit.set()
        if self.on_strike is not None:
            self.on_strike(fault)
        return True

    def cut_everything(self) -> int:
        """Cut every connection there is; how many."""
        for link in self._links:
            link.cut()
        return len(self._links)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._forward(reader, writer)
        except asyncio.CancelledError:
            pass  # the proxy closes; asyncio's streams would report it as an error
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            return
        try:
            server_reader, server_writer = await asyncio.open_unix_connection(str(self._socket))
        except OSError:  # the server is down: the client sees its connection closed
            return
        link = Link(writer, server_writer, self)
        self._links.add(link)
        ways = [
            asyncio.ensure_future(link.requests(reader)),
            asyncio.ensure_future(link.replies(server_reader)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            for result in await asyncio.gather(*ways, return_exceptions=True):
                if isinstance(result, Exception) and not isinstance(result, OSError | EOFError):
                    raise result
            self._links.discard(link)
            if link not in self.abandoned:
                with suppress(OSError):
                    server_writer.close()
                    await server_writer.wait_closed()
