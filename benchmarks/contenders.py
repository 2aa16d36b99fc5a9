"""Who imports: the loop a developer would write by hand, and this library."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import anyio
import asyncpg

from reliable_imports_async import BaseProcessor, BatchManager, ImportBatchItem, ImportContext
from reliable_imports_async.database.pool import RESERVED_CONNECTIONS

from .ground import Ground, Spent
from .workloads import Workload

CONNECTIONS = 16
INTERVAL = 200
SET = 1_000

Run: TypeAlias = Callable[[Ground, Workload], Awaitable[Spent]]


class NotForThis(Exception):
    """A contender that cannot run a workload says why."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One who takes part.

    Attributes:
        run: Brings a workload's records in; only the work itself is timed, not its preparation.
        share: The part of the records it is given: the slow ones would take minutes.
        ours: Whether its database has our tables.
    """

    run: Run
    share: float = 1.0
    ours: bool = False


async def plain_loop(ground: Ground, workload: Workload) -> Spent:
    """Semaphore, pool.acquire, transaction; no tracking at all."""
    async with asyncpg.create_pool(ground.dsn, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:
        semaphore = anyio.Semaphore(CONNECTIONS)

        async def one(record: dict[str, Any]) -> None:
            async with semaphore:
                try:
                    async with pool.acquire() as conn, conn.transaction():
                        await workload.write(record, conn)
                except asyncpg.PostgresError:
                    pass  # this is the point: nothing is kept of it

        with ground.spending() as spent:
            async with anyio.create_task_group() as group:
                for record in workload.records:
                    group.start_soon(one, record)
        return spent


async def plain_workers(ground: Ground, workload: Workload) -> Spent:
    """The same with a task for each connection instead of one for each record: a little leaner."""
    async with asyncpg.create_pool(ground.dsn, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:
        records = iter(workload.records)

        async def work() -> None:
            for record in records:
                try:
                    async with pool.acquire() as conn, conn.transaction():
                        await workload.write(record, conn)
                except asyncpg.PostgresError:
                    pass

        with ground.spending() as spent:
            async with anyio.create_task_group() as group:
                for _ in range(CONNECTIONS):
                    group.start_soon(work)
        return spent


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


async def item_mode(ground: Ground, workload: Workload) -> Spent:
    """This library, one transaction an item."""
    return await _ours(ground, WorkloadProcessor(workload))


async def commit_interval(ground: Ground, workload: Workload) -> Spent:
    """This library, two hundred items a transaction; the same code."""
    return await _ours(ground, WorkloadProcessor(workload), commit_interval=INTERVAL)


async def process_items(ground: Ground, workload: Workload) -> Spent:
    """This library, a thousand items a statement."""
    return await _ours(ground, SetProcessor(workload), commit_interval=SET)


async def _ours(ground: Ground, processor: WorkloadProcessor, **options: Any) -> Spent:
    """From process_batch to its end; the pool is open before, as that of the plain loop is."""
    workload = processor.workload
    size = CONNECTIONS + RESERVED_CONNECTIONS
    async with (
        asyncpg.create_pool(ground.dsn, min_size=size, max_size=size) as pool,
        BatchManager(pool=pool, concurrency=CONNECTIONS) as manager,
    ):
        manager.registry.register(processor)
        batch_id = await manager.create_batch("workload", list(workload.records))
        with ground.spending() as spent:
            summary = await manager.process_batch(batch_id, **options)
    require(workload, summary.completed_items, summary.failed_items)
    return spent


def require(workload: Workload, completed: int, failed: int) -> None:
    """Whoever leaves something out is not faster, but wrong."""
    expected = len(workload.records) - workload.failing, workload.failing
    if (completed, failed) != expected:
        raise RuntimeError(f"{completed} completed and {failed} failed, not {expected}")


REFERENCE = "plain loop"
OURS = {
    REFERENCE: Contender(plain_loop),
    "plain workers": Contender(plain_workers),
    "item mode": Contender(item_mode, ours=True),
    "commit_interval": Contender(commit_interval, ours=True),
    "process_items": Contender(process_items, ours=True),
}
