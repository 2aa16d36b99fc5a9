"""Items that kill their process fail in the end, and slow ranges are cut short."""

import asyncio
import os
import sys
from uuid import uuid4

import asyncpg
import pytest

from reliable_imports_async import BatchManager, FailureKind

from ..store.reach import ranges
from ..support.trying import LEDGER, PATIENCE, insert, processor, records, written
from .reach import dead_after, lease_for, quarantine

# A worker that an item kills: without a word, as the kernel does when there is no memory left.
WORKER = """
import asyncio, os, signal, sys
from reliable_imports_async import BaseProcessor, BatchManager
from tests.runner.reach import quarantine

quarantine.DEAD_SECONDS = 1.0

class TriedProcessor(BaseProcessor):
    async def process_item(self, item, ctx):
        await ctx.execute("INSERT INTO ledger (n) VALUES ($1)", item.item_number)
        if item.item_number == 13:
            os.kill(os.getpid(), signal.SIGKILL)

async def main():
    async with BatchManager(sys.argv[1], concurrency=3) as manager:
        manager.registry.register(TriedProcessor)
        await manager.run_worker()

asyncio.run(main())
"""


@pytest.mark.long
async def test_an_item_that_kills_its_process_costs_three_crashes(dsn, conn):
    await conn.execute(LEDGER)
    async with BatchManager(dsn) as manager:
        manager.registry.register(processor(insert))
        batch_id = await manager.create_batch("tried", records(60), enqueue=True)
        crashes = 0
        environment = os.environ | {"RELIABLE_IMPORTS_LEASE_SECONDS": "1"}
        async with asyncio.timeout(120):
            while True:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-c", WORKER, dsn, env=environment
                )
                dying = asyncio.ensure_future(process.wait())
                try:
                    while (
                        not dying.done() and (await manager.get_batch(batch_id)).finished_at is None
                    ):
                        await asyncio.wait([dying], timeout=0.1)
                    if not dying.done():
                        break
                    crashes += 1
                finally:
                    if process.returncode is None:
                        process.kill()
                    await dying
        summary = await manager.get_batch_summary(batch_id)
        item = await manager.get_item(batch_id, 13)
    assert crashes == 3
    assert (summary.completed_items, summary.failed_items) == (59, 1)
    assert item.failure.kind is FailureKind.CRASH
    assert await written(conn) == [n for n in range(1, 61) if n != 13]
    marks = "SELECT count(*) FROM reliable_imports.import_crash_marks"
    assert await conn.fetchval(marks) == 0


async def test_marks_of_the_living_do_not_count(manager, conn, monkeypatch):
    dead_after(monkeypatch, 600.0)
    await conn.execute(LEDGER)
    manager.registry.register(processor(insert))
    batch_id = await manager.create_batch("tried", records(5))
    await conn.execute("UPDATE reliable_imports.import_batch_ranges SET crashes = 1")
    await _mark(conn, batch_id, 1, age="1 hour")
    await _mark(conn, batch_id, 2, age="0 s")
    await _mark(conn, batch_id, 3, age="1 hour")
    await _mark(conn, batch_id, 3, age="1 hour")
    summary = await manager.process_batch(batch_id)
    assert (summary.completed_items, summary.failed_items) == (4, 1)
    assert (await manager.get_item(batch_id, 3)).failure.kind is FailureKind.CRASH


async def test_an_item_waits_until_the_dead_are_known_to_be_dead(manager, conn, monkeypatch):
    dead_after(monkeypatch, 2.0)
    await conn.execute(LEDGER)
    manager.registry.register(processor(insert))
    batch_id = await manager.create_batch("tried", records(3))
    await conn.execute("UPDATE reliable_imports.import_batch_ranges SET crashes = 1")
    await _mark(conn, batch_id, 2, age="1 hour")
    await _mark(conn, batch_id, 2, age="0 s")
    lease_for(manager, 1.0)
    summary = await manager.process_batch(batch_id)
    assert (summary.completed_items, summary.failed_items) == (2, 1)


async def test_a_process_leaves_suspect_ranges_to_others(manager, conn):
    await conn.execute(LEDGER)
    leased = "SELECT count(*) FROM reliable_imports.import_batch_ranges WHERE state = 'leased'"
    held = []

    async def process_item(item, ctx):
        held.append(await ctx.fetchval(leased))
        await insert(item, ctx)

    manager.registry.register(processor(process_item))
    batch_id = await manager.create_batch("tried", records(400))
    ranges = await conn.execute("UPDATE reliable_imports.import_batch_ranges SET crashes = 1")
    assert ranges == "UPDATE 20"
    assert (await manager.process_batch(batch_id)).ok
    assert 1 < max(held) <= quarantine.MAX_RANGES < 20
    assert await written(conn) == list(range(1, 401))


async def test_a_suspect_range_is_cut_short(manager, conn):
    await conn.execute(LEDGER)
    manager.registry.register(processor(insert))
    batch_id = await manager.create_batch("tried", records(200))
    await conn.execute("DELETE FROM reliable_imports.import_batch_ranges WHERE first_item > 1")
    await conn.execute(
        "UPDATE reliable_imports.import_batch_ranges SET last_item = 200, crashes = 1"
    )
    assert (await manager.process_batch(batch_id)).ok
    sizes = "SELECT last_item - first_item + 1 FROM reliable_imports.import_batch_ranges"
    assert [row[0] for row in await conn.fetch(sizes)] == [20] * 10
    assert await written(conn) == list(range(1, 201))


async def test_a_process_whose_queue_is_full_takes_over_too(manager, conn):
    await conn.execute(LEDGER)
    started, go_on = asyncio.Event(), asyncio.Event()

    async def process_item(item, ctx):
        started.set()
        await go_on.wait()
        await insert(item, ctx)

    manager.registry.register(processor(process_item))
    lease_for(manager, 1.0)
    batch_id = await manager.create_batch("tried", records(400))
    processing = asyncio.ensure_future(manager.process_batch(batch_id))
    await started.wait()
    dead = await conn.fetchval(
        "UPDATE reliable_imports.import_batch_ranges SET state = 'leased',"
        " worker_id = gen_random_uuid(), lease_until = now() - interval '1 hour'"
        " WHERE first_item = 381 RETURNING worker_id"
    )
    assert dead is not None
    async with asyncio.timeout(PATIENCE):
        while dead == await conn.fetchval(
            "SELECT worker_id FROM reliable_imports.import_batch_ranges WHERE first_item = 381"
        ):
            await asyncio.sleep(0.05)
    assert not processing.done()
    go_on.set()
    assert (await processing).ok
    assert await written(conn) == list(range(1, 401))


async def test_no_lease_runs_out_while_the_server_was_away(manager, conn):
    manager.registry.register(processor(insert))
    batch_id = await manager.create_batch("tried", records(1))
    await conn.execute("UPDATE reliable_imports.import_batches SET status = 'processing'")
    await conn.execute(
        "UPDATE reliable_imports.import_batch_ranges SET state = 'leased',"
        " worker_id = gen_random_uuid(), lease_until = now() - interval '1 s'"
    )

    async def claimed(lease: float):
        return await ranges.claim(
            conn, batch_id, uuid4(), lease, [], wanted=9, of_quarantined=0, of_dead=9
        )

    longer_than_the_server_runs = 1e8
    assert await claimed(longer_than_the_server_runs) is None
    outlook = await ranges.outlook(conn, batch_id, longer_than_the_server_runs)
    assert outlook.seconds > 0
    claim, _ = await claimed(0.01)
    assert claim.crashes == 1


async def test_a_long_range_is_split_and_nothing_is_counted_twice(manager, conn):
    await conn.execute(LEDGER)
    sizes = "SELECT last_item - first_item + 1 FROM reliable_imports.import_batch_ranges ORDER BY 1"

    async def process_item(item, ctx):
        await asyncio.sleep(0.02)
        if item.item_number % 7 == 0:
            raise ValueError("seven")
        await insert(item, ctx)

    manager.registry.register(processor(process_item, pause_after=None))
    batch_id = await manager.create_batch("tried", records(300))
    await conn.execute("DELETE FROM reliable_imports.import_batch_ranges WHERE first_item > 1")
    await conn.execute("UPDATE reliable_imports.import_batch_ranges SET last_item = 300")
    summary = await manager.process_batch(batch_id)
    assert (summary.completed_items, summary.failed_items) == (258, 42)
    assert sum(group.count for group in summary.groups) == 42
    parts = [row[0] for row in await conn.fetch(sizes)]
    assert len(parts) > 1
    assert sum(parts) == 300
    assert await written(conn) == [n for n in range(1, 301) if n % 7]


async def test_settled_items_of_a_split_range_stay_counted(manager, conn):
    await conn.execute(LEDGER)
    manager.registry.register(processor(insert))
    bad = [{"n": number} if number % 10 else b"\xff" for number in range(1, 201)]
    batch_id = await manager.create_batch("tried", bad)
    await conn.execute("DELETE FROM reliable_imports.import_batch_ranges WHERE first_item > 1")
    await conn.execute("UPDATE reliable_imports.import_batch_ranges SET last_item = 200")
    summary = await manager.process_batch(batch_id)
    assert (summary.completed_items, summary.failed_items) == (180, 20)
    assert sum(group.count for group in summary.groups) == 20


async def _mark(conn: "asyncpg.Connection", batch_id, number: int, age: str) -> None:
    await conn.execute(
        "INSERT INTO reliable_imports.import_crash_marks VALUES ($1, $2, gen_random_uuid(),"
        " clock_timestamp() - $3::text::interval)",
        batch_id,
        number,
        age,
    )
