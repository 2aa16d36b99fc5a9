"""User code leaves nothing behind on a connection: whatever it set, whoever gets the session next."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from reliable_imports_async import BaseProcessor, BatchManager
from reliable_imports_async.errors import ContextClosed

from ..support.trying import LEDGER, PATIENCE, run, some_long, written
from .reach import GuardedConnection, pool_of

# What is left, and what tells that it is still there.
PATH = "current_setting('search_path') LIKE '%elsewhere%'"
TRACES = {
    "setting": ("SET search_path = elsewhere, public", PATH),
    "comment": ("/* SET */ -- LOCAL\n SeT/**/search_path = elsewhere, public", PATH),
    "function": ("SELECT set_config('search_path', 'elsewhere, public', false)", PATH),
    "block": ("DO $$ BEGIN SET search_path = elsewhere, public; END $$", PATH),
    "view": (
        "UPDATE pg_settings SET setting = 'elsewhere, public' WHERE name = 'search_path'",
        PATH,
    ),
    "second statement": ("SELECT ';'; SET search_path = elsewhere, public", PATH),
    "role": ("SET ROLE {role}", "current_user = '{role}'"),
    "session": ("SET SESSION AUTHORIZATION {role}", "session_user = '{role}'"),
    "lock": (
        "SELECT pg_advisory_lock(4711)",
        "EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711"
        " AND pid = pg_backend_pid())",
    ),
    "shared lock": (
        "SELECT pg_try_advisory_lock_shared(4712)",
        "EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 4712"
        " AND pid = pg_backend_pid())",
    ),
    "prepared": (
        "PREPARE kept AS SELECT 1",
        "EXISTS (SELECT FROM pg_prepared_statements WHERE name = 'kept')",
    ),
    "temporary table": (
        "CREATE TEMP TABLE kept (a int)",
        "to_regclass('pg_temp.kept') IS NOT NULL",
    ),
    "into": ("SELECT 1 AS a INTO TEMPORARY kept", "to_regclass('pg_temp.kept') IS NOT NULL"),
    "cursor": (
        "DECLARE kept CURSOR WITH HOLD FOR SELECT 1",
        "EXISTS (SELECT FROM pg_cursors WHERE name = 'kept')",
    ),
    "listen": ("LISTEN kept", "'kept' IN (SELECT pg_listening_channels())"),
}


async def no_reset(_conn: Any) -> None:
    """A pool that trusts its users."""


@asynccontextmanager
async def own_pool(dsn: str) -> AsyncIterator[tuple[BatchManager, Any]]:
    async with BatchManager(dsn, concurrency=1) as manager:
        yield manager, pool_of(manager)


@asynccontextmanager
async def given_pool(dsn: str, **options: Any) -> AsyncIterator[tuple[BatchManager, Any]]:
    async with asyncpg.create_pool(dsn, min_size=1, max_size=4, **options) as pool:
        async with BatchManager(pool=pool) as manager:
            yield manager, pool


def no_op_pool(dsn: str) -> contextlib.AbstractAsyncContextManager[tuple[BatchManager, Any]]:
    return given_pool(dsn, reset=no_reset)


POOLS = {"own": own_pool, "given": given_pool, "no-op reset": no_op_pool}


class Leaving(BaseProcessor):
    """Leaves a trace wherever it is told to, and looks for it where the next item begins."""

    batch_type = "leaving"
    statement, present, found = "", "", []  # type: ignore[var-annotated]

    async def leave(self, ctx, item=None):
        if item is None or item.source_data["n"] == 1:
            await ctx.fetch(self.statement) if ";" not in self.statement else await ctx.execute(
                self.statement
            )

    async def look(self, item, ctx):
        if item.source_data["n"] > 1:
            self.found.append(await ctx.fetchval(f"SELECT {self.present}"))


class Item(Leaving):
    async def process_item(self, item, ctx):
        await self.look(item, ctx)
        await self.leave(ctx, item)


class Prepared(Item):
    async def leave(self, ctx, item=None):
        if item.source_data["n"] == 1:
            if ";" in self.statement:  # which cannot be prepared
                await ctx.connection.execute(self.statement)
            else:
                await (await ctx.connection.prepare(self.statement)).fetch()


class Failing(Leaving):
    async def process_item(self, item, ctx):
        await self.look(item, ctx)
        await self.leave(ctx, item)
        if item.source_data["n"] == 1:
            raise ValueError("after it")


class Chunk(Item):
    commit_interval = 3


class Set(Leaving):
    commit_interval = 1

    async def process_items(self, items, ctx):
        for item in items:
            await self.look(item, ctx)
            await self.leave(ctx, item)


class Start(Leaving):
    async def on_batch_start(self, ctx):
        await self.leave(ctx)

    async def process_item(self, item, ctx):
        await self.look(item, ctx)


class Complete(Leaving):
    async def process_item(self, item, ctx): ...

    async def on_batch_complete(self, summary, ctx):
        await self.leave(ctx)


class FailingComplete(Complete):
    async def on_batch_complete(self, summary, ctx):
        await self.leave(ctx)
        raise ValueError("after it")


class Check(Leaving):
    async def process_item(self, item, ctx): ...

    async def check(self, ctx):
        await self.leave(ctx)
        return True


class Validate(Item):
    async def validate_item(self, item, ctx):
        await super().leave(ctx, item)
        return True

    async def leave(self, ctx, item=None): ...


class PrepareItem(Validate):
    async def validate_item(self, item, ctx):
        return True

    async def prepare_item(self, item, ctx):
        await Leaving.leave(self, ctx, item)


class Resources(Leaving):
    @asynccontextmanager
    async def resources(self, ctx):
        await self.leave(ctx)
        yield

    async def process_item(self, item, ctx):
        await self.look(item, ctx)


class After(Leaving):
    async def process_item(self, item, ctx): ...

    async def after_batch_complete(self, summary, ctx):
        await self.leave(ctx)


class OnConnection(Leaving):
    async def on_connection(self, conn):
        await conn.execute(self.statement)

    async def process_item(self, item, ctx): ...


PLACES = (
    Item,
    Prepared,
    Failing,
    Chunk,
    Set,
    Start,
    Complete,
    FailingComplete,
    Check,
    Validate,
    PrepareItem,
    Resources,
    After,
    OnConnection,
)
QUICK = {Item, Prepared, Failing, Chunk, Set, Start, Complete, PrepareItem, OnConnection}
WRITING = {"temporary table", "into", "view"}  # refused where the database can only be read
READING = (Validate, PrepareItem, Resources, After)


@pytest.fixture
async def role(conn) -> AsyncIterator[str]:
    """A role that everything may be done with."""
    name = f"trace_{uuid4().hex[:8]}"
    await conn.execute(f"CREATE ROLE {name} SUPERUSER; CREATE SCHEMA elsewhere")
    yield name
    await conn.execute(f"DROP ROLE {name}")


async def in_all_sessions(pool: Any, question: str) -> list[Any]:
    """What each connection of a pool answers."""
    async with contextlib.AsyncExitStack() as stack:
        count = pool.get_size()
        held = [await stack.enter_async_context(pool.acquire()) for _ in range(count)]
        return [await one.fetchval(f"SELECT {question}") for one in held]


@pytest.mark.parametrize("pool", some_long(POOLS, {"own", "no-op reset"}))
@pytest.mark.parametrize("place", some_long(PLACES, QUICK), ids=lambda place: place.__name__)
async def test_nothing_that_user_code_leaves_is_met_by_anybody(dsn, role, place, pool):
    met = []
    async with POOLS[pool](dsn) as (manager, connections), asyncio.timeout(PATIENCE):
        for name, (statement, present) in TRACES.items():
            if place in READING and name in WRITING:
                continue
            one = type(place.__name__, (place,), {"found": []})
            one.statement, one.present = statement.format(role=role), present.format(role=role)
            manager.registry.__init__()
            manager.registry.register(one)
            batch_id = await manager.create_batch("leaving", [{"n": 1}, {"n": 2}, {"n": 3}])
            summary = await manager.process_batch(batch_id)
            assert summary.pending_items == 0
            left = await in_all_sessions(connections, one.present)
            met += [(name, "an item")] if any(one.found) else []
            met += [(name, "a session of the pool")] if any(left) else []
    assert met == []


@pytest.mark.parametrize("commit_interval", [1, 20])
async def test_what_a_function_sets_is_not_met_by_the_next_item(manager, conn, commit_interval):
    """Nothing in the text tells; but the server reports this setting, since PostgreSQL 18."""
    if conn.get_server_version().major < 18:
        pytest.skip("search_path is not reported")
    await conn.execute(
        "CREATE FUNCTION enter(tenant text) RETURNS void LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM set_config('search_path', tenant || ', public', false); END $$"
    )

    async def process_item(item, ctx):
        assert "tenant" not in await ctx.fetchval("SHOW search_path")
        await ctx.execute("SELECT enter('tenant')")

    assert (await run(manager, process_item, 20, commit_interval=commit_interval)).ok


DRIVER: list[Callable[[Any], Awaitable[Any]]] = [
    lambda conn: conn.set_type_codec("uuid", encoder=str, decoder=str, schema="pg_catalog"),
    lambda conn: conn.add_listener("kept", lambda *_: None),
]


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("change", DRIVER)
async def test_what_is_changed_in_the_driver_ends_with_its_item(dsn, change, pool):
    seen = []

    async def process_item(item, ctx):
        seen.append(await ctx.fetchval("SELECT pg_backend_pid()"))
        if item.item_number == 1:
            await change(ctx.connection)

    async with POOLS[pool](dsn) as (manager, _):
        assert (await run(manager, process_item, 3, concurrency=1)).ok
    first, second, third = seen
    assert first != second == third


@pytest.mark.parametrize("pool", POOLS)
async def test_codecs_of_on_connection_are_met_by_no_statement_of_ours(dsn, pool):
    async def on_connection(conn):
        await conn.set_type_codec("uuid", encoder=str, decoder=str, schema="pg_catalog")

    async def process_item(item, ctx): ...

    async with POOLS[pool](dsn) as (manager, connections):
        assert (await run(manager, process_item, 3, on_connection=on_connection)).ok
        kept = await in_all_sessions(connections, "gen_random_uuid()")
    assert not any(isinstance(value, str) for value in kept)


async def test_a_pool_whose_reset_does_nothing_gets_its_settings_back(dsn):
    async def init(conn):
        await conn.execute("SET statement_timeout = '77s'; SET application_name = 'theirs'")

    async def process_item(item, ctx):
        assert await ctx.fetchval("SHOW statement_timeout") != "77s"

    names = (
        "statement_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
        "deadlock_timeout",
    )
    settings = "SELECT ARRAY[{}]".format(", ".join(f"current_setting('{n}')" for n in names))
    async with given_pool(dsn, reset=no_reset, init=init) as (manager, pool):
        before = await pool.fetchval(settings)
        process = await pool.fetchval("SELECT pg_backend_pid()")
        assert (await run(manager, process_item, 5)).ok
        async with pool.acquire() as conn:
            assert await conn.fetchval(settings) == before
            assert await conn.fetchval("SHOW application_name") == "theirs"
            assert await conn.fetchval("SELECT pg_backend_pid()") == process


@pytest.mark.parametrize("interval", [1, 10])
async def test_what_is_set_for_a_transaction_stays_in_its_item(manager, conn, interval):
    await conn.execute(LEDGER)

    async def process_item(item, ctx):
        assert await ctx.fetchval("SELECT current_setting('app.tenant', true)") in {None, ""}
        await ctx.fetchval("SELECT set_config('app.tenant', $1, true)", str(item.item_number))
        await ctx.execute("SET LOCAL work_mem = '5MB'")
        await ctx.execute("CREATE TEMP TABLE staged (n integer) ON COMMIT DROP")
        await ctx.execute("INSERT INTO ledger VALUES ($1)", item.item_number)

    assert (await run(manager, process_item, 25, commit_interval=interval)).ok
    assert await written(conn) == list(range(1, 26))


async def test_an_item_cannot_undo_another_through_a_savepoint(manager, conn):
    """Neither by a name that both know, nor by ours."""
    await conn.execute(LEDGER)

    async def process_item(item, ctx):
        n = item.item_number
        if n % 2:
            await ctx.execute("SAVEPOINT mine")
        await ctx.execute("INSERT INTO ledger VALUES ($1)", n)
        if n % 2 == 0:
            await ctx.execute("ROLLBACK TO SAVEPOINT mine")

    summary = await run(manager, process_item, 10, commit_interval=10, pause_after=None)
    assert (summary.completed_items, summary.failed_items) == (5, 5)
    assert await written(conn) == [1, 3, 5, 7, 9]


LATE: dict[str, Callable[[Any], Awaitable[Callable[[], Awaitable[Any]]]]] = {}


def late(function):
    LATE[function.__name__] = function
    return function


SAY = "INSERT INTO ledger VALUES (99)"


@late
async def statement(conn):
    kept = await conn.prepare(SAY)
    return kept.fetch


@late
async def method_of_a_statement(conn):
    kept = await conn.prepare(SAY)
    return lambda: _await(kept.fetchval())


@late
async def cursor(conn):
    kept = conn.cursor(SAY + " RETURNING n")

    async def iterate():
        return [row async for row in kept]

    return iterate


@late
async def awaited_cursor(conn):
    return lambda: _await(conn.cursor(SAY + " RETURNING n"))


@late
async def cursor_of_a_statement(conn):
    kept = (await conn.prepare(SAY + " RETURNING n")).cursor()

    async def iterate():
        return [row async for row in kept]

    return iterate


@late
async def savepoint(conn):
    kept = conn.transaction()
    await kept.start()
    return kept.rollback


@late
async def entered_savepoint(conn):
    kept = conn.transaction()
    return kept.__aenter__


@late
async def method(conn):
    return lambda f=conn.execute: f(SAY)


@late
async def copy(conn):
    return lambda f=conn.copy_records_to_table: _await(f("ledger", records=[(99, "")]))


@late
async def many(conn):
    return lambda f=conn.executemany: f(SAY, [()])


async def _await(thing: Any) -> Any:
    return await thing


@pytest.mark.parametrize("interval", [1, 10])
@pytest.mark.parametrize("how", LATE)
async def test_what_outlives_its_item_cannot_write(manager, conn, how, interval):
    await conn.execute(LEDGER)
    kept: list[Callable[[], Awaitable[Any]]] = []

    async def process_item(item, ctx):
        if item.item_number == 1:
            kept.append(await LATE[how](ctx.connection))
        else:
            with pytest.raises(ContextClosed):
                await kept[0]()
        await ctx.execute("INSERT INTO ledger VALUES ($1)", item.item_number)

    summary = await run(manager, process_item, 3, concurrency=1, commit_interval=interval)
    assert summary.ok, summary.groups
    assert await written(conn) == [1, 2, 3]


async def test_a_dry_run_of_a_hook_that_sets_something(manager, conn):
    """In the real run its session is not that of the items."""
    await conn.execute(LEDGER)
    await conn.execute("CREATE SCHEMA elsewhere")
    await conn.execute("CREATE TABLE elsewhere.ledger (LIKE ledger)")

    class Processor(BaseProcessor):
        batch_type = "dry"

        async def on_batch_start(self, ctx):
            await ctx.execute("SET search_path = elsewhere")

        async def process_item(self, item, ctx):
            await ctx.execute("INSERT INTO ledger VALUES ($1)", item.item_number)

    manager.registry.register(Processor)
    batch_id = await manager.create_batch("dry", [{}] * 3)
    report = await manager.process_batch(batch_id, dry_run=True)
    assert [one.table for one in report.tables] == ["public.ledger"]


async def test_the_error_of_a_connection_that_its_pool_has_lost_is_remembered(dsn):
    async with asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool:
        connection = await pool.acquire()
        guard = GuardedConnection(connection)
        connection.terminate()
        for call in (guard.execute, guard.fetch, guard.fetchrow, guard.fetchval):
            with pytest.raises(asyncpg.InterfaceError) as caught:
                await call("SELECT 1")
            assert guard.errors[-1] is caught.value
        with pytest.raises(asyncpg.InterfaceError) as caught:
            await guard.executemany("SELECT $1", [(1,)])
        assert guard.errors[-1] is caught.value
        assert not getattr(caught.value, "__notes__", None)
