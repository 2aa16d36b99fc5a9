"""A record has at most one open try, whatever is called, in whatever order, by how many."""

import asyncio
import random
from collections import Counter
from contextlib import suppress

import asyncpg
import pytest

from reliable_imports_async import BaseProcessor, BatchManager, BatchStatus
from reliable_imports_async.errors import (
    BatchNotFound,
    EditRefused,
    ReliableImportsError,
    ReprocessRefused,
    WrongBatchStatus,
)

from ..store.reach import items, reprocessing
from ..support.trying import PATIENCE, some_long
from .reach import wait_for_the_root

LEDGER = "CREATE TABLE ledger (n integer NOT NULL, batch_id uuid NOT NULL)"
OPEN_TWICE = """
SELECT root_batch_id, number, count(*)
  FROM (SELECT b.root_batch_id, coalesce(i.root_item_number, i.item_number) AS number
          FROM reliable_imports.import_batches b
          JOIN reliable_imports.import_batch_items i ON i.batch_id = b.id
         WHERE i.reprocessed_by IS NULL
           AND (i.status = 'failed' OR (i.status = 'pending'
                AND (b.finished_at IS NULL OR b.status = 'cancelled')))) o
 GROUP BY 1, 2 HAVING count(*) > 1
"""
# A try in a plain reprocessing whose record had succeeded in the try before it.
REPEATED = """
SELECT number, batch_id
  FROM (SELECT coalesce(i.root_item_number, i.item_number) AS number, i.batch_id,
               b.reprocesses_all, lag(i.status) OVER w AS before
          FROM reliable_imports.import_batches b
          JOIN reliable_imports.import_batch_items i ON i.batch_id = b.id
         WHERE b.root_batch_id = $1 AND i.source_data IS NOT NULL
        WINDOW w AS (PARTITION BY coalesce(i.root_item_number, i.item_number)
                     ORDER BY b.created_at, b.id)) t
 WHERE NOT reprocesses_all AND before IN ('completed', 'skipped')
"""
TORN = """
SELECT b.id, i.item_number, i.status
  FROM reliable_imports.import_batches b
  JOIN reliable_imports.import_batch_items i ON i.batch_id = b.id
 WHERE (i.status = 'completed') <> EXISTS (
       SELECT FROM ledger l WHERE l.batch_id = b.id
          AND l.n = coalesce(i.root_item_number, i.item_number))
"""


class NumberProcessor(BaseProcessor):
    """Writes each number; fails those that `fails` says."""

    pause_after = None

    def __init__(self, fails=lambda _: False) -> None:
        self.fails = fails
        self.gate: asyncio.Event | None = None
        self.started = asyncio.Event()

    async def process_item(self, item, ctx):
        self.started.set()
        if self.gate is not None:
            await self.gate.wait()
        number = item.root_item_number or item.item_number
        await ctx.execute("INSERT INTO ledger VALUES ($1, $2)", number, item.batch_id)
        if self.fails(number):
            raise ValueError("not now")


class NumberChunkProcessor(NumberProcessor):
    batch_type = "number_chunk"
    commit_interval = 5


@pytest.fixture
async def processor(manager: BatchManager, conn) -> NumberProcessor:
    await conn.execute(LEDGER)
    made = NumberProcessor()
    manager.registry.register(made)
    return made


async def cancelled_batch(manager: BatchManager, processor: NumberProcessor, count: int):
    """A batch that was cancelled while its first items ran; they settle."""
    batch_id = await manager.create_batch("number", [{"n": n} for n in range(count)])
    processor.gate = asyncio.Event()
    processor.started = asyncio.Event()
    processing = asyncio.create_task(manager.process_batch(batch_id))
    await processor.started.wait()
    await manager.cancel_batch(batch_id)
    processor.gate.set()
    await processing
    processor.gate = None
    return batch_id


async def test_a_full_run_of_a_cancelled_batch_takes_its_pending_items_too(
    manager, conn, processor
):
    root = await cancelled_batch(manager, processor, 60)
    assert await conn.fetchval("SELECT count(*) FROM ledger") < 60
    everything = await manager.reprocess_batch(root, failed_items_only=False)
    assert everything.completed_items == 60
    before = await conn.fetchval("SELECT count(*) FROM ledger")
    plain = await manager.reprocess_batch(root)
    assert plain.batch_id == everything.batch_id
    assert await conn.fetchval("SELECT count(*) FROM ledger") == before
    assert await conn.fetch(OPEN_TWICE) == []


async def test_a_second_full_run_joins_the_first(manager, conn, processor):
    root = await manager.create_batch("number", [{"n": n} for n in range(10)])
    await manager.process_batch(root)
    one = await manager.create_reprocessing(root, failed_items_only=False)
    assert await manager.create_reprocessing(root, failed_items_only=False) == one
    await manager.process_reprocessing(one)
    assert await manager.create_reprocessing(root, failed_items_only=False) != one
    assert max(Counter(r["n"] for r in await conn.fetch("SELECT n FROM ledger")).values()) == 2


async def test_a_full_run_is_refused_while_another_batch_has_open_tries(manager, processor):
    processor.fails = lambda n: n == 3
    root = await manager.create_batch("number", [{"n": n} for n in range(5)])
    await manager.process_batch(root)
    child = await manager.create_reprocessing(root)
    with pytest.raises(ReprocessRefused, match=str(child)):
        await manager.create_reprocessing(root, failed_items_only=False)
    await manager.cancel_batch(child)
    again = await manager.reprocess_batch(root, failed_items_only=False)
    assert again.total_items == 5


async def test_a_paused_batch_is_not_run_again_beside_itself(manager, processor):
    root = await manager.create_batch("number", [{"n": n} for n in range(5)])
    await manager.pause_batch(root)
    with pytest.raises(ReprocessRefused, match=str(root)):
        await manager.create_reprocessing(root, failed_items_only=False)


async def test_the_key_refuses_a_second_try_even_without_the_lock(manager, dsn, conn, processor):
    """Two that both read "nobody has taken them": the second finds the row replaced."""
    root = await manager.create_batch("number", [{"n": n} for n in range(5)])
    await manager.process_batch(root)
    first, second = (
        await manager.create_batch("number", []),
        await manager.create_batch("number", []),
    )
    other = await asyncpg.connect(dsn)
    try:
        one = conn.transaction()
        await one.start()
        assert await reprocessing.take_all(conn, root, first, root) == 5
        waiting = asyncio.create_task(reprocessing.take_all(other, root, second, root))
        while not await conn.fetchval(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = $1", other.get_server_pid()
        ):
            await asyncio.sleep(0)
        await one.commit()
        with pytest.raises(ReprocessRefused, match="5 records"):
            await waiting
    finally:
        await other.close()


async def test_an_edit_is_refused_while_a_transform_takes_the_record(
    manager, dsn, conn, processor, monkeypatch
):
    wait_for_the_root(monkeypatch, 0.05)
    processor.fails = lambda _: True
    root = await manager.create_batch("number", [{"n": 1}, {"n": 2}])
    await manager.process_batch(root)
    locked, go_on = asyncio.Event(), asyncio.Event()
    eligible = reprocessing.eligible

    async def slow(*args, **kwargs):
        page = await eligible(*args, **kwargs)
        locked.set()
        await go_on.wait()
        return page

    monkeypatch.setattr(reprocessing, "eligible", slow)
    taking = asyncio.create_task(
        manager.create_reprocessing(root, transform=lambda record: record | {"t": 1})
    )
    await locked.wait()
    with pytest.raises(EditRefused, match="right now"):
        await manager.update_item_source(root, 1, {"n": 100})
    with pytest.raises(EditRefused, match="right now"):
        await manager.update_item_sources(root, lambda record: record)
    go_on.set()
    child = await taking
    with pytest.raises(EditRefused, match=str(child)):
        await manager.update_item_source(root, 1, {"n": 100})
    assert await manager.item_history(root, 1) == ()


async def test_nothing_joins_a_lineage_that_is_being_purged(manager, conn, processor, monkeypatch):
    processor.fails = lambda _: True
    root = await manager.create_batch("number", [{"n": 1}, {"n": 2}])
    await manager.process_batch(root)
    refused = []
    delete_chunk = items.delete_chunk

    async def meanwhile(*args):
        for call in (
            manager.create_reprocessing(root),
            manager.create_reprocessing(root, failed_items_only=False),
            manager.update_item_sources(root, lambda record: record),
        ):
            with pytest.raises(BatchNotFound):
                await call
            refused.append(call)
        return await delete_chunk(*args)

    monkeypatch.setattr(items, "delete_chunk", meanwhile)
    assert await manager.purge(root) == 1
    assert refused
    for table in ("import_batches", "import_batch_items", "import_last_tries"):
        assert await conn.fetchval(f"SELECT count(*) FROM reliable_imports.{table}") == 0


async def test_a_child_that_was_created_first_keeps_the_purge_out(manager, processor):
    processor.fails = lambda _: True
    root = await manager.create_batch("number", [{"n": 1}])
    await manager.process_batch(root)
    await manager.create_reprocessing(root)
    with pytest.raises(WrongBatchStatus, match="purged"):
        await manager.purge(root)
    processor.fails = lambda _: False
    assert (await manager.reprocess_batch(root)).status is BatchStatus.COMPLETED


async def test_with_nothing_left_a_cancelled_child_is_returned(manager, conn, processor):
    processor.fails = lambda _: True
    root = await manager.create_batch("number", [{"n": 1}])
    await manager.process_batch(root)
    child = await manager.create_reprocessing(root)
    await manager.process_batch(child)
    processor.fails = lambda _: False
    last = await manager.create_reprocessing(root)
    await conn.execute(  # its last item has just settled when it is cancelled
        "UPDATE reliable_imports.import_batch_items SET status = 'completed' WHERE batch_id = $1",
        last,
    )
    await manager.cancel_batch(last)
    summary = await manager.reprocess_batch(root)
    assert (summary.batch_id, summary.status) == (last, BatchStatus.CANCELLED)


class Storm:
    """Random verbs on one lineage, two at once, from two managers; processing is interrupted."""

    VERBS = (
        "plain", "plain", "all", "group", "numbers", "transform", "canary", "file", "edit",
        "cancel", "pause", "resume", "process", "process", "interrupt",
    )  # fmt: skip

    def __init__(self, managers, root, rng: random.Random) -> None:
        self.managers = managers
        self.root = root
        self.rng = rng

    async def some(self, manager):
        family = [one async for one in manager.list_batches(root_batch_id=self.root)]
        return self.rng.choice(family).id

    async def step(self) -> None:
        manager, verb = self.rng.choice(self.managers), self.rng.choice(self.VERBS)
        with suppress(ReliableImportsError):
            await getattr(self, verb)(manager, await self.some(manager))

    async def plain(self, manager, batch):
        await manager.reprocess_batch(batch)

    async def all(self, manager, batch):
        await manager.create_reprocessing(batch, failed_items_only=False)

    async def group(self, manager, batch):
        for group in await manager.failure_groups(batch):
            await manager.create_reprocessing(batch, group=group.group)

    async def numbers(self, manager, batch):
        await manager.reprocess_batch(self.root, item_numbers=self.rng.sample(range(1, 31), 2))

    async def transform(self, manager, batch):
        await manager.create_reprocessing(batch, transform=lambda record: record | {"t": 1})

    async def canary(self, manager, batch):
        await manager.reprocess_batch(batch, canary=2, min_success=0.1)

    async def file(self, manager, batch):
        content = b"".join([chunk async for chunk in manager.export_failures(batch)])

        async def chunks():
            yield content

        await manager.create_corrected_batch(batch, chunks())

    async def edit(self, manager, batch):
        await manager.update_item_sources(batch, lambda record: record | {"e": 1})

    async def cancel(self, manager, batch):
        if batch != self.root or self.rng.random() < 0.3:
            await manager.cancel_batch(batch)

    async def pause(self, manager, batch):
        await manager.pause_batch(batch)

    async def resume(self, manager, batch):
        await manager.resume_batch(batch)

    async def process(self, manager, batch):
        await manager.process_batch(batch)

    async def interrupt(self, manager, batch):
        processing = asyncio.create_task(manager.process_batch(batch))
        for _ in range(self.rng.randrange(200)):
            await asyncio.sleep(0)
        processing.cancel()
        with suppress(asyncio.CancelledError):
            await processing

    async def settle(self) -> None:
        """Bring everything to its end."""
        manager = self.managers[0]
        for _ in range(3):
            for batch in [one async for one in manager.list_batches(root_batch_id=self.root)]:
                if batch.status is BatchStatus.PAUSED:
                    await manager.resume_batch(batch.id)
                if batch.status is not BatchStatus.CANCELLED:
                    await manager.process_batch(batch.id)
            await manager.reprocess_batch(self.root)


@pytest.mark.parametrize("seed", some_long(range(4), {1}))
@pytest.mark.parametrize("kind", [NumberProcessor, NumberChunkProcessor])
async def test_no_sequence_of_verbs_opens_two_tries_or_repeats_a_success(dsn, conn, kind, seed):
    await conn.execute(LEDGER)
    rng = random.Random(seed)
    processor = kind(lambda _: rng.random() < 0.4)
    async with BatchManager(dsn, concurrency=2) as one, BatchManager(dsn, concurrency=2) as two:
        for manager in (one, two):
            name = manager.registry.register(processor)
        root = await one.create_batch(name, [{"n": n} for n in range(30)])
        storm = Storm((one, two), root, rng)
        for _ in range(25):
            await asyncio.wait_for(asyncio.gather(storm.step(), storm.step()), PATIENCE)
            assert await conn.fetch(OPEN_TWICE) == []
        processor.fails = lambda _: False
        await asyncio.wait_for(storm.settle(), PATIENCE)
    assert await conn.fetch(OPEN_TWICE) == []
    assert await conn.fetch(REPEATED, root) == []
    assert await conn.fetch(TORN) == []
    assert await conn.fetchval("SELECT count(DISTINCT n) FROM ledger") == 30
