"""Cancelled anywhere, each item is settled or pending, and the pool is as large as before."""

import asyncio
import random
from collections import Counter
from contextlib import suppress
from functools import partial

import anyio
import pytest

from reliable_imports_async import BatchManager, ItemStatus

from ..database.reach import database_of
from ..runner.reach import outcomes_of_items
from ..support.trying import LEDGER, insert, processor, records
from .reach import outcomes_of_chunks

ITEMS = 400
CANCELLATIONS = {1: 1_000, 50: 300}  # by the number of items that share a transaction
LONGEST = 0.01  # seconds; longer than BEGIN, the item, its settling and COMMIT together
TORN = """
SELECT count(*)
  FROM reliable_imports.import_batch_items i
  LEFT JOIN LATERAL (SELECT count(*) AS rows FROM ledger l WHERE l.n = i.item_number) l ON true
 WHERE i.batch_id = $1 AND l.rows <> (i.status = 'completed')::integer
"""
OURS = """
SELECT count(*) FROM pg_stat_activity
 WHERE application_name = 'reliable_imports_async' AND datname = current_database()
"""


async def by_wait_for(work, seconds):
    await asyncio.wait_for(work(), seconds)


async def by_move_on_after(work, seconds):
    with anyio.move_on_after(seconds):
        await work()


async def by_cancelling_the_task(work, seconds):
    task = asyncio.create_task(work())
    asyncio.get_running_loop().call_later(seconds, task.cancel)
    await task


async def by_cancelling_twice(work, seconds):
    task = asyncio.create_task(work())
    loop = asyncio.get_running_loop()
    for part in (0.7, 1.0):
        loop.call_later(seconds * part, task.cancel)
    await task


WAYS = (by_wait_for, by_move_on_after, by_cancelling_the_task, by_cancelling_twice)


@pytest.fixture
def outcomes(monkeypatch) -> Counter:
    """What the engine believed about each item, as often as it believed it."""
    seen: Counter = Counter()
    outcomes_of_items(monkeypatch, seen)
    outcomes_of_chunks(monkeypatch, seen)
    return seen


@pytest.mark.long
@pytest.mark.parametrize("size", list(CANCELLATIONS))
async def test_a_thousand_cancellations_tear_nothing(dsn, conn, outcomes, size):
    chance = random.Random(20260801)
    async with BatchManager(dsn, concurrency=3) as manager:
        manager.registry.register(processor(insert, commit_interval=size))
        await conn.execute(LEDGER)
        batch_id = None
        for number in range(CANCELLATIONS[size]):
            if batch_id is None:
                batch_id = await manager.create_batch("tried", records(ITEMS))
            with suppress(asyncio.CancelledError, TimeoutError):
                way, seconds = WAYS[number % len(WAYS)], chance.uniform(0, LONGEST)
                await way(partial(manager.process_batch, batch_id), seconds)
            if number % 10 == 9:
                assert await conn.fetchval(TORN, batch_id) == 0
            if (await manager.get_batch(batch_id)).finished_at is not None:
                await _check(manager, conn, batch_id, outcomes)
                batch_id = None
        if batch_id is not None:
            assert (await manager.process_batch(batch_id)).ok
            await _check(manager, conn, batch_id, outcomes)
        await _pool_is_whole(manager, conn)


async def _check(manager, conn, batch_id, outcomes) -> None:
    """A finished batch: every row once, and no outcome that the database does not share."""
    summary = await manager.get_batch_summary(batch_id)
    assert (summary.completed_items, summary.total_items) == (ITEMS, ITEMS)
    assert await conn.fetchval("SELECT count(*) FROM ledger") == ITEMS
    assert await conn.fetchval(TORN, batch_id) == 0
    assert {(status, times) for (_, status), times in outcomes.items()} <= {
        (ItemStatus.COMPLETED, 1)
    }
    outcomes.clear()
    await conn.execute("TRUNCATE ledger")


async def _pool_is_whole(manager, conn) -> None:
    """Every connection of the pool can be had at once, and the server sees no other of ours."""
    database = database_of(manager)
    size = database.concurrency + 3
    taken = [await database.take() for _ in range(size)]
    assert await conn.fetchval(OURS) == size
    for connection in taken:
        assert not connection.is_in_transaction()
        await database.give_back(connection)
