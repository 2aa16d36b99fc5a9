"""One run: start everything, let the nemesis play, wait for peace, check."""

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import asyncpg

from reliable_imports_async import BatchManager
from reliable_imports_async.database.embedded import EmbeddedServer
from reliable_imports_async.failures import is_outage

from ..support.proxy import Proxy
from . import invariants
from .nemesis import Nemesis
from .processor import FLIGHTS, PROCESSORS, records, rows
from .report import Recovery, Report
from .schedule import USUAL, schedule
from .small_disk import small_disk
from .watch import Watch
from .workers import LEASE_SECONDS, Crew

LIVENESS_SECONDS = 120.0
POISONED = 8  # one batch in so many holds an item that kills its process
SLOTS = 4
SETTINGS = {"fsync": "on", "deadlock_timeout": "100ms", "max_connections": "100"}
SLOW_COMMITS = {"commit_delay": "100000", "commit_siblings": "0"}


@dataclass(frozen=True)
class Plan:
    """What to do.

    Attributes:
        seconds: How long faults strike, at least.
        faults: How many strike, at least; they come as often as that takes in the seconds.
        items: How many are settled under fire, at least; None: as many as fit.
        batch_items: In one batch.
        flights: A gzipped CSV file of flights.
        modes: How the batches are processed, in turn: item, interval, set.
        kinds: The faults; none: all of them.
        foreground: Workers call `process_batch` once for each batch, instead of taking jobs.
        calm: Seconds after the faults in which nothing at all may happen; then it is stuck.
        slow_commits: The server takes a tenth of a second for a COMMIT.
        isolation: How transactions are isolated that do not say so themselves.
    """

    seed: int
    seconds: float
    workers: int
    faults: int = 0
    items: int | None = None
    batch_items: int = 2_000
    flights: Path = FLIGHTS
    modes: tuple[str, ...] = ("item",)
    kinds: tuple[str, ...] = ()
    foreground: bool = False
    calm: float = LIVENESS_SECONDS
    slow_commits: bool = False
    isolation: str = "read committed"

    @property
    def pace(self) -> float:
        """How many faults, beside the usual."""
        return self.faults / self.seconds / USUAL if self.faults else 1.0

    @property
    def max_wait(self) -> float:
        """Seconds after which the faults end, whatever has become of the items."""
        return 2 * self.seconds + self.calm + (self.items or 0) / 100


async def torture(plan: Plan) -> Report:
    """Run the torture."""
    report = Report(plan.seed, plan.seconds, plan.workers, LEASE_SECONDS)
    began = time.monotonic()
    settings = SETTINGS | {"default_transaction_isolation": plan.isolation}
    async with _stage(settings | (SLOW_COMMITS if plan.slow_commits else {})) as (
        server,
        dsn,
        directory,
        disk,
    ):
        async with Proxy(dsn) as proxy, asyncio.TaskGroup() as tasks:
            watch = Watch(dsn)
            watching = tasks.create_task(watch.run())
            crew = Crew(proxy.url(), directory, plan.workers, SLOTS, foreground=plan.foreground)
            nemesis = Nemesis(server, dsn, proxy, crew, watch, disk=disk)
            working = asyncio.create_task(crew.work())
            await _fire(plan, proxy.url(), nemesis, working)
            crew.done.touch()
            report.seconds = round(nemesis.seconds, 1)
            report.settled_after = await _peace(watch, working, report, plan.calm)
            watching.cancel()
        # The proxy is closed by now: what it held back is not a session that a worker has leaked.
        conn = await asyncpg.connect(dsn)
        try:
            report.postgresql = await conn.fetchval("SHOW server_version")
            counts, violations = await invariants.check(conn, dsn, crew.history)
        finally:
            await conn.close()
    report.elapsed = round(time.monotonic() - began, 1)
    report.faults, report.counts = dict(sorted(nemesis.faults.items())), counts
    report.violations += violations + [f"a worker ended: {one}" for one in crew.broken]
    report.recovery = {kind: Recovery.of(found) for kind, found in nemesis.recoveries.items()}
    return report


@asynccontextmanager
async def _stage(
    settings: dict[str, str],
) -> AsyncIterator[tuple[EmbeddedServer, str, Path, Path | None]]:
    """A server of our own, with fsync, a directory for logs, and a small disk."""
    directory = Path(tempfile.mkdtemp(prefix="ri-torture-"))
    os.chmod(directory, 0o755)  # noqa: PTH101 - the server's user must get in
    server = EmbeddedServer(directory / "server", settings=settings)
    try:
        async with server:
            dsn = await server.ensure_database("torture")
            await BatchManager(dsn).migrate()
            conn = await asyncpg.connect(dsn)
            await conn.execute(Path(__file__).with_name("schema.sql").read_text())
            async with small_disk(directory, Path(server.directory)) as disk:
                if disk is not None:
                    await conn.execute(f"CREATE TABLESPACE small LOCATION '{disk / 'space'}'")
                    await conn.execute("ALTER TABLE spill SET TABLESPACE small")
                await conn.close()
                yield server, dsn, directory, disk
                await server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def _fire(plan: Plan, url: str, nemesis: Nemesis, working: "asyncio.Task[None]") -> None:
    """Supply batches and let faults strike until there was enough of both, or no worker is left."""
    supply = Supply(plan, url, nemesis)
    events = schedule(plan.seed, plan.pace, plan.kinds)
    playing = asyncio.create_task(nemesis.play(events, supply.ends_faults))
    both = asyncio.gather(playing, asyncio.create_task(supply.run()))
    await asyncio.wait([both, working], timeout=plan.max_wait, return_when=asyncio.FIRST_COMPLETED)
    if both.done():
        both.result()
    both.cancel()
    await asyncio.gather(both, return_exceptions=True)


class Supply:
    """Creates batches through the faulty connection, so that the workers always have one.

    Attributes: `created` are the items so far.
    """

    def __init__(self, plan: Plan, url: str, nemesis: Nemesis) -> None:
        self._plan = plan
        self._url = url
        self._nemesis = nemesis
        self.created = 0

    def enough(self) -> bool:
        """Whether no further batch is needed."""
        nemesis, plan = self._nemesis, self._plan
        if self.created < (plan.items or 0):
            return False
        return nemesis.seconds >= plan.seconds and nemesis.faults.total() >= plan.faults

    def ends_faults(self) -> bool:
        """Whether the faults may end: where items are wanted, not before they are settled."""
        return self._plan.items is None and self.enough()

    async def run(self) -> None:
        """Create batch after batch, the items of the file over and over."""
        plan = self._plan
        few = 5_000 if plan.flights == FLIGHTS and plan.items is None else plan.items
        flights = rows(plan.flights, few)
        for number in count():
            if self.enough():
                break
            left = (plan.items or 0) - self.created
            size = min(plan.batch_items, left) if left > 0 else plan.batch_items
            poison = size // 2 if number % POISONED == 1 else None
            batch = list(records(flights, size, self.created, poison))
            await self._create(number, batch)
            self.created += size
            await self._wait(unfinished=1)
        await self._wait(unfinished=0)
        self._nemesis.over = True

    async def _create(self, number: int, batch: list[dict[str, str]]) -> None:
        """Create a batch once, however often it takes: that is what its idempotency key is for."""
        processor = PROCESSORS[self._plan.modes[number % len(self._plan.modes)]]
        key = f"{self._plan.seed}-{number}"
        while True:
            try:
                async with BatchManager(self._url, concurrency=1) as manager:
                    manager.registry.register(processor)
                    await manager.create_batch(
                        processor.batch_type,
                        batch,
                        idempotency_key=key,
                        enqueue=not self._plan.foreground,
                    )
                    return
            except Exception as exc:
                if not is_outage(exc):
                    raise
                await asyncio.sleep(0.1)

    async def _wait(self, unfinished: int) -> None:
        """Until so few batches are unfinished, or the faults end."""
        async for snapshot in self._nemesis.watch.snapshots():
            if snapshot.unfinished <= unfinished or self.ends_faults():
                return


async def _peace(watch: Watch, working: "asyncio.Task[None]", report: Report, calm: float) -> float:
    """Wait until every worker has found nothing left to do, for as long as items get settled."""
    began = time.monotonic()
    moved, last = began, None
    while not (await asyncio.wait([working], timeout=1.0))[0]:
        async for snapshot in watch.snapshots():
            if (snapshot.committed, snapshot.unfinished) != last:
                moved, last = time.monotonic(), (snapshot.committed, snapshot.unfinished)
            break
        if time.monotonic() - moved > calm:
            left = 0 if last is None else last[1]
            report.violations.append(f"nothing moves for {calm:g} s; {left} batches are unfinished")
            working.cancel()
            await asyncio.wait([working])
            return round(time.monotonic() - began, 1)
    working.result()
    return round(time.monotonic() - began, 1)
