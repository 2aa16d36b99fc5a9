"""One run: start everything, let the nemesis play, wait for peace, check."""

import asyncio
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path

import asyncpg

from reliable_imports_async import BatchManager
from reliable_imports_async.embedded import EmbeddedServer
from reliable_imports_async.judgement import is_outage

from ..proxy import Proxy
from . import invariants
from .nemesis import Nemesis
from .processor import FLIGHTS, TortureProcessor, records, rows
from .schedule import schedule
from .small_disk import small_disk
from .workers import Crew

LIVENESS_SECONDS = 120.0
POISONED = 8  # one batch in so many holds an item that kills its process
SLOTS = 4
SETTINGS = {"fsync": "on", "deadlock_timeout": "100ms", "max_connections": "100"}


@dataclass
class Report:
    """The result of a run."""

    seed: int
    seconds: float
    workers: int
    postgresql: str = ""
    elapsed: float = 0.0
    all_faults: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    recovery: dict[str, float] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def table(self) -> str:
        """For people."""
        rows = {
            "seed": self.seed,
            "seconds under fire": self.seconds,
            "worker processes": self.workers,
        }
        rows |= {"PostgreSQL": self.postgresql, "seconds in all": self.elapsed}
        rows |= {"faults": self.all_faults} | self.faults | self.counts | self.recovery
        lines = [f"{name.replace('_', ' '):<34} {value:>10}" for name, value in rows.items()]
        lines += [f"VIOLATED: {one}" for one in self.violations] or ["every invariant holds"]
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        """For machines."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")


@dataclass(frozen=True)
class Plan:
    """What to do.

    Attributes:
        seconds: How long faults strike.
        items: How many in all, however long it takes; None: as many as fit into the seconds.
        batch_items: In one batch.
        pace: How many faults, beside the usual.
        flights: A gzipped CSV file of flights.
    """

    seed: int
    seconds: float
    workers: int
    items: int | None = None
    batch_items: int = 2_000
    pace: float = 1.0
    flights: Path = FLIGHTS


async def torture(plan: Plan) -> Report:
    """Run the torture."""
    report = Report(plan.seed, plan.seconds, plan.workers)
    began = time.monotonic()
    async with _stage() as (server, dsn, directory, disk):
        async with Proxy(dsn) as proxy:
            crew = Crew(proxy.url(), directory, plan.workers, SLOTS)
            nemesis = Nemesis(server, dsn, proxy, crew, disk=disk)
            working = asyncio.create_task(crew.work())
            events = schedule(plan.seed, plan.seconds, plan.pace)
            playing = asyncio.create_task(nemesis.play(events))
            supplying = asyncio.create_task(_supply(plan, proxy.url(), dsn, playing, nemesis))
            await _fire(playing, supplying, working, plan)
            crew.done.touch()
            conn = await asyncpg.connect(dsn)
            try:
                report.recovery["all settled after (s)"] = await _peace(conn, working, report)
                report.postgresql = await conn.fetchval("SHOW server_version")
            finally:
                await conn.close()
            report.elapsed = round(time.monotonic() - began, 1)
        # The proxy is closed by now: what it held back is not a session that a worker has leaked.
        conn = await asyncpg.connect(dsn)
        try:
            counts, violations = await invariants.check(conn, dsn, crew.history)
        finally:
            await conn.close()
        nemesis.struck["poison"] = crew.suicides
        report.faults, report.counts = dict(sorted(nemesis.struck.items())), counts
        report.all_faults = nemesis.struck.total()
        report.violations += violations + [f"a worker ended: {one}" for one in crew.broken]
        for kind, seconds in sorted(nemesis.recoveries.items()):
            _recovery(report, kind, seconds)
    return report


@asynccontextmanager
async def _stage() -> AsyncIterator[tuple[EmbeddedServer, str, Path, Path | None]]:
    """A server of our own, with fsync, a directory for logs, and a small disk."""
    directory = Path(tempfile.mkdtemp(prefix="ri-torture-"))
    os.chmod(directory, 0o755)  # noqa: PTH101 - the server's user must get in
    server = EmbeddedServer(directory / "server", settings=SETTINGS)
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


async def _fire(
    playing: "asyncio.Task[None]",
    supplying: "asyncio.Task[None]",
    working: "asyncio.Task[None]",
    plan: Plan,
) -> None:
    """Wait for the end of the faults, and of their consequences; or of all workers before."""
    seconds = plan.seconds + LIVENESS_SECONDS + (plan.items or 0) / 100
    both = asyncio.gather(playing, supplying)
    await asyncio.wait([both, working], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    if both.done():
        both.result()
    both.cancel()
    await asyncio.gather(playing, supplying, return_exceptions=True)


async def _supply(
    plan: Plan, url: str, dsn: str, playing: "asyncio.Task[None]", nemesis: Nemesis
) -> None:
    """Create batches through the faulty connection, so that the workers always have one."""
    flights = rows(plan.flights, plan.items or (5_000 if plan.flights == FLIGHTS else None))
    for number in count():
        created = number * plan.batch_items
        left = plan.batch_items if plan.items is None else plan.items - created
        if left <= 0 or (plan.items is None and playing.done()):
            break
        size = min(plan.batch_items, left)
        poison = size // 2 if number % POISONED == 1 else None
        batch = list(records(flights, size, created, poison))
        await _create(url, f"{plan.seed}-{number}", batch)
        while not await _few_left(dsn) and not (plan.items is None and playing.done()):
            await asyncio.sleep(0.1)
    while not playing.done() and not await _few_left(dsn, most=0):
        await asyncio.sleep(0.1)
    nemesis.over = True


async def _create(url: str, key: str, batch: list[dict[str, str]]) -> None:
    """Create a batch once, however often it takes: that is what its idempotency key is for."""
    while True:
        try:
            async with BatchManager(url, concurrency=1) as manager:
                manager.registry.register(TortureProcessor)
                await manager.create_batch("torture", batch, idempotency_key=key, enqueue=True)
                return
        except Exception as exc:
            if not is_outage(exc):
                raise
            await asyncio.sleep(0.1)


async def _few_left(dsn: str, most: int = 1) -> bool:
    try:
        conn = await asyncpg.connect(dsn)
    except (OSError, asyncpg.PostgresError):
        return False
    try:
        return await invariants.unsettled(conn) <= most
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    finally:
        conn.terminate()


async def _peace(conn: asyncpg.Connection, working: "asyncio.Task[None]", report: Report) -> float:
    """Wait until every worker has found nothing left to do, for a limited time."""
    began = time.monotonic()
    done, _ = await asyncio.wait([working], timeout=LIVENESS_SECONDS)
    if not done:
        left = await invariants.unsettled(conn)
        report.violations.append(f"after {LIVENESS_SECONDS:g} s {left} batches are unfinished")
        working.cancel()
        await asyncio.wait([working])
    else:
        working.result()
    return round(time.monotonic() - began, 1)


def _recovery(report: Report, name: str, seconds: list[float]) -> None:
    if seconds:
        name = f"recovery from {name}"
        report.recovery[f"{name}, median (s)"] = round(statistics.median(seconds), 2)
        if len(seconds) >= 100:
            report.recovery[f"{name}, 99 % (s)"] = round(
                statistics.quantiles(seconds, n=100)[98], 2
            )
        report.recovery[f"{name}, max (s)"] = round(max(seconds), 2)
