"""Migrating and verifying: once, by one winner, and never silently."""

import asyncio

import asyncpg
import pytest

from reliable_imports_async import BatchManager
from reliable_imports_async.errors import SchemaMissing, SchemaOutdated, SchemaTooNew, ServerTooOld

from .reach import migrations, require_server, with_migrations

NAMES = tuple(migration.name for migration in migrations.migrations())
FORGET = "DELETE FROM reliable_imports.schema_migrations WHERE name = $1"
INVENT = "INSERT INTO reliable_imports.schema_migrations VALUES ('9999_tomorrow', 'unknown')"


async def test_migrating_works_unopened_and_twice(empty_dsn: str) -> None:
    manager = BatchManager(empty_dsn)
    assert await manager.migrate() == NAMES
    assert await manager.migrate() == ()
    async with manager:
        assert await manager.migrate() == ()


async def test_of_ten_who_migrate_at_once_one_does(empty_dsn: str) -> None:
    async with asyncio.TaskGroup() as tasks:
        runs = [tasks.create_task(BatchManager(empty_dsn).migrate()) for _ in range(10)]
    assert sorted(run.result() for run in runs) == [()] * 9 + [NAMES]


async def test_an_interrupted_migration_leaves_nothing(
    empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = (*migrations.migrations(), migrations.Migration("9999_broken", "SELECT 1/0"))
    with_migrations(monkeypatch, broken)
    with pytest.raises(asyncpg.DivisionByZeroError):
        await BatchManager(empty_dsn).migrate()
    with pytest.raises(SchemaMissing):
        await BatchManager(empty_dsn).open()


async def test_opening_refuses_an_empty_database(empty_dsn: str) -> None:
    with pytest.raises(SchemaMissing, match="does not exist") as caught:
        await BatchManager(empty_dsn).open()
    assert "`reliable-imports migrate`" in caught.value.hint


async def test_opening_refuses_an_outdated_database(
    dsn: str, conn: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await conn.execute(FORGET, NAMES[-1])
    with pytest.raises(SchemaOutdated, match=NAMES[-1]) as caught:
        await BatchManager(dsn).open()
    assert caught.value.pending == NAMES[-1:]
    assert "`reliable-imports migrate`" in caught.value.hint


async def test_opening_and_migrating_refuse_a_newer_database(
    dsn: str, conn: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await conn.execute(INVENT)
    for verb in (BatchManager(dsn).open, BatchManager(dsn).migrate):
        with pytest.raises(SchemaTooNew, match="9999_tomorrow") as caught:
            await verb()
        assert "upgrade reliable-imports-async" in caught.value.hint


async def test_the_script_makes_what_migrating_makes(empty_dsn: str, conn) -> None:
    plain = await asyncpg.connect(empty_dsn)
    try:
        await plain.execute(migrations.as_sql())
        await migrations.verify(plain)
        assert await _shape(plain) == await _shape(conn)
    finally:
        await plain.close()
    async with BatchManager(empty_dsn) as manager:
        assert await manager.migrate() == ()


async def test_an_old_server_is_refused(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require_server(monkeypatch, 990_000)
    for verb in (BatchManager(dsn).open, BatchManager(dsn).migrate):
        with pytest.raises(ServerTooOld, match="is PostgreSQL 1") as caught:
            await verb()
        assert caught.value.hint == "upgrade the server."


async def _shape(conn) -> list[str]:
    """Every column, index and constraint of our schema, and every recorded migration, as text."""
    rows = await conn.fetch("""
        SELECT format('%s.%s %s %s %s', table_name, column_name, data_type, is_nullable,
                      column_default) AS line
          FROM information_schema.columns WHERE table_schema = 'reliable_imports'
         UNION ALL
        SELECT indexdef FROM pg_indexes WHERE schemaname = 'reliable_imports'
         UNION ALL
        SELECT format('%s %s', conrelid::regclass, pg_get_constraintdef(oid))
          FROM pg_constraint WHERE connamespace = 'reliable_imports'::regnamespace
         UNION ALL
        SELECT format('%s %s', name, sha256) FROM reliable_imports.schema_migrations
         ORDER BY 1""")
    return [row["line"] for row in rows]
