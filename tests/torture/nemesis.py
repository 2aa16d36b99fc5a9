"""Does the harm: to workers, backends, connections and the server; and sees how it is got over."""

import asyncio
import os
import signal
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from reliable_imports_async.database.embedded import EmbeddedServer

from ..support.proxy import Fault, Proxy
from .report import KILL, SERVER_THERE
from .schedule import Event
from .watch import UNREACHABLE, Snapshot, Watch, connected
from .workers import Crew

BACKENDS = """
SELECT pid FROM pg_stat_activity
 WHERE application_name = 'reliable_imports_async' AND datname = current_database() ORDER BY pid
"""


@dataclass
class Nemesis:
    """Attributes: `recoveries` are seconds until work went on, by fault.

    `struck` counts its own faults, those of the proxy not among them.
    `disk` is a small file system that a table lives on, where mounting one is allowed.
    """

    server: EmbeddedServer
    dsn: str
    proxy: Proxy
    crew: Crew
    watch: Watch
    disk: Path | None = None
    struck: Counter[str] = field(default_factory=Counter)
    recoveries: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    over: bool = False  # nothing is left to do: nobody can recover any more
    began: float | None = None
    _restarting: asyncio.Lock = field(default_factory=asyncio.Lock)
    _outages: int = 0  # when nobody could reach the server, or commit: so far
    _away: int = 0  # and right now

    @property
    def faults(self) -> Counter[str]:
        """How many have struck, by kind."""
        proxied = Counter({str(fault): count for fault, count in self.proxy.struck.items()})
        return self.struck + proxied + Counter(poison=self.crew.suicides)

    @property
    def seconds(self) -> float:
        """Since the first fault."""
        return 0.0 if self.began is None else asyncio.get_running_loop().time() - self.began

    async def play(self, events: Iterable[Event], enough: Callable[[], bool]) -> None:
        """Strike at the appointed times, once somebody works, and see the consequences through."""
        await self._see(lambda snapshot: snapshot.committed is not None)
        self.began = asyncio.get_running_loop().time()
        try:
            async with asyncio.TaskGroup() as tasks:
                self.proxy.on_strike = lambda kind: tasks.create_task(self._recovered(str(kind)))
                for event in events:
                    while (seconds := event.at - self.seconds) > 0 and not self._ends(enough):
                        await asyncio.sleep(min(seconds, 0.5))
                    if self._ends(enough):
                        break
                    if event.kind in list(Fault):
                        self.proxy.arm(Fault(event.kind))
                    else:
                        tasks.create_task(getattr(self, event.kind)(event.choice))
                self.proxy.on_strike = None
        finally:
            self.proxy.on_strike = None
            self.proxy.disarm()

    def _ends(self, enough: Callable[[], bool]) -> bool:
        return self.over or enough()

    async def kill(self, choice: float) -> None:
        """kill -9: its open transactions and its leases are what it leaves behind."""
        victim = self.crew.pick(choice)
        if victim is None:
            return
        victim.killed = True
        victim.send(signal.SIGKILL)
        self.struck["kill"] += 1
        self.watch.victims.add(victim.worker_id)
        try:
            await self._taken_over(victim.worker_id)
        finally:
            self.watch.victims.discard(victim.worker_id)

    async def _taken_over(self, worker_id: str) -> None:
        """Measure until each range that a dead worker held is somebody else's."""
        outages = None if self._away else self._outages
        began = asyncio.get_running_loop().time()
        held: frozenset[tuple] | None = None
        async for snapshot in self._snapshots():
            if (holds := snapshot.held.get(worker_id)) is None:
                continue
            for _ in () if held is None else held - holds:
                self.recoveries[KILL].append(snapshot.seen_at - began)
                if outages == self._outages:
                    self.recoveries[SERVER_THERE].append(snapshot.seen_at - began)
            held = holds
            if not held:
                return

    async def freeze(self, choice: float) -> None:
        """SIGSTOP for longer than the lease. A frozen worker is never killed: it has to wake up."""
        victim = self.crew.pick(choice)
        if victim is None:
            return
        victim.frozen = True
        victim.send(signal.SIGSTOP)
        self.struck["freeze"] += 1
        await asyncio.sleep(2.0 + 2.0 * choice)
        victim.send(signal.SIGCONT)
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
        with suppress(*UNREACHABLE):
            async with connected(self.dsn) as conn:
                for statement in statements:
                    await conn.execute(statement)
                    self.struck["alter"] += statement.endswith("integer")
        await self._recovered("alter")

    async def fill_disk(self, choice: float) -> None:
        """No space left on the device of a table."""
        if self.disk is None or self._restarting.locked():
            return
        async with self._restarting:  # recovery from a crash needs some space itself
            filler = self.disk / "filler"
            with self._outage():
                with suppress(OSError), filler.open("wb", buffering=0) as file:
                    while True:
                        file.write(b"x" * 65_536)
                self.struck["fill_disk"] += 1
                await asyncio.sleep(1.0 + 2.0 * choice)
                filler.unlink()
            await self._recovered("fill_disk")

    async def terminate(self, choice: float) -> None:
        """pg_terminate_backend of two sessions of the workers."""
        with suppress(*UNREACHABLE):
            async with connected(self.dsn) as conn:
                pids = [row["pid"] for row in await conn.fetch(BACKENDS)]
                for turn in range(min(2, len(pids))):
                    victim = pids[int((choice + turn / 2) % 1 * len(pids))]
                    await conn.execute("SELECT pg_terminate_backend($1)", victim)
                    self.struck["terminate"] += 1
        await self._recovered("terminate")

    async def silence(self, choice: float) -> None:
        """Nothing passes for a while, and nobody is told."""
        self.struck["silence"] += 1
        with self._outage():
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
            with self._outage():
                os.kill(int(pid_file.read_text().split()[0]), signal.SIGQUIT)
                self.struck["restart"] += 1
                await self.server.start()
            await self._recovered("restart")

    async def _recovered(self, kind: str) -> None:
        """Measure until an item is committed that began after the fault was over."""
        began, since = asyncio.get_running_loop().time(), datetime.now(UTC)
        snapshot = await self._see(
            lambda snapshot: snapshot.committed is not None and snapshot.committed > since
        )
        if snapshot is not None:
            self.recoveries[kind].append(snapshot.seen_at - began)

    async def _see(self, wanted: Callable[[Snapshot], bool]) -> Snapshot | None:
        """Wait until something is seen in the database; None when there is nothing to wait for."""
        async for snapshot in self._snapshots():
            if wanted(snapshot):
                return snapshot
        return None

    async def _snapshots(self) -> AsyncIterator[Snapshot]:
        async for snapshot in self.watch.snapshots():
            if self.over:
                return
            yield snapshot

    @contextmanager
    def _outage(self) -> Iterator[None]:
        self._outages += 1
        self._away += 1
        try:
            yield
        finally:
            self._away -= 1
