"""A batch hook that misbehaves fails the batch, leaves nothing behind, and can be run again."""

import asyncio
import contextlib

import asyncpg
import pytest

from reliable_imports_async import BatchStatus

from ..database.reach import past_the_guard
from ..support.trying import LEDGER, insert, processor, records, written


async def swallows_an_sql_error(ctx):
    with contextlib.suppress(asyncpg.DivisionByZeroError):
        await ctx.execute("SELECT 1/0")


async def violates_a_deferred_constraint(ctx):
    await ctx.execute("INSERT INTO ledger VALUES (99)")  # the second 99


async def commits(ctx):
    await ctx.execute("COMMIT")


async def commits_past_the_guard(ctx):
    await past_the_guard(ctx.connection).execute("ROLLBACK")


async def raises_cancelled_error(ctx):
    raise asyncio.CancelledError("mine")


async def raises_what_cannot_be_stored(ctx):
    raise ValueError("a\x00\udcff" * 10_000)


async def sets_metadata_that_is_no_json(ctx):
    ctx.set_metadata(value=object())


MISBEHAVIOURS = [
    swallows_an_sql_error,
    violates_a_deferred_constraint,
    commits,
    commits_past_the_guard,
    raises_cancelled_error,
    raises_what_cannot_be_stored,
    sets_metadata_that_is_no_json,
]


@pytest.mark.parametrize("misbehave", MISBEHAVIOURS, ids=lambda function: function.__name__)
async def test_a_misbehaving_hook_fails_its_batch_and_can_run_again(manager, conn, misbehave):
    await conn.execute(LEDGER)
    await conn.execute("ALTER TABLE ledger ADD UNIQUE (n) DEFERRABLE INITIALLY DEFERRED")
    broken = {"start", "complete"}

    async def on_batch_start(ctx):
        await hook("start", 99, ctx)

    async def on_batch_complete(summary, ctx):
        await hook("complete", 100, ctx)

    async def hook(name, number, ctx):
        await ctx.execute("INSERT INTO ledger VALUES ($1)", number)
        if name in broken:
            await misbehave(ctx)
            if misbehave is violates_a_deferred_constraint:
                await ctx.execute("INSERT INTO ledger VALUES ($1)", number)

    hooks = {"on_batch_start": on_batch_start, "on_batch_complete": on_batch_complete}
    manager.registry.register(processor(insert, **hooks))
    batch_id = await manager.create_batch("tried", records(3))

    for step, left in (("start", []), ("complete", [1, 2, 3, 99])):
        summary = await manager.process_batch(batch_id)
        assert (summary.status, summary.finished_at) == (BatchStatus.FAILED, None)
        assert summary.error
        assert await written(conn) == left
        broken.discard(step)
    summary = await manager.process_batch(batch_id)

    assert (summary.status, summary.error) == (BatchStatus.COMPLETED, None)
    assert await written(conn) == [1, 2, 3, 99, 100]
