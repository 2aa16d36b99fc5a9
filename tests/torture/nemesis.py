"""Does the harm: to workers, backends, connections and the server."""

import asyncio
import os
import signal
import time
from collections import Counter, defaultdict
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
    """Attributes: `struck` counts faults; `recoveries` are seconds until work went on, by fault.

    `disk` is a small file system that a table lives on, where mounting one is allowed.
    """

    server: EmbeddedServer
    dsn: str
    proxy: Proxy
    crew: Crew
    struck: Counter[str] = field(default_factory=Counter)
    disk: Path | None = None
    recoveries: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    over: bool = False  # nothing is left to do: nobody can recover any more
    _restarting: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def play(self, events: list[Event]) -> None:
        """Strike at the appointed times, once somebody works, and see the consequences through."""
        while not await value(self.dsn, "SELECT EXISTS (SELECT FROM ledger)"):
            await asyncio.sleep(POLL_SECONDS)
        began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for event in events:
                await asyncio.sleep(max(0.0, began + event.at - time.monotonic()))
                if self.over:
                    break
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
        victim.killed = True
        victim.process.send_signal(signal.SIGKILL)
        self.struck["kill"] += 1
        began = time.monotonic()
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            conn = await asyncpg.connect(self.dsn)
            try:
                if await self._wait_for_takeover(conn, worker_id):
                    self.recoveries["kill"].append(time.monotonic() - began)
            finally:
                conn.terminate()

    async def _wait_for_takeover(self, conn: asyncpg.Connection, worker_id: str) -> bool:
        held = await conn.fetch(HELD, worker_id)
        keys = [[row[name] for row in held] for name in ("batch_id", "first_item", "epoch")]
        while not await conn.fetchval(TAKEN_OVER, *keys) and not self.over:
            await asyncio.sleep(POLL_SECONDS)
        return bool(held) and not self.over

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
        await self._recovered("freeze")

    async def alter(self, choice: float) -> None:
        """ALTER TABLE under everybody's prepared statements."""
        column = "ALTER TABLE limits {} COLUMN extra_{:.0f}{}"
        statements = [
            "SET lock_timeout = '2s'",
            column.format("ADD", choice * 1e9, " integer"),
            "ALTER TABLE flights ALTER COLUMN carrier TYPE varchar(8)",
            "ALTER TABLE flights ALTER COLUMN carrier TYPE text",
            column.format("DROP", choice * 1e9, ""),
        ]
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            conn = await asyncpg.connect(self.dsn)
            try:
                for statement in statements:
                    await conn.execute(statement)
                    self.struck["alter"] += statement.endswith("integer")
            finally:
                conn.terminate()
            await self._recovered("alter")

    async def fill_disk(self, choice: float) -> None:
        """No space left on the device of a table."""
        if self.disk is None or self._restarting.locked():
            return
        async with self._restarting:  # recovery from a crash needs some space itself
            filler = self.disk / "filler"
            with suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(b"x" * 65_536)
            self.struck["fill_disk"] += 1
            await asyncio.sleep(1.0 + 2.0 * choice)
            filler.unlink()
            await self._recovered("fill_disk")

    async def _recovered(self, kind: str) -> None:
        """Measure until an item is committed that began after the fault was over."""
        began = time.monotonic()
        since = await value(self.dsn, "SELECT clock_timestamp()")
        query = "SELECT EXISTS (SELECT FROM ledger WHERE at > $1)"
        while since is None or not await value(self.dsn, query, since):
            await asyncio.sleep(POLL_SECONDS)
            since = since or await value(self.dsn, "SELECT clock_timestamp()")
            if self.over:
                return
        self.recoveries[kind].append(time.monotonic() - began)

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
                await self._recovered("terminate")
            finally:
                conn.terminate()

    async def silence(self, choice: float) -> None:
        """Nothing passes for a while, and nobody is told."""
        self.struck["silence"] += 1
        self.proxy.open_road.clear()
        await asyncio.sleep(1.0 + 2.0 * choice)
        self.proxy.open_road.set()
        await self._recovered("silence")

    async def restart(self, _: float) -> None:
        """PostgreSQL's immediate shutdown, which is a crash with notice, and a start."""
        pid_file = Path(self.server.directory) / "data/postmaster.pid"
        if self._restarting.locked():  # its consequences are still being measured
            return
        async with self._restarting:
            os.kill(int(pid_file.read_text().split()[0]), signal.SIGQUIT)
            self.struck["restart"] += 1
            await self.server.start()
            accepting = time.monotonic()
            while not await self._has_committed() and not self.over:
                await asyncio.sleep(POLL_SECONDS)
            self.recoveries["restart"].append(time.monotonic() - accepting)

    async def _has_committed(self) -> bool:
        """Whether a worker has committed an item since the server started."""
        return await value(
            self.dsn, "SELECT EXISTS (SELECT FROM ledger WHERE at > pg_postmaster_start_time())"
        )


async def value(dsn: str, query: str, *arguments: Any) -> Any:
    """What a query says; None while the server cannot be asked."""
    with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        conn = await asyncpg.connect(dsn)
        try:
            return await conn.fetchval(query, *arguments)
        finally:
            conn.terminate()
    return None
