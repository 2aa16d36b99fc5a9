"""Reprocessing: what succeeded never runs again, however often and concurrently it is asked."""

import random
from collections import Counter
from uuid import UUID

import anyio
import pytest

from reliable_imports_async import BaseProcessor, BatchManager, BatchStatus, ItemStatus
from reliable_imports_async.errors import ConfigurationError, ReprocessRefused, WrongBatchStatus

LEDGER = "CREATE TABLE ledger (n integer NOT NULL)"


class NumberProcessor(BaseProcessor):
    """Writes each number; refuses those in `refused`."""

    def __init__(self) -> None:
        self.refused: set[int] = set()
        self.runs: Counter[int] = Counter()

    async def process_item(self, item, ctx):
        number = item.source_data["n"]
        self.runs[number] += 1
        await ctx.execute("INSERT INTO ledger VALUES ($1)", number)
        if number in self.refused:
            if number % 2:
                raise ValueError(f"not {number}")
            raise ValueError("not an even one")


@pytest.fixture
async def processor(manager: BatchManager, conn) -> NumberProcessor:
    await conn.execute(LEDGER)
    made = NumberProcessor()
    manager.registry.register(made)
    return made


async def import_numbers(manager: BatchManager, count: int):
    batch_id = await manager.create_batch("number", [{"n": n} for n in range(1, count + 1)])
    return await manager.process_batch(batch_id)


async def ledger(conn) -> Counter[int]:
    return Counter(row["n"] for row in await conn.fetch("SELECT n FROM ledger"))


async def test_a_chain_ends_with_every_record_in_exactly_once(manager, conn, processor):
    processor.refused = {3, 4, 7, 8, 9}
    first = await import_numbers(manager, 30)
    processor.refused = {8, 9}
    second = await manager.reprocess_batch(first.batch_id)
    assert (second.total_items, second.completed_items, second.failed_items) == (5, 3, 2)
    assert (second.parent_batch_id, second.root_batch_id) == (first.batch_id, first.batch_id)
    processor.refused = set()
    third = await manager.reprocess_batch(first.batch_id)
    assert (third.total_items, third.status) == (2, BatchStatus.COMPLETED)
    again = await manager.reprocess_batch(second.batch_id)
    assert again.batch_id == third.batch_id, "nothing is eligible: no new batch"
    assert await ledger(conn) == Counter(range(1, 31))
    outstanding = [one.outstanding_items for one in await manager.lineage(third.batch_id)]
    assert outstanding == [0, 0, 0]


async def test_twenty_calls_at_once_make_one_batch(manager, conn, processor):
    processor.refused = set(range(1, 51))
    first = await import_numbers(manager, 60)
    processor.refused = set()
    summaries = []

    async def reprocess() -> None:
        summaries.append(await manager.reprocess_batch(first.batch_id))

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(reprocess)

    assert {one.batch_id for one in summaries} == {summaries[0].batch_id}
    assert {one.completed_items for one in summaries} == {50}
    assert await ledger(conn) == Counter(range(1, 61))


async def test_a_group_or_numbers_select(manager, conn, processor):
    processor.refused = {2, 3, 4, 6}
    first = await import_numbers(manager, 10)
    even = next(g for g in await manager.failure_groups(first.batch_id) if g.count == 3)
    processor.refused = set()
    assert (await manager.reprocess_batch(first.batch_id, group=even.group)).completed_items == 3
    assert (await manager.reprocess_batch(first.batch_id, item_numbers=[3])).completed_items == 1
    assert await ledger(conn) == Counter(range(1, 11))


@pytest.mark.parametrize("numbers", [[1], [2, 1], [99]])
async def test_named_items_that_cannot_run_are_refused_and_nothing_is_marked(
    manager, conn, processor, numbers
):
    processor.refused = {2}
    first = await import_numbers(manager, 3)
    with pytest.raises(ReprocessRefused):
        await manager.reprocess_batch(first.batch_id, item_numbers=numbers)
    processor.refused = set()
    assert (await manager.reprocess_batch(first.batch_id)).completed_items == 1
    assert await ledger(conn) == Counter([1, 2, 3])


async def test_transform_makes_new_records_and_a_raising_one_leaves_nothing(
    manager, conn, processor
):
    processor.refused = {2, 3}
    first = await import_numbers(manager, 3)
    with pytest.raises(ZeroDivisionError):
        await manager.reprocess_batch(first.batch_id, transform=lambda record: record["n"] / 0)
    assert len(await manager.lineage(first.batch_id)) == 1
    child = await manager.reprocess_batch(
        first.batch_id, transform=lambda record: {"n": record["n"] + 100}
    )
    assert child.completed_items == 2
    assert await ledger(conn) == Counter([1, 102, 103])
    original = await manager.get_item(first.batch_id, 2)
    assert original.source_data == {"n": 2}


async def test_unreadable_records_take_part_only_with_new_data(manager, conn, processor):
    batch_id = await manager.create_batch("number", [{"n": 1}, {"n": float("nan")}])
    first = await manager.process_batch(batch_id)
    assert (first.completed_items, first.failed_items) == (1, 1)
    assert (await manager.reprocess_batch(batch_id)).batch_id == batch_id
    child = await manager.reprocess_batch(
        batch_id, item_numbers=[2], transform=lambda _raw: {"n": 2}
    )
    assert child.completed_items == 1
    assert (await manager.get_batch_summary(batch_id)).outstanding_items == 0


async def test_every_item_again_only_when_asked(manager, conn, processor):
    processor.refused = {2}
    first = await import_numbers(manager, 3)
    processor.refused = set()
    every = await manager.reprocess_batch(first.batch_id, failed_items_only=False)
    assert (every.total_items, every.completed_items) == (3, 3)
    assert await ledger(conn) == Counter([1, 1, 2, 3, 3])
    assert (await manager.get_batch_summary(first.batch_id)).outstanding_items == 0
    assert (await manager.reprocess_batch(first.batch_id)).batch_id == every.batch_id


async def test_what_a_cancelled_batch_left_pending_runs_in_its_child(manager, conn, processor):
    batch_id = await manager.create_batch("number", [{"n": n} for n in range(5)])
    await manager.cancel_batch(batch_id, actor="tester")
    child = await manager.reprocess_batch(batch_id)
    assert child.completed_items == 5
    states = [item.status async for item in manager.list_items(batch_id)]
    assert states == [ItemStatus.PENDING] * 5
    assert (await manager.reprocess_batch(batch_id)).batch_id == child.batch_id
    assert await ledger(conn) == Counter(range(5))


async def test_a_batch_that_has_not_run_yet_cannot_be_reprocessed(manager, processor):
    batch_id = await manager.create_batch("number", [{"n": 1}])
    with pytest.raises(WrongBatchStatus, match="pending"):
        await manager.reprocess_batch(batch_id)


@pytest.mark.parametrize("share_of_failed_only", [1.0, 0.7])
async def test_outstanding_items_agree_with_a_recount(
    manager, conn, processor, share_of_failed_only
):
    """Random lineages; a record is outstanding until something later completes it."""
    chance = random.Random(7)
    for _ in range(4):
        processor.refused = set(chance.sample(range(1, 21), 8))
        family = [await import_numbers(manager, 20)]
        for _ in range(5):
            processor.refused = set(chance.sample(range(1, 21), chance.randint(0, 8)))
            only = chance.random() < share_of_failed_only
            origin = chance.choice(family).batch_id
            family.append(await manager.reprocess_batch(origin, failed_items_only=only))
            expected = await recount(conn, family[0].batch_id)
            members = await manager.lineage(family[0].batch_id)
            assert {one.outstanding_items for one in members} == {expected}
            left = await manager.outstanding_failures(family[-1].batch_id)
            assert sum(group.count for group in left) == expected


async def recount(conn, root_batch_id) -> int:
    rows = await conn.fetch(
        "SELECT i.batch_id, coalesce(i.root_item_number, i.item_number) AS root, i.status "
        "FROM reliable_imports.import_batch_items i "
        "JOIN reliable_imports.import_batches b ON b.id = i.batch_id WHERE b.root_batch_id = $1",
        root_batch_id,
    )
    latest: dict[tuple[int, str], UUID] = {}
    for row in rows:
        place = row["root"], row["status"]
        latest[place] = max(row["batch_id"], latest.get(place, row["batch_id"]))
    return sum(
        status == "failed" and latest.get((root, "completed"), UUID(int=0)) < batch_id
        for (root, status), batch_id in latest.items()
    )


async def test_a_cancelled_or_unfinished_reprocessing_leaves_its_records_outstanding(
    manager, processor
):
    """Whoever asks and whichever batch is asked about."""
    processor.refused = {2, 3, 4, 5}
    root = (await import_numbers(manager, 6)).batch_id
    processor.refused = {3}
    child = await manager.create_reprocessing(root, item_numbers=[2, 3])

    async def outstanding() -> set[int]:
        listed = [one async for one in manager.list_batches(root_batch_id=root)]
        family = [*await manager.lineage(root), *listed]
        return {one.outstanding_items for one in family}

    assert await outstanding() == {4}, "two of them wait in the child"
    assert sum(g.count for g in await manager.outstanding_failures(child)) == 2
    await manager.cancel_batch(child)
    assert await outstanding() == {4}
    grandchild = await manager.reprocess_batch(child)
    assert (grandchild.total_items, grandchild.outstanding_items) == (4, 1)
    assert await outstanding() == {1}
    (group,) = await manager.outstanding_failures(root)
    assert (group.batch_id, group.sample_items) == (grandchild.batch_id, (2,))
    exported = b"".join([one async for one in manager.export_failures(root)]).decode()
    assert f"{root},3," in exported
    assert exported.count("\n") == 2


async def test_what_a_cancelled_import_left_is_outstanding_and_exported_once_it_fails(
    manager, processor
):
    batch_id = await manager.create_batch("number", [{"n": n} for n in range(1, 6)])
    await manager.cancel_batch(batch_id)
    assert (await manager.get_batch_summary(batch_id)).outstanding_items == 5
    processor.refused = {4}
    child = await manager.reprocess_batch(batch_id)
    assert (child.completed_items, child.outstanding_items) == (4, 1)
    exported = b"".join([one async for one in manager.export_failures(batch_id)]).decode()
    assert f"{batch_id},4," in exported
    assert exported.count("\n") == 2


async def test_a_listed_batch_has_counts(manager, processor):
    processor.refused = {2, 3}
    root = await import_numbers(manager, 5)
    processor.refused = {3}
    child = await manager.reprocess_batch(root.batch_id)
    waiting = await manager.create_batch("number", [{"n": 9}])
    listed = {one.id: one async for one in manager.list_batches()}
    found = {
        batch_id: (
            one.total_items, one.completed_items, one.skipped_items, one.failed_items,
            one.pending_items, one.outstanding_items,
        )
        for batch_id, one in listed.items()
    }  # fmt: skip
    assert found == {
        root.batch_id: (5, 3, 0, 2, 0, 1),
        child.batch_id: (2, 1, 0, 1, 0, 1),
        waiting: (1, 0, 0, 0, 1, 0),
    }
    assert listed[waiting].as_dict()["pending_items"] == 1


async def test_all_and_a_selection_contradict_each_other(manager, conn, processor):
    first = await import_numbers(manager, 2)
    with pytest.raises(ReprocessRefused, match="All items were requested"):
        await manager.reprocess_batch(first.batch_id, failed_items_only=False, item_numbers=[1])


async def test_a_canary_that_passes_is_followed_by_the_rest(manager, conn, processor):
    processor.refused = set(range(1, 61))
    first = await import_numbers(manager, 70)
    processor.refused = {1}
    rest = await manager.reprocess_batch(first.batch_id, canary=20, min_success=0.9)
    canary = (await manager.lineage(first.batch_id))[1]
    assert (canary.total_items, rest.total_items) == (20, 40 + canary.failed_items)
    assert rest.stopped is None
    assert rest.failed_items == 1
    sample = [item.root_item_number async for item in manager.list_items(canary.batch_id)]
    assert len({number // 15 for number in sample}) >= 4, "from anywhere"
    again = await manager.process_reprocessing(canary.batch_id)
    assert (again.total_items, again.failed_items) == (1, 1)
    assert await ledger(conn) == Counter(range(2, 71))


async def test_a_canary_that_fails_leaves_the_rest_alone(manager, conn, processor):
    processor.refused = set(range(1, 61))
    first = await import_numbers(manager, 60)
    processor.refused = {n for n in range(1, 61) if n % 2}
    stopped = await manager.reprocess_batch(first.batch_id, canary=10, min_success=0.9)
    good = stopped.completed_items
    assert stopped.total_items == 10 > good + 1
    assert f"{good} of 10 items succeeded, and 90% must" in stopped.stopped
    assert [group.count for group in stopped.groups] == [10 - good]
    processor.refused = set()
    everything = await manager.reprocess_batch(first.batch_id, canary=10)
    canary = (await manager.lineage(first.batch_id))[2]
    assert (canary.total_items, everything.total_items, everything.ok) == (10, 50 - good, True)
    assert await ledger(conn) == Counter(range(1, 61))


async def test_a_canary_of_named_items_or_of_a_group(manager, conn, processor):
    processor.refused = {2, 3, 4, 6, 8}
    first = await import_numbers(manager, 10)
    processor.refused = set()
    await manager.reprocess_batch(first.batch_id, item_numbers=[3, 4], canary=1, min_success=1)
    assert await ledger(conn) == Counter({1, 3, 4, 5, 7, 9, 10})
    (group,) = [g for g in first.groups if g.count == 4]
    await manager.reprocess_batch(
        first.batch_id, group=group.group, canary=2, transform=lambda r: {"n": r["n"] + 100}
    )
    assert await ledger(conn) == Counter({1, 3, 4, 5, 7, 9, 10, 102, 106, 108})


async def test_a_canary_as_large_as_all_is_all(manager, conn, processor):
    processor.refused = {1, 2}
    first = await import_numbers(manager, 3)
    processor.refused = set()
    summary = await manager.reprocess_batch(first.batch_id, canary=20)
    assert (summary.total_items, summary.ok) == (2, True)
    assert len(await manager.lineage(first.batch_id)) == 2


@pytest.mark.parametrize("options", [{"canary": 0}, {"canary": 5, "min_success": 90}])
async def test_a_canary_that_cannot_work_is_refused(manager, processor, options):
    first = await import_numbers(manager, 1)
    with pytest.raises(ConfigurationError, match="0 to 1"):
        await manager.reprocess_batch(first.batch_id, **options)


async def test_reprocessing_in_two_steps(manager, conn, processor):
    processor.refused = {2}
    first = await import_numbers(manager, 3)
    assert await manager.unreadable_items(first.batch_id) == 0
    processor.refused = set()
    child = await manager.create_reprocessing(first.batch_id)
    assert (await manager.get_batch(child)).status is BatchStatus.PENDING
    assert (await manager.process_reprocessing(child)).ok
    assert await manager.create_reprocessing(first.batch_id) == child
