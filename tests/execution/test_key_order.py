"""Items of one key take effect in the order of their numbers: in every mode, over all processes."""

import json
import random
from collections import defaultdict
from contextlib import AsyncExitStack
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import anyio
import pytest
from pydantic import BaseModel, BeforeValidator, Field, field_validator, model_validator

from reliable_imports_async import (
    BaseProcessor,
    BatchManager,
    BatchStatus,
    Defer,
    ImportBatch,
    Retry,
    Settings,
)

from ..support.trying import PATIENCE, appears, some_long
from .reach import Ordering, coarse

TABLES = """
CREATE TABLE account (key integer PRIMARY KEY, numbers integer[] NOT NULL);
CREATE TABLE latest (key integer PRIMARY KEY, n integer NOT NULL CHECK (n >= 0));
CREATE TABLE history (key integer, n integer, at integer GENERATED ALWAYS AS IDENTITY);
CREATE FUNCTION remember() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO history (key, n) VALUES (NEW.key, NEW.n); RETURN NEW; END $$;
CREATE TRIGGER remember AFTER INSERT OR UPDATE ON latest FOR EACH ROW EXECUTE FUNCTION remember();
CREATE TABLE known (n integer PRIMARY KEY);
INSERT INTO known VALUES (0);
"""
APPEND = """
INSERT INTO account VALUES ($1, ARRAY[$2::integer])
ON CONFLICT (key) DO UPDATE SET numbers = account.numbers || excluded.numbers
"""
CONFLICT = "DO $$ BEGIN RAISE EXCEPTION 'in the way' USING ERRCODE = '40001'; END $$"
UNKNOWN = (
    "DO $$ BEGIN RAISE foreign_key_violation USING DETAIL = 'Key (key)=(%s) is not here'; END $$"
)


class Row(BaseModel):
    key: int
    n: int
    does: str = ""


class Accumulating(BaseProcessor[Row]):
    """Appends its number to the numbers of its key: the array tells the order of the effects."""

    batch_type = "row"
    pause_after = None

    def __init__(self) -> None:
        self.tried: set[tuple[str, int]] = set()

    def lock_key(self, record):
        return record["key"]

    async def act(self, item, ctx):
        """Do what the record says, the first time or each time."""
        does, row = item.data.does, item.data
        first = (does, row.n) not in self.tried
        self.tried.add((does, row.n))
        if does == "slow":
            await ctx.execute("SELECT pg_sleep(0.01)")
        if does == "retry" and item.attempt == 1:
            raise Retry("later", after=0.05)
        if does == "conflict" and first:
            await ctx.execute(CONFLICT)
        if does == "fail":
            raise ValueError("no")
        if does == "unknown":
            await ctx.execute(UNKNOWN % item.source_data["key"])

    async def process_item(self, item, ctx):
        await self.act(item, ctx)
        await ctx.execute(APPEND, item.data.key, item.data.n)


class ChunkExecutor(Accumulating):
    commit_interval = 7


class Prepared(Accumulating):
    """Items are prepared apart, and come to the slots in any order."""

    async def prepare_item(self, item, ctx):
        if item.data.n % 3 == 0:
            await anyio.sleep(0.01)


class PreparedInterval(Prepared):
    commit_interval = 7


class Sets(Accumulating):
    commit_interval = 20
    process_item = BaseProcessor.process_item

    async def process_items(self, items, ctx):
        for item in items:
            await self.act(item, ctx)
            await ctx.execute(APPEND, item.data.key, item.data.n)


class Keyed(ChunkExecutor):
    lock_key = BaseProcessor.lock_key

    def item_key(self, record):
        return record["key"]


class Upserting(Accumulating):
    """Says nothing about its key; but it upserts by it."""

    lock_key = BaseProcessor.lock_key

    async def process_item(self, item, ctx):
        await self.act(item, ctx)
        await ctx.upsert("latest", {"key": item.data.key, "n": item.data.n}, key="key")


class UpsertingIntervals(Upserting):
    commit_interval = 7


class Declaration(BaseModel):
    key: int
    n: int


class DeclaredProcessor(BaseProcessor[Declaration]):
    batch_type = "row"
    table = "latest"
    key = ("key",)
    commit_interval = 20


class DeclaredByText(DeclaredProcessor):
    key = "key"


class LateProcessor(Accumulating):
    """Its retries are due in an hour."""

    async def act(self, item, ctx):
        if item.data.does == "retry" and item.attempt == 1:
            raise Retry("later", after=3_600)


class DeferringProcessor(Accumulating):
    async def act(self, item, ctx):
        if item.data.does == "defer" and not item.final_pass:
            raise Defer("something is missing")


class PausingProcessor(ChunkExecutor):
    pause_after = 3


class LookingUpProcessor(Upserting):
    """Its key comes from the database."""

    async def process_item(self, item, ctx):
        key = await ctx.fetchval("SELECT 1000 + $1::integer", item.data.key)
        await ctx.upsert("latest", {"key": key, "n": item.data.n}, key="key")


class Coded(BaseModel):
    code: int
    n: int


class RenamingProcessor(BaseProcessor[Coded]):
    """Its key has another name in the record."""

    batch_type = "row"
    commit_interval = 7

    async def process_item(self, item, ctx):
        await ctx.upsert("latest", {"key": item.data.code, "n": item.data.n}, key=("key",))


class MeetingProcessor(Accumulating):
    """Its items end when four of them are in their transactions."""

    def __init__(self) -> None:
        super().__init__()
        self.there, self.met = 0, anyio.Event()

    async def act(self, item, ctx):
        self.there += 1
        if self.there == 4:
            self.met.set()
        await self.met.wait()


async def nothing(item, ctx):
    """No trouble any more."""


SETTLED = """
SELECT FROM reliable_imports.import_batch_items HAVING count(*) FILTER (WHERE status <> 'pending') = $1
"""
DOES = ("", "", "", "", "slow", "retry", "conflict", "fail", "unknown")
MODES: dict[str, type[BaseProcessor[Any]]] = {
    "item": Accumulating,
    "interval": ChunkExecutor,
    "prepared": Prepared,
    "prepared interval": PreparedInterval,
    "set": Sets,
    "item key": Keyed,
    "upsert": Upserting,
    "upsert in intervals": UpsertingIntervals,
    "declared": DeclaredProcessor,
    "declared by text": DeclaredByText,
}


def made(seed: int, total: int, *, declared: bool) -> list[dict[str, Any]]:
    """Records of few keys, in several spellings; of some the processor makes trouble."""
    chance = random.Random(seed)
    records = []
    for n in range(1, total + 1):
        key = chance.choice((chance.randrange(3), chance.randrange(40), chance.randrange(400)))
        spelt = chance.choice((key, f"{key}", f"0{key}", f" {key}", f"+{key}", f"{key}.0"))
        bad = declared and chance.random() < 0.05
        does = "" if declared else chance.choice(DOES)
        records.append({"key": spelt, "n": -n if bad else n, "does": does})
    return records


def expected(records: list[dict[str, Any]]) -> dict[int, list[int]]:
    """What one after the other would leave: the numbers of each key, in order."""
    numbers = defaultdict(list)
    for record in records:
        if record["does"] not in ("fail", "unknown") and record["n"] > 0:
            numbers[int(float(record["key"]))].append(record["n"])
    return dict(numbers)


async def effects(conn) -> dict[int, list[int]]:
    """The numbers of each key, in the order in which they took effect."""
    if rows := await conn.fetch("SELECT key, numbers FROM account"):
        return {row["key"]: row["numbers"] for row in rows}
    sql = "SELECT key, array_agg(n ORDER BY at) AS numbers FROM history GROUP BY key"
    seen = {row["key"]: row["numbers"] for row in await conn.fetch(sql)}
    latest = {row["key"]: row["n"] for row in await conn.fetch("SELECT key, n FROM latest")}
    assert latest == {key: numbers[-1] for key, numbers in seen.items()}
    return seen


async def process(dsn: str, processor: type[BaseProcessor[Any]], records, managers: int):
    """Process a batch by so many managers at once; they know nothing of each other."""
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(BatchManager(dsn, concurrency=6))
            for _ in range(managers)
        ]
        for manager in opened:
            manager.registry.register(processor)
        batch_id = await opened[0].create_batch("row", records)
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group:
                for manager in opened:
                    group.start_soon(manager.process_batch, batch_id)
        return await opened[0].get_batch_summary(batch_id)


@pytest.mark.parametrize("managers", some_long([1, 2], {2}))
@pytest.mark.parametrize("mode", MODES)
async def test_the_effects_are_those_of_one_after_the_other(dsn, conn, mode, managers):
    """Whatever fails, conflicts or is tried again, in ranges of twenty items."""
    await conn.execute(TABLES)
    records = made(managers, 200, declared=mode.startswith("declared"))
    right = expected(records)
    summary = await process(dsn, MODES[mode], records, managers)
    assert summary.completed_items == sum(map(len, right.values()))
    assert summary.completed_items + summary.failed_items == len(records)
    assert await effects(conn) == right


async def test_a_key_waits_for_a_stored_retry_over_processes(dsn, conn):
    """Later items of its key wait until it is due, in its range and in others; all others run."""
    await conn.execute(TABLES)
    records = [{"key": n % 20, "n": n, "does": "retry" if n == 3 else ""} for n in range(1, 201)]
    async with BatchManager(dsn, concurrency=6) as one, BatchManager(dsn, concurrency=6) as other:
        for manager in (one, other):
            manager.registry.register(LateProcessor)
        batch_id = await one.create_batch("row", records)
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group:
                for manager in (one, other):
                    group.start_soon(manager.process_batch, batch_id)
                await appears(conn, SETTLED, 190)
                seen = await effects(conn)
                assert 3 not in seen, "they wait for the item that is due later"
                await conn.execute("UPDATE reliable_imports.import_batch_items SET due_at = now()")
                await conn.execute(
                    "UPDATE reliable_imports.import_batch_ranges SET not_before = now()"
                )
    assert await effects(conn) == expected(records)


async def test_a_deferred_item_gives_up_its_place(manager, conn):
    """What waits for other records does not hold up those of its key."""
    await conn.execute(TABLES)
    manager.registry.register(DeferringProcessor)
    records = [{"key": 1, "n": n, "does": "defer" if n == 1 else ""} for n in range(1, 5)]
    await manager.process_batch(await manager.create_batch("row", records))
    assert await effects(conn) == {1: [2, 3, 4, 1]}


async def test_a_range_of_a_dead_worker_keeps_its_place(dsn, conn):
    """Its items run apart, one by one; those behind them, in ranges that are held, wait for them."""
    await conn.execute(TABLES)
    records = [{"key": n % 3, "n": n, "does": ""} for n in range(1, 101)]
    async with BatchManager(dsn, concurrency=4, settings=Settings(lease_seconds=1.0)) as manager:
        manager.registry.register(Accumulating)
        batch_id = await manager.create_batch("row", records)
        await conn.execute(
            "UPDATE reliable_imports.import_batches SET status = 'processing', started_at = now()"
        )
        await conn.execute(
            "UPDATE reliable_imports.import_batch_ranges SET state = 'leased', epoch = 1,"
            " worker_id = gen_random_uuid(), lease_until = now() + interval '1 s'"
            " WHERE first_item IN (1, 41)"
        )
        with anyio.fail_after(PATIENCE):
            assert (await manager.process_batch(batch_id)).completed_items == 100
    assert await effects(conn) == expected(records)


async def test_what_a_pause_left_pending_comes_before_what_follows_it(manager, conn):
    """An exception that pauses the batch is no outcome, so later items of its key wait as well."""
    await conn.execute(TABLES)
    processor = PausingProcessor()
    manager.registry.register(processor)
    records = [{"key": 1, "n": n, "does": "fail" if n < 5 else ""} for n in range(1, 31)]
    batch_id = await manager.create_batch("row", records)
    paused = await manager.process_batch(batch_id)
    assert (paused.status, paused.failed_items) == (BatchStatus.PAUSED, 3)
    processor.act = nothing
    await manager.resume_batch(batch_id)
    await manager.process_batch(batch_id)
    assert await effects(conn) == {1: list(range(4, 31))}


async def test_a_key_that_only_the_processor_can_tell_keeps_its_order(dsn, conn, caplog):
    """An upsert by what no record tells: its items run one after the other, and a log says so."""
    await conn.execute(TABLES)
    records = [{"key": n % 5, "n": n, "does": ""} for n in range(1, 201)]
    summary = await process(dsn, LookingUpProcessor, records, 2)
    assert summary.completed_items == 200
    latest = {row["key"]: row["n"] for row in await conn.fetch("SELECT key, n FROM latest")}
    assert latest == {1_000 + key: numbers[-1] for key, numbers in expected(records).items()}
    assert "Define lock_key(record)" in caplog.text


async def test_a_key_under_another_name_is_recognised(dsn, conn, caplog):
    await conn.execute(TABLES)
    records = [{"code": n % 5, "n": n} for n in range(1, 201)]
    assert (await process(dsn, RenamingProcessor, records, 2)).completed_items == 200
    latest = {row["key"]: row["n"] for row in await conn.fetch("SELECT key, n FROM latest")}
    assert latest == {n % 5: n for n in range(196, 201)}
    assert "lock_key" not in caplog.text


async def test_items_of_different_keys_do_not_wait_for_each_other(manager, conn):
    """Only those of one key do: four of different ones are in their transactions at once."""
    await conn.execute(TABLES)
    processor = MeetingProcessor()
    manager.registry.register(processor)
    records = [{"key": n, "n": n, "does": ""} for n in range(4)]
    with anyio.fail_after(PATIENCE):
        await manager.process_batch(await manager.create_batch("row", records))


async def test_a_reprocessing_has_the_order_of_the_first_batch(manager, conn):
    await conn.execute(TABLES)
    processor = Accumulating()
    manager.registry.register(processor)
    records = [{"key": n % 3, "n": n, "does": "fail"} for n in range(1, 61)]
    batch_id = await manager.create_batch("row", records)
    await manager.process_batch(batch_id)
    key_of = {record["n"]: record["key"] for record in records}
    await manager.reprocess_batch(
        batch_id, transform=lambda record: {**record, "key": 5 - record["key"], "does": ""}
    )
    stored = await conn.fetch(
        "SELECT (source_data ->> 'n')::int AS n, lock_key FROM reliable_imports.import_batch_items"
        " WHERE root_item_number IS NOT NULL"
    )
    assert {row["n"]: row["lock_key"] for row in stored} == {
        n: str(5 - key) for n, key in key_of.items()
    }
    right = defaultdict(list)
    for n, key in key_of.items():
        right[5 - key].append(n)
    assert await effects(conn) == right


@pytest.mark.parametrize("returned", [1.5j, ["a"], "x" * 2_000, object()])
async def test_a_lock_key_that_is_none_fails_its_item_alone(manager, conn, returned):
    class Odd(Accumulating):
        def lock_key(self, record):
            return returned if record["n"] == 2 else record["key"]

    await conn.execute(TABLES)
    manager.registry.register(Odd)
    batch_id = await manager.create_batch("row", [{"key": 1, "n": n} for n in (1, 2, 3)])
    summary = await manager.process_batch(batch_id)
    assert (summary.completed_items, summary.failed_items) == (2, 1)
    failed = await manager.get_item(batch_id, 2)
    assert failed.failure.type == "ItemKeyRefused"
    assert failed.failure.message.startswith("lock_key ")


@pytest.mark.parametrize(
    "spellings",
    [
        ("7", " 7", "07", "+7", "7.0", "7.", 7, 7.0, Decimal("7.00")),
        ("abc", "ABC", " abc ", "Abc"),
        ("é", "e\u0301", "É", "e"),
        ("1000", "1_000", 1000),
        ("", None, " "),
        (0, "0", "000", "0.0", "-0", 0.0),
        ("2026-01-05", date(2026, 1, 5)),
        (UUID(int=11), str(UUID(int=11)), str(UUID(int=11)).upper()),
    ],
)
async def test_spellings_of_one_key_are_one_key(conn, spellings):
    """In the process, and as far as they are stored in the database's own comparison."""
    assert len({coarse(value) for value in spellings}) == 1
    texts = [value for value in spellings if isinstance(value, str)]
    sql = "SELECT count(DISTINCT reliable_imports.order_key(v)) FROM unnest($1::text[]) AS v"
    assert await conn.fetchval(sql, [text for text in texts if text.isascii()]) <= 1


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ('["07","a"]', '["7.0","A"]', True),
        ('["a","07"]', '["a","7"]', True),
        ('["a","1.50"]', '["a","1.5"]', True),
        ('["a","b"]', '["b","a"]', False),
        ("k1", "k10", False),
        ("", "0", True),
        ("100", "10", False),
    ],
)
async def test_stored_keys_are_compared_part_by_part(conn, one, other, same):
    sql = """
        SELECT count(DISTINCT o) FROM unnest($1::text[]) AS k
         CROSS JOIN LATERAL reliable_imports.order_keys(k, NULL, NULL, '["item_key"]') AS o
    """
    assert await conn.fetchval(sql, [one, other]) == (1 if same else 2)


def test_different_keys_are_told_apart():
    keys = ["a", "b", "7", "8", "70", "-", "k1", "k10", date(2026, 1, 1), UUID(int=3)]
    assert len({coarse(key) for key in keys}) == len(keys)


class Plain(BaseModel):
    key: int


class Aliased(BaseModel):
    key: str = Field(alias="Key No.")


class Converted(BaseModel):
    key: str

    @field_validator("key")
    @classmethod
    def first(cls, value: str) -> str:
        return value.split("-", maxsplit=1)[0]


class Defaulted(BaseModel):
    key: str = "none"


class Annotation(BaseModel):
    key: Annotated[str, BeforeValidator(str.upper)]


class Checked(BaseModel):
    key: str

    @model_validator(mode="before")
    @classmethod
    def rename(cls, values: Any) -> Any:
        return {"key": values["k"]}


class Dated(BaseModel):
    key: datetime


@pytest.mark.parametrize(
    ("model", "kinds"),
    [
        (Plain, [["key"]]),
        (Aliased, [["Key No."]]),
        (Converted, ["everything"]),
        (Defaulted, ["everything"]),
        (Annotation, ["everything"]),
        (Checked, ["everything"]),
        (Dated, ["everything"]),
    ],
)
def test_the_database_compares_records_only_where_it_can(model, kinds):
    """Where a model may make one key of two texts, one process at a time has the batch."""

    class Made(BaseProcessor[model]):
        table = "t"
        key = ("key",)

    batch = ImportBatch.__new__(ImportBatch)
    assert json.loads(Ordering(Made(), batch).kinds) == kinds
