"""Many items in one statement: the bad ones are found, the others are not harmed."""

import pytest

from reliable_imports_async import BaseProcessor, FailureKind, Skip

from ..support.trying import processor, records
from .test_chunk import BAD, SIZE, outcomes

ALL = list(range(1, SIZE + 1))
INSERT = "INSERT INTO flights SELECT * FROM unnest($1::integer[], $2::text[])"


@pytest.fixture(autouse=True)
async def tables(conn):
    await conn.execute(
        "CREATE TABLE airports (faa text PRIMARY KEY);"
        "INSERT INTO airports VALUES ('EWR'), ('JFK');"
        "CREATE TABLE flights (n integer CHECK (n >= 0), dest text REFERENCES airports)"
    )


async def run(manager, process_items, given, **attributes):
    manager.registry.__init__()
    tried = processor(None, process_items=process_items, **attributes)
    del tried.process_item
    manager.registry.register(tried)
    return await manager.process_batch(await manager.create_batch("tried", given))


def flights(bad: set[int], count: int = SIZE) -> list[dict]:
    return [{"n": n, "dest": "SJU" if n in bad else "EWR"} for n in range(1, count + 1)]


async def written(conn) -> list[int]:
    return [row["n"] for row in await conn.fetch("SELECT n FROM flights ORDER BY n")]


async def insert(items, ctx):
    rows = [(item.source_data["n"], item.source_data["dest"]) for item in items]
    await ctx.execute(INSERT, *map(list, zip(*rows, strict=True)))


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest.mark.parametrize("how", ["key", "check", "raises"])
async def test_bad_items_fail_alone(manager, conn, bad, how):
    sizes = []

    async def process_items(items, ctx):
        sizes.append(len(items))
        numbers = [item.item_number for item in items]
        if how == "raises" and bad & {*numbers}:
            raise ValueError("one of them is bad")
        rows = [
            (-n if how == "check" and n in bad else n, item.source_data["dest"])
            for n, item in zip(numbers, items, strict=True)
        ]
        await ctx.execute(INSERT, *map(list, zip(*rows, strict=True)))

    given = flights(bad if how == "key" else set())
    summary = await run(manager, process_items, given, pause_after=None)

    kind = "exception" if how == "raises" else "data"
    assert await outcomes(manager, summary) == {n: kind if n in bad else "completed" for n in ALL}
    assert await written(conn) == [n for n in ALL if n not in bad]
    assert max(sizes) > 1


async def test_later_items_with_a_named_key_run_alone_and_the_rest_together(manager, conn):
    bad = {n for n in range(1, 201) if n % 20 == 7}
    sizes = []

    async def process_items(items, ctx):
        sizes.append(len(items))
        await insert(items, ctx)

    options = {"concurrency": 1, "commit_interval": 50}
    summary = await run(manager, process_items, flights(bad, 200), **options)

    assert summary.failed_items == len(bad)
    assert await written(conn) == [n for n in range(1, 201) if n not in bad]
    assert sizes.count(1) == len(bad), "each of them alone, and only they"
    assert len(sizes) - len(bad) <= 12, "one set failed; the others went through at once"


async def test_a_named_key_is_tried_all_the_same(manager, conn):
    """The parent comes in the middle of the batch: from then on its children are good."""

    async def process_items(items, ctx):
        if any(item.item_number == 60 for item in items):
            await ctx.execute("INSERT INTO airports VALUES ('SJU') ON CONFLICT DO NOTHING")
        await insert(items, ctx)

    bad = {10, 20, 70, 80, 90}
    options = {"concurrency": 1, "commit_interval": 20}
    summary = await run(manager, process_items, flights(bad, 100), **options)

    seen = await outcomes(manager, summary)
    assert {n for n, outcome in seen.items() if outcome != "completed"} == {10, 20}


async def test_results_belong_to_their_items(manager):
    async def process_items(items, ctx):
        ctx.info("a set", items=len(items))
        return [
            Skip("odd") if item.item_number % 2 else {"target_id": item.item_number}
            for item in items
        ]

    summary = await run(manager, process_items, records(10))

    items = [item async for item in manager.list_items(summary.batch_id)]
    assert [item.skip_reason or item.target_id for item in items] == [
        "odd" if number % 2 else str(number) for number in range(1, 11)
    ]
    lines = [line async for line in manager.get_logs(summary.batch_id) if line.message == "a set"]
    assert [line.item_number for line in lines] == [None] * len(lines)
    assert sum(line.details["items"] for line in lines) == 10


@pytest.mark.parametrize("wrong", [[{}] * 3, {"a": 1}, "ab", 5, [{"unknown": 1}] * 2])
async def test_a_wrong_number_of_results_fails_the_items(manager, conn, wrong):
    async def process_items(items, ctx):
        await insert(items, ctx)
        return wrong

    summary = await run(manager, process_items, flights(set(), 2))
    assert {group.type for group in summary.groups} == {"ProcessorResultError"}
    assert await written(conn) == []


async def test_what_the_model_or_validate_item_rejects_is_not_in_the_set(manager, conn):
    class FlightProcessor(BaseProcessor[dict[str, int]]):
        seen: list[int] = []  # noqa: RUF012

        def validate_item(self, item, ctx):
            return item.data["n"] != 4

        async def process_items(self, items, ctx):
            self.seen.extend(item.item_number for item in items)

    manager.registry.register(FlightProcessor)
    given = [{"n": n} for n in range(1, 7)]
    given[1] = {"n": "two"}
    summary = await manager.process_batch(await manager.create_batch("flight", given))
    assert sorted(FlightProcessor.seen) == [1, 3, 5, 6]
    assert {group.kind for group in summary.groups} == {"validation"}
    assert summary.failed_items == 2


async def test_a_set_that_is_too_slow_is_taken_apart(manager, conn):
    async def process_items(items, ctx):
        if any(item.item_number == 5 for item in items):
            await ctx.execute("SELECT pg_sleep(60)")
        await insert(items, ctx)

    summary = await run(manager, process_items, flights(set(), 10), item_timeout=1.0)

    seen = await outcomes(manager, summary)
    assert {n: outcome for n, outcome in seen.items() if outcome != "completed"} == {
        5: FailureKind.TIMEOUT
    }
    assert await written(conn) == [1, 2, 3, 4, 6, 7, 8, 9, 10]


async def test_a_set_has_no_item_and_sets_no_metadata(manager):
    async def process_items(items, ctx):
        assert ctx.item is None
        ctx.set_metadata(seen=len(items))

    summary = await run(manager, process_items, records(2))
    assert {group.type for group in summary.groups} == {"ProcessorError"}
    assert summary.failed_items == 2
