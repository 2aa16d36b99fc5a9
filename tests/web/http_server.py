"""A real server on a real socket, in this process; and clients that speak HTTP by hand."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import uvicorn

from reliable_imports_async import Settings

from ..support.trying import PATIENCE
from .reach import Server, configuration


class Running:
    """A server that answers on `port`."""

    def __init__(self, server: uvicorn.Server):
        self.server = server
        self.port = server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def stop(self):
        self.server.should_exit = True


@asynccontextmanager
async def running(server: uvicorn.Server) -> AsyncIterator[Running]:
    """Serve; leaving the block stops it and waits for its end."""
    serving = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started or serving.done())
        yield Running(server)
    finally:
        server.should_exit = True
        async with asyncio.timeout(PATIENCE):
            await serving


def serving(app, settings=None, end_streams=lambda: None, **options):
    """The server of `APIManager.run`, for an application without a lifespan."""
    given = {"lifespan": "off", "log_config": None, "host": "127.0.0.1", "port": 0}
    config = configuration(app, settings or Settings(), **(given | options))
    return running(Server(config, end_streams))


async def until(condition) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


class Client:
    """A client that sends what it is told to, and nothing by itself."""

    def __init__(self, reader, writer):
        self._reader = reader
        self._writer = writer

    async def send(self, text: str | bytes) -> None:
        self._writer.write(text if isinstance(text, bytes) else text.encode())
        await self._writer.drain()

    async def get(self, path: str, **headers: str) -> None:
        lines = [f"GET {path} HTTP/1.1", "host: test"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.send("\r\n".join([*lines, "", ""]))

    async def until(self, mark: str) -> str:
        """What comes, up to and with a mark."""
        async with asyncio.timeout(PATIENCE):
            return (await self._reader.readuntil(mark.encode())).decode()

    async def rest(self) -> str:
        """What comes until the server closes the connection."""
        async with asyncio.timeout(PATIENCE):
            try:
                return (await self._reader.read()).decode()
            except ConnectionResetError:
                return ""

    async def close(self) -> None:
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


@asynccontextmanager
async def client(port: int) -> AsyncIterator[Client]:
    opened = Client(*await asyncio.open_connection("127.0.0.1", port, limit=2**24))
    try:
        yield opened
    finally:
        await opened.close()
