"""A batch exists whole or not at all, and every record of its source has an item."""

from collections import Counter
from dataclasses import dataclass

import anyio
import asyncpg
import pytest
from pydantic import BaseModel

from reliable_imports_async import BaseProcessor, BatchManager, FailureKind, ItemStatus, read_file
from reliable_imports_async.errors import (
    ConfigurationError,
    IdempotencyConflict,
    SameFile,
    SourceError,
    UnknownBatchType,
)


class NoteProcessor(BaseProcessor):
    async def process_item(self, item, ctx):
        return None


@pytest.fixture
async def notes(manager: BatchManager) -> BatchManager:
    manager.registry.register(NoteProcessor)
    return manager


async def count(conn, table: str) -> int:
    return await conn.fetchval(f"SELECT count(*) FROM reliable_imports.{table}")


async def assert_nothing(conn) -> None:
    for table in ("import_batches", "import_batch_items", "import_batch_ranges", "import_logs"):
        assert await count(conn, table) == 0, table


class Point(BaseModel):
    x: int


@dataclass
class Pair:
    left: int
    right: str


async def test_dicts_models_and_dataclasses_are_records(notes):
    batch_id = await notes.create_batch("note", [{"a": 1}, Point(x=2), Pair(3, "c")])
    stored = [item.source_data async for item in notes.list_items(batch_id)]
    assert stored == [{"a": 1}, {"x": 2}, {"left": 3, "right": "c"}]


async def test_an_async_iterable_is_a_source(notes):
    async def records():
        for number in range(1200):
            await anyio.lowlevel.checkpoint()
            yield {"n": number}

    batch_id = await notes.create_batch("note", records())
    assert (await notes.get_batch(batch_id)).total_items == 1200


async def test_a_failing_source_leaves_nothing_behind(notes, conn):
    def records():
        yield from ({"n": number} for number in range(2000))
        raise OSError("the feed ended")

    with pytest.raises(OSError, match="the feed ended"):
        await notes.create_batch("note", records())
    await assert_nothing(conn)


@pytest.mark.parametrize("items", [{"a": 1}, "text", b"bytes"])
async def test_something_else_than_records_is_refused(notes, conn, items):
    with pytest.raises(SourceError):
        await notes.create_batch("note", items)
    await assert_nothing(conn)


async def test_an_unknown_batch_type_is_refused(notes):
    with pytest.raises(UnknownBatchType, match=r"'nonsense'.*note"):
        await notes.create_batch("nonsense", [])


async def test_an_empty_batch_completes(notes):
    summary = await notes.process_batch(await notes.create_batch("note", []))
    assert summary.ok
    assert summary.total_items == 0


async def test_creation_joins_the_callers_transaction(notes, conn):
    with pytest.raises(ConfigurationError, match="not in a transaction"):
        await notes.create_batch("note", [{"a": 1}], connection=conn)
    transaction = conn.transaction()
    await transaction.start()
    await notes.create_batch("note", [{"a": 1}], connection=conn)
    await transaction.rollback()
    await assert_nothing(conn)
    async with conn.transaction():
        batch_id = await notes.create_batch("note", [{"a": 1}], connection=conn)
    assert (await notes.process_batch(batch_id)).ok


@pytest.mark.parametrize("before", [False, True])
async def test_a_batch_that_was_only_stored_is_enqueued_under_its_key(notes, conn, before):
    async def create(enqueue):
        return await notes.create_batch("note", [{"n": 1}], idempotency_key="k", enqueue=enqueue)

    assert await create(before) == await create(True)
    assert await conn.fetchval("SELECT count(*) FROM pgqueuer") == 1


async def test_an_idempotency_key_belongs_to_its_creator_and_content(notes, conn):
    async def create(records, who="ann"):
        return await notes.create_batch("note", records, created_by=who, idempotency_key="k")

    first = await create([{"a": 1}])
    assert await create([{"a": 1}]) == first
    assert await create([{"a": 1}], "bob") != first
    with pytest.raises(IdempotencyConflict, match=str(first)):
        await create([{"a": 2}])
    assert await count(conn, "import_batches") == 2


async def test_twenty_creations_under_one_key_make_one_batch(notes, conn):
    made = set()

    async def create() -> None:
        made.add(await notes.create_batch("note", [{"n": 1}] * 50, idempotency_key="same"))

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(create)
    assert len(made) == 1
    assert await count(conn, "import_batch_items") == 50


async def test_records_that_json_cannot_hold_become_failed_items(notes, conn):
    deep: dict = {}
    for _ in range(80):
        deep = {"d": deep}
    bad = [{"f": float("nan")}, {"s": "a\x00b"}, {"s": "\ud800"}, deep, {"s": "x" * 1_100_000}, 5]
    summary = await notes.process_batch(await notes.create_batch("note", [{"n": 1}, *bad]))
    assert (summary.total_items, summary.completed_items, summary.failed_items) == (7, 1, 6)
    items = [item async for item in notes.list_items(summary.batch_id, status=ItemStatus.FAILED)]
    assert {item.failure.kind for item in items} == {FailureKind.PARSE}
    assert all(item.raw for item in items)
    assert [item.item_number for item in items] == [2, 3, 4, 5, 6, 7]


CSV = 'sku,name\n001,"a\nb"\n002\n003,c\n'


async def test_a_file_keeps_its_lines_and_broken_rows_become_items(notes, tmp_path):
    path = tmp_path / "products.csv"
    path.write_text(CSV)
    summary = await notes.import_file(path, "note")
    assert (summary.total_items, summary.completed_items, summary.failed_items) == (3, 2, 1)
    items = [item async for item in notes.list_items(summary.batch_id)]
    assert [item.source_line for item in items] == [2, 4, 5]
    assert items[0].source_data == {"sku": "001", "name": "a\nb"}
    assert (items[1].raw, items[1].failure.kind) == (b"002", FailureKind.PARSE)
    batch = await notes.get_batch(summary.batch_id)
    assert (batch.source_name, batch.source_columns) == ("products.csv", ("sku", "name"))


async def test_the_same_file_again_is_refused_skipped_or_forced(notes, tmp_path):
    path = tmp_path / "products.csv"
    path.write_text(CSV)
    first = await notes.import_file(path, "note")
    with pytest.raises(SameFile, match=str(first.batch_id)):
        await notes.import_file(path, "note")
    assert (await notes.import_file(path, "note", on_same_file="skip")).batch_id == first.batch_id
    forced = await notes.import_file(path, "note", on_same_file="force")
    assert forced.batch_id != first.batch_id


async def test_a_cancelled_batch_does_not_block_its_file(notes, tmp_path):
    path = tmp_path / "products.csv"
    path.write_text(CSV)
    cancelled = await notes.create_batch("note", read_file(path))
    await notes.cancel_batch(cancelled)
    assert (await notes.import_file(path, "note")).completed_items == 2


async def test_codecs_of_the_callers_pool_play_no_part(dsn):
    """A codec that would encode a JSON text once more, as a string."""

    async def init(connection) -> None:
        await connection.set_type_codec(
            "jsonb",
            schema="pg_catalog",
            encoder=lambda value: b"\x01" + str(value).encode(),
            decoder=Counter,
            format="binary",
        )

    async with (
        asyncpg.create_pool(dsn, min_size=1, max_size=6, init=init) as pool,
        BatchManager(pool=pool) as m,
    ):
        m.registry.register(NoteProcessor)
        batch_id = await m.create_batch("note", [{"a": 1}], metadata={"who": "ann"})
        assert (await m.process_batch(batch_id)).ok
        assert (await m.get_item(batch_id, 1)).source_data == {"a": 1}
        assert (await m.get_batch(batch_id)).metadata == {"who": "ann"}


async def test_a_session_that_only_we_used_is_returned_as_it_is(manager, conn):
    before = await manager.check()
    assert await manager.check() == before
    queries = await conn.fetch(
        "SELECT query FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'reliable_imports_async'"
    )
    assert queries
    assert not any("RESET ALL" in row["query"] for row in queries)


async def test_a_session_that_a_hook_has_used_is_cleaned(manager, conn):
    class Processor(BaseProcessor):
        batch_type = "setting"

        async def on_batch_start(self, ctx):
            await ctx.execute("SET search_path TO nowhere")

        async def process_item(self, item, ctx):
            assert "nowhere" not in await ctx.fetchval("SHOW search_path")

    manager.registry.register(Processor)
    assert (await manager.process_batch(await manager.create_batch("setting", [{}] * 20))).ok
