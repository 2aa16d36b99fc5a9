"""How items and batches end when it is hard to: unstorable errors, two workers at the finish."""

import anyio

from reliable_imports_async import BaseProcessor, BatchManager, BatchStatus, FailureKind

from ..store.reach import batches, ranges
from ..support.trying import PATIENCE
from .reach import lifecycle_of


class NastyProcessor(BaseProcessor):
    async def process_item(self, item, ctx):
        ctx.warning("a\x00b \udcff", value="\x00", other="\ud800")
        raise ValueError("a\x00\udcff" * 1_000_000)


async def test_an_error_that_cannot_be_stored_as_it_is_is_stored_all_the_same(manager):
    manager.registry.register(NastyProcessor)
    batch_id = await manager.create_batch("nasty", [{"n": 1}])
    with anyio.fail_after(PATIENCE):
        summary = await manager.process_batch(batch_id)
    assert summary.failed_items == 1
    failure = (await manager.get_item(batch_id, 1)).failure
    assert (failure.kind, failure.type) == (FailureKind.EXCEPTION, "ValueError")
    assert failure.message.startswith("a\\x00")
    assert len(failure.message.encode()) <= 2_048
    lines = [line.message async for line in manager.get_logs(batch_id, item_number=1)]
    assert lines == ["a\\x00b \\udcff"]


class QuickProcessor(BaseProcessor):
    async def process_item(self, item, ctx):
        return None


async def test_a_batch_ends_although_its_last_two_ranges_close_together(dsn, monkeypatch):
    """Both workers release their range, and only then does either look whether it was the last.

    Looked at inside the range's own transaction, each would see the other's range unfinished, and
    nobody would ever finish the batch.
    """
    async with BatchManager(dsn, concurrency=1) as one, BatchManager(dsn, concurrency=1) as other:
        for manager in (one, other):
            manager.registry.register(QuickProcessor)
        batch_id = await one.create_batch("quick", [{"n": n} for n in range(40)])
        arrived: list[int] = []
        both = anyio.Event()
        release = ranges.release

        async def together(conn, claimed, *more):
            async with conn.transaction():
                state = await release(conn, claimed, *more)
                arrived.append(claimed.first_item)
                if len(arrived) == 2:
                    both.set()
                await both.wait()
            return state

        monkeypatch.setattr(ranges, "release", together)
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group:
                group.start_soon(one.process_batch, batch_id)
                group.start_soon(other.process_batch, batch_id)
        assert sorted(arrived) == [1, 21]
        summary = await one.get_batch_summary(batch_id)
        assert (summary.status, summary.completed_items) == (BatchStatus.COMPLETED, 40)


async def test_a_finish_waits_for_a_range_that_is_still_leased(manager, conn):
    """Whoever asks under the batch's lock while a range is unfinished does not finish the batch."""
    manager.registry.register(QuickProcessor)
    batch_id = await manager.create_batch("quick", [{"n": n} for n in range(40)])
    await manager.process_batch(batch_id)
    await conn.execute(
        "UPDATE reliable_imports.import_batches SET status = 'processing', finished_at = NULL"
    )
    await conn.execute(
        "UPDATE reliable_imports.import_batch_ranges SET state = 'leased', "
        "lease_until = now() + interval '1 hour' WHERE first_item = 21"
    )
    await lifecycle_of(manager).finish(batch_id, manager.registry.get("quick"))
    batch = await batches.get(conn, batch_id)
    assert batch.finished_at is None


class HalfProcessor(BaseProcessor):
    async def process_item(self, item, ctx):
        if item.item_number % 2:
            raise ValueError("odd")


async def test_a_cancelled_batch_counts_what_a_killed_process_has_settled(manager, conn):
    """The holder of a range was killed before it could tell its counts; nobody takes it over."""
    manager.registry.register(HalfProcessor)
    batch_id = await manager.create_batch("half", [{"n": n} for n in range(40)])
    await manager.process_batch(batch_id)
    await conn.execute(
        """UPDATE reliable_imports.import_batches
              SET status = 'cancelled', completed_items = NULL, skipped_items = NULL,
                  failed_items = NULL"""
    )
    await conn.execute(
        """UPDATE reliable_imports.import_batch_ranges
              SET state = 'leased', completed = 0, failed = 0, groups = '{}'
            WHERE first_item = 21"""
    )
    summary = await manager.get_batch_summary(batch_id)
    assert (summary.completed_items, summary.failed_items) == (20, 20)
    assert [group.count for group in summary.groups] == [20]
    seen = await conn.fetchrow(
        "SELECT completed_items, failed_items FROM reliable_imports.import_batch_summary"
    )
    assert tuple(seen) == (20, 20)
