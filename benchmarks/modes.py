"""The three modes of the library on a workload; public names only, so that any version runs them.

Run as a module it measures one mode in a process of its own, for `benchmarks.compare`.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import asyncpg
import psutil
import uvloop

import reliable_imports_async
from reliable_imports_async import BaseProcessor, BatchManager, ImportBatchItem, ImportContext

from .spent import Spent, spending
from .workloads import WORKLOADS, Workload

CONNECTIONS = 16
RESERVED = 3  # connections that the library keeps for its own statements
INTERVAL = 200
SET = 1_000


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


@dataclass(frozen=True, slots=True)
class Mode:
    """A processor, and the options of `process_batch`."""

    processor: type[WorkloadProcessor]
    options: dict[str, Any] = field(default_factory=dict)


MODES = {
    "item mode": Mode(WorkloadProcessor),
    "commit_interval": Mode(WorkloadProcessor, {"commit_interval": INTERVAL}),
    "process_items": Mode(SetProcessor, {"commit_interval": SET}),
}


async def measure(dsn: str, postmaster: psutil.Process, workload: Workload, mode: Mode) -> Spent:
    """What `process_batch` takes; the pool is open before, as that of the plain loop is."""
    size = CONNECTIONS + RESERVED
    async with (
        asyncpg.create_pool(dsn, min_size=size, max_size=size) as pool,
        BatchManager(pool=pool, concurrency=CONNECTIONS) as manager,
    ):
        manager.registry.register(mode.processor(workload))
        batch_id = await manager.create_batch("workload", list(workload.records))
        with spending(postmaster) as spent:
            summary = await manager.process_batch(batch_id, **mode.options)
    workload.require(summary.completed_items, summary.failed_items)
    return spent


async def measure_alone(
    dsn: str, postmaster: str, workload: str, items: str, mode: str
) -> dict[str, Any]:
    """The same on an empty database, from what a command line gives."""
    await BatchManager(dsn).migrate()
    made = WORKLOADS[workload](int(items))
    conn = await asyncpg.connect(dsn)
    await conn.execute(made.schema)
    await conn.execute("CHECKPOINT")
    await conn.close()
    spent = await measure(dsn, psutil.Process(int(postmaster)), made, MODES[mode])
    return {
        "library": reliable_imports_async.__file__,
        "items": len(made.records),
        "spent": asdict(spent),
    }


if __name__ == "__main__":
    print(json.dumps(uvloop.run(measure_alone(*sys.argv[1:]))))
