"""Reprocessing the failures of a large batch: seconds until the first of them runs."""

from time import perf_counter
from uuid import UUID

import uvloop
from uuid_utils.compat import uuid7

from reliable_imports_async import BaseProcessor, BatchManager, ImportBatchItem, ImportContext

from .ground import Ground, ground
from .report import save, terminal, versions

SECONDS = 1.0
RANGE = 5_000
MADE = """
INSERT INTO reliable_imports.import_batches
       (id, batch_type, status, root_batch_id, total_items, started_at, finished_at,
        completed_items, skipped_items, failed_items)
VALUES ('{id}', 'large', 'partial', '{id}', {items}, now(), now(),
        {items} - {items} / {every}, 0, {items} / {every});
INSERT INTO reliable_imports.import_batch_items
       (batch_id, item_number, status, attempts, source_data, error_kind, error_type,
        error_message, error_group, started_at, finished_at)
SELECT '{id}', i, CASE WHEN failed THEN 'failed' ELSE 'completed' END, 1,
       jsonb_build_object('n', i), CASE WHEN failed THEN 'exception' END,
       CASE WHEN failed THEN 'ValueError' END, CASE WHEN failed THEN 'refused' END,
       CASE WHEN failed THEN 'group' END, now(), now()
  FROM (SELECT i, i % {every} = 0 AS failed FROM generate_series(1, {items}) AS i) made;
INSERT INTO reliable_imports.import_batch_ranges
       (batch_id, first_item, last_item, state, completed, failed, groups)
SELECT '{id}', first, first + {range} - 1, 'done', {range} - {range} / {every},
       {range} / {every}, jsonb_build_object('group', {range} / {every})
  FROM generate_series(1, {items}, {range}) AS first;
ANALYZE;
"""


class LargeProcessor(BaseProcessor):
    """Notes when its first item runs."""

    batch_type = "large"

    def __init__(self) -> None:
        self.first: float | None = None

    async def process_item(self, item: ImportBatchItem, ctx: ImportContext) -> None:
        self.first = self.first or perf_counter()


def main(items: int = 10_000_000, failures: int = 100_000) -> None:
    """Seconds until the first failure of a large batch runs again.

    Args:
        items: Items of the batch; ten million take 4 GB of disk.
        failures: How many of them have failed.
    """
    uvloop.run(_measure(items, failures))


async def _measure(items: int, failures: int) -> None:
    async with ground() as place:
        await place.renew()
        batch_id = uuid7()
        await place.execute(
            MADE.format(id=batch_id, items=items, every=items // failures, range=RANGE)
        )
        await place.settle()
        seconds = await _first(place, batch_id)
        version = place.version
    found = "met" if seconds <= SECONDS else f"short by {seconds - SECONDS:.2f} s"
    terminal().print(f"first of {failures:,} failures of {items:,} items: {seconds:.2f} s, {found}")
    print("saved as", save("reprocess", {"versions": versions(version), "seconds": seconds}))


async def _first(place: Ground, batch_id: UUID) -> float:
    """Reprocess all failures; returns the seconds until the first has run."""
    async with BatchManager(place.dsn) as manager:
        processor = LargeProcessor()
        manager.registry.register(processor)
        began = perf_counter()
        summary = await manager.reprocess_batch(batch_id)
        if processor.first is None:
            raise SystemExit(f"no item ran: {summary}")
        print(f"all {summary.completed_items:,}: {perf_counter() - began:.1f} s")
        return processor.first - began
