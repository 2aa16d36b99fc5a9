"""Failures that pause a batch, and totals that must agree."""

import json
from decimal import Decimal

import anyio
import pytest

from reliable_imports_async import BaseProcessor, BatchManager, BatchStatus
from reliable_imports_async.errors import BatchPaused, ConfigurationError, TotalsDisagree
from reliable_imports_async.outcomes import Failure, FailureKind

from .reach import FailureLimits, Thresholds


class EvenProcessor(BaseProcessor):
    """Rejects odd numbers, until `all` says otherwise."""

    concurrency = 1
    everything = False

    def validate_item(self, item, ctx):
        return self.everything or item.source_data["n"] % 2 == 0

    async def process_item(self, item, ctx):
        pass


@pytest.fixture
def processor(manager: BatchManager) -> EvenProcessor:
    made = EvenProcessor()
    manager.registry.register(made)
    return made


def numbers(count: int) -> list[dict[str, int]]:
    return [{"n": n} for n in range(1, count + 1)]


async def test_no_more_fail_than_are_allowed_and_the_rest_waits(manager, processor):
    batch_id = await manager.create_batch("even", numbers(60), max_failures=10)
    summary = await manager.process_batch(batch_id)
    assert (summary.status, summary.failed_items) == (BatchStatus.PAUSED, 10)
    assert "more than 10 items failed (max_failures); the last failure: " in summary.pause_reason
    assert summary.pending_items == 60 - summary.settled_items > 0
    with pytest.raises(BatchPaused, match="more than 10"):
        await manager.process_batch(batch_id)
    (line,) = [line async for line in manager.get_logs(batch_id) if line.message == "batch paused"]
    assert "max_failures" in line.details["reason"]


async def test_a_resumed_batch_may_fail_as_often_again(manager, processor):
    batch_id = await manager.create_batch("even", numbers(60), max_failures=10)
    await manager.process_batch(batch_id)
    await manager.resume_batch(batch_id, reason="known", actor="me")
    again = await manager.process_batch(batch_id)
    assert (again.status, again.failed_items) == (BatchStatus.PAUSED, 20)
    await manager.resume_batch(batch_id)
    last = await manager.process_batch(batch_id)
    assert (last.status, last.failed_items) == (BatchStatus.PARTIAL, 30)
    lines = [line.details async for line in manager.get_logs(batch_id)]
    assert {"actor": "me", "reason": "known"} in lines


async def test_the_rate_counts_once_enough_are_processed(manager, processor):
    batch_id = await manager.create_batch(
        "even", numbers(100), max_failure_rate=0.2, min_processed=20
    )
    summary = await manager.process_batch(batch_id)
    assert (summary.status, summary.settled_items) == (BatchStatus.PAUSED, 20 - 1 + 1)
    assert "at most 20.0% may fail (max_failure_rate)" in summary.pause_reason
    enough = await manager.create_batch("even", numbers(100), max_failure_rate=0.5)
    assert (await manager.process_batch(enough)).status is BatchStatus.PARTIAL


async def test_a_processor_a_batch_or_a_call_says_how_many(manager, processor):
    class StrictProcessor(EvenProcessor):
        max_failures = 0

    manager.registry.register(StrictProcessor())
    batch_id = await manager.create_batch("strict", numbers(10))
    assert (await manager.get_batch(batch_id)).options["max_failures"] == 0
    assert (await manager.process_batch(batch_id)).failed_items == 0
    loose = await manager.create_batch("strict", numbers(10), max_failures=99)
    assert (await manager.process_batch(loose)).failed_items == 5
    called = await manager.create_batch("even", numbers(10))
    summary = await manager.process_batch(called, max_failures=2)
    assert (summary.status, summary.failed_items) == (BatchStatus.PAUSED, 2)
    options = (await manager.get_batch(called)).options
    assert (options["max_failures"], options["max_failure_rate"]) == (2, None)


async def test_records_that_cannot_be_read_count(manager, processor):
    records = [{"n": float("nan")}] * 3 + numbers(5)
    batch_id = await manager.create_batch("even", records, max_failures=2)
    summary = await manager.process_batch(batch_id)
    assert (summary.status, summary.settled_items) == (BatchStatus.PAUSED, 3)


async def test_two_managers_count_together(manager, processor, dsn):
    batch_id = await manager.create_batch("even", numbers(4_000), max_failures=300)
    async with BatchManager(dsn, concurrency=1) as other:
        other.registry.register(EvenProcessor())
        async with anyio.create_task_group() as group:
            group.start_soon(manager.process_batch, batch_id)
            group.start_soon(other.process_batch, batch_id)
    summary = await manager.get_batch_summary(batch_id)
    assert summary.status is BatchStatus.PAUSED
    assert 300 <= summary.failed_items <= 600


@pytest.mark.parametrize(
    "options",
    [
        {"max_failure_rate": 5},
        {"max_failure_rate": -0.1},
        {"max_failures": -1},
        {"max_failures": 1, "min_processed": 0},
    ],
)
async def test_thresholds_that_cannot_work_are_refused(manager, processor, options):
    with pytest.raises(ConfigurationError):
        await manager.create_batch("even", [], **options)


def test_a_failure_beyond_the_threshold_is_refused_whatever_its_kind():
    limits = FailureLimits(None, Thresholds(max_failures=1))
    failure = Failure(kind=FailureKind.DATA, type="E", message="m", group="g")
    assert [limits.refuses(failure) for _ in range(3)] == [False, True, True]
    assert (limits.failed, limits.settled) == (1, 1)
    others = FailureLimits(None, Thresholds(max_failures=1))
    others.learn(2, 2)
    assert others.refuses(failure)


EXPECTED = {"count": 4, "sum": {"n": 10, "price": "10.30"}}


async def test_totals_that_agree_change_nothing(manager, processor):
    processor.everything = True
    records = [{"n": str(n), "price": Decimal("2.575")} for n in range(1, 5)]
    processor.validate_item = lambda item, ctx: True
    batch_id = await manager.create_batch("even", records, expect=EXPECTED)
    assert (await manager.process_batch(batch_id)).ok


async def test_totals_that_do_not_agree_refuse_the_source_with_both_figures(manager, processor):
    records = [{"n": 1, "price": "0.1"}, {"n": 2}, {"n": 4, "price": "many"}]
    with pytest.raises(TotalsDisagree) as caught:
        await manager.create_batch("even", records, expect=EXPECTED)
    assert caught.value.message == (
        "The control totals do not agree: count is 3, expected 4; sum of n is 7, expected 10; "
        "1 value is not a number in price, e.g. 'many'."
    )
    assert [batch async for batch in manager.list_batches()] == []


async def test_a_batch_whose_totals_were_not_compared_when_it_came_fails_at_its_end(
    manager, processor, conn
):
    """As an older version stored them."""
    processor.everything = True
    batch_id = await manager.create_batch("even", [{"n": 1}, {"n": 2}])
    await conn.execute(
        "UPDATE reliable_imports.import_batches SET options = $1::text::jsonb",
        json.dumps({"expect": {"count": 2, "sum": {"n": "4"}}}),
    )
    summary = await manager.process_batch(batch_id)
    assert (summary.status, summary.completed_items) == (BatchStatus.FAILED, 2)
    assert summary.finished_at is not None
    assert summary.error == "control totals do not agree: sum of n is 3, expected 4"
    again = await manager.reprocess_batch(batch_id)
    assert again.batch_id == batch_id, "all of its items are in"


@pytest.mark.parametrize(
    "expect", [{"counts": 1}, {"count": "1"}, {"sum": 5}, {"sum": {"n": "many"}}, {"count": -1}]
)
async def test_control_totals_that_cannot_work_are_refused(manager, processor, expect):
    with pytest.raises(ConfigurationError):
        await manager.create_batch("even", [], expect=expect)


class CheckedProcessor(BaseProcessor):
    """Compares what it wrote with what its batch announced."""

    async def process_item(self, item, ctx):
        await ctx.execute("INSERT INTO amounts VALUES ($1)", item.source_data["amount"])

    async def check(self, ctx):
        if ctx.metadata.get("broken"):
            await ctx.execute("SELECT 1/0")
        if "amount" not in ctx.metadata:
            return False
        found = await ctx.fetchval("SELECT sum(amount) FROM amounts")
        if found != ctx.metadata["amount"]:
            raise ValueError(f"{found} imported, {ctx.metadata['amount']} announced")
        return True

    async def on_batch_complete(self, summary, ctx):
        ctx.set_metadata(told=summary.error)


@pytest.mark.parametrize(
    ("metadata", "error"),
    [
        ({"amount": 5}, None),
        ({"amount": 6}, "check failed: ValueError: 5 imported, 6 announced"),
        ({}, "check failed: Rejected: check returned False."),
        ({"broken": True}, "check failed: DivisionByZeroError: division by zero"),
    ],
)
async def test_a_processors_own_check_decides_how_its_batch_ends(manager, conn, metadata, error):
    await conn.execute("CREATE TABLE amounts (amount integer)")
    manager.registry.register(CheckedProcessor)
    records = [{"amount": 2}, {"amount": 3}]
    batch_id = await manager.create_batch("checked", records, metadata=metadata)
    summary = await manager.process_batch(batch_id)
    assert summary.status is (BatchStatus.FAILED if error else BatchStatus.COMPLETED)
    assert (summary.error, summary.completed_items) == (error, 2)
    assert (await manager.get_batch(batch_id)).metadata["told"] == error
    assert await conn.fetchval("SELECT sum(amount) FROM amounts") == 5
