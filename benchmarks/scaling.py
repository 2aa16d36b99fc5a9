"""`make bench NAME=scaling`: one batch, drained in process and by 1, 2 and 4 workers.

Beside the speed it measures the processor time of Python and of PostgreSQL for an item: from them
follows what other machines would give.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg
import psutil

from reliable_imports_async import BaseProcessor, BatchManager, ImportContext
from reliable_imports_async.database.embedded import EmbeddedServer

ROOT = Path(__file__).parents[1]
CPU_SECONDS = 0.005
INSERT = "INSERT INTO scaled VALUES ($1, $2)"
FINISHED = """
SELECT extract(epoch FROM started_at - created_at), extract(epoch FROM finished_at - started_at)
  FROM reliable_imports.import_batches WHERE id = $1 AND finished_at IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class Run:
    """One batch drained.

    Attributes:
        speed: Items a second, from the start of the batch to its end.
        waited: Seconds from its creation to its start.
        python: Milliseconds of processor time an item, of the processes that drained.
        postgresql: The same of the server's.
    """

    speed: float
    waited: float
    python: float
    postgresql: float


class SqlProcessor(BaseProcessor):
    """Two statements, as many imports have."""

    batch_type = "sql"

    async def process_item(self, item: Any, ctx: ImportContext) -> None:
        await ctx.fetchval("SELECT count(*) FROM scaled WHERE n = $1", item.item_number)
        await ctx.execute(INSERT, item.item_number, "x")


class CpuProcessor(SqlProcessor):
    """The same, and five milliseconds of Python."""

    batch_type = "cpu"

    async def process_item(self, item: Any, ctx: ImportContext) -> None:
        until = time.thread_time() + CPU_SECONDS
        while time.thread_time() < until:
            pass
        await super().process_item(item, ctx)


PROCESSORS = (SqlProcessor, CpuProcessor)


async def work(dsn: str) -> None:
    """A worker process."""
    async with BatchManager(dsn, concurrency=8) as manager:
        for processor in PROCESSORS:
            manager.registry.register(processor)
        print("ready", flush=True)
        await manager.run_worker()


@asynccontextmanager
async def workers(dsn: str, count: int) -> AsyncIterator[list[int]]:
    """So many worker processes, ready; their ids."""
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.scaling", dsn),
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
        for _ in range(count)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            await process.stdout.readline()
        yield [process.pid for process in processes] or [os.getpid()]
    finally:
        for process in processes:
            process.kill()
            await process.communicate()


def spent(pid: int) -> float:
    """Seconds of processor time of a process."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def postmaster_of(server: Path) -> int:
    """The process that PostgreSQL's others are children of."""
    return int((server / "data/postmaster.pid").read_text().split()[0])


def spent_by_server(postmaster: int) -> float:
    """The same of PostgreSQL: of what has ended, and of what runs."""
    process = psutil.Process(postmaster)
    ended = process.cpu_times()
    running = sum(spent(child.pid) for child in process.children())
    return float(ended.children_user + ended.children_system) + running


async def measure(dsn: str, postmaster: int, batch_type: str, items: int, count: int) -> Run:
    """Drain a batch by so many workers; by none: in this process."""
    conn = await asyncpg.connect(dsn)
    await conn.execute("TRUNCATE scaled")
    records = [{"n": number} for number in range(items)]
    async with BatchManager(dsn, concurrency=8) as manager, workers(dsn, count) as pids:
        for processor in PROCESSORS:
            manager.registry.register(processor)
        await asyncio.sleep(0.5)  # until everybody has settled in
        before = [spent(pid) for pid in pids], spent_by_server(postmaster)
        batch_id = await manager.create_batch(batch_type, records, enqueue=count > 0)
        if not count:
            await manager.process_batch(batch_id)
        while (finished := await conn.fetchrow(FINISHED, batch_id)) is None:
            await asyncio.sleep(0.1)
        python = sum(spent(pid) for pid in pids) - sum(before[0])
        postgresql = spent_by_server(postmaster) - before[1]
    await conn.close()
    waited, seconds = map(float, finished)
    return Run(items / seconds, waited, 1000 * python / items, 1000 * postgresql / items)


def describe(batch_type: str, count: int, runs: list[Run]) -> str:
    """The medians, and every speed."""
    speed, waited, python, postgresql = (
        median(getattr(run, name) for run in runs)
        for name in ("speed", "waited", "python", "postgresql")
    )
    each = " ".join(f"{run.speed:.0f}" for run in runs)
    return (
        f"{batch_type} {count} workers: {speed:.0f} items/s ({each}), after {waited:.2f} s; "
        f"an item takes {python:.2f} ms of Python, {postgresql:.2f} ms of PostgreSQL"
    )


def main(rounds: int = 3, scale: float = 1.0, only: str = "", workers: str = "0;1;2;4") -> None:
    """Measure.

    Args:
        rounds: Interleaved rounds; the median is shown.
        scale: Makes the batches larger or smaller.
        only: sql or cpu; both by default.
        workers: Numbers of workers, separated by semicolons; 0: in this process.
    """
    counts = [int(count) for count in workers.split(";")]
    asyncio.run(_measure_all(rounds, scale, only, counts))


async def _measure_all(rounds: int, scale: float, only: str, counts: list[int]) -> None:
    """Measure all, interleaved, and print the medians."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)  # noqa: PTH101 - the server's user must get in
        async with EmbeddedServer(Path(directory, "server")) as server:
            dsn = await server.ensure_database("scaling")
            postmaster = postmaster_of(Path(directory, "server"))
            await BatchManager(dsn).migrate()
            conn = await asyncpg.connect(dsn)
            await conn.execute("CREATE TABLE scaled (n integer, note text)")
            await conn.execute("CREATE INDEX ON scaled (n)")
            await conn.close()
            for batch_type, items in (("sql", int(12_000 * scale)), ("cpu", int(1_500 * scale))):
                if only not in batch_type:
                    continue
                found: dict[int, list[Run]] = {count: [] for count in counts}
                for _ in range(rounds):
                    for count, runs in found.items():
                        runs.append(await measure(dsn, postmaster, batch_type, items, count))
                for count, runs in found.items():
                    print(describe(batch_type, count, runs), flush=True)


if __name__ == "__main__":  # a worker process
    asyncio.run(work(sys.argv[1]))
