"""Who imports: the loop a developer would write by hand, and this library."""

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import anyio
import asyncpg

from reliable_imports_async import BaseProcessor, BatchManager, ImportBatchItem, ImportContext

from .workloads import Workload

CONNECTIONS = 16
INTERVAL = 200
SET = 1_000


async def plain_loop(dsn: str, workload: Workload) -> float:
    """Semaphore, pool.acquire, transaction; no tracking at all. Seconds."""
    async with asyncpg.create_pool(dsn, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:
        semaphore = anyio.Semaphore(CONNECTIONS)

        async def one(record: dict[str, Any]) -> None:
            async with semaphore:
                try:
                    async with pool.acquire() as conn, conn.transaction():
                        await workload.write(record, conn)
                except asyncpg.PostgresError:
                    pass  # this is the point: nothing is kept of it

        started = perf_counter()
        async with anyio.create_task_group() as group:
            for record in workload.records:
                group.start_soon(one, record)
        return perf_counter() - started


class WorkloadProcessor(BaseProcessor):
    """Runs a workload's SQL for each item."""

    batch_type = "workload"

    def __init__(self, workload: Workload) -> None:
        self.workload = workload

    async def process_item(self, item: ImportBatchItem, ctx: ImportContext) -> None:
        await self.workload.write(item.source_data, ctx)


class SetProcessor(WorkloadProcessor):
    """The same for many items at once."""

    async def process_items(self, items: Sequence[ImportBatchItem], ctx: ImportContext) -> None:
        await self.workload.write_many([item.source_data for item in items], ctx)


async def item_mode(dsn: str, workload: Workload) -> float:
    """This library, one transaction an item."""
    return await _ours(dsn, WorkloadProcessor(workload))


async def commit_interval(dsn: str, workload: Workload) -> float:
    """This library, two hundred items a transaction; the same code."""
    return await _ours(dsn, WorkloadProcessor(workload), commit_interval=INTERVAL)


async def process_items(dsn: str, workload: Workload) -> float:
    """This library, a thousand items a statement."""
    return await _ours(dsn, SetProcessor(workload), commit_interval=SET)


async def _ours(dsn: str, processor: WorkloadProcessor, **options: Any) -> float:
    """Seconds from process_batch to its end."""
    workload = processor.workload
    async with BatchManager(dsn, concurrency=CONNECTIONS) as manager:
        manager.registry.register(processor)
        batch_id = await manager.create_batch("workload", list(workload.records))
        started = perf_counter()
        summary = await manager.process_batch(batch_id, **options)
        seconds = perf_counter() - started
        if summary.failed_items != workload.failing:
            raise RuntimeError(f"{summary.failed_items} failed, {workload.failing} expected")
        return seconds


CONTENDERS = {
    "plain loop": plain_loop,
    "item mode": item_mode,
    "commit_interval": commit_interval,
    "process_items": process_items,
}
