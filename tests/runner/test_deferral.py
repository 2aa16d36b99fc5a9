"""Children before parents: what waits for other records of its batch runs again, pass by pass."""

import asyncio
import os
import random
import sys
from collections import Counter

import anyio
import anyio.lowlevel
import asyncpg
import pytest

from reliable_imports_async import BaseProcessor, BatchManager, BatchStatus, Defer, Retry, Settings
from reliable_imports_async.errors import NotAProcessor

from ..store.reach import ranges
from ..support.trying import LEDGER, MODES, PATIENCE, insert, processor, run, written
from ..support.workers import finished, worker

NODES = "CREATE TABLE nodes (id integer PRIMARY KEY, parent integer REFERENCES nodes)"
MODE = {"item": 1, "interval": 7, "set": 8}
PASS = "SELECT pass_number FROM reliable_imports.import_batches WHERE id = $1"
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
KILLED = """
import asyncio, sys
from uuid import UUID
from reliable_imports_async import BatchManager, Settings
from tests.runner.test_deferral import NodeProcessor

async def main():
    async with BatchManager(sys.argv[1], settings=Settings(lease_seconds=1.0)) as manager:
        manager.registry.register(NodeProcessor)
        await manager.process_batch(UUID(sys.argv[2]))

asyncio.run(main())
"""
FIRST_RANGE = """
SELECT state, deferred, final_pass FROM reliable_imports.import_batch_ranges ORDER BY first_item
"""


class NodeProcessor(BaseProcessor):
    defer_on = "foreign_key"

    async def process_item(self, item, ctx):
        sql = "INSERT INTO nodes VALUES ($1, $2)"
        await ctx.execute(sql, item.source_data["id"], item.source_data["parent"])
        await ctx.execute("INSERT INTO ledger (n) VALUES ($1)", item.source_data["id"])


class NodeSetProcessor(BaseProcessor):
    batch_type = "node"
    defer_on = "foreign_key"

    async def process_items(self, items, ctx):
        ids = [item.source_data["id"] for item in items]
        parents = [item.source_data["parent"] for item in items]
        sql = "INSERT INTO nodes SELECT * FROM unnest($1::integer[], $2::integer[])"
        await ctx.execute(sql, ids, parents)
        await ctx.execute("INSERT INTO ledger (n) SELECT unnest($1::integer[])", ids)


def tree(count: int, children: int | None = None) -> list[dict[str, int | None]]:
    """The nodes of a tree, in random order; a random tree unless each has so many children."""
    rng = random.Random(5)
    nodes: list[dict[str, int | None]] = [{"id": 1, "parent": None}]
    for n in range(2, count + 1):
        parent = rng.randint(1, n - 1) if children is None else max(1, n // children)
        nodes.append({"id": n, "parent": parent})
    rng.shuffle(nodes)
    return nodes


@pytest.fixture(autouse=True)
async def tables(conn, manager):
    await conn.execute(LEDGER)
    await conn.execute(NODES)
    manager.registry.register(NodeProcessor)


@pytest.fixture(params=MODE)
def mode(request, manager) -> str:
    if request.param == "set":
        manager.registry.__init__()
        manager.registry.register(NodeSetProcessor)
    return request.param


async def create(manager: BatchManager, *pairs: tuple[int, int | None]):
    return await manager.create_batch("node", [{"id": n, "parent": parent} for n, parent in pairs])


async def passes(manager: BatchManager, batch_id) -> list[str]:
    """What the log says about the passes after the first."""
    return [line.message async for line in manager.get_logs(batch_id) if "pass" in line.message]


async def test_a_tree_in_random_order_needs_no_sorting(manager, conn):
    batch_id = await manager.create_batch("node", tree(3_000, children=50))
    summary = await manager.process_batch(batch_id, commit_interval=100)
    assert (summary.ok, summary.completed_items, summary.deferred_items) == (True, 3_000, 0)
    assert await written(conn) == list(range(1, 3_001))
    assert not [message for message in await passes(manager, batch_id) if "final" in message]
    assert await conn.fetchval("SELECT sum(attempts) FROM reliable_imports.import_batch_items") == (
        3_000
    )


async def test_a_tree_at_every_speed(manager, conn, mode):
    batch_id = await manager.create_batch("node", tree(150))
    assert (await manager.process_batch(batch_id, commit_interval=MODE[mode])).ok
    assert await written(conn) == list(range(1, 151))


async def test_what_never_comes_fails_its_children_with_the_true_cause(manager, conn, mode):
    batch_id = await create(manager, (3, 99), (4, 3), (2, 1), (1, None), (5, 4))
    summary = await manager.process_batch(batch_id, commit_interval=MODE[mode])
    assert (summary.status, summary.completed_items, summary.failed_items) == ("partial", 2, 3)
    assert await written(conn) == [1, 2]
    assert summary.deferred_items == 0
    (group,) = await manager.failure_groups(batch_id)
    assert (group.kind, group.sqlstate, group.table) == ("data", "23503", "nodes")
    assert dict(group.values) == {"parent=3": 1, "parent=4": 1, "parent=99": 1}
    item = await manager.get_item(batch_id, 1)
    assert item.attempts == 1
    assert "final" in (await passes(manager, batch_id))[-1]
    states = await conn.fetch(FIRST_RANGE)
    assert {(row["state"], len(row["deferred"])) for row in states} == {("done", 0)}


async def test_a_cycle_ends(manager, conn, mode):
    batch_id = await create(manager, (1, 2), (2, 3), (3, 1))
    summary = await manager.process_batch(batch_id, commit_interval=1)
    assert (summary.status, summary.failed_items) == ("failed", 3)
    assert await passes(manager, batch_id) == [
        "final pass: 3 deferred items run again; items that still wait will fail"
    ]
    assert await written(conn) == []


async def test_what_has_failed_waits_for_its_parent_in_the_next_batch(manager, conn, mode):
    batch_id = await create(manager, (4, 3), (3, 99))
    await manager.process_batch(batch_id)
    await conn.execute("INSERT INTO nodes VALUES (99, NULL)")
    again = await manager.reprocess_batch(batch_id)
    assert (again.ok, await written(conn)) == (True, [3, 4])


@pytest.mark.parametrize("mode", MODES)
async def test_a_processor_says_itself_that_an_item_waits(manager, conn, monkeypatch, mode):
    monkeypatch.setattr("tests.support.trying.DEFAULTS", MODES[mode])
    tries = Counter()

    async def process_item(item, ctx):
        n = item.source_data["n"]
        tries[n] += 1
        await insert(item, ctx)
        if n % 2 and not await ctx.fetchval("SELECT count(*) FROM ledger WHERE n = $1", n + 1):
            raise Defer(f"{n + 1} is not there yet")

    summary = await run(manager, process_item, 61, pause_after=3, concurrency=1)
    assert (summary.status, summary.failed_items) == ("partial", 1)
    assert await written(conn) == list(range(1, 61))
    (group,) = summary.groups
    assert (group.kind, group.type, group.message) == ("data", "Defer", "62 is not there yet")
    assert tries[1] == 2 or mode == "set"  # a set is tried again in parts


async def test_what_waits_for_ever_pauses_no_batch(manager):
    async def process_item(item, ctx):
        raise Defer("never")

    summary = await run(manager, process_item, 60, pause_after=3)
    assert (summary.status, summary.failed_items) == (BatchStatus.FAILED, 60)


async def test_an_item_may_wait_before_its_transaction(manager, conn):
    seen = []

    async def prepare_item(item, ctx):
        if item.source_data["n"] == 1 and not await ctx.fetchval("SELECT count(*) FROM ledger"):
            seen.append(item.final_pass)
            raise Defer("first")

    assert (
        await run(
            manager, insert, 2, prepare_item=prepare_item, concurrency=1, prepare_concurrency=1
        )
    ).ok
    assert await written(conn) == [1, 2]
    assert seen == [False]


async def test_in_the_final_pass_a_processor_can_do_without(manager, conn):
    class LooseProcessor(NodeProcessor):
        batch_type = "node"

        async def process_item(self, item, ctx):
            parent = None if item.final_pass else item.source_data["parent"]
            await ctx.execute("INSERT INTO nodes VALUES ($1, $2)", item.source_data["id"], parent)

    manager.registry.__init__()
    manager.registry.register(LooseProcessor)
    batch_id = await create(manager, (1, 2), (2, 1))
    assert (await manager.process_batch(batch_id)).ok
    assert await conn.fetchval("SELECT count(*) FROM nodes WHERE parent IS NULL") == 2


async def test_a_constraint_that_is_checked_at_commit(manager, conn, mode):
    await conn.execute(
        "ALTER TABLE nodes ALTER CONSTRAINT nodes_parent_fkey DEFERRABLE INITIALLY DEFERRED"
    )
    batch_id = await manager.create_batch("node", [*tree(60), {"id": 61, "parent": 99}])
    summary = await manager.process_batch(batch_id, commit_interval=MODE[mode])
    assert (summary.completed_items, summary.failed_items) == (60, 1)
    assert await written(conn) == list(range(1, 61))


async def test_a_stored_retry_is_waited_for(manager, conn):
    tries = Counter()

    async def process_item(item, ctx):
        n = item.source_data["n"]
        tries[n] += 1
        if n == 1 and not await ctx.fetchval("SELECT count(*) FROM ledger"):
            raise Defer("2 first")
        if n == 2 and item.attempt == 1:
            raise Retry("later", after=0.2)
        await insert(item, ctx)

    assert (await run(manager, process_item, 2, concurrency=1)).ok
    assert tries == {1: 2, 2: 2}


async def claim(conn, batch_id, worker_id, held, wanted):
    lease = 0.0  # or nobody could take over before the server has run for so long
    return await ranges.claim(
        conn, batch_id, worker_id, lease, held, wanted=wanted, of_quarantined=wanted, of_dead=wanted
    )


async def test_a_retry_and_a_deferral_in_one_range(manager, conn):
    batch_id = await manager.create_batch("node", [{"n": n} for n in range(1, 1_001)])
    await conn.execute("UPDATE reliable_imports.import_batches SET status = 'processing'")
    await conn.execute(
        "UPDATE reliable_imports.import_batch_items"
        " SET due_at = clock_timestamp() + interval '1 hour' WHERE item_number = 2"
    )
    claimed, _ = await claim(conn, batch_id, batch_id, [], 2)
    assert await ranges.release(conn, claimed, {1}) == "ready"  # not before the retry is due
    again, _ = await claim(conn, batch_id, batch_id, [], 2)
    assert again.first_item == 3
    assert await ranges.release(conn, again, {3, 4}) == "deferred"
    outlook = await ranges.outlook(conn, batch_id, 15.0)
    assert (outlook.deferred, outlook.only_deferred) == (1, False)


async def test_what_was_deferred_outlives_a_crash_and_a_split(manager, conn):
    batch_id = await manager.create_batch("node", [{"n": n} for n in range(1, 1_001)])
    await conn.execute("UPDATE reliable_imports.import_batches SET status = 'processing'")
    claimed, _ = await claim(conn, batch_id, batch_id, [], 5)
    running = ranges.RunningCounts(claimed, 0, 0, 0, "{}", "{1,4}")
    assert await ranges.renew(conn, [running], 0.0, [batch_id])  # as if it had died then
    somebody = another(batch_id)
    taken, _ = await claim(conn, batch_id, somebody, [], 2)
    assert (taken.last_item, taken.deferred, taken.crashes) == (2, (1,), 1)
    rest, _ = await claim(conn, batch_id, somebody, [1], 5)
    assert (rest.first_item, rest.last_item, rest.deferred) == (3, 5, (4,))
    summary = await manager.get_batch_summary(batch_id)
    assert (summary.deferred_items, summary.pending_items) == (2, 1_000)


def another(batch_id):
    """Another worker's id."""
    return type(batch_id)(int=batch_id.int + 1)


async def test_only_one_of_two_begins_the_next_pass(manager, conn, dsn):
    batch_id = await create(manager, (2, 99))
    await conn.execute(
        "UPDATE reliable_imports.import_batches SET status = 'processing';"
        "UPDATE reliable_imports.import_batch_ranges SET state = 'deferred', deferred = '{1}'"
    )
    other = await asyncpg.connect(dsn)
    try:
        async with conn.transaction():
            first = await ranges.reopen(conn, batch_id, 1)
            second = asyncio.ensure_future(ranges.reopen(other, batch_id, 1))
            with anyio.fail_after(PATIENCE):
                while not await conn.fetchval(WAITING):
                    await anyio.lowlevel.checkpoint()
        assert (first.number, first.deferred, first.final) == (2, 1, True)
        assert await second is None
        assert await ranges.reopen(other, batch_id, 2) is None  # its range is ready
    finally:
        await other.close()


async def test_a_paused_batch_begins_no_pass(manager, conn):
    batch_id = await create(manager, (2, 99))
    await conn.execute(
        "UPDATE reliable_imports.import_batches SET status = 'paused';"
        "UPDATE reliable_imports.import_batch_ranges SET state = 'deferred', deferred = '{1}'"
    )
    assert await ranges.reopen(conn, batch_id, 1) is None


async def test_two_drain_together_and_double_nothing(manager, conn, dsn, mode):
    batch_id = await manager.create_batch("node", tree(200))
    async with BatchManager(dsn, concurrency=4) as second:
        second.registry.register(NodeProcessor)
        both = await asyncio.gather(
            manager.process_batch(batch_id, commit_interval=MODE[mode]),
            second.process_batch(batch_id),
        )
    assert all(summary.ok for summary in both)
    assert await written(conn) == list(range(1, 201))
    numbers = [message.split(":")[0] for message in await passes(manager, batch_id)]
    assert numbers == [f"pass {n}" for n in range(2, len(numbers) + 2)]


async def test_a_restart_between_the_passes(manager, conn, dsn, mode):
    batch_id = await manager.create_batch("node", tree(150))

    async def stopped() -> None:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(stop, scope)
                await manager.process_batch(batch_id, commit_interval=MODE[mode])

    async def stop(scope: anyio.CancelScope) -> None:
        while await conn.fetchval(PASS, batch_id) < 3:
            await anyio.lowlevel.checkpoint()
        scope.cancel()

    await stopped()
    summary = await manager.get_batch_summary(batch_id)
    assert (summary.status, summary.pending_items > 0) == ("processing", True)
    async with BatchManager(dsn, settings=Settings(lease_seconds=1.0)) as second:
        second.registry.register(NodeProcessor)
        assert (await second.process_batch(batch_id)).ok
    assert await written(conn) == list(range(1, 151))


async def test_kill_9_in_a_later_pass(manager, conn, dsn):
    batch_id = await manager.create_batch("node", tree(150))
    killed = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", KILLED, dsn, str(batch_id)),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        with anyio.fail_after(PATIENCE):
            while await conn.fetchval(PASS, batch_id) < 3:
                await anyio.lowlevel.checkpoint()
    finally:
        killed.kill()
        await killed.wait()
    assert (await manager.get_batch_summary(batch_id)).pending_items > 0
    assert (await manager.process_batch(batch_id)).ok
    assert await written(conn) == list(range(1, 151))


async def test_a_pause_keeps_what_waits_and_tries_it_once_a_pass(manager, conn):
    tries = Counter()

    async def process_item(item, ctx):
        n = item.source_data["n"]
        tries[n] += 1
        if n in (1, 2) and not await ctx.fetchval("SELECT count(*) FROM ledger WHERE n = 1000"):
            raise Defer("the last one first")
        if n == 3 and tries[n] == 1:
            await manager.pause_batch(item.batch_id)
        await insert(item, ctx)

    manager.registry.__init__()
    manager.registry.register(processor(process_item, concurrency=1))
    batch_id = await manager.create_batch("tried", [{"n": n} for n in range(1, 1_001)])
    paused = await manager.process_batch(batch_id)
    assert (paused.status, paused.deferred_items) == (BatchStatus.PAUSED, 2)
    await manager.resume_batch(batch_id)
    assert (await manager.process_batch(batch_id)).ok
    assert await written(conn) == list(range(1, 1_001))
    assert (tries[1], tries[2]) == (2, 2)


async def test_cancelling_leaves_it_to_a_reprocessing(manager, conn):
    gate = asyncio.Event()

    async def process_item(item, ctx):
        if item.source_data["n"] == 1 and not gate.is_set():
            raise Defer("later")
        if not gate.is_set():
            await manager.cancel_batch(item.batch_id)
        await insert(item, ctx)

    summary = await run(manager, process_item, 2, concurrency=1)
    assert (summary.status, summary.pending_items) == (BatchStatus.CANCELLED, 1)
    gate.set()
    assert (await manager.reprocess_batch(summary.batch_id)).ok
    assert await written(conn) == [1, 2]


async def test_only_what_fails_in_the_final_pass_counts_against_a_threshold(manager, mode):
    pairs = [(n, 99) for n in range(1, 7)]
    batch_id = await manager.create_batch(
        "node", [{"id": n, "parent": parent} for n, parent in pairs], max_failures=2
    )
    summary = await manager.process_batch(batch_id, commit_interval=MODE[mode])
    assert (summary.status, summary.failed_items) == (BatchStatus.PAUSED, 2)
    assert "max_failures" in summary.pause_reason
    await manager.resume_batch(batch_id)
    assert (await manager.process_batch(batch_id)).failed_items == 4


async def test_a_dry_run_says_what_waits(manager, conn, mode):
    batch_id = await create(manager, (2, 1), (1, None), (3, 2))
    report = await manager.process_batch(batch_id, dry_run=True)
    together = mode == "set"  # one statement brings in parents and children
    expected = (3, 0, 0) if together else (1, 0, 2)
    assert (report.completed, report.failed, report.deferred) == expected
    assert report.as_dict()["deferred"] == report.deferred
    assert (await manager.process_batch(batch_id)).ok


async def test_workers_share_the_passes(manager, conn, dsn):
    async with BatchManager(dsn, concurrency=2) as second:
        second.registry.register(NodeProcessor)
        async with worker(manager), worker(second):
            batch_id = await manager.create_batch("node", tree(200), enqueue=True)
            assert (await finished(manager, batch_id)).ok
    assert await written(conn) == list(range(1, 201))


async def test_a_batch_that_only_waits_is_not_abandoned(manager, conn):
    batch_id = await create(manager, (2, 1), (1, None))
    await manager.enqueue_batch(batch_id)
    await conn.execute(
        "UPDATE reliable_imports.import_batches SET status = 'processing', started_at = now();"
        "UPDATE reliable_imports.import_batch_ranges SET state = 'deferred', deferred = '{1}'"
        " WHERE first_item = 1;"
        "UPDATE reliable_imports.import_batch_ranges SET state = 'done' WHERE first_item = 2;"
        "DELETE FROM pgqueuer"
    )
    async with worker(manager):  # its sweep finds it
        assert (await finished(manager, batch_id)).finished_at


def test_defer_on_anything_else_is_refused(manager):
    class WrongProcessor(NodeProcessor):
        defer_on = "unique"

    with pytest.raises(NotAProcessor, match="'unique'") as refused:
        manager.registry.register(WrongProcessor)
    assert '"foreign_key"' in refused.value.hint
