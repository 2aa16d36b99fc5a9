"""A dry run tells what would happen, and nothing of it does."""

import contextlib
import json
import random

import asyncpg
import pytest

from reliable_imports_async import BaseProcessor, BatchManager, BatchStatus, Retry, Skip
from reliable_imports_async.errors import BatchNotFound, WrongBatchStatus

from ..support.trying import MODES


class TownProcessor(BaseProcessor):
    """Everything that can happen to an item, by its name."""

    def __init__(self) -> None:
        self.seen: list[bool] = []

    async def validate_item(self, item, ctx):
        return item.source_data["name"] != "invalid"

    async def process_item(self, item, ctx):
        self.seen.append(ctx.dry_run)
        name = item.source_data["name"]
        if name == "skipped":
            return Skip("not wanted")
        if name == "later":
            raise Retry("come back")
        if name == "bug":
            await ctx.execute("SELECT * FROM nowhere")
        await ctx.execute("INSERT INTO towns VALUES ($1, $2)", name, item.source_data.get("land"))
        if name == "swallowed":
            with contextlib.suppress(asyncpg.DivisionByZeroError):
                await ctx.execute("SELECT 1/0")
        if name == "savepoint":
            async with ctx.savepoint():
                await ctx.execute("UPDATE lands SET seen = seen + 1 WHERE name = 'A'")
        if name == "raises":
            raise ValueError("after the insert")
        return None


@pytest.fixture
async def processor(manager: BatchManager, conn) -> TownProcessor:
    await conn.execute(
        "CREATE TABLE lands (name text PRIMARY KEY, seen integer NOT NULL DEFAULT 0);"
        "CREATE TABLE towns (name text PRIMARY KEY,"
        " land text REFERENCES lands DEFERRABLE INITIALLY DEFERRED);"
        "INSERT INTO lands VALUES ('A')"
    )
    made = TownProcessor()
    manager.registry.register(made)
    return made


async def dry_run(manager: BatchManager, names, land="A"):
    records = [name if isinstance(name, dict) else {"name": name, "land": land} for name in names]
    batch_id = await manager.create_batch("town", records)
    return batch_id, await manager.process_batch(batch_id, dry_run=True)


async def test_every_outcome_is_predicted_and_none_happens(manager, conn, processor):
    names = ["one", "two", "skipped", "invalid", "later", "bug", "swallowed", "raises"]
    names += ["savepoint", {"name": "far", "land": "Z"}, {"name": float("nan")}]
    batch_id, report = await dry_run(manager, names)
    assert (report.total_items, report.completed, report.skipped) == (11, 3, 1)
    assert (report.failed, report.retried) == (6, 1)
    kinds = {group.kind: group for group in report.groups}
    assert set(kinds) == {"validation", "bug", "transaction", "exception", "data", "parse"}
    assert kinds["data"].values == (("land=Z", 1),), "a deferred constraint"
    assert kinds["data"].sample_items == (10,)
    changes = {one.table: (one.inserted, one.updated, one.deleted) for one in report.tables}
    assert changes == {"public.towns": (3, 0, 0), "public.lands": (0, 1, 0)}
    assert await conn.fetchval("SELECT count(*) FROM towns") == 0
    assert await conn.fetchval("SELECT seen FROM lands") == 0
    assert set(processor.seen) == {True}
    assert json.loads(json.dumps(report.as_dict()))["tables"][0]["table"] == "public.lands"

    batch = await manager.get_batch_summary(batch_id)
    assert (batch.status, batch.pending_items) == (BatchStatus.PENDING, 10)
    assert [line.message async for line in manager.get_logs(batch_id)] == ["batch created"]


async def test_what_it_predicts_is_what_then_happens(manager, conn, processor):
    names = [f"town {n}" if n % 7 else "raises" for n in range(1, 1_001)]
    batch_id, report = await dry_run(manager, names)
    real = await manager.process_batch(batch_id)
    assert (report.completed, report.failed) == (real.completed_items, real.failed_items)
    (towns,) = report.tables
    assert towns.inserted == await conn.fetchval("SELECT count(*) FROM towns") == 858
    (group,) = report.groups
    assert (group.group, group.count) == (real.groups[0].group, 142)
    assert group.sample_items == tuple(range(7, 701, 7))


class LandProcessor(BaseProcessor):
    """Some towns are refused, by the code or by the database, and some are skipped."""

    batch_type = "land"

    async def process_item(self, item, ctx):
        name, land = item.source_data["name"], item.source_data["land"]
        if land == "B" and item.item_number % 5 == 0:
            return Skip("not wanted")
        await ctx.execute("UPDATE lands SET seen = seen + 1 WHERE name = $1", land)
        await ctx.execute("INSERT INTO towns VALUES ($1, $2)", name, land)
        if item.item_number % 11 == 0:
            raise ValueError("after the insert")
        return None


class LandSetProcessor(LandProcessor):
    """The same for sets."""

    async def process_items(self, items, ctx):
        return [await self.process_item(item, ctx) for item in items]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("mode", MODES)
async def test_a_dry_run_equals_the_real_run_in_each_mode(manager, conn, processor, mode, seed):
    await conn.execute("INSERT INTO lands VALUES ('B')")
    drawn = random.Random(seed)
    share = drawn.choice([0.02, 0.3])  # of lands that do not exist
    lands = ["A", "B", "Z", "?"]
    weights = [1 - share, 1 - share, share, share]
    records = [
        {"name": f"town {n}", "land": drawn.choices(lands, weights)[0]}
        for n in range(drawn.randrange(50, 300))
    ]
    manager.registry.register(LandSetProcessor() if mode == "set" else LandProcessor())
    batch_id = await manager.create_batch("land", records)
    report = await manager.process_batch(batch_id, dry_run=True, **MODES[mode])
    assert await conn.fetchval("SELECT count(*) FROM towns") == 0

    real = await manager.process_batch(batch_id, **MODES[mode])
    counts = (real.completed_items, real.skipped_items, real.failed_items)
    assert (report.completed, report.skipped, report.failed) == counts
    causes = {group.group: group.count for group in real.groups}
    assert {group.group: group.count for group in report.groups} == causes
    written = {one.table: (one.inserted, one.updated) for one in report.tables}
    towns = await conn.fetchval("SELECT count(*) FROM towns")
    seen = await conn.fetchval("SELECT sum(seen)::integer FROM lands")
    assert written == {"public.towns": (towns, 0), "public.lands": (0, seen)}


async def test_items_of_a_chunk_meet_what_earlier_items_of_it_wrote(manager, conn, processor):
    records = [{"name": "same", "land": "A"}] * 3
    batch_id = await manager.create_batch("town", records)
    report = await manager.process_batch(batch_id, dry_run=True, commit_interval=3)
    assert (report.completed, report.failed) == (1, 2)
    assert "chunk" in report.notes[1]


async def test_items_that_depend_on_each_other_are_judged_alone(manager, conn, processor):
    _, report = await dry_run(manager, ["same", "same", "same"])
    assert (report.completed, report.failed) == (3, 0)


async def test_the_report_says_what_happened_all_the_same(manager, conn, processor):
    _, report = await dry_run(manager, ["one"])
    assert report.notes[0] == "sequences have advanced"
    assert "depend on each other" in report.notes[1]

    class CallingProcessor(TownProcessor):
        async def prepare_item(self, item, ctx):
            return None

    manager.registry.register(CallingProcessor())
    batch_id = await manager.create_batch("calling", [{"name": "two", "land": "A"}])
    report = await manager.process_batch(batch_id, dry_run=True)
    assert report.notes[0].startswith("prepare_item ran")


async def test_a_batch_that_is_started_meanwhile_has_no_report(manager, conn):
    class RacingProcessor(BaseProcessor):
        async def process_item(self, item, ctx):
            if ctx.dry_run:
                await manager.process_batch(item.batch_id)

    manager.registry.register(RacingProcessor)
    batch_id = await manager.create_batch("racing", [{"n": 1}])
    with pytest.raises(WrongBatchStatus, match="completed"):
        await manager.process_batch(batch_id, dry_run=True)


async def test_only_a_pending_batch_can_be_tried(manager, processor):
    batch_id, _ = await dry_run(manager, ["one"])
    await manager.process_batch(batch_id)
    with pytest.raises(WrongBatchStatus, match="completed"):
        await manager.process_batch(batch_id, dry_run=True)
    paused, _ = await dry_run(manager, ["two"])
    await manager.pause_batch(paused)
    with pytest.raises(WrongBatchStatus, match="paused"):
        await manager.process_batch(paused, dry_run=True)
    with pytest.raises(BatchNotFound):
        await manager.process_batch(
            type(batch_id)("019a0000-0000-7000-8000-000000000001"), dry_run=True
        )


class StartingProcessor(BaseProcessor):
    """Creates its own table."""

    async def on_batch_start(self, ctx):
        await ctx.execute("CREATE TABLE started (n integer PRIMARY KEY)")

    async def process_item(self, item, ctx):
        await ctx.execute("INSERT INTO started VALUES ($1)", item.source_data["n"])


RAISED = [
    asyncpg.DeadlockDetectedError("of another server"),
    asyncpg.AdminShutdownError("of another server"),
    asyncpg.TooManyConnectionsError("of another server"),
    asyncpg.SerializationError("of another server"),
    asyncpg.UniqueViolationError("of another server"),
    OSError("the file is gone"),
    TimeoutError("another system"),
]
SENT = [
    "SELECT 1/0",
    "SELECT * FROM nowhere",
    "DO $$ BEGIN RAISE unique_violation; END $$",
    "DO $$ BEGIN RAISE EXCEPTION 'no'; END $$",
]


async def test_errors_are_judged_as_in_the_real_run(manager, conn):
    """Those of the item's own connection, and those from elsewhere that only look like it."""
    causes = [*RAISED, *SENT]

    class Processor(BaseProcessor):
        batch_type = "compared"
        pause_after = None

        async def process_item(self, item, ctx):
            cause = causes[item.item_number - 1]
            if isinstance(cause, str):
                await ctx.execute(cause)
            raise cause

    manager.registry.register(Processor)
    batch_id = await manager.create_batch("compared", [{}] * len(causes))
    report = await manager.process_batch(batch_id, dry_run=True)
    summary = await manager.process_batch(batch_id)

    def compared(groups):
        return sorted((one.kind, one.type, one.sqlstate or "", one.count) for one in groups)

    assert compared(report.groups) == compared(summary.groups)
    assert report.failed == summary.failed_items == len(causes)


async def test_what_on_batch_start_creates_is_there_and_gone(manager, conn):
    manager.registry.register(StartingProcessor)
    batch_id = await manager.create_batch("starting", [{"n": n} for n in (1, 2, 2)])
    report = await manager.process_batch(batch_id, dry_run=True)
    assert (report.completed, report.failed) == (3, 0)
    assert await conn.fetchval("SELECT to_regclass('started')") is None
    assert (await manager.process_batch(batch_id)).failed_items == 1
