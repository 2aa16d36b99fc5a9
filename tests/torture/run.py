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
from .processor import TortureProcessor, records
from .schedule import schedule
from .workers import Crew

LIVENESS_SECONDS = 120.0
BATCH_ITEMS = 2_000
SLOTS = 4
SETTINGS = {"fsync": "on", "deadlock_timeout": "100ms", "max_connections": "100"}


@dataclass
class Report:
    """The result of a run."""

    seed: int
    seconds: float
    workers: int
    postgresql: str = ""
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
        rows |= {"PostgreSQL": self.postgresql} | self.faults | self.counts | self.recovery
        lines = [f"{name.replace('_', ' '):<28} {value:>12}" for name, value in rows.items()]
        lines += [f"VIOLATED: {one}" for one in self.violations] or ["every invariant holds"]
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        """For machines."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")


async def torture(seed: int, seconds: float, workers: int, items: int | None = None) -> Report:
    """Run the torture.

    Args:
        items: How many in all; by default as many as fit into the seconds. Faults end with them.
    """
    report = Report(seed, seconds, workers)
    async with _stage() as (server, dsn, directory):
        async with Proxy(dsn) as proxy:
            crew = Crew(proxy.url(), directory, workers, SLOTS)
            nemesis = Nemesis(server, dsn, proxy, crew)
            working = asyncio.create_task(crew.work())
            playing = asyncio.create_task(nemesis.play(schedule(seed, seconds)))
            supplying = asyncio.create_task(_supply(proxy.url(), seed, dsn, playing, items))
            await _fire(playing, supplying, working, seconds + LIVENESS_SECONDS)
            crew.done.touch()
            conn = await asyncpg.connect(dsn)
            try:
                report.recovery["all settled after (s)"] = await _peace(conn, working, report)
                report.postgresql = await conn.fetchval("SHOW server_version")
            finally:
                await conn.close()
        # The proxy is closed by now: what it held back is not a session that a worker has leaked.
        conn = await asyncpg.connect(dsn)
        try:
            counts, violations = await invariants.check(conn, dsn, crew.history)
        finally:
            await conn.close()
        report.faults, report.counts = dict(sorted(nemesis.struck.items())), counts
        report.violations += violations + [f"a worker ended: {one}" for one in crew.broken]
        _recovery(report, "takeover after kill -9", nemesis.takeovers)
        _recovery(report, "commit after restart", nemesis.restarts)
    return report


@asynccontextmanager
async def _stage() -> AsyncIterator[tuple[EmbeddedServer, str, Path]]:
    """A server of our own, with fsync, and a directory for logs."""
    directory = Path(tempfile.mkdtemp(prefix="ri-torture-"))
    os.chmod(directory, 0o755)  # noqa: PTH101 - the server's user must get in
    server = EmbeddedServer(directory / "server", settings=SETTINGS)
    try:
        async with server:
            dsn = await server.ensure_database("torture")
            await BatchManager(dsn).migrate()
            conn = await asyncpg.connect(dsn)
            await conn.execute(Path(__file__).with_name("schema.sql").read_text())
            await conn.close()
            yield server, dsn, directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def _fire(
    playing: "asyncio.Task[None]",
    supplying: "asyncio.Task[None]",
    working: "asyncio.Task[None]",
    seconds: float,
) -> None:
    """Wait for the end of the faults, and of their consequences; or of all workers before."""
    both = asyncio.gather(playing, supplying)
    await asyncio.wait([both, working], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    if both.done():
        both.result()
    both.cancel()
    await asyncio.gather(playing, supplying, return_exceptions=True)


async def _supply(
    url: str, seed: int, dsn: str, playing: "asyncio.Task[None]", items: int | None
) -> None:
    """Create batches through the faulty connection, so that the workers always have one."""
    for number in count():
        created = number * BATCH_ITEMS
        size = BATCH_ITEMS if items is None else min(BATCH_ITEMS, items - created)
        if playing.done() or size <= 0:
            return
        await _create(url, f"{seed}-{number}", size, created)
        while not playing.done() and not await _few_left(dsn):
            await asyncio.wait([playing], timeout=0.1)


async def _create(url: str, key: str, size: int, offset: int) -> None:
    """Create a batch once, however often it takes: that is what its idempotency key is for."""
    while True:
        try:
            async with BatchManager(url, concurrency=1) as manager:
                manager.registry.register(TortureProcessor)
                await manager.create_batch("torture", records(size, offset), idempotency_key=key)
                return
        except Exception as exc:
            if not is_outage(exc):
                raise
            await asyncio.sleep(0.1)


async def _few_left(dsn: str) -> bool:
    try:
        conn = await asyncpg.connect(dsn)
    except (OSError, asyncpg.PostgresError):
        return False
    try:
        return await invariants.unsettled(conn) < 2
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
        report.recovery[f"{name}, median (s)"] = round(statistics.median(seconds), 2)
        report.recovery[f"{name}, max (s)"] = round(max(seconds), 2)
