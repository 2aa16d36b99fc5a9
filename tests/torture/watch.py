"""Looks at the database on one connection, for everybody who waits to see something in it.

One: a connection for each look would take the processors from the workers that are waited for.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime

import asyncpg

LOOK_SECONDS = 0.02
LOOK = """
SELECT (SELECT max(at) FROM ledger) AS committed, pg_postmaster_start_time() AS booted,
       (SELECT count(*) FROM reliable_imports.import_batches WHERE finished_at IS NULL) AS unfinished
"""
HELD = """
SELECT r.worker_id::text AS worker_id, r.batch_id, r.first_item, r.epoch
  FROM reliable_imports.import_batches b
  JOIN reliable_imports.import_batch_ranges r ON r.batch_id = b.id
 WHERE b.finished_at IS NULL AND r.state = 'leased' AND r.worker_id = ANY ($1::uuid[])
"""
UNREACHABLE = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


@dataclass(frozen=True)
class Snapshot:
    """What was seen at one moment.

    Attributes:
        seen_at: By the clock of the event loop.
        committed: When the youngest committed item began.
        booted: When the server started.
        unfinished: How many batches have not finished.
        held: The ranges that watched workers hold.
    """

    seen_at: float
    committed: datetime | None
    booted: datetime
    unfinished: int
    held: dict[str, frozenset[tuple]]


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection, past the proxy."""
    conn = await asyncpg.connect(dsn)
    try:
        yield conn
    finally:
        conn.terminate()


class Watch:
    """Attributes: `victims` are the workers whose ranges are looked at."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._seen: asyncio.Future[Snapshot] = asyncio.get_running_loop().create_future()
        self.victims: set[str] = set()

    async def run(self) -> None:
        """Look until cancelled, through every outage."""
        while True:
            with suppress(*UNREACHABLE):
                async with connected(self._dsn) as conn:
                    while True:
                        await self._look(conn)
                        await asyncio.sleep(LOOK_SECONDS)
            await asyncio.sleep(LOOK_SECONDS)

    async def snapshots(self) -> AsyncIterator[Snapshot]:
        """What is seen from now on."""
        while True:
            yield await asyncio.shield(self._seen)

    async def _look(self, conn: asyncpg.Connection) -> None:
        victims = frozenset(self.victims)
        held: defaultdict[str, set[tuple]] = defaultdict(set)
        if victims:
            for worker_id, *place in await conn.fetch(HELD, victims):
                held[worker_id].add(tuple(place))
        row = await conn.fetchrow(LOOK)
        found = {name: frozenset(held[name]) for name in victims}
        seen, self._seen = self._seen, asyncio.get_running_loop().create_future()
        seen.set_result(Snapshot(asyncio.get_running_loop().time(), *row, found))
