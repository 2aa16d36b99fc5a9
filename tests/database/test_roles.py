"""Roles with few rights, odd limits, and servers that take no writes: what works, and what is said."""

from contextlib import asynccontextmanager
from uuid import uuid4

import anyio
import asyncpg
import pytest
from pydantic import BaseModel

from reliable_imports_async import BaseProcessor, BatchManager, BatchStatus
from reliable_imports_async.errors import DatabaseReadOnly, RightsMissing

from ..support.trying import MODES, appears, processor, records

FOREIGN = """
CREATE SCHEMA other;
CREATE TABLE other.a (id integer PRIMARY KEY);
CREATE TABLE other.b (a integer REFERENCES other.a DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE parents (id integer PRIMARY KEY);
INSERT INTO parents SELECT generate_series(1, 100);
CREATE TABLE children (parent integer REFERENCES parents DEFERRABLE INITIALLY DEFERRED);
"""
OURS = """
GRANT USAGE ON SCHEMA public, reliable_imports TO {0};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public, reliable_imports TO {0};
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public, reliable_imports TO {0};
"""


@pytest.fixture
async def role(conn):
    """The name of a new role that may use our tables and those in public."""
    name = f"importer_{uuid4().hex[:8]}"
    await conn.execute(f"CREATE ROLE {name} LOGIN; {OURS.format(name)}")
    yield name
    await conn.execute(f"RESET ROLE; DROP OWNED BY {name}; DROP ROLE {name}")


@asynccontextmanager
async def managed(dsn, role=None, **options):
    """A manager whose connections are that role's."""

    async def init(connection):
        if role is not None:
            await connection.execute(f"SET SESSION AUTHORIZATION {role}")

    async def no_reset(connection):
        """Keep the role."""

    async with asyncpg.create_pool(dsn, min_size=1, max_size=7, init=init, reset=no_reset) as pool:
        async with BatchManager(pool=pool, **options) as manager:
            yield manager


async def load(manager, process_item, mode, count=60, **attributes):
    async def process_items(items, ctx):
        for item in items:
            await process_item(item, ctx)

    manager.registry.__init__()
    tried = processor(process_item, **MODES[mode], **attributes)
    if mode == "set":
        tried.process_items = staticmethod(process_items)
        del tried.process_item
    manager.registry.register(tried)
    return await manager.process_batch(await manager.create_batch("tried", records(count)))


@pytest.mark.parametrize("mode", MODES)
async def test_constraints_of_others_are_left_alone(dsn, conn, role, mode):
    await conn.execute(FOREIGN + OURS.format(role))

    async def process_item(item, ctx):
        parent = 999 if item.item_number == 33 else item.item_number
        await ctx.execute("INSERT INTO children VALUES ($1)", parent)

    async with managed(dsn, role) as manager:
        summary = await load(manager, process_item, mode)
        assert (summary.completed_items, summary.failed_items) == (59, 1)
        (group,) = summary.groups
        assert (group.kind, group.sqlstate) == ("data", "23503")
        assert (await manager.get_item(summary.batch_id, 33)).status == "failed"


@pytest.mark.parametrize("mode", MODES)
async def test_a_right_lost_meanwhile_blames_no_item(dsn, conn, role, mode):
    """The schema of a known constraint cannot be used any more: its name cannot be said."""
    await conn.execute(FOREIGN + OURS.format(role))
    await conn.execute(
        f"ALTER TABLE other.b ADD UNIQUE (a); GRANT USAGE ON SCHEMA other TO {role};"
        f"GRANT ALL ON ALL TABLES IN SCHEMA other TO {role}"
    )

    async def process_item(item, ctx):
        if item.item_number == 30:
            await conn.execute(f"REVOKE ALL ON SCHEMA other FROM {role}")
        await ctx.execute("INSERT INTO children VALUES ($1)", item.item_number)

    async with managed(dsn, role) as manager:
        summary = await load(manager, process_item, mode, concurrency=1)
        assert summary.ok
    assert await conn.fetchval("SELECT count(*) FROM children") == 60


LIFTED = {  # what a database limits, and what our sessions have instead
    "statement_timeout": {"0", "65s"},  # of an item: a little more than item_timeout
    "lock_timeout": {"0", "65s"},
    "idle_in_transaction_session_timeout": {"10min", "65s"},
    "transaction_timeout": {"0"},
    "idle_session_timeout": {"0"},
}
LIMIT_SECONDS = 1


class Row(BaseModel):
    n: int


class RowProcessor(BaseProcessor[Row]):
    table = "rows"
    key = "n"


async def limit(conn, *names):
    """Give the database limits, for sessions that begin from now on."""
    database = await conn.fetchval("SELECT current_database()")
    known = {row[0] for row in await conn.fetch("SELECT name FROM pg_settings")}
    for name in known & set(names):
        await conn.execute(f'ALTER DATABASE "{database}" SET {name} = {LIMIT_SECONDS * 1000}')
    return known & set(names)


@pytest.mark.parametrize("own_pool", [True, False])
async def test_limits_of_a_database_are_lifted_for_our_sessions(dsn, conn, own_pool):
    names, seen = await limit(conn, *LIFTED), []

    async def look(ctx):
        seen.append({name: await ctx.fetchval(f"SHOW {name}") for name in names})

    async def on_batch_start(ctx):
        await look(ctx)

    async def process_item(item, ctx):
        await look(ctx)

    async with BatchManager(dsn) if own_pool else managed(dsn) as manager:
        hook = {"on_batch_start": on_batch_start}
        assert (await load(manager, process_item, "item", count=2, **hook)).ok
    assert len(seen) == 3
    for settings in seen:
        assert all(value in LIFTED[name] for name, value in settings.items()), settings


async def deadlock_timeout_of_items(dsn, role=None):
    seen = []

    async def process_item(item, ctx):
        seen.append(await ctx.fetchval("SHOW deadlock_timeout"))

    async with managed(dsn, role) as manager:
        assert (await load(manager, process_item, "item", count=1)).ok
    return seen


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("deadlock_timeout = '1s'", "50ms"),
        ("deadlock_timeout = '20ms'", "20ms"),
        ("deadlock_timeout = '1s'; ALTER DATABASE {0} SET log_lock_waits = on", "1s"),
    ],
)
async def test_items_look_for_deadlocks_sooner(dsn, conn, setting, expected):
    database = await conn.fetchval("SELECT quote_ident(current_database())")
    await conn.execute(f"ALTER DATABASE {database} SET {setting.format(database)}")
    assert await deadlock_timeout_of_items(dsn) == [expected]


@pytest.mark.parametrize(("granted", "expected"), [(False, "1s"), (True, "50ms")])
async def test_a_plain_role_looks_for_deadlocks_sooner_if_it_may(
    dsn, conn, role, granted, expected
):
    if granted and conn.get_server_version().major < 15:
        pytest.skip("GRANT SET ON PARAMETER came with PostgreSQL 15")
    if granted:
        await conn.execute(f"GRANT SET ON PARAMETER deadlock_timeout TO {role}")
    assert await deadlock_timeout_of_items(dsn, role) == [expected]


@pytest.mark.parametrize("name", ["statement_timeout", "lock_timeout", "transaction_timeout"])
async def test_a_creation_outlives_the_limits_of_its_database(dsn, conn, name):
    if not await limit(conn, name):
        pytest.skip("it came with PostgreSQL 17")
    long = (
        f"wait_event_type = 'Lock' AND clock_timestamp() - query_start > '{LIMIT_SECONDS * 1.2} s'"
    )
    created = []
    async with BatchManager(dsn) as manager, anyio.create_task_group() as group:
        manager.registry.register(RowProcessor)

        async def create():
            created.append(await manager.create_batch("row", records(10)))

        async with conn.transaction():
            await conn.execute("LOCK TABLE reliable_imports.import_batch_items IN EXCLUSIVE MODE")
            group.start_soon(create)
            await appears(conn, f"SELECT FROM pg_stat_activity WHERE {long}")
    assert len(created) == 1


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ("INSERT", "may not INSERT in table rows"),
        ("UPDATE", "may not UPDATE in table rows"),
        ("SELECT", "may not SELECT in table rows"),
    ],
)
async def test_a_right_that_a_declared_table_lacks_is_named(dsn, conn, role, missing, reason):
    await conn.execute(f"CREATE TABLE rows (n integer PRIMARY KEY); {OURS.format(role)}")
    await conn.execute(f"REVOKE {missing} ON rows FROM {role}")
    async with managed(dsn, role) as manager:
        manager.registry.register(RowProcessor)
        summary = await manager.process_batch(await manager.create_batch("row", records(3)))
        assert (summary.status, summary.pending_items) == (BatchStatus.PAUSED, 3)
        assert reason in summary.pause_reason
        assert f'GRANT {missing} ON rows TO "{role}"' in summary.pause_reason
        await conn.execute(f"GRANT {missing} ON rows TO {role}")
        await manager.resume_batch(summary.batch_id)
        assert (await manager.process_batch(summary.batch_id)).ok


async def test_a_schema_that_the_role_may_not_use_is_named(dsn, conn, role):
    await conn.execute("CREATE SCHEMA far; CREATE TABLE far.rows (n integer PRIMARY KEY)")
    async with managed(dsn, role) as manager:
        manager.registry.register(type("FarProcessor", (RowProcessor,), {"table": "far.rows"}))
        summary = await manager.process_batch(await manager.create_batch("far", records(3)))
        assert summary.status is BatchStatus.PAUSED
        assert "permission denied for schema far" in summary.pause_reason
        assert "GRANT USAGE" in summary.pause_reason


async def test_missing_rights_on_our_own_tables_say_what_to_grant(dsn, conn, role):
    await conn.execute(f"REVOKE INSERT ON ALL TABLES IN SCHEMA reliable_imports FROM {role}")
    async with managed(dsn, role) as manager:
        manager.registry.register(RowProcessor)
        with pytest.raises(RightsMissing, match="import_batches") as refused:
            await manager.create_batch("row", records(3))
        assert "GRANT" in refused.value.hint
    await conn.execute(f"REVOKE ALL ON SCHEMA reliable_imports FROM {role}")
    with pytest.raises(RightsMissing, match="reliable_imports"):
        async with managed(dsn, role):
            pass


async def test_a_role_that_an_item_has_set_is_named_in_its_failure(dsn, conn, role):
    await conn.execute(f"REVOKE ALL ON SCHEMA reliable_imports FROM {role}")

    async def process_item(item, ctx):
        if item.item_number == 2:
            await ctx.execute(f"SET LOCAL ROLE {role}")

    async with managed(dsn) as manager:
        summary = await load(manager, process_item, "item", count=3)
        assert (summary.completed_items, summary.failed_items) == (2, 1)
        failure = (await manager.get_item(summary.batch_id, 2)).failure
        assert "RESET ROLE" in failure.hint


async def nothing(item, ctx):
    """Do nothing."""


async def test_a_server_that_takes_no_writes_is_named_at_once(dsn, conn):
    async with BatchManager(dsn) as manager:
        manager.registry.register(processor(nothing))
        batch_id = await manager.create_batch("tried", records(3))
    name = await conn.fetchval("SELECT current_database()")
    await conn.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    async with BatchManager(dsn) as manager:
        manager.registry.register(RowProcessor)
        manager.registry.register(processor(nothing))
        with pytest.raises(DatabaseReadOnly, match="does not accept writes"):
            await manager.create_batch("row", records(3))
        with pytest.raises(DatabaseReadOnly, match="transactions are read-only"):
            await manager.process_batch(batch_id)
        assert (await manager.get_batch(batch_id)).status is BatchStatus.PENDING
