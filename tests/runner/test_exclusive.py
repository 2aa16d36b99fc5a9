"""Types of which one batch runs at a time: over tasks, processes, kills, pauses, and workers."""

import asyncio

import pytest

from reliable_imports_async import BatchManager, BatchStatus
from reliable_imports_async.errors import AnotherBatchRuns, BatchCancelled

from ..support.trying import LEDGER, insert, processor, records, written
from .reach import accept_another, ask_for_the_turn_every, when_asked_in_vain

WAYS = [True, "wait", "refuse"]
RUNNING = """SELECT id FROM reliable_imports.import_batches WHERE status = 'processing'"""
ORPHAN = """UPDATE reliable_imports.import_batch_ranges
               SET state = 'leased', worker_id = gen_random_uuid(),
                   lease_until = clock_timestamp() + make_interval(secs => $2)
             WHERE batch_id = $1"""
START = """UPDATE reliable_imports.import_batches
              SET status = 'processing', started_at = clock_timestamp() WHERE id = $1"""
HOLD = "INSERT INTO reliable_imports.import_only_one VALUES ('tried', $1)"


@pytest.fixture(autouse=True)
async def ledger(conn, monkeypatch):
    await conn.execute(LEDGER)
    ask_for_the_turn_every(monkeypatch, 0.02, vacant_after=0.1)


class Gate:
    """Items wait at it; says which batches have items under way."""

    def __init__(self):
        self.open = asyncio.Event()
        self.reached = asyncio.Event()
        self.together: set = set()
        self.most = 0

    async def process_item(self, item, ctx):
        self.together.add(item.batch_id)
        self.most = max(self.most, len(self.together))
        self.reached.set()
        await self.open.wait()
        await insert(item, ctx)
        self.together.discard(item.batch_id)


def gated(manager, **attributes):
    gate = Gate()

    async def process_item(item, ctx):
        await gate.process_item(item, ctx)

    manager.registry.__init__()
    manager.registry.register(processor(process_item, **attributes))
    return gate


async def created(manager, count=1):
    return await manager.create_batch("tried", records(count))


async def asked(conn, monkeypatch):
    """Set when somebody has asked for the turn in vain."""
    event = asyncio.Event()
    when_asked_in_vain(monkeypatch, event.set)
    return event


async def test_a_second_batch_waits_for_the_first(manager, conn, monkeypatch):
    gate, waits = gated(manager, only_one=True), await asked(conn, monkeypatch)
    first, second = await created(manager, 3), await created(manager, 3)
    async with asyncio.TaskGroup() as group:
        group.create_task(manager.process_batch(first))
        await gate.reached.wait()
        waiting = group.create_task(manager.process_batch(second))
        await waits.wait()
        assert await manager.running_batch("tried") == first
        assert (await manager.get_batch(second)).status is BatchStatus.PENDING
        gate.open.set()
    assert (await waiting).ok
    assert gate.most == 1
    assert await written(conn) == [1, 1, 2, 2, 3, 3]
    assert await manager.running_batch("tried") is None


async def test_a_second_batch_is_refused_while_the_first_runs(manager, conn):
    gate = gated(manager, only_one="refuse")
    first, second = await created(manager), await created(manager)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(manager.process_batch(first))
        await gate.reached.wait()
        for refused in (
            manager.process_batch(second),
            manager.enqueue_batch(second),
            manager.create_batch("tried", records(1), enqueue=True),
            manager.import_file(_never_read(), "tried", format="csv"),
        ):
            with pytest.raises(AnotherBatchRuns, match=f"batch {first} is running") as caught:
                await refused
            assert f"reliable-imports pause {first}" in caught.value.cli_hint
        assert [batch.id async for batch in manager.list_batches()] == [second, first]
        gate.open.set()
    assert (await running).ok
    assert (await manager.process_batch(second)).ok
    assert gate.most == 1


async def _never_read():
    raise AssertionError
    yield b""


async def test_others_may_join_the_batch_that_runs(dsn, manager, conn):
    gate = gated(manager, only_one="refuse", concurrency=1)
    batch_id = await created(manager, 2_000)
    async with BatchManager(dsn, concurrency=2) as helper:
        helper.registry.register(manager.registry.get("tried"))
        async with asyncio.TaskGroup() as group:
            one = group.create_task(manager.process_batch(batch_id))
            await gate.reached.wait()
            other = group.create_task(helper.process_batch(batch_id))
            gate.open.set()
    assert (await one).ok
    assert (await other).ok
    assert await written(conn) == list(range(1, 2_001))


async def test_other_types_do_not_wait(manager, conn):
    gate = gated(manager, only_one=True)
    manager.registry.register(processor(insert, batch_type="other", only_one=True))
    first = await created(manager)
    async with asyncio.TaskGroup() as group:
        group.create_task(manager.process_batch(first))
        await gate.reached.wait()
        other = await manager.create_batch("other", records(1))
        assert (await manager.process_batch(other)).ok
        gate.open.set()


@pytest.mark.parametrize("way", WAYS)
async def test_many_who_start_at_once_run_one_after_the_other(dsn, manager, conn, way):
    """Managers of their own, as processes have: only the database knows of all of them."""
    gate = gated(manager, only_one=way)
    gate.open.set()
    ids = [await created(manager, 20) for _ in range(6)]

    async def process(batch_id):
        async with BatchManager(dsn, concurrency=2) as own:
            own.registry.register(manager.registry.get("tried"))
            while True:
                try:
                    return await own.process_batch(batch_id)
                except AnotherBatchRuns:
                    assert way == "refuse"
                    await asyncio.sleep(0.02)  # a job of cron comes back

    async with asyncio.TaskGroup() as group:
        runs = [group.create_task(process(batch_id)) for batch_id in ids]
    assert all(run.result().ok for run in runs)
    assert gate.most == 1
    assert await written(conn) == sorted(list(range(1, 21)) * 6)


async def started_elsewhere(conn, batch_id, lease):
    """As if another process ran it; with a lease that has run out, as if that was killed."""
    await conn.execute(START, batch_id)
    await conn.execute(HOLD, batch_id)
    await conn.execute(ORPHAN, batch_id, lease)


@pytest.mark.parametrize("way", WAYS)
async def test_what_a_killed_process_has_left_is_ended_first(manager, conn, way):
    gate = gated(manager, only_one=way)
    gate.open.set()
    first, second = await created(manager, 3), await created(manager, 2)
    await started_elsewhere(conn, first, -1.0)
    assert (await manager.process_batch(second)).ok
    summary = await manager.get_batch_summary(first)
    assert summary.ok
    assert summary.completed_items == 3
    assert gate.most == 1


async def test_until_its_lease_ends_a_killed_process_may_be_alive(manager, conn):
    gated(manager, only_one="refuse")
    first, second = await created(manager), await created(manager)
    await started_elsewhere(conn, first, 15.0)
    with pytest.raises(AnotherBatchRuns):
        await manager.process_batch(second)


@pytest.mark.parametrize("stop", ["pause_batch", "cancel_batch"])
async def test_a_batch_that_was_stopped_is_not_waited_for(manager, conn, stop):
    gate = gated(manager, only_one="refuse")
    first, second = await created(manager, 3), await created(manager)
    await started_elsewhere(conn, first, -1.0)
    await getattr(manager, stop)(first)
    gate.open.set()
    assert (await manager.process_batch(second)).ok
    if stop == "pause_batch":
        await manager.resume_batch(first)
        assert (await manager.process_batch(first)).ok


async def test_of_a_batch_that_was_stopped_the_last_items_are_waited_for(
    manager, conn, monkeypatch
):
    gate, waits = gated(manager, only_one=True), await asked(conn, monkeypatch)
    first, second = await created(manager), await created(manager)
    async with asyncio.TaskGroup() as group:
        stopped = group.create_task(manager.process_batch(first))
        await gate.reached.wait()
        await manager.pause_batch(first)
        waiting = group.create_task(manager.process_batch(second))
        await waits.wait()
        assert gate.together == {first}
        gate.open.set()
    assert (await waiting).ok
    assert (await stopped).pending_items in (0, 1)
    assert gate.most == 1


async def test_a_resumed_batch_waits_for_the_one_that_runs_now(manager, conn, monkeypatch):
    gate = gated(manager, only_one=True)
    first, second = await created(manager), await created(manager)
    await started_elsewhere(conn, first, -1.0)
    await manager.pause_batch(first)
    waits = await asked(conn, monkeypatch)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(manager.process_batch(second))
        await gate.reached.wait()
        waits.clear()
        await manager.resume_batch(first)
        resumed = group.create_task(manager.process_batch(first))
        await waits.wait()
        assert gate.together == {second}
        gate.open.set()
    assert (await running).ok
    assert (await resumed).ok
    assert gate.most == 1


async def test_a_batch_that_is_cancelled_while_it_waits_says_so(manager, conn, monkeypatch):
    gate, waits = gated(manager, only_one=True), await asked(conn, monkeypatch)
    first, second = await created(manager), await created(manager)
    async with asyncio.TaskGroup() as group:
        group.create_task(manager.process_batch(first))
        await gate.reached.wait()
        waiting = asyncio.create_task(manager.process_batch(second))
        await waits.wait()
        await manager.cancel_batch(second)
        with pytest.raises(BatchCancelled):
            await waiting
        gate.open.set()


async def test_one_whose_start_fails_keeps_nobody_waiting(manager, conn):
    async def on_batch_start(ctx):
        if ctx.batch.id == first:
            raise ValueError("not today")

    manager.registry.register(processor(insert, only_one=True, on_batch_start=on_batch_start))
    first, second = await created(manager), await created(manager)
    assert (await manager.process_batch(first)).status is BatchStatus.FAILED
    assert (await manager.process_batch(second)).ok


async def test_a_batch_that_ran_before_the_processor_said_so_counts(manager, conn):
    gated(manager, only_one="refuse")
    first, second = await created(manager), await created(manager)
    await conn.execute(START, first)
    await conn.execute(ORPHAN, first, 15.0)
    with pytest.raises(AnotherBatchRuns, match=str(first)):
        await manager.process_batch(second)


@pytest.mark.parametrize("way", WAYS)
async def test_a_worker_comes_back_to_a_batch_that_waits(manager, conn, monkeypatch, way):
    """It does not sit on it: meanwhile it processes batches of other types."""
    gate, waits = gated(manager, only_one=way), await asked(conn, monkeypatch)
    manager.registry.register(processor(insert, batch_type="other"))
    first = await manager.create_batch("tried", records(1), enqueue=True)
    second = await created(manager)
    worker = asyncio.create_task(manager.run_worker())
    try:
        await gate.reached.wait()
        if way == "refuse":
            with pytest.raises(AnotherBatchRuns):
                await manager.enqueue_batch(second)
            accept_another(monkeypatch)  # it was accepted just before
        await manager.enqueue_batch(second)
        await waits.wait()
        other = await manager.create_batch("other", records(1), enqueue=True)
        assert (await manager.wait_for_batch(other)).ok
        gate.open.set()
        assert (await manager.wait_for_batch(first)).ok
        assert (await manager.wait_for_batch(second)).ok
        assert gate.most == 1
    finally:
        worker.cancel()
        await asyncio.wait([worker])
