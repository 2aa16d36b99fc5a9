"""Reprocessing the failures of a large batch: seconds until the first of them runs."""

from time import perf_counter
from uuid import UUID

import asyncpg
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


def main(items: int = 10_000_000, failures: int = 100_000, rounds: int = 3) -> None:
    """Seconds until the first failure of a large batch runs again.

    Args:
        items: Items of the batch; ten million take 4 GB of disk.
        failures: How many of them have failed.
        rounds: How often a reprocessing is created; each is purged afterwards.
    """
    uvloop.run(_measure(items, failures, rounds))


async def _measure(items: int, failures: int, rounds: int) -> None:
    async with ground() as place:
        await place.renew()
        batch_id = uuid7()
        await place.execute(
            MADE.format(id=batch_id, items=items, every=items // failures, range=RANGE)
        )
        await place.settle()
        seconds = [await _once(place, batch_id) for _ in range(rounds)]
        version = place.version
    middle = sorted(seconds)[len(seconds) // 2]
    found = "met" if middle <= SECONDS else f"short by {middle - SECONDS:.2f} s"
    terminal().print(f"first of {failures:,} failures of {items:,} items: {middle:.2f} s, {found}")
    print("saved as", save("reprocess", {"versions": versions(version), "seconds": seconds}))


async def _once(place: Ground, batch_id: UUID) -> float:
    """Reprocess all failures until the first has run, and put everything back."""
    async with BatchManager(place.dsn) as manager:
        processor = LargeProcessor()
        manager.registry.register(processor)
        began = perf_counter()
        summary = await manager.reprocess_batch(batch_id)
        assert processor.first is not None
        spent = processor.first - began
        print(f"{spent:.2f} s; all {summary.completed_items:,}: {perf_counter() - began:.1f} s")
    conn = await asyncpg.connect(place.dsn)
    await conn.execute(
        "UPDATE reliable_imports.import_batch_items SET reprocessed_by = NULL "
        "WHERE batch_id = $1 AND reprocessed_by IS NOT NULL",
        batch_id,
    )
    for table, column in (("batch_items", "batch_id"), ("batch_ranges", "batch_id")):
        await conn.execute(
            f"DELETE FROM reliable_imports.import_{table} WHERE {column} <> $1", batch_id
        )
    await conn.execute("DELETE FROM reliable_imports.import_batches WHERE id <> $1", batch_id)
    await conn.execute("VACUUM ANALYZE reliable_imports.import_batch_items")
    await conn.close()
    return spent
