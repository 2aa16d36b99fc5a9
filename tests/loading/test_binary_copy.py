"""Rows are read ahead while PostgreSQL writes: errors stay what they are, and nothing is left."""

from collections.abc import AsyncIterator

import anyio
import asyncpg
import pytest

from reliable_imports_async import BaseProcessor, BatchManager

from .reach import binary_copy

ITEMS = "SELECT count(*) FROM reliable_imports.import_batch_items"
REFUSE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'not today'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON reliable_imports.import_batch_items
    FOR EACH ROW EXECUTE FUNCTION refuse();
"""
KNOWN = """
SELECT array_agg(attname::text ORDER BY attname) FROM pg_stats
 WHERE schemaname = 'reliable_imports' AND tablename = 'import_batch_items'
"""
MANY = binary_copy.READ_AHEAD * 2_000  # more chunks than are read ahead


class NoteProcessor(BaseProcessor):
    async def process_item(self, item, ctx):
        return None


@pytest.fixture
async def notes(manager: BatchManager) -> BatchManager:
    manager.registry.register(NoteProcessor)
    return manager


async def test_what_postgresql_refuses_is_raised_as_it_is(notes, conn):
    await conn.execute(REFUSE)
    with pytest.raises(asyncpg.RaiseError, match="not today"):
        await notes.create_batch("note", [{"n": n} for n in range(MANY)])
    await conn.execute("DROP TRIGGER refuse ON reliable_imports.import_batch_items")
    await notes.create_batch("note", [{"n": n} for n in range(MANY)])
    assert await conn.fetchval(ITEMS) == MANY


class BrokenError(Exception):
    pass


async def broken(after: int) -> AsyncIterator[bytes]:
    for _ in range(after):
        yield b""
    raise BrokenError


@pytest.mark.parametrize("after", [0, 1, binary_copy.READ_AHEAD + 5])
async def test_what_reading_raises_is_raised_as_it_is_and_the_connection_lives(conn, after):
    with pytest.raises(BrokenError):
        await binary_copy.copy(conn, broken(after))
    assert await conn.fetchval("SELECT 1") == 1


async def test_a_copy_that_waits_is_cancelled_and_leaves_nothing(notes, conn):
    """PostgreSQL takes nothing meanwhile: another transaction holds the table."""
    seen: list[int] = []
    waits = anyio.Event()

    def progress(records: int, _read: int, _all: int | None) -> None:
        seen.append(records)
        if len(seen) > binary_copy.READ_AHEAD:
            waits.set()

    async with conn.transaction():
        await conn.execute("LOCK TABLE reliable_imports.import_batch_items")
        async with anyio.create_task_group() as group:
            items = [{"n": n, "text": "x" * 1000} for n in range(MANY)]
            group.start_soon(lambda: notes.create_batch("note", items, progress=progress))
            await waits.wait()
            group.cancel_scope.cancel()
    assert seen[-1] < MANY
    assert await conn.fetchval(ITEMS) == 0
    assert await conn.fetchval("SELECT count(*) FROM reliable_imports.import_batches") == 0
    await notes.create_batch("note", [{"n": 1}])
    assert await conn.fetchval(ITEMS) == 1


async def test_the_planner_learns_of_a_large_batch_but_not_of_the_records_themselves(notes, conn):
    await notes.create_batch("note", [{"n": n} for n in range(10_001)])
    known = await conn.fetchval(KNOWN)
    assert {"batch_id", "item_number", "status"} <= set(known)
    assert "source_data" not in known


async def test_a_far_larger_table_is_left_to_autovacuum(notes, conn):
    await conn.execute(
        "UPDATE pg_class SET reltuples = 1e9"
        " WHERE oid = 'reliable_imports.import_batch_items'::regclass"
    )
    await notes.create_batch("note", [{"n": n} for n in range(10_001)])
    assert await conn.fetchval(KNOWN) is None
