"""A worker process: works until no more batches will come and all have finished."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from reliable_imports_async import BatchManager, ImportBatchItem
from reliable_imports_async.execution.chunk import ChunkExecutor
from reliable_imports_async.execution.executor import Executor
from reliable_imports_async.failures import is_outage
from reliable_imports_async.outcomes import Completed, Failed, FenceLost, Outcome, Skip
from reliable_imports_async.runner import quarantine

from .processor import PROCESSORS, SUPERSEDED, Acknowledged

SETTLED = {Completed: "completed", Skip: "skipped", Failed: "failed"}


def record(item: ImportBatchItem, outcome: Outcome) -> None:
    """Write down an outcome, or that another worker was faster."""
    word = SUPERSEDED if isinstance(outcome, FenceLost) else SETTLED.get(type(outcome))
    if word is not None:
        Acknowledged.write(f"{word} {item.batch_id} {item.item_number}")


def record_acknowledgements() -> None:
    """Write down every outcome that a COMMIT of this process was acknowledged for."""
    execute = Executor.execute

    async def recorded(self, prepared, session):
        outcome = await execute(self, prepared, session)
        record(prepared.item, outcome)
        return outcome

    Executor.execute = recorded
    execute_together = ChunkExecutor.execute

    async def recorded_together(self, prepared, session, may_start):
        outcomes = await execute_together(self, prepared, session, may_start)
        for each in prepared:
            if (outcome := outcomes.get(each.item.item_number)) is not None:
                record(each.item, outcome)
        return outcomes

    ChunkExecutor.execute = recorded_together


async def unfinished(manager: BatchManager) -> list[UUID]:
    """The batches that are not finished, oldest first."""
    async with manager._database.connection() as conn:
        rows = await conn.fetch(
            "SELECT id FROM reliable_imports.import_batches WHERE finished_at IS NULL ORDER BY id"
        )
        return [row["id"] for row in rows]


class Broken(BaseException):
    """A worker must see every fault through by itself; nothing may come out of it."""


async def work(manager: BatchManager, done: Path, *, foreground: bool) -> None:
    """Work until all is done."""
    working = asyncio.ensure_future(process(manager) if foreground else manager.run_worker())
    try:
        while not (done.exists() and await rests(manager)):
            await asyncio.wait([working], timeout=0.1)
            if working.done():
                raise Broken from working.exception()
    finally:
        working.cancel()
        await asyncio.wait([working])


async def process(manager: BatchManager) -> None:
    """Call `process_batch` for each batch, once: nobody comes back to one that was left."""
    seen: set[UUID] = set()
    while True:
        batches = [one for one in await left(manager) or [] if one not in seen]
        for batch_id in batches[:1]:
            summary = await manager.process_batch(batch_id)
            if summary.finished_at is None:
                raise Broken(f"process_batch has left batch {batch_id} before its end")
            seen.add(batch_id)
        if not batches:
            await asyncio.sleep(0.05)


async def rests(manager: BatchManager) -> bool:
    """Whether every batch has finished; False while the server cannot be asked."""
    return await left(manager) == []


async def left(manager: BatchManager) -> list[UUID] | None:
    """The unfinished batches; None while the server cannot be asked."""
    try:
        return await unfinished(manager)
    except Exception as exc:
        if not is_outage(exc):
            raise
        return None


async def main(
    dsn: str, slots: int, done: Path, name: Callable[[UUID], None], *, foreground: bool
) -> None:
    """Work until all is done; `name` is told who this worker is, whenever it has connected."""
    while True:
        try:
            async with BatchManager(dsn, concurrency=slots) as manager:
                for processor in PROCESSORS.values():
                    manager.registry.register(processor)
                name(manager._processing._leases.worker_id)
                return await work(manager, done, foreground=foreground)
        except Exception as exc:  # while connecting
            if not is_outage(exc):
                raise
            await asyncio.sleep(0.1)


def prepare(history: Path) -> None:
    """What every worker needs before it starts."""
    Acknowledged.path = history
    record_acknowledgements()
    quarantine.DEAD_SECONDS = 5.0  # longer than anybody is frozen here
