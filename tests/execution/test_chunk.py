"""Several items in one transaction: the same outcomes, the same effects, the same records."""

import asyncio
import contextlib

import asyncpg
import pytest

from reliable_imports_async import FailureKind, ItemStatus, Retry, Skip

from ..runner.reach import leases_of
from ..support.trying import LEDGER, insert, run, written
from .reach import settled_by_chunks

SIZE = 50
ALL = list(range(1, SIZE + 1))


@pytest.fixture(autouse=True)
async def ledger(conn):
    await conn.execute(LEDGER)


@pytest.fixture
def commits(monkeypatch) -> list[int]:
    """How many items each transaction settled."""
    return settled_by_chunks(monkeypatch)


async def outcomes(manager, summary) -> dict[int, str]:
    """What became of each item: its status, or the kind of its failure."""
    items = [item async for item in manager.list_items(summary.batch_id)]
    return {item.item_number: item.failure.kind if item.failure else item.status for item in items}


async def test_clean_items_share_transactions(manager, conn, commits):
    assert (await run(manager, insert, SIZE, commit_interval=SIZE)).ok
    assert sum(commits) == SIZE
    assert len(commits) < SIZE / 5
    assert await written(conn) == ALL


BAD = {
    "first": {1},
    "middle": {23},
    "last": {SIZE},
    "some": {3, 4, 17, 30, 49},
    "all": set(ALL),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest.mark.parametrize("how", ["raises", "sql", "swallows", "deferred"])
async def test_bad_items_fail_alone(manager, conn, bad, how):
    await conn.execute(
        "CREATE TABLE parents (n integer PRIMARY KEY);"
        "ALTER TABLE ledger ADD parent integer REFERENCES parents DEFERRABLE INITIALLY DEFERRED"
    )

    async def process_item(item, ctx):
        await insert(item, ctx)
        if item.item_number not in bad:
            return
        match how:
            case "raises":
                raise ValueError("bad")
            case "sql":
                await ctx.execute("SELECT 1 / 0")
            case "swallows":
                with contextlib.suppress(asyncpg.DivisionByZeroError):
                    await ctx.execute("SELECT 1 / 0")
            case "deferred":
                await ctx.execute("UPDATE ledger SET parent = n WHERE n = $1", item.item_number)

    summary = await run(manager, process_item, SIZE, commit_interval=SIZE, pause_after=None)

    kind = {"raises": "exception", "sql": "data", "swallows": "transaction", "deferred": "data"}
    expected = {number: kind[how] if number in bad else "completed" for number in ALL}
    assert await outcomes(manager, summary) == expected
    assert await written(conn) == [number for number in ALL if number not in bad]


async def test_a_failure_counts_only_while_those_before_it_stand(manager, conn):
    """Item 2 fails for what item 1 wrote; but item 1 fails itself, once its constraint is asked."""
    await conn.execute(
        "CREATE TABLE parents (n integer PRIMARY KEY);"
        "CREATE TABLE children (n integer PRIMARY KEY,"
        " parent integer REFERENCES parents DEFERRABLE INITIALLY DEFERRED)"
    )

    async def process_item(item, ctx):
        number = item.item_number
        parent = 1 if number == 1 else None
        await ctx.execute("INSERT INTO children VALUES ($1, $2)", max(number, 2), parent)

    summary = await run(manager, process_item, 3, commit_interval=3)

    assert await outcomes(manager, summary) == {1: "data", 2: "completed", 3: "completed"}


async def test_skips_retries_results_and_log_lines_are_stored(manager, conn):
    async def process_item(item, ctx):
        number = item.item_number
        await insert(item, ctx)
        ctx.info("seen", number=number)
        if number == 2:
            return Skip("not today")
        if number == 3 and item.attempt == 1:
            raise Retry("later", after=0.01)
        if number == 4:
            raise ValueError("never")
        return {"target_table": "ledger", "target_id": number, "processed_data": {"n": number}}

    summary = await run(manager, process_item, 6, commit_interval=6)

    assert await outcomes(manager, summary) == {
        **dict.fromkeys((1, 3, 5, 6), "completed"),
        2: "skipped",
        4: "exception",
    }
    items = {item.item_number: item async for item in manager.list_items(summary.batch_id)}
    assert (items[2].skip_reason, items[3].attempts) == ("not today", 2)
    assert (items[1].target_table, items[1].target_id, items[1].processed_data) == (
        "ledger",
        "1",
        {"n": 1},
    )
    logs = [line async for line in manager.get_logs(summary.batch_id) if line.item_number]
    assert sorted(line.item_number for line in logs if line.message == "seen") == [
        1,
        2,
        3,
        3,
        4,
        5,
        6,
    ]
    assert [line.item_number for line in logs if line.level == "warning"] == [3]
    assert await written(conn) == [1, 2, 3, 5, 6]


@pytest.mark.parametrize("invalid", [{1}, {2, 5}, set(range(1, 11))])
async def test_what_is_not_valid_never_runs(manager, conn, invalid):
    ran = []

    def validate_item(item, ctx):
        return item.item_number not in invalid

    async def process_item(item, ctx):
        ran.append(item.item_number)
        await insert(item, ctx)

    summary = await run(manager, process_item, 10, commit_interval=10, validate_item=validate_item)

    valid = [number for number in range(1, 11) if number not in invalid]
    assert summary.failed_items == len(invalid)
    assert {group.kind for group in summary.groups} == {"validation"}
    assert sorted(ran) == await written(conn) == valid


async def test_an_item_that_is_too_slow_fails_and_no_other(manager, conn):
    slow = []

    async def process_item(item, ctx):
        await insert(item, ctx)
        if item.item_number == 7:
            slow.append(item.item_number)
            await ctx.execute("SELECT pg_sleep(60)")

    summary = await run(manager, process_item, 20, commit_interval=20, item_timeout=1.0)

    assert (await outcomes(manager, summary))[7] is FailureKind.TIMEOUT
    assert slow == [7], "its outcome is known although the transaction is lost"
    assert await written(conn) == [number for number in range(1, 21) if number != 7]


async def test_a_conflict_makes_each_item_run_alone(manager, conn):
    runs = []

    async def process_item(item, ctx):
        runs.append(item.item_number)
        await insert(item, ctx)
        if runs.count(5) == 1 and item.item_number == 5:
            await ctx.execute("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40P01'; END $$")

    summary = await run(manager, process_item, 10, commit_interval=10)

    assert summary.ok
    assert runs == [*range(1, 6), *range(1, 11)]
    assert await written(conn) == list(range(1, 11))


async def test_an_isolation_level_is_an_items_own(manager, conn):
    async def process_item(item, ctx):
        if item.item_number % 2:
            await ctx.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        level = await ctx.fetchval("SHOW transaction_isolation")
        await ctx.execute("INSERT INTO ledger VALUES ($1, $2)", item.item_number, level)

    assert (await run(manager, process_item, 30, commit_interval=10)).ok
    rows = await conn.fetch("SELECT n, note FROM ledger ORDER BY n")
    levels = {1: "serializable", 0: "read committed"}
    assert [row["note"] for row in rows] == [levels[row["n"] % 2] for row in rows]
    assert len(rows) == 30


SUBTRANSACTIONS = """
SELECT s.subxact_count, s.subxact_overflowed
  FROM pg_stat_get_backend_idset() AS i, LATERAL pg_stat_get_backend_subxact(i) AS s
 WHERE pg_stat_get_backend_pid(i) = $1
"""


async def test_a_transaction_has_few_savepoints(manager, conn):
    """PostgreSQL keeps 64 at hand; with more, every concurrent reader pays."""
    if conn.get_server_version().major < 16:
        pytest.skip("pg_stat_get_backend_subxact came with PostgreSQL 16")
    seen, looking = [], asyncio.Lock()

    async def process_item(item, ctx):
        async with ctx.savepoint():
            await insert(item, ctx)
        backend = await ctx.fetchval("SELECT pg_backend_pid()")
        async with looking:
            seen.append(tuple(await conn.fetchrow(SUBTRANSACTIONS, backend)))

    assert (await run(manager, process_item, 200, commit_interval=200)).ok
    assert 10 < max(count for count, _ in seen) <= 64
    assert not any(overflowed for _, overflowed in seen)
    assert await written(conn) == list(range(1, 201))


async def test_the_interval_can_be_given_with_the_call(manager, conn, commits):
    await run(manager, insert, 1, commit_interval=10)
    batch_id = await manager.create_batch("tried", [{"n": n} for n in range(2, 32)])
    assert (await manager.process_batch(batch_id, commit_interval=1)).ok
    assert commits == []
    batch_id = await manager.create_batch("tried", [{"n": n} for n in range(32, 62)])
    assert (await manager.process_batch(batch_id, commit_interval=30)).ok
    assert sum(commits) == 30
    assert await written(conn) == list(range(1, 62))


async def test_a_pause_settles_what_has_run(manager, conn):
    async def process_item(item, ctx):
        await insert(item, ctx)
        if item.item_number == 10:
            await manager.pause_batch(item.batch_id)
            leases_of(manager).note_status(item.batch_id, "paused")

    summary = await run(manager, process_item, 40, commit_interval=40, concurrency=1)

    assert summary.completed_items == 10
    assert await written(conn) == list(range(1, 11))
    await manager.resume_batch(summary.batch_id)
    assert (await manager.process_batch(summary.batch_id)).ok
    assert await written(conn) == list(range(1, 41))


async def test_a_cancelled_interval_leaves_its_items_pending(manager, conn):
    reached = asyncio.Event()

    async def process_item(item, ctx):
        await insert(item, ctx)
        if item.item_number == 10 and not reached.is_set():
            reached.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(run(manager, process_item, 20, commit_interval=20))
    await reached.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert await written(conn) == []
    (batch,) = [one async for one in manager.list_batches()]
    assert (await manager.process_batch(batch.id)).ok
    assert await written(conn) == list(range(1, 21))


async def test_bugs_pause_the_batch_and_the_rest_stays_pending(manager, conn):
    async def process_item(item, ctx):
        await ctx.execute("INSERT INTO nowhere VALUES ($1)", item.item_number)

    summary = await run(manager, process_item, 100, commit_interval=50)

    assert (summary.status, summary.failed_items, summary.pending_items) == ("paused", 5, 95)


async def test_a_row_settled_by_somebody_else_stays_as_it_is(manager, conn):
    async def process_item(item, ctx):
        await insert(item, ctx)
        if item.item_number == 10:
            await conn.execute(
                "UPDATE reliable_imports.import_batch_items SET status = 'skipped'"
                " WHERE batch_id = $1 AND item_number = 3",
                item.batch_id,
            )

    summary = await run(manager, process_item, 10, commit_interval=10)

    assert (await manager.get_item(summary.batch_id, 3)).status is ItemStatus.SKIPPED
    assert await written(conn) == [number for number in range(1, 11) if number != 3]
