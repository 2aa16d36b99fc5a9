"""Whatever transactions are by default in this database: what is ours works, and conflicts end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from reliable_imports_async import BaseProcessor, BatchManager, Settings, read_file
from reliable_imports_async.errors import SameFile

from ..execution.reach import conflict_retries, repeats
from ..support.trying import LEDGER, PATIENCE, insert, only_item, processor, records, run, written
from .reach import database_of, instead_of_opening

DEFAULTS = {
    "repeatable read": {"default_transaction_isolation": "repeatable read"},
    "serializable": {"default_transaction_isolation": "serializable"},
    "deferrable": {
        "default_transaction_isolation": "serializable",
        "default_transaction_deferrable": "on",
    },
}


async def change(dsn: str, settings: dict[str, str]) -> None:
    """Change what the database's sessions begin with."""
    conn = await asyncpg.connect(dsn)
    name = await conn.fetchval("SELECT quote_ident(current_database())")
    for setting, value in settings.items():
        await conn.execute(f"ALTER DATABASE {name} SET {setting} = '{value}'")
    await conn.close()


@asynccontextmanager
async def own(dsn: str) -> AsyncIterator[BatchManager]:
    async with BatchManager(dsn, concurrency=4) as manager:
        yield manager


@asynccontextmanager
async def given(dsn: str) -> AsyncIterator[BatchManager]:
    async with asyncpg.create_pool(dsn, min_size=0, max_size=7) as pool:
        async with BatchManager(pool=pool) as manager:
            yield manager


Open = Callable[[str], Any]
pools = pytest.mark.parametrize("opened", [own, given], ids=["own", "given"])
defaults = pytest.mark.parametrize("default", DEFAULTS)


@pools
@defaults
async def test_one_batch_comes_of_the_same_file_or_key_at_once(
    dsn, conn, tmp_path, default, opened
):
    await change(dsn, DEFAULTS[default])
    path = tmp_path / "same.csv"
    path.write_text("a\n" + "1\n" * 2_000)
    async with opened(dsn) as one, own(dsn) as two:
        for manager in (one, two):
            manager.registry.register(processor(insert))
        results = await asyncio.gather(
            *(m.create_batch("tried", read_file(path)) for m in (one, two) * 2),
            return_exceptions=True,
        )
        assert sorted(isinstance(result, SameFile) for result in results) == [
            False,
            True,
            True,
            True,
        ]
        ids = await asyncio.gather(
            *(m.create_batch("tried", records(300), idempotency_key="k") for m in (one, two) * 4)
        )
    assert len(set(ids)) == 1


@pools
@defaults
@pytest.mark.parametrize("interval", [1, 10])
async def test_a_batch_is_processed_as_ever(dsn, conn, default, opened, interval):
    """With failures, by two at once; each hook once."""
    await conn.execute(LEDGER + "; CREATE TABLE hooks (name text)")
    await change(dsn, DEFAULTS[default])
    seen = set()

    async def process_item(item, ctx):
        seen.add(await ctx.fetchval("SHOW transaction_isolation"))
        await insert(item, ctx)
        if item.item_number % 10 == 0:
            raise ValueError("each tenth")

    async def on_batch_start(ctx):
        await ctx.execute("INSERT INTO hooks VALUES ('start')")

    async def on_batch_complete(summary, ctx):
        await ctx.execute("INSERT INTO hooks VALUES ('complete')")

    async with opened(dsn) as one, own(dsn) as two, asyncio.timeout(PATIENCE):
        for manager in (one, two):
            manager.registry.register(
                processor(
                    process_item,
                    on_batch_start=on_batch_start,
                    on_batch_complete=on_batch_complete,
                    commit_interval=interval,
                )
            )
        batch_id = await one.create_batch("tried", records(200))
        first, second = await asyncio.gather(
            one.process_batch(batch_id), two.process_batch(batch_id)
        )
        assert first.status == second.status
        assert (first.completed_items, first.failed_items, first.pending_items) == (180, 20, 0)
    assert await written(conn) == [n for n in range(1, 201) if n % 10]
    assert [row["name"] for row in await conn.fetch("SELECT * FROM hooks")] == ["start", "complete"]
    wanted = DEFAULTS[default].get("default_transaction_isolation", "read committed")
    assert seen == {wanted}  # items have what their user has chosen


async def test_a_callers_old_snapshot_does_not_hide_the_same_file(dsn, manager, tmp_path):
    manager.registry.register(processor(insert))
    path = tmp_path / "same.csv"
    path.write_text("a\n1\n")
    conn = await asyncpg.connect(dsn)
    async with conn.transaction(isolation="repeatable_read"):
        await conn.execute("SELECT count(*) FROM reliable_imports.import_batches")
        await manager.create_batch("tried", read_file(path))
        with pytest.raises(SameFile):
            await manager.create_batch("tried", read_file(path), connection=conn)
    await conn.close()


CONFLICT = "DO $$ BEGIN RAISE EXCEPTION 'again' USING ERRCODE = '40001'; END $$"


@pytest.mark.parametrize("interval", [1, 5])
async def test_an_item_that_goes_on_conflicting_is_retried_later_and_alone(
    dsn, conn, manager, interval
):
    """Quick repeats do not help while others run beside it; then it has the process to itself."""
    await conn.execute(LEDGER)
    running: set[int] = set()
    beside = []

    async def process_item(item, ctx):
        running.add(item.item_number)
        try:
            await asyncio.sleep(0)
            if item.item_number == 1:
                if item.attempt == 1:
                    await ctx.execute(CONFLICT)
                beside.append(running - {1})
            await insert(item, ctx)
        finally:
            running.discard(item.item_number)

    summary = await run(manager, process_item, 40, commit_interval=interval)
    assert summary.ok, summary.groups
    assert await written(conn) == list(range(1, 41))
    item = await manager.get_item(summary.batch_id, 1)
    assert item.attempts == 2
    assert beside == [set()]


async def test_an_item_that_conflicts_for_ever_fails_in_the_end(manager, monkeypatch):
    conflict_retries(monkeypatch, 1)
    repeats(monkeypatch, 1)
    runs = []

    async def process_item(item, ctx):
        runs.append(item.attempt)
        await ctx.execute(CONFLICT)

    summary = await run(manager, process_item, 1)
    item = await only_item(manager, summary)
    assert (item.failure.kind, item.failure.sqlstate) == ("conflict", "40001")
    assert item.attempts == 2
    assert runs == [1, 1, 2, 2]


async def test_counters_that_everybody_updates_are_right_under_serializable(dsn, conn):
    await conn.execute("CREATE TABLE counters (id integer PRIMARY KEY, n integer)")
    await conn.execute("INSERT INTO counters SELECT g, 0 FROM generate_series(0, 2) g")
    await change(dsn, DEFAULTS["serializable"])

    class Counter(BaseProcessor):
        batch_type = "counter"

        async def process_item(self, item, ctx):
            which = item.item_number % 3
            n = await ctx.fetchval("SELECT n FROM counters WHERE id = $1", which)
            await ctx.execute("UPDATE counters SET n = $2 WHERE id = $1", which, n + 1)

    async with BatchManager(dsn, concurrency=6) as manager, asyncio.timeout(PATIENCE):
        manager.registry.register(Counter)
        summary = await manager.process_batch(await manager.create_batch("counter", [{}] * 90))
    assert summary.ok, summary.groups
    assert [row["n"] for row in await conn.fetch("SELECT n FROM counters")] == [30, 30, 30]


class Refusing(Exception):
    """Raised while a manager opens."""


async def sessions(conn: Any) -> int:
    return await conn.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid()"
    )


async def no_sessions(conn: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        while await sessions(conn):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("stage", ["examining", "counting"])
async def test_a_failing_open_leaves_nothing_open(dsn, conn, monkeypatch, stage):
    def refuse(*_arguments):
        raise Refusing

    with monkeypatch.context() as patch:
        instead_of_opening(patch, stage, refuse)
        manager = BatchManager(dsn)
        with pytest.raises(Refusing):
            await manager.open()
    await no_sessions(conn)
    async with manager:  # it can be opened all the same
        assert await manager.check()
    await no_sessions(conn)


async def test_opening_twice_opens_once(dsn, conn):
    manager = BatchManager(dsn)
    await asyncio.gather(manager.open(), manager.open())
    await manager.open()
    assert await sessions(conn) == database_of(manager).use().size
    assert await manager.check()
    await manager.close()
    await no_sessions(conn)
    await manager.close()


PATHS = ["''", "elsewhere", "shadow, pg_catalog, public"]


@pools
@pytest.mark.parametrize("path", PATHS)
async def test_jobs_and_clocks_do_not_depend_on_the_search_path(dsn, conn, path, opened):
    """PgQueuer's tables are found, and an application's own clock sets none of our times."""
    await conn.execute(LEDGER + "; CREATE SCHEMA elsewhere; CREATE SCHEMA shadow")
    for clock in ("now", "clock_timestamp"):
        await conn.execute(
            f"CREATE FUNCTION shadow.{clock}() RETURNS timestamptz LANGUAGE sql"
            " AS $$ SELECT '1999-01-01'::timestamptz $$"
        )
    name = await conn.fetchval("SELECT quote_ident(current_database())")
    await conn.execute(f"ALTER DATABASE {name} SET search_path = {path}")

    async def process_item(item, ctx):
        await ctx.execute("INSERT INTO public.ledger VALUES ($1)", item.item_number)

    async with opened(dsn) as manager:
        manager.registry.register(processor(process_item))
        batch_id = await manager.create_batch("tried", records(5), enqueue=True)
        worker = asyncio.ensure_future(manager.run_worker())
        async with asyncio.timeout(PATIENCE):
            while (await manager.get_batch(batch_id)).finished_at is None:
                await asyncio.sleep(0.02)
        worker.cancel()
        await asyncio.wait([worker])
        item = await manager.get_item(batch_id, 1)
        assert item.finished_at.year > 2000
    assert await written(conn) == [1, 2, 3, 4, 5]


async def test_a_database_without_a_schema_for_tables_can_be_migrated(empty_dsn):
    await change(empty_dsn, {"search_path": ""})
    await BatchManager(empty_dsn).migrate()
    await BatchManager(empty_dsn).migrate()  # nothing is created twice
    async with BatchManager(empty_dsn) as manager:
        manager.registry.register(processor(insert))
        await manager.create_batch("tried", records(1), enqueue=True)


@pytest.mark.long
async def test_a_commit_that_is_never_answered_in_time_is_a_lost_connection(dsn, conn):
    """Each time it is rolled back, as asking under the lock tells."""
    await conn.execute(LEDGER)
    await conn.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(30); RETURN NULL; END $$;"
        "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON ledger DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION slow()"
    )
    settings = Settings(commit_timeout=0.2)
    async with BatchManager(dsn, settings=settings, concurrency=2) as manager:
        async with asyncio.timeout(PATIENCE):
            item = await only_item(manager, await run(manager, insert))
    assert item.failure.kind == "connection_lost"
    assert await written(conn) == []
