"""Where everybody is measured: a PostgreSQL of its own, and what a contender takes of it."""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path

import asyncpg
import psutil

from reliable_imports_async import BatchManager
from reliable_imports_async.database.embedded import EmbeddedServer

from .spent import Spent, spending

DATABASE = "bench"


class Ground:
    """The server, with one database that is made anew for each measurement."""

    def __init__(self, server: EmbeddedServer, postmaster: psutil.Process, version: str) -> None:
        self.version = version
        self.dsn = server.url(DATABASE)
        self.log_file = server.log_file
        self._server = server
        self.postmaster = postmaster

    async def renew(self, schema: str = "", *, ours: bool = True) -> None:
        """An empty database with a workload's tables, and with ours if wished."""
        admin = await asyncpg.connect(self._server.url())
        await admin.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        await admin.execute(f"CREATE DATABASE {DATABASE}")
        await admin.close()
        if ours:
            await BatchManager(self.dsn).migrate()
        if schema:
            await self.execute(schema)
        await self.settle()

    async def execute(self, sql: str) -> None:
        """Statements, on a connection of their own."""
        conn = await asyncpg.connect(self.dsn)
        await conn.execute(sql)
        await conn.close()

    async def settle(self) -> None:
        """Nobody pays for what another one has left to be written."""
        admin = await asyncpg.connect(self._server.url())
        await admin.execute("CHECKPOINT")
        await admin.close()

    def spending(self) -> AbstractContextManager[Spent]:
        """Measure what is done inside."""
        return spending(self.postmaster)


@asynccontextmanager
async def ground(settings: Mapping[str, str] | None = None) -> AsyncIterator[Ground]:
    """Start a server on the disk (not in memory: COMMIT shall cost what it costs)."""
    home = Path(tempfile.mkdtemp(prefix="reliable-imports-bench-", dir="/var/tmp"))
    os.chmod(home, 0o711)  # noqa: PTH101 - for root the server runs as another user
    try:
        async with EmbeddedServer(home / "server", settings=settings) as server:
            conn = await asyncpg.connect(server.url())
            version = await conn.fetchval("SHOW server_version")
            backend = psutil.Process(await conn.fetchval("SELECT pg_backend_pid()"))
            postmaster = psutil.Process(backend.ppid())
            await conn.close()
            yield Ground(server, postmaster, version)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))
