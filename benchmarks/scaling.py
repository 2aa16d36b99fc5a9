"""python -m benchmarks.scaling: one batch, drained in process and by 1, 2 and 4 workers."""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from reliable_imports_async import BaseProcessor, BatchManager, ImportContext
from reliable_imports_async.embedded import EmbeddedServer

ROOT = Path(__file__).parents[1]
CPU_SECONDS = 0.005
INSERT = "INSERT INTO scaled VALUES ($1, $2)"
UNFINISHED = "SELECT finished_at IS NULL FROM reliable_imports.import_batches WHERE id = $1"
WORKED = """
SELECT extract(epoch FROM finished_at - started_at)
  FROM reliable_imports.import_batches WHERE id = $1
"""


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
async def workers(dsn: str, count: int) -> AsyncIterator[None]:
    """So many worker processes, ready."""
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.scaling", "--work", dsn),
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
        for _ in range(count)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            await process.stdout.readline()
        yield
    finally:
        for process in processes:
            process.kill()
            await process.communicate()


async def measure(dsn: str, batch_type: str, items: int, count: int) -> float:
    """Items a second, from the start of the batch to its end; 0 workers: in this process."""
    conn = await asyncpg.connect(dsn)
    await conn.execute("TRUNCATE scaled")
    records = [{"n": number} for number in range(items)]
    async with BatchManager(dsn, concurrency=8) as manager:
        for processor in PROCESSORS:
            manager.registry.register(processor)
        if count:
            async with workers(dsn, count):
                batch_id: UUID = await manager.create_batch(batch_type, records, enqueue=True)
                while await conn.fetchval(UNFINISHED, batch_id):
                    await asyncio.sleep(0.02)
        else:
            batch_id = await manager.create_batch(batch_type, records)
            await manager.process_batch(batch_id)
    seconds = float(await conn.fetchval(WORKED, batch_id))
    await conn.close()
    return items / seconds


async def main(rounds: int, scale: float, only: str) -> None:
    """Measure all, interleaved, and print the medians."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)  # noqa: PTH101 - the server's user must get in
        async with EmbeddedServer(Path(directory, "server")) as server:
            dsn = await server.ensure_database("scaling")
            await BatchManager(dsn).migrate()
            conn = await asyncpg.connect(dsn)
            await conn.execute("CREATE TABLE scaled (n integer, note text)")
            await conn.execute("CREATE INDEX ON scaled (n)")
            await conn.close()
            for batch_type, items in (("sql", int(12_000 * scale)), ("cpu", int(1_500 * scale))):
                if only not in batch_type:
                    continue
                found: dict[int, list[float]] = {count: [] for count in (0, 1, 2, 4)}
                for _ in range(rounds):
                    for count, speeds in found.items():
                        speeds.append(await measure(dsn, batch_type, items, count))
                for count, speeds in found.items():
                    speed = sorted(speeds)[len(speeds) // 2]
                    each = " ".join(f"{one:.0f}" for one in speeds)
                    print(f"{batch_type} {count} workers: {speed:.0f} items/s ({each})", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", help="a worker process on this database")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--only", default="", help="sql or cpu")
    given = parser.parse_args()
    asyncio.run(work(given.work) if given.work else main(given.rounds, given.scale, given.only))
