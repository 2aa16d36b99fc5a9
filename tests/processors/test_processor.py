"""What a processor may declare, and what it is handed: models, stages, retries, connections."""

import asyncio
import json
import time
from dataclasses import dataclass

import asyncpg
import pytest
from pydantic import BaseModel, PositiveInt

from reliable_imports_async import (
    BaseProcessor,
    BatchManager,
    BatchStatus,
    FailureKind,
    ItemStatus,
    Retry,
)

from ..database.reach import database_of, pool_of
from ..execution.reach import longest_backoff
from ..runner.reach import watch_for_blocks
from ..support.trying import (
    INSERT,
    LEDGER,
    PATIENCE,
    insert,
    only_item,
    processor,
    records,
    run,
    written,
)


@pytest.fixture(autouse=True)
async def ledger(conn):
    await conn.execute(LEDGER)


class Line(BaseModel):
    n: PositiveInt
    note: str | None = None


@dataclass
class Row:
    n: int


async def run_class(manager, cls, items):
    name = manager.registry.register(cls)
    return await manager.process_batch(await manager.create_batch(name, items))


async def test_a_model_is_validated_into_data_and_names_every_bad_field(manager, conn):
    class LineProcessor(BaseProcessor[Line]):
        null_values = ("N/A",)

        async def process_item(self, item, ctx):
            assert item.data.note is None
            await ctx.execute("INSERT INTO ledger VALUES ($1, $2)", item.data.n, item.data.note)

    items = [{"n": "1", "note": "N/A"}, {"n": -1, "note": ["N/A"]}, {"note": "N/A"}]
    summary = await run_class(manager, LineProcessor, items)

    bad = await manager.get_item(summary.batch_id, 2)
    assert [field["loc"] for field in bad.failure.fields] == ["n", "note"]
    assert (bad.failure.kind, bad.source_data) == (FailureKind.VALIDATION, items[1])
    assert bad.failure.message.startswith("n: Input should be greater than 0; note: ")
    assert (summary.completed_items, len(summary.groups)) == (1, 2)
    assert await written(conn) == [1]


async def test_any_type_of_pydantic_makes_a_model(manager, conn):
    class RowProcessor(BaseProcessor[Row]):
        async def process_item(self, item, ctx):
            await ctx.execute(INSERT, item.data.n)

    class InheritingProcessor(RowProcessor):
        async def validate_item(self, item, ctx):
            return isinstance(item.data, Row)

    assert (await run_class(manager, RowProcessor, [{"n": "1"}])).ok
    assert (await run_class(manager, InheritingProcessor, [{"n": "2"}])).ok
    assert await written(conn) == [1, 2]


async def test_a_falsy_verdict_rejects_the_item(manager, conn):
    outcomes = [False, None, 0, "", [], True, "yes"]
    summary = await run(
        manager, insert, 7, validate_item=lambda item, ctx: outcomes[item.source_data["n"] - 1]
    )

    failed = [item.failure async for item in manager.list_items(summary.batch_id, limit=5)]
    assert {failure.kind for failure in failed} == {FailureKind.VALIDATION}
    assert failed[1].message == "validate_item returned None."
    assert failed[1].hint.endswith("return True for a valid item.")
    assert await written(conn) == [6, 7]


WRITES = [
    lambda ctx: ctx.execute("INSERT INTO ledger VALUES (1)"),
    lambda ctx: ctx.fetch("INSERT INTO ledger VALUES (1) RETURNING n"),
    lambda ctx: ctx.fetchrow("WITH w AS (DELETE FROM ledger RETURNING n) SELECT * FROM w"),
    lambda ctx: ctx.fetchval("SELECT setval('numbers', 9)"),
    lambda ctx: ctx.executemany("INSERT INTO ledger VALUES ($1)", [(1,)]),
    lambda ctx: ctx.execute("COMMIT; INSERT INTO ledger VALUES (1)"),
    lambda ctx: ctx.execute("SET TRANSACTION READ WRITE; INSERT INTO ledger VALUES (1)"),
    lambda ctx: ctx.execute("set transaction_read_only = off; DELETE FROM ledger"),
    lambda ctx: ctx.upsert("ledger", {"n": 1}, key="n"),
    lambda ctx: ctx.savepoint().__aenter__(),
    lambda ctx: ctx.connection.execute("INSERT INTO ledger VALUES (1)"),
]


@pytest.mark.parametrize("stage", ["validate_item", "prepare_item"])
async def test_before_the_transaction_the_database_can_only_be_read(manager, conn, stage):
    await conn.execute("CREATE SEQUENCE numbers; INSERT INTO ledger VALUES (7)")
    await conn.execute("ALTER TABLE ledger ADD PRIMARY KEY (n)")

    async def hook(item, ctx):
        assert await ctx.fetchval("SELECT n FROM ledger") == 7
        await WRITES[item.item_number - 1](ctx)
        return True

    summary = await run(manager, insert, len(WRITES), **{stage: hook})

    types = {group.type for group in summary.groups}
    assert types == {"ProcessorError", "TransactionControlRefused"}
    assert (summary.status, summary.failed_items) == (BatchStatus.FAILED, len(WRITES))
    assert await written(conn) == [7]
    assert await conn.fetchval("SELECT nextval('numbers')") == 1


async def test_reading_before_the_transaction_needs_no_item_connection(dsn, conn):
    """As many items as slots wait for a read while all slots are busy: nobody starves."""
    slots, busy = 4, []

    async def hook(item, ctx):
        return await ctx.fetchval("SELECT $1::integer", item.item_number)

    async def process_item(item, ctx):
        await insert(item, ctx)
        busy.append(item.item_number)
        await ctx.fetchval("SELECT pg_sleep(0.001)")

    async with asyncpg.create_pool(dsn, min_size=0, max_size=slots + 3) as pool:
        async with BatchManager(pool=pool) as manager, asyncio.timeout(PATIENCE):
            hooks = {"validate_item": hook, "prepare_item": hook}
            assert (await run(manager, process_item, 100, **hooks)).ok
    assert sorted(busy) == list(range(1, 101))


async def test_all_items_failing_needs_no_further_connection(dsn, conn):
    seen = []

    async def process_item(item, ctx):
        counted = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        seen.append(await ctx.fetchval(counted))
        raise ValueError(item.item_number)

    async with asyncpg.create_pool(dsn, min_size=0, max_size=4 + 3) as pool:
        async with BatchManager(pool=pool) as manager, asyncio.timeout(PATIENCE):
            summary = await run(manager, process_item, 100, pause_after=None)

    assert summary.failed_items == 100
    assert max(seen) <= 4 + 3 + 1  # conn, the test's own


@pytest.mark.parametrize("form", ["text", "binary"])
async def test_a_pool_with_codecs_of_its_own_works_and_is_not_changed(dsn, conn, form):
    async def init(connection):
        encoded = json.dumps if form == "text" else lambda value: b"\1" + json.dumps(value).encode()
        decoded = json.loads if form == "text" else lambda data: json.loads(data[1:])
        await connection.set_type_codec(
            "jsonb", schema="pg_catalog", format=form, encoder=encoded, decoder=decoded
        )

    async def process_item(item, ctx):
        assert await ctx.fetchval("SELECT $1::jsonb", {"a": [1]}) == {"a": [1]}
        ctx.info("with", details=item.source_data)
        await insert(item, ctx)
        if item.item_number == 2:
            raise ValueError("no")
        return {"processed_data": {"kept": True}}

    async with asyncpg.create_pool(dsn, min_size=4, max_size=5, init=init) as pool:
        async with BatchManager(pool=pool) as manager:
            summary = await run(manager, process_item, [{"n": 1}, {"n": 2}, {"n": float("nan")}])
            assert (await manager.get_item(summary.batch_id, 1)).processed_data == {"kept": True}
            assert [group.count for group in summary.groups] == [1, 1]
            transform = {"transform": lambda record: {"n": 3}, "item_numbers": [3]}
            assert (await manager.reprocess_batch(summary.batch_id, **transform)).ok
        timeouts = []
        for _ in range(5):
            timeouts.append(await pool.fetchval("SHOW statement_timeout"))
        assert set(timeouts) == {"0"}
        assert await pool.fetchval("SELECT '{}'::jsonb") == {}
    assert await written(conn) == [1, 3]


async def test_retry_postpones_the_item_until_its_tries_are_used_up(manager, conn):
    tries = []

    async def process_item(item, ctx):
        tries.append((item.attempt, item.idempotency_key))
        await insert(item, ctx)
        raise Retry("busy", after=0.01)

    summary = await run(manager, process_item, max_attempts=3)

    item = await only_item(manager, summary)
    key = f"{summary.batch_id}:1"
    assert tries == [(1, key), (2, key), (3, key)]
    assert (item.status, item.attempts, item.failure.type) == (ItemStatus.FAILED, 3, "Retry")
    assert item.failure.message == "busy"
    lines = [line.message async for line in manager.get_logs(summary.batch_id, item_number=1)]
    assert [text[:14] for text in lines] == ["try 1 failed, ", "try 2 failed, "]
    assert await written(conn) == []

    again = await manager.reprocess_batch(summary.batch_id)
    assert {found for _, found in tries} == {key}
    assert [attempt for attempt, _ in tries[3:]] == [1, 2, 3]
    assert again.failed_items == 1


@pytest.mark.parametrize("stage", ["validate_item", "prepare_item", "process_item"])
async def test_retry_on_means_retry_at_every_stage(manager, monkeypatch, stage):
    longest_backoff(monkeypatch, 0.01)
    tries = []

    async def flaky(item, ctx):
        tries.append(item.attempt)
        if item.attempt < 2:
            raise ConnectionResetError("by peer")
        return True if stage == "validate_item" else None

    async def process_item(item, ctx):
        return await flaky(item, ctx) if stage == "process_item" else await insert(item, ctx)

    hooks = {} if stage == "process_item" else {stage: flaky}
    async with asyncio.timeout(PATIENCE):
        summary = await run(manager, process_item, retry_on=(ConnectionError,), **hooks)

    assert summary.ok
    assert tries == [1, 2]


async def test_a_retry_inside_an_exception_group_counts(manager):
    async def process_item(item, ctx):
        if item.attempt == 1:
            raise ExceptionGroup("several", [ValueError(), Retry(after=0)])

    assert (await run(manager, process_item)).ok


async def test_prepared_is_made_once_while_sql_is_repeated(manager, conn):
    prepared, seen = [], []

    async def prepare_item(item, ctx):
        prepared.append(object())
        return prepared[-1]

    async def process_item(item, ctx):
        seen.append(item.prepared)
        if len(seen) < 4:
            await ctx.execute("DO $$ BEGIN RAISE EXCEPTION '' USING ERRCODE = '40P01'; END $$")

    assert (await run(manager, process_item, prepare_item=prepare_item)).ok
    assert seen == prepared * 4


async def test_pause_after_counts_consecutive_exceptions_of_one_group(dsn):
    async def process_item(item, ctx):
        number = item.item_number
        if number == 10:
            return  # begins the count anew
        if number % 5 == 0:
            await ctx.execute("SELECT 1 / $1::integer", 0)  # bad data does not count
        raise ValueError(f"item {number} of another system")

    async with BatchManager(dsn, concurrency=1) as manager:
        paused = await run(manager, process_item, 60, pause_after=12)
        assert (paused.status, paused.failed_items, paused.completed_items) == (
            BatchStatus.PAUSED,
            9 + 12 + 2,
            1,
        )
        assert paused.pause_reason.startswith("12 items in a row failed with ValueError: item ")
        never = await run(manager, process_item, 60, pause_after=None)
        assert (never.status, never.pending_items) == (BatchStatus.PARTIAL, 0)


async def test_different_exceptions_do_not_pause_together(manager):
    async def process_item(item, ctx):
        raise (ValueError if item.item_number % 2 else KeyError)("no")

    async with BatchManager(pool=pool_of(manager), concurrency=1) as single:
        assert (await run(single, process_item, 30, pause_after=2)).failed_items == 30


async def test_a_wrong_result_fails_the_item_and_its_writes_are_undone(manager, conn):
    results = [1, "done", ["a"], {"target": 1}, {"processed_data": object()}, True]

    async def process_item(item, ctx):
        await insert(item, ctx)
        return results[item.item_number - 1]

    summary = await run(manager, process_item, len(results))

    assert summary.failed_items == len(results)
    assert {(group.type, bool(group.hint)) for group in summary.groups} == {
        ("ProcessorResultError", True)
    }
    assert await written(conn) == []


async def test_upsert_inserts_or_updates(manager, conn):
    await conn.execute("CREATE TABLE stock (sku text PRIMARY KEY, amount integer, touched text)")
    await conn.execute("INSERT INTO stock VALUES ('a', 1, 'by hand')")

    async def process_item(item, ctx):
        row = await ctx.upsert("public.stock", item.source_data, key="sku")
        assert row["amount"] == item.source_data["amount"]

    summary = await run(
        manager, process_item, [{"sku": "a", "amount": 2}, {"sku": "b", "amount": 3}]
    )

    assert summary.ok
    rows = [tuple(row) for row in await conn.fetch("SELECT * FROM stock ORDER BY sku")]
    assert rows == [("a", 2, "by hand"), ("b", 3, None)]


async def test_an_item_can_create_a_batch_in_its_own_transaction(manager, conn):
    manager.registry.register(processor(insert))

    class OuterProcessor(BaseProcessor):
        async def process_item(self, item, ctx):
            await manager.create_batch("tried", records(3), connection=ctx.connection)
            if item.item_number == 2:
                raise ValueError("and not this one")

    summary = await run_class(manager, OuterProcessor, records(2))

    inner = [batch async for batch in manager.list_batches(batch_type="tried")]
    assert summary.failed_items == 1
    assert [batch.total_items for batch in inner] == [3]


async def test_a_connection_in_use_is_given_back_while_the_manager_closes(dsn):
    taken, go_on = asyncio.Event(), asyncio.Event()
    manager = BatchManager(dsn)
    await manager.__aenter__()
    pool = pool_of(manager)

    async def statement():
        async with database_of(manager).connection() as connection:
            taken.set()
            await go_on.wait()
            return await connection.fetchval("SELECT 1")

    running = asyncio.create_task(statement())
    await taken.wait()
    closing = asyncio.create_task(manager.__aexit__(None, None, None))
    while not pool.is_closing():
        await asyncio.sleep(0)
    go_on.set()
    assert await running == 1
    await closing
    assert pool.get_size() == 0


async def test_code_that_blocks_the_event_loop_is_told_so(manager, caplog, monkeypatch):
    watch_for_blocks(monkeypatch, every=0.01, of=0.05)

    class BlockingProcessor(BaseProcessor):
        async def process_item(self, item, ctx):
            time.sleep(0.1)  # noqa: ASYNC251 - what a synchronous client does

    manager.registry.register(BlockingProcessor)
    await manager.process_batch(await manager.create_batch("blocking", [{}] * 6))
    said = [one.message for one in caplog.records if "event loop was blocked" in one.message]
    assert len(said) == 1
    assert "asyncio.to_thread" in said[0]
    assert __file__ in said[0], "the line is named"
