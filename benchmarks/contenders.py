"""Who imports: the loop a developer would write by hand, and this library."""

from time import perf_counter
from typing import Any

import anyio
import asyncpg

from reliable_imports_async import BaseProcessor, BatchManager, ImportBatchItem, ImportContext

from .workloads import Workload

CONNECTIONS = 16


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
        self._workload = workload

    async def process_item(self, item: ImportBatchItem, ctx: ImportContext) -> None:
        await self._workload.write(item.source_data, ctx)


async def item_mode(dsn: str, workload: Workload) -> float:
    """This library, one transaction an item. Seconds from process_batch to its end."""
    async with BatchManager(dsn, concurrency=CONNECTIONS) as manager:
        manager.registry.register(WorkloadProcessor(workload))
        batch_id = await manager.create_batch("workload", list(workload.records))
        started = perf_counter()
        summary = await manager.process_batch(batch_id)
        seconds = perf_counter() - started
        if summary.failed_items != workload.failing:
            raise RuntimeError(f"{summary.failed_items} failed, {workload.failing} expected")
        return seconds


CONTENDERS = {"plain loop": plain_loop, "item mode": item_mode}
