"""Whatever a processor does, an item's effects and outcome commit together, or neither."""

import asyncio
import contextlib
import sys
import time
from asyncio.subprocess import DEVNULL

import asyncpg
import pytest

from reliable_imports_async import BatchManager, BatchStatus, FailureKind, ItemStatus
from reliable_imports_async.errors import ContextClosed, ProcessorError
from reliable_imports_async.settings import Settings

from ..database.reach import past_the_guard
from ..runner.reach import LOSSES, heartbeat_every
from ..support import trying
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
from .reach import conflict_retries

CONNECTIONS = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


@pytest.fixture(autouse=True, params=list(trying.MODES))
def mode(request, monkeypatch) -> str:
    """Whether each item has a transaction of its own, or several share one."""
    monkeypatch.setattr(trying, "DEFAULTS", trying.MODES[request.param])
    return request.param


@pytest.fixture(autouse=True)
async def ledger(conn):
    await conn.execute(LEDGER)


async def test_a_swallowed_sql_error_fails_the_item(manager, conn):
    async def process_item(item, ctx):
        await insert(item, ctx)
        with contextlib.suppress(asyncpg.DivisionByZeroError):
            await ctx.execute("SELECT 1/0")

    item = await only_item(manager, await run(manager, process_item))

    assert (item.status, item.failure.kind) == (ItemStatus.FAILED, FailureKind.TRANSACTION)
    assert "ctx.savepoint" in item.failure.hint
    assert await written(conn) == []


async def test_a_savepoint_makes_an_sql_error_survivable(manager, conn):
    async def process_item(item, ctx):
        await insert(item, ctx)
        with contextlib.suppress(asyncpg.DivisionByZeroError):
            async with ctx.savepoint():
                await ctx.execute(INSERT, 99)
                await ctx.execute("SELECT 1/0")

    assert (await run(manager, process_item)).ok
    assert await written(conn) == [1]


REFUSED = [
    "COMMIT",
    "/* quietly */ commit",
    "SELECT 1; COMMIT; SELECT 2",
    "ROLLBACK",
    "BEGIN",
    "END",
    "ABORT",
    "START TRANSACTION",
    "PREPARE TRANSACTION 'two'",
    "-- a comment\nROLLBACK AND CHAIN",
    "/* one /* in another */ still */ COMMIT",
    "SELECT $tag$ ; $tag$; COMMIT; BEGIN",
    "SELECT E'\\''; COMMIT; --'",
    ";;\f\tEnd/**/Work",
    "DISCARD ALL",
    "COMMIT PREPARED 'two'",
]
DOORS = [
    lambda ctx, sql: ctx.execute(sql),
    lambda ctx, sql: ctx.executemany(sql, [()]),
    lambda ctx, sql: ctx.fetch(sql),
    lambda ctx, sql: ctx.fetchrow(sql),
    lambda ctx, sql: ctx.fetchval(sql),
    lambda ctx, sql: ctx.connection.execute(sql),
    lambda ctx, sql: ctx.connection.prepare(sql),
    lambda ctx, sql: ctx.connection.cursor(sql),
    lambda ctx, sql: ctx.connection.fetchmany(sql, [()]),
    lambda ctx, sql: ctx.connection.copy_from_query(sql, output="/dev/null"),
    lambda ctx, sql: ctx.connection.copy_to_table("ledger", source=b"", where=f"true; {sql}"),
]


async def test_every_door_refuses_transaction_control(manager, conn):
    tried = [(door, sql) for door in DOORS for sql in REFUSED]

    async def process_item(item, ctx):
        await insert(item, ctx)
        door, sql = tried[item.item_number - 1]
        await door(ctx, sql)

    summary = await run(manager, process_item, len(tried), pause_after=None)

    assert {group.type for group in summary.groups} == {"TransactionControlRefused"}
    assert summary.failed_items == len(tried)
    assert await written(conn) == []


async def test_a_commit_past_the_guard_is_noticed(manager):
    async def process_item(item, ctx):
        await insert(item, ctx)
        await past_the_guard(ctx.connection).execute("COMMIT")

    item = await only_item(manager, await run(manager, process_item))

    assert (item.failure.type, item.failure.kind) == ("TransactionEnded", FailureKind.TRANSACTION)


RAISED = [
    asyncio.CancelledError("mine"),
    BaseExceptionGroup("one", [asyncio.CancelledError("mine")]),
    ExceptionGroup("two", [ValueError("first"), KeyError("second")]),
    OSError("the file is gone"),
    TimeoutError("another system"),
    asyncpg.InterfaceError("of another pool"),
    asyncpg.InternalClientError("of another pool"),
    asyncpg.PostgresConnectionError("of another server"),
    asyncpg.TooManyConnectionsError("of another server"),
    asyncpg.AdminShutdownError("of another server"),
    asyncpg.ReadOnlySQLTransactionError("a replica"),
    asyncpg.DeadlockDetectedError("of another server"),
    MemoryError("of this item"),
    RecursionError("too deep"),
]


async def test_what_user_code_raises_on_a_healthy_connection_fails_its_item(manager, conn, mode):
    tries = []

    async def process_item(item, ctx):
        tries.append(item.item_number)
        await insert(item, ctx)
        if item.item_number <= len(RAISED):
            raise RAISED[item.item_number - 1]

    async with asyncio.timeout(PATIENCE):
        summary = await run(manager, process_item, len(RAISED) + 1)

    assert [item.failure.type async for item in manager.list_items(summary.batch_id, limit=3)] == [
        "CancelledError",
        "CancelledError",
        "ValueError",
    ]
    assert {group.kind for group in summary.groups} == {"exception"}
    assert set(tries) == set(range(1, len(RAISED) + 2))
    assert mode != "item" or len(tries) == len(RAISED) + 1
    assert await written(conn) == [len(RAISED) + 1]


async def test_conflicts_and_outages_are_seen_through_every_method(manager, conn):
    again = "DO $$ BEGIN RAISE EXCEPTION 'again' USING ERRCODE = '40001'; END $$"
    runs = []

    async def process_item(item, ctx):
        runs.append(item.item_number)
        await insert(item, ctx)
        if len(runs) == 1:
            await (await ctx.connection.prepare(again)).fetch()

    assert (await run(manager, process_item)).ok
    assert runs == [1, 1]
    assert await written(conn) == [1]


async def test_an_error_of_the_users_own_pool_fails_the_item(manager, dsn, conn):
    async with asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool:

        async def process_item(item, ctx):
            await insert(item, ctx)
            async with pool.acquire() as own:
                await own.execute("SELECT pg_terminate_backend(pg_backend_pid())")

        async with asyncio.timeout(PATIENCE):
            summary = await run(manager, process_item, 3)

    assert summary.failed_items == 3
    assert await written(conn) == []


async def test_a_task_left_behind_cannot_use_the_connection(manager, conn):
    left = []

    async def process_item(item, ctx):
        await insert(item, ctx)
        left.append(asyncio.create_task(ctx.execute("SELECT pg_sleep(10)")))
        await asyncio.sleep(0)

    item = await only_item(manager, await run(manager, process_item))

    assert "must not start tasks" in item.failure.hint
    assert await written(conn) == []
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, ProcessorError)):
        await left[0]


async def test_the_context_is_closed_once_the_item_has_settled(manager, conn):
    kept = []

    async def process_item(item, ctx):
        kept.extend([ctx, ctx.connection])

    assert (await run(manager, process_item)).ok
    ctx, connection = kept
    for use in (ctx.execute, ctx.fetch, connection.execute, connection.fetchval):
        with pytest.raises(ContextClosed):
            await use("INSERT INTO ledger VALUES (1)")
    with pytest.raises(ContextClosed):
        connection.copy_records_to_table  # noqa: B018
    with pytest.raises(ContextClosed):
        ctx.connection  # noqa: B018
    assert await written(conn) == []


async def test_a_blocked_event_loop_costs_time_and_nothing_else(dsn, conn, monkeypatch):
    heartbeat_every(monkeypatch, 0.05)

    async def process_item(item, ctx):
        await insert(item, ctx)
        if item.item_number == 3:
            time.sleep(0.4)  # noqa: ASYNC251 - the lease runs out meanwhile

    settings = Settings(lease_seconds=0.1)
    async with (
        BatchManager(dsn, settings=settings, concurrency=2) as one,
        BatchManager(dsn, settings=settings, concurrency=2) as other,
    ):
        for manager in (one, other):
            manager.registry.register(processor(process_item))
        batch_id = await one.create_batch("tried", records(40))
        async with asyncio.TaskGroup() as group:
            group.create_task(one.process_batch(batch_id))
            last = group.create_task(other.process_batch(batch_id))

    assert last.result().ok
    assert await written(conn) == list(range(1, 41))


async def test_what_nothing_could_interrupt_was_not_too_slow(dsn, conn):
    async def process_item(item, ctx):
        await insert(item, ctx)
        if item.item_number == 3:
            time.sleep(1.3)  # noqa: ASYNC251 - longer than the item may take

    async with BatchManager(dsn, concurrency=1) as manager:  # else it stops others, which time out
        manager.registry.register(processor(process_item, item_timeout=1.0))
        summary = await manager.process_batch(await manager.create_batch("tried", records(5)))
    assert summary.ok
    assert await written(conn) == list(range(1, 6))


async def test_transactions_nest(manager, conn):
    async def process_item(item, ctx):
        async with ctx.connection.transaction():
            await ctx.execute(INSERT, 1)
            inner = ctx.connection.transaction()
            await inner.start()
            await ctx.execute(INSERT, 2)
            await inner.rollback()
        await ctx.connection.transaction().start()  # left open: the item's COMMIT ends it too
        await ctx.execute(INSERT, 3)

    assert (await run(manager, process_item)).ok
    assert await written(conn) == [1, 3]


async def test_a_constraint_that_fires_at_commit_fails_its_item_only(manager, conn):
    await conn.execute(
        "ALTER TABLE ledger ADD CONSTRAINT once UNIQUE (n) DEFERRABLE INITIALLY DEFERRED"
    )

    async def process_item(item, ctx):
        await ctx.execute(INSERT, item.source_data["n"] // 2)

    summary = await run(manager, process_item, 4)

    assert (summary.completed_items, summary.failed_items) == (3, 1)
    assert (summary.groups[0].kind, summary.groups[0].constraint) == ("data", "once")
    assert await written(conn) == [0, 1, 2]


async def test_deadlocking_items_are_repeated_and_complete(manager, conn):
    await conn.execute("INSERT INTO ledger VALUES (1, ''), (2, '')")
    both, tries = asyncio.Barrier(2), []
    update = "UPDATE ledger SET note = note || 'x' WHERE n = $1"

    async def process_item(item, ctx):
        tries.append(item.item_number)
        await ctx.execute("SET LOCAL deadlock_timeout = '20ms'")
        await ctx.execute(update, item.item_number)
        ctx.info("holds the first row")
        if len(tries) <= 2:
            await both.wait()
        await ctx.execute(update, 3 - item.item_number)

    async def prepare_item(item, ctx):
        prepared.append(item.item_number)

    prepared: list[int] = []
    # Each in a transaction of its own, in any mode: they wait for each other.
    summary = await run(manager, process_item, 2, prepare_item=prepare_item, commit_interval=1)

    assert summary.ok
    assert len(tries) == 3
    assert sorted(prepared) == [1, 2]
    assert await conn.fetchval("SELECT min(length(note)) FROM ledger") == 2
    lines = [
        line.item_number async for line in manager.get_logs(summary.batch_id) if line.item_number
    ]
    assert sorted(lines) == [1, 2]
    assert [(await manager.get_item(summary.batch_id, n)).attempts for n in (1, 2)] == [1, 1]


async def test_an_endless_conflict_fails_after_six_tries_and_as_many_later(
    manager, conn, monkeypatch
):
    conflict_retries(monkeypatch, 1)
    tries = []

    async def process_item(item, ctx):
        tries.append(item.attempt)
        await insert(item, ctx)
        await ctx.execute("DO $$ BEGIN RAISE EXCEPTION 'again' USING ERRCODE = '40001'; END $$")

    item = await only_item(manager, await run(manager, process_item))

    assert (item.failure.kind, item.attempts) == (FailureKind.CONFLICT, 2)
    assert tries == [1] * 6 + [2] * 6
    assert await written(conn) == []


async def _waits_in_python(ctx):
    await asyncio.Event().wait()


async def _waits_in_sql(ctx):
    await ctx.execute("SELECT pg_sleep(60)")


async def _swallows_its_cancellation(ctx):
    with contextlib.suppress(asyncio.CancelledError):
        await ctx.execute("SELECT pg_sleep(60)")


async def _fails_while_it_is_cancelled(ctx):
    try:
        await ctx.execute("SELECT pg_sleep(60)")
    finally:
        raise ValueError("in the clean-up")


@pytest.mark.parametrize(
    "wait",
    [_waits_in_python, _waits_in_sql, _swallows_its_cancellation, _fails_while_it_is_cancelled],
)
async def test_item_timeout_fails_the_item_and_nothing_else(manager, conn, wait):
    async def process_item(item, ctx):
        await insert(item, ctx)
        if item.item_number == 1:
            await wait(ctx)

    summary = await run(manager, process_item, 3, item_timeout=0.5)

    item = await manager.get_item(summary.batch_id, 1)
    assert item.status is ItemStatus.FAILED
    swallowed = wait is _swallows_its_cancellation  # PostgreSQL refuses, the transaction is aborted
    assert item.failure.kind == (FailureKind.TRANSACTION if swallowed else FailureKind.TIMEOUT)
    assert await written(conn) == [2, 3]
    assert await conn.fetchval(CONNECTIONS) <= 4 + 3


async def test_a_missing_table_pauses_the_batch_with_its_reason(manager, conn):
    async def process_item(item, ctx):
        await ctx.execute("INSERT INTO customers VALUES ($1)", item.source_data["n"])

    paused = await run(manager, process_item, 200)

    assert paused.status is BatchStatus.PAUSED
    assert '42P01: relation "customers" does not exist' in paused.pause_reason
    assert paused.failed_items == 5
    assert paused.pending_items == 195

    await conn.execute("CREATE TABLE customers (n integer PRIMARY KEY)")
    await manager.resume_batch(paused.batch_id)
    resumed = await manager.process_batch(paused.batch_id)
    assert (resumed.status, resumed.completed_items) == (BatchStatus.PARTIAL, 195)
    assert (await manager.reprocess_batch(paused.batch_id)).ok
    assert await conn.fetchval("SELECT count(*) FROM customers") == 200


async def test_a_lost_connection_costs_one_more_run_and_no_attempt(manager, conn):
    runs = []

    async def process_item(item, ctx):
        runs.append(item.item_number)
        await insert(item, ctx)
        if runs == [1]:
            await ctx.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    item = await only_item(manager, await run(manager, process_item))

    assert (item.status, item.attempts, runs) == (ItemStatus.COMPLETED, 1, [1, 1])
    assert await written(conn) == [1]


async def test_an_item_that_outlives_the_servers_idle_timeout_fails(manager, conn):
    runs = []

    async def process_item(item, ctx):
        runs.append(item.item_number)
        await insert(item, ctx)
        ended = asyncio.Event()
        ctx.connection.add_termination_listener(lambda _: ended.set())
        await ctx.execute("SET LOCAL idle_in_transaction_session_timeout = '50ms'")
        await ended.wait()

    async with asyncio.timeout(PATIENCE):
        item = await only_item(manager, await run(manager, process_item))

    assert (item.status, item.failure.kind) == (ItemStatus.FAILED, FailureKind.CONNECTION_LOST)
    assert runs == [1] * LOSSES
    assert await written(conn) == []


async def test_an_exit_by_a_signal_leaves_the_item_pending(dsn, conn):
    program = f"""
import asyncio, signal, sys
from reliable_imports_async import BaseProcessor, BatchManager

class TriedProcessor(BaseProcessor):
    async def process_item(self, item, ctx):
        await ctx.execute({INSERT!r}, item.source_data["n"])
        signal.raise_signal(signal.SIGTERM)

async def main():
    async with BatchManager({dsn!r}, concurrency=1) as manager:
        manager.registry.register(TriedProcessor)
        batch_id = await manager.create_batch("tried", [{{"n": n}} for n in range(3)])
        await manager.process_batch(batch_id)

signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stderr=DEVNULL)
    assert await process.wait() == 3

    states = await conn.fetch("SELECT status, attempts FROM reliable_imports.import_batch_items")
    assert [tuple(row) for row in states] == [("pending", 0)] * 3
    ranges = await conn.fetch("SELECT crashes FROM reliable_imports.import_batch_ranges")
    assert {row["crashes"] for row in ranges} == {0}
    assert await written(conn) == []
