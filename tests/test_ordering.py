"""Items of one key take effect in the order of their numbers: in every mode, over all processes."""

import random
from collections import defaultdict
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest
from pydantic import BaseModel, Field, field_validator

from reliable_imports_async import BaseProcessor, BatchManager, Retry
from reliable_imports_async.ordering import Ordering, coarse

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


class Interval(Accumulating):
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


class Keyed(Interval):
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


class Declared(BaseProcessor[Row]):
    batch_type = "row"
    table = "latest"
    key = ("key",)
    commit_interval = 20


class Declaration(BaseModel):
    key: int
    n: int


class DeclaredProcessor(BaseProcessor[Declaration]):
    batch_type = "row"
    table = "latest"
    key = ("key",)
    commit_interval = 20


DOES = ("", "", "", "", "slow", "retry", "conflict", "fail", "unknown")
MODES: dict[str, type[BaseProcessor[Any]]] = {
    "item": Accumulating,
    "interval": Interval,
    "prepared": Prepared,
    "prepared interval": PreparedInterval,
    "set": Sets,
    "item key": Keyed,
    "upsert": Upserting,
    "upsert in intervals": UpsertingIntervals,
    "declared": DeclaredProcessor,
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
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                for manager in opened:
                    group.start_soon(manager.process_batch, batch_id)
        return await opened[0].get_batch_summary(batch_id)


@pytest.mark.parametrize("managers", [1, 2])
@pytest.mark.parametrize("mode", MODES)
async def test_the_effects_are_those_of_one_after_the_other(dsn, conn, mode, managers):
    """Whatever fails, conflicts or is tried again, in ranges of twenty items."""
    await conn.execute(TABLES)
    records = made(managers, 300, declared=mode == "declared")
    right = expected(records)
    summary = await process(dsn, MODES[mode], records, managers)
    assert summary.completed_items == sum(map(len, right.values()))
    assert summary.completed_items + summary.failed_items == len(records)
    assert await effects(conn) == right
