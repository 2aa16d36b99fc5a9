"""Does the harm: to workers, backends, connections and the server."""

import asyncio
import os
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from reliable_imports_async.embedded import EmbeddedServer

from ..proxy import Fault, Proxy
from .schedule import Event
from .workers import Crew

POLL_SECONDS = 0.02
HELD = """
SELECT first_item, batch_id, epoch FROM reliable_imports.import_batch_ranges
 WHERE worker_id = $1 AND state = 'leased'
"""
TAKEN_OVER = """
SELECT count(*) = 0
  FROM reliable_imports.import_batch_ranges r
  JOIN unnest($1::uuid[], $2::integer[], $3::integer[]) AS h(batch_id, first_item, epoch)
       USING (batch_id, first_item)
 WHERE r.epoch = h.epoch AND r.state = 'leased'
"""
BACKENDS = """
SELECT pid FROM pg_stat_activity
 WHERE application_name = 'reliable_imports_async' AND datname = current_database() ORDER BY pid
"""


@dataclass
class Nemesis:
    """Attributes: `struck` counts faults; `takeovers` and `restarts` are seconds of recovery."""

    server: EmbeddedServer
    dsn: str
    proxy: Proxy
    crew: Crew
    struck: Counter[str] = field(default_factory=Counter)
    takeovers: list[float] = field(default_factory=list)
    restarts: list[float] = field(default_factory=list)
    _restarting: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def play(self, events: list[Event]) -> None:
        """Strike at the appointed times, once somebody works, and see the consequences through."""
        while not await value(self.dsn, "SELECT EXISTS (SELECT FROM ledger)"):
            await asyncio.sleep(POLL_SECONDS)
        began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for event in events:
                await asyncio.sleep(max(0.0, began + event.at - time.monotonic()))
                if event.kind in list(Fault):
                    self.proxy.arm(Fault(event.kind))
                else:
                    tasks.create_task(getattr(self, event.kind)(event.choice))
        self.proxy.disarm()
        self.struck.update({str(fault): count for fault, count in self.proxy.struck.items()})

    async def kill(self, choice: float) -> None:
        """kill -9: its open transactions and its leases are what it leaves behind."""
        victim = self.crew.pick(choice)
        if victim is None:
            return
        worker_id = victim.worker_id
        victim.process.send_signal(signal.SIGKILL)
        self.struck["kill"] += 1
        began = time.monotonic()
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            conn = await asyncpg.connect(self.dsn)
            try:
                if await self._wait_for_takeover(conn, worker_id):
                    self.takeovers.append(time.monotonic() - began)
            finally:
                conn.terminate()

    async def _wait_for_takeover(self, conn: asyncpg.Connection, worker_id: str) -> bool:
        held = await conn.fetch(HELD, worker_id)
        keys = [[row[name] for row in held] for name in ("batch_id", "first_item", "epoch")]
        while not await conn.fetchval(TAKEN_OVER, *keys):
            await asyncio.sleep(POLL_SECONDS)
        return bool(held)

    async def freeze(self, choice: float) -> None:
        """SIGSTOP for longer than the lease. A frozen worker is never killed: it has to wake up."""
        victim = self.crew.pick(choice)
        if victim is None:
            return
        victim.frozen = True
        victim.process.send_signal(signal.SIGSTOP)
        self.struck["freeze"] += 1
        await asyncio.sleep(2.0 + 2.0 * choice)
        victim.process.send_signal(signal.SIGCONT)
        victim.frozen = False

    async def terminate(self, choice: float) -> None:
        """pg_terminate_backend of two of the workers' backends."""
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            conn = await asyncpg.connect(self.dsn)
            try:
                pids = [row["pid"] for row in await conn.fetch(BACKENDS)]
                for turn in range(min(2, len(pids))):
                    victim = pids[int((choice + turn / 2) % 1 * len(pids))]
                    await conn.execute("SELECT pg_terminate_backend($1)", victim)
                    self.struck["terminate"] += 1
            finally:
                conn.terminate()

    async def silence(self, choice: float) -> None:
        """Nothing passes for a while, and nobody is told."""
        self.struck["silence"] += 1
        self.proxy.open_road.clear()
        await asyncio.sleep(1.0 + 2.0 * choice)
        self.proxy.open_road.set()

    async def restart(self, _: float) -> None:
        """PostgreSQL's immediate shutdown, which is a crash with notice, and a start."""
        pid_file = Path(self.server.directory) / "data/postmaster.pid"
        if self._restarting.locked():  # its consequences are still being measured
            return
        async with self._restarting:
            os.kill(int(pid_file.read_text().split()[0]), signal.SIGQUIT)
            self.struck["restart"] += 1
            began = time.monotonic()
            await self.server.start()
            while not await self._has_committed():
                await asyncio.sleep(POLL_SECONDS)
            self.restarts.append(time.monotonic() - began)

    async def _has_committed(self) -> bool:
        """Whether a worker has committed an item since the server started."""
        return await value(
            self.dsn, "SELECT EXISTS (SELECT FROM ledger WHERE at > pg_postmaster_start_time())"
        )


async def value(dsn: str, query: str) -> Any:
    """What a query says; None while the server cannot be asked."""
    with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        conn = await asyncpg.connect(dsn)
        try:
            return await conn.fetchval(query)
        finally:
            conn.terminate()
    return None
