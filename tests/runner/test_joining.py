"""Several who process one batch in one process share its ranges; none disturbs another."""

import asyncio
from collections import Counter
from contextlib import suppress

from ..support.trying import LEDGER, insert, processor, records, written


async def test_twenty_callers_run_each_item_once(manager, conn):
    await conn.execute(LEDGER)
    runs: Counter = Counter()

    async def process_item(item, ctx):
        runs[item.item_number] += 1
        await insert(item, ctx)

    manager.registry.register(processor(process_item))
    batch_id = await manager.create_batch("tried", records(300))
    async with asyncio.TaskGroup() as group:
        callers = [group.create_task(manager.process_batch(batch_id)) for _ in range(20)]

    assert all(caller.result().ok for caller in callers)
    assert runs == Counter(range(1, 301))
    assert await written(conn) == list(range(1, 301))


async def test_a_cancelled_caller_takes_nothing_from_the_others(manager, conn):
    await conn.execute(LEDGER)
    runs: Counter = Counter()
    half_way = asyncio.Event()

    async def process_item(item, ctx):
        runs[item.item_number] += 1
        await insert(item, ctx)
        if len(runs) >= 150:
            half_way.set()

    manager.registry.register(processor(process_item))
    batch_id = await manager.create_batch("tried", records(300))
    async with asyncio.TaskGroup() as group:
        leaving = group.create_task(manager.process_batch(batch_id))
        staying = group.create_task(manager.process_batch(batch_id))
        await half_way.wait()
        leaving.cancel()
        with suppress(asyncio.CancelledError):
            await leaving

    assert staying.result().ok
    assert await written(conn) == list(range(1, 301))
    assert runs.total() <= 300 + 4  # what ran for the one who left, runs again
