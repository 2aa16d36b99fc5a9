"""Every change of a batch's status names the state it expects; hooks cannot hold a batch."""

import asyncio
import os
import signal
import sys
from dataclasses import replace
from uuid import uuid4

import pytest

from reliable_imports_async import BaseProcessor, BatchManager, BatchStatus, LogLevel

from ..store.reach import batches, summaries
from ..support.trying import PATIENCE
from .reach import lock_for, try_hooks, when_a_change_waited_in_vain

# Status, started, finished, and whether ranges are left.
STATES = {
    "new": ("pending", False, False, True),
    "start failed": ("failed", False, False, True),
    "running": ("processing", True, False, True),
    "drained": ("processing", True, False, False),
    "finish failed": ("failed", True, False, False),
    "failed with items left": ("failed", True, False, True),
    "paused before": ("paused", False, False, True),
    "paused": ("paused", True, False, True),
    "paused at the end": ("paused", True, False, False),
    "completed": ("completed", True, True, False),
    "partial": ("partial", True, True, False),
    "failed": ("failed", True, True, False),
    "cancelled before": ("cancelled", False, True, True),
    "cancelled": ("cancelled", True, True, True),
}
UNFINISHED = [name for name, state in STATES.items() if not state[2]]

# Each event, also a stale one of a process that is behind, with the states it changes, and to what.
EVENTS = {
    "start": {"new": "processing", "start failed": "processing"},
    "start hook failed": {"new": "failed", "start failed": "failed"},
    "finish": {"drained": "partial", "finish failed": "partial"},
    "finish hook failed": {"drained": "failed", "finish failed": "failed"},
    "join": {"failed with items left": "processing"},
    "pause": {"new": "paused", "running": "paused", "drained": "paused"},
    "resume": {
        "paused before": "pending",
        "paused": "processing",
        "paused at the end": "processing",
    },
    "cancel": dict.fromkeys(UNFINISHED, "cancelled"),
}


async def happens(conn, event: str, batch_id) -> None:
    match event:
        case "start":
            batch = await batches.get(conn, batch_id)
            await batches.mark_started(conn, batch, "{}")
        case "start hook failed":
            await batches.mark_start_failed(conn, batch_id, "no")
        case "finish":
            summary = await summaries.get(conn, batch_id)
            summary = replace(summary, status=BatchStatus.PARTIAL)
            batch = await batches.get(conn, batch_id)
            await batches.mark_finished(conn, batch, summary, "{}")
        case "finish hook failed":
            await batches.mark_finish_failed(conn, batch_id, "no")
        case "join":
            await batches.mark_unfailed(conn, batch_id)
        case "pause":
            await batches.pause(conn, batch_id, "lunch")
        case "resume":
            await batches.resume(conn, batch_id)
        case "cancel":
            await batches.cancel(conn, batch_id)


async def made(conn, state: str):
    status, started, finished, ranges_left = STATES[state]
    batch_id = uuid4()
    await conn.execute(
        """INSERT INTO reliable_imports.import_batches
                  (id, batch_type, root_batch_id, status, started_at, finished_at, total_items,
                   completed_items, skipped_items, failed_items)
           VALUES ($1, 'tried', $1, $2, CASE WHEN $3 THEN now() END, CASE WHEN $4 THEN now() END, 1,
                   CASE WHEN $4 THEN 0 END, CASE WHEN $4 THEN 0 END, CASE WHEN $4 THEN 0 END)""",
        batch_id,
        status,
        started,
        finished,
    )
    await conn.execute(
        """INSERT INTO reliable_imports.import_batch_ranges
                  (batch_id, first_item, last_item, state) VALUES ($1, 1, 1, $2)""",
        batch_id,
        "ready" if ranges_left else "done",
    )
    return batch_id


@pytest.mark.parametrize("event", EVENTS)
async def test_each_event_changes_exactly_the_states_it_expects(conn, event):
    assert EVENTS[event].keys() <= STATES.keys()
    for state, (before, *_) in STATES.items():
        batch_id = await made(conn, state)
        await happens(conn, event, batch_id)
        after = await conn.fetchval(
            "SELECT status FROM reliable_imports.import_batches WHERE id = $1", batch_id
        )
        assert after == EVENTS[event].get(state, before), f"{event} in state {state!r}"


class StartProcessor(BaseProcessor):
    """Its on_batch_start fails the first time."""

    calls = 0

    async def on_batch_start(self, ctx):
        self.calls += 1
        if self.calls == 1:
            raise OSError("the other system is away")

    async def process_item(self, item, ctx):
        return None


async def test_a_late_failure_mark_does_not_stop_who_has_started_meanwhile(dsn, conn, monkeypatch):
    processor = StartProcessor()
    failing, started = asyncio.Event(), asyncio.Event()
    mark, start = batches.mark_start_failed, batches.mark_started

    async def late(*args):
        failing.set()
        await started.wait()
        return await mark(*args)

    monkeypatch.setattr(batches, "mark_start_failed", late)
    async with BatchManager(dsn) as one, BatchManager(dsn) as two:
        for manager in (one, two):
            manager.registry.register(processor)
        batch_id = await one.create_batch("start", [{"n": n} for n in range(50)])
        first = asyncio.create_task(one.process_batch(batch_id))
        await failing.wait()

        async def noted(*args):
            done = await start(*args)
            asyncio.get_running_loop().call_later(0.05, started.set)  # about its COMMIT
            return done

        monkeypatch.setattr(batches, "mark_started", noted)
        second = asyncio.create_task(two.process_batch(batch_id))
        summaries_ = await asyncio.wait_for(asyncio.gather(first, second), PATIENCE)
        assert {one.status for one in summaries_} == {BatchStatus.COMPLETED}
        errors = [one.details async for one in two.get_logs(batch_id, levels=[LogLevel.ERROR])]
    assert [one["kept"] for one in errors] == [True]


async def test_a_batch_that_says_failed_with_items_left_goes_on(manager, conn):
    manager.registry.register(StartProcessor())
    batch_id = await manager.create_batch("start", [{"n": n} for n in range(50)])
    assert (await manager.process_batch(batch_id)).status is BatchStatus.FAILED
    await conn.execute(
        "UPDATE reliable_imports.import_batches SET started_at = now() WHERE id = $1", batch_id
    )
    summary = await manager.process_batch(batch_id)
    assert (summary.status, summary.completed_items) == (BatchStatus.COMPLETED, 50)


class QuietProcessor(BaseProcessor):
    async def process_item(self, item, ctx):
        return None


async def test_a_timeout_of_our_own_statement_is_not_the_hooks_failure(dsn, conn, monkeypatch):
    lock_for(monkeypatch, 0.05)
    name = await conn.fetchval("SELECT current_database()")
    await conn.execute(f'ALTER DATABASE "{name}" SET statement_timeout = 300')
    waited = asyncio.Event()
    when_a_change_waited_in_vain(monkeypatch, waited.set)
    async with BatchManager(dsn) as manager:
        manager.registry.register(QuietProcessor)
        batch_id = await manager.create_batch("quiet", [{"n": 1}])
        async with conn.transaction():
            await conn.execute(
                "SELECT FROM reliable_imports.import_batches WHERE id = $1 FOR UPDATE", batch_id
            )
            processing = asyncio.create_task(manager.process_batch(batch_id))
            await asyncio.wait_for(waited.wait(), PATIENCE)
        summary = await asyncio.wait_for(processing, PATIENCE)
        assert (summary.status, summary.error) == (BatchStatus.COMPLETED, None)
        errors = [one async for one in manager.get_logs(batch_id, levels=[LogLevel.ERROR])]
    assert errors == []


class SlowHookProcessor(BaseProcessor):
    hook_timeout = 1.0

    def __init__(self, slow: str) -> None:
        self.slow = slow

    async def _hook(self, name, ctx):
        await ctx.execute("INSERT INTO notes VALUES ($1)", name)
        if self.slow == name:
            await ctx.execute("SELECT pg_sleep(60)") if name == "check" else await asyncio.sleep(60)

    async def on_batch_start(self, ctx):
        await self._hook("on_batch_start", ctx)

    async def check(self, ctx):
        await self._hook("check", ctx)

    async def on_batch_complete(self, summary, ctx):
        await self._hook("on_batch_complete", ctx)

    async def process_item(self, item, ctx):
        return None


@pytest.mark.parametrize("slow", ["on_batch_start", "check", "on_batch_complete"])
async def test_a_hook_that_takes_too_long_fails_the_batch_and_runs_again(manager, conn, slow):
    await conn.execute("CREATE TABLE notes (what text)")
    processor = SlowHookProcessor(slow)
    manager.registry.register(processor)
    batch_id = await manager.create_batch("slow_hook", [{"n": 1}])
    summary = await asyncio.wait_for(manager.process_batch(batch_id), PATIENCE)
    assert summary.status is BatchStatus.FAILED
    assert f"{slow} took longer than hook_timeout (1 s)" in summary.error
    processor.slow = ""
    assert (await manager.process_batch(batch_id)).ok
    noted = [row["what"] for row in await conn.fetch("SELECT what FROM notes")]
    assert noted == ["on_batch_start", "check", "on_batch_complete"]


class OutageProcessor(BaseProcessor):
    """Its hook raises what an outage looks like, on a connection that is in order."""

    async def on_batch_start(self, ctx):
        await ctx.execute(
            "DO $$ BEGIN RAISE EXCEPTION 'no such file' USING ERRCODE = '58P01'; END $$"
        )

    async def process_item(self, item, ctx):
        return None


async def test_a_hook_that_always_raises_an_outage_fails_in_the_end(manager, monkeypatch):
    try_hooks(monkeypatch, 2)
    manager.registry.register(OutageProcessor)
    batch_id = await manager.create_batch("outage", [{"n": 1}])
    summary = await asyncio.wait_for(manager.process_batch(batch_id), PATIENCE)
    assert (summary.status, "no such file" in summary.error) == (BatchStatus.FAILED, True)


FROZEN = """
import asyncio, os, signal, sys
from uuid import UUID
from reliable_imports_async import BaseProcessor, BatchManager
from tests.runner.reach import lifecycle

lifecycle.SERVER_GRACE = 0.2

class FrozenProcessor(BaseProcessor):
    hook_timeout = 0.3

    async def {hook}(self, *args):
        await args[-1].execute("INSERT INTO notes VALUES ('frozen')")
        print("frozen", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)

    async def process_item(self, item, ctx):
        return None

async def main():
    async with BatchManager(sys.argv[1]) as manager:
        manager.registry.register(FrozenProcessor)
        await manager.process_batch(UUID(sys.argv[2]))

asyncio.run(main())
"""


class FrozenProcessor(QuietProcessor):
    async def on_batch_start(self, ctx):
        await ctx.execute("INSERT INTO notes VALUES ('start')")

    async def on_batch_complete(self, summary, ctx):
        await ctx.execute("INSERT INTO notes VALUES ('complete')")


@pytest.mark.parametrize("hook", ["on_batch_start", "check", "on_batch_complete"])
async def test_a_process_that_freezes_in_a_hook_does_not_block_its_batch(manager, dsn, conn, hook):
    await conn.execute("CREATE TABLE notes (what text)")
    manager.registry.register(FrozenProcessor)
    batch_id = await manager.create_batch("frozen", [{"n": 1}])
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        FROZEN.format(hook=hook),
        dsn,
        str(batch_id),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert await asyncio.wait_for(process.stdout.readline(), PATIENCE) == b"frozen\n"
        summary = await asyncio.wait_for(manager.process_batch(batch_id), PATIENCE)
        os.kill(process.pid, signal.SIGCONT)
        await asyncio.wait_for(process.wait(), PATIENCE)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert summary.ok
    assert (await manager.get_batch(batch_id)).status is BatchStatus.COMPLETED
    noted = [row["what"] for row in await conn.fetch("SELECT what FROM notes")]
    assert "frozen" not in noted, "its transaction was rolled back"
    assert noted[-1] == "complete"
