"""A worker process: drains whatever batch is unfinished, until no more will come."""

import asyncio
import os
import sys
from pathlib import Path
from uuid import UUID

from reliable_imports_async import BatchManager
from reliable_imports_async.execution import Executor
from reliable_imports_async.judgement import is_outage
from reliable_imports_async.settling import Settled

from .processor import Acknowledged, TortureProcessor


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


async def unfinished(manager: BatchManager) -> UUID | None:
    """The oldest batch that is not finished."""
    async with manager._database.connection() as conn:
        return await conn.fetchval(
            "SELECT id FROM reliable_imports.import_batches WHERE finished_at IS NULL"
            " ORDER BY id LIMIT 1"
        )


async def work(manager: BatchManager, done: Path) -> None:
    manager.registry.register(TortureProcessor)
    print(manager._processing._control.worker_id, flush=True)
    while True:
        last = os.path.exists(done)  # noqa: PTH110 - local and quick
        batch_id = await unfinished(manager)
        if batch_id is not None:  # twice at once: two drains of a process share leases and slots
            await asyncio.gather(*(process(manager, batch_id) for _ in range(2)))
        elif last:
            return
        else:
            await asyncio.sleep(0.05)


class Broken(BaseException):
    """process_batch must see every fault through by itself; nothing may come out of it."""


async def process(manager: BatchManager, batch_id: UUID) -> None:
    try:
        await manager.process_batch(batch_id)
    except Exception as exc:
        raise Broken from exc


async def main(dsn: str, slots: int, done: Path) -> None:
    while True:
        try:
            async with BatchManager(dsn, concurrency=slots) as manager:
                return await work(manager, done)
        except Exception as exc:  # while connecting, or between two batches
            if not is_outage(exc):
                raise
            await asyncio.sleep(0.1)


if __name__ == "__main__":
    Acknowledged.path = Path(sys.argv[4])
    record_acknowledgements()
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
