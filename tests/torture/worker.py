"""A worker process: takes jobs from PgQueuer, until no more will come and all batches are finished."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from reliable_imports_async import BatchManager, suspects
from reliable_imports_async.execution import Executor
from reliable_imports_async.interval import Interval
from reliable_imports_async.judgement import is_outage
from reliable_imports_async.settling import Settled

from .processor import PROCESSORS, Acknowledged


def record_acknowledgements() -> None:
    """Write down every outcome that a COMMIT of this process was acknowledged for."""
    execute = Executor.execute

    async def recorded(self, prepared, session):
        verdict = await execute(self, prepared, session)
        if isinstance(verdict, Settled):
            item = prepared.item
            Acknowledged.write(f"{verdict.status} {item.batch_id} {item.item_number}")
        return verdict

    Executor.execute = recorded
    execute_together = Interval.execute

    async def recorded_together(self, prepared, session, may_start):
        verdicts = await execute_together(self, prepared, session, may_start)
        for one in prepared:
            verdict = verdicts.get(one.item.item_number)
            if isinstance(verdict, Settled):
                item = one.item
                Acknowledged.write(f"{verdict.status} {item.batch_id} {item.item_number}")
        return verdicts

    Interval.execute = recorded_together


async def unfinished(manager: BatchManager) -> UUID | None:
    """The oldest batch that is not finished."""
    async with manager._database.connection() as conn:
        return await conn.fetchval(
            "SELECT id FROM reliable_imports.import_batches WHERE finished_at IS NULL"
            " ORDER BY id LIMIT 1"
        )


class Broken(BaseException):
    """A worker must see every fault through by itself; nothing may come out of it."""


async def work(manager: BatchManager, done: Path, name: Callable[[UUID], None]) -> None:
    for processor in PROCESSORS.values():
        manager.registry.register(processor)
    name(manager._processing._control.worker_id)
    working = asyncio.ensure_future(manager.run_worker())
    try:
        while not (done.exists() and await rests(manager)):
            await asyncio.wait([working], timeout=0.1)
            if working.done():
                raise Broken from working.exception()
    finally:
        working.cancel()
        await asyncio.wait([working])


async def rests(manager: BatchManager) -> bool:
    """Whether every batch has finished; False while the server cannot be asked."""
    try:
        return await unfinished(manager) is None
    except Exception as exc:
        if not is_outage(exc):
            raise
        return False


async def main(dsn: str, slots: int, done: Path, name: Callable[[UUID], None]) -> None:
    """Work until all is done; `name` is told who this worker is, whenever it has connected."""
    while True:
        try:
            async with BatchManager(dsn, concurrency=slots) as manager:
                return await work(manager, done, name)
        except Exception as exc:  # while connecting
            if not is_outage(exc):
                raise
            await asyncio.sleep(0.1)


def prepare(history: Path) -> None:
    """What every worker needs before it starts."""
    Acknowledged.path = history
    record_acknowledgements()
    suspects.DEAD_SECONDS = 5.0  # longer than anybody is frozen here
