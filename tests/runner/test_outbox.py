"""Hooks outside of transactions: at least once, whoever dies; after_create_batch before any item."""

import asyncio
import signal
import sys
from uuid import uuid4

import asyncpg
import pytest

from reliable_imports_async import (
    APIManager,
    BaseEndpoint,
    BaseProcessor,
    BatchManager,
    BatchStatus,
    LogLevel,
)

from ..database.reach import migrations, with_migrations
from ..store.reach import outbox
from ..support.trying import PATIENCE
from .reach import claim_hooks_for, outbox_of, sweep_every

HOOKS = ("processor.after_batch_complete", "endpoint.after_batch_complete")
LEFT = "SELECT hook FROM reliable_imports.import_outbox ORDER BY hook"


class Heard:
    """Which hooks have run, and what they saw."""

    def __init__(self) -> None:
        self.hooks: list[str] = []
        self.requests: list[object] = []
        self.broken = False
        self.gate: asyncio.Event | None = None
        self.begun = asyncio.Event()
        self.changed = asyncio.Event()

    async def note(self, hook: str) -> None:
        self.begun.set()
        if self.gate is not None:
            await self.gate.wait()
        self.hooks.append(hook)
        self.changed.set()
        if self.broken:
            raise RuntimeError("nobody answers")

    async def until(self, count: int) -> None:
        while len(self.hooks) < count:
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), PATIENCE)


def register(manager: BatchManager, heard: Heard, *, only: str | None = None, timeout=None):
    """A processor and an endpoint that note their hooks; or with one of the hooks only."""

    async def process_item(self, item, ctx):
        heard.hooks.append("item")

    async def after_processor(self, summary, ctx):
        ctx.info("told by the processor")
        await heard.note(HOOKS[0])

    async def after_endpoint(self, batch_id, summary, ctx):
        ctx.info("told by the endpoint")
        await heard.note(HOOKS[1])

    async def after_create(self, batch_id, data, ctx):
        heard.requests.append(data)
        await heard.note("endpoint.after_create_batch")

    hooks = {"process_item": process_item, "hook_timeout": timeout}
    if only in (None, HOOKS[0]):
        hooks["after_batch_complete"] = after_processor
    manager.registry.register(type("ToldProcessor", (BaseProcessor,), hooks))
    told = {"after_batch_complete": after_endpoint} if only in (None, HOOKS[1]) else {}
    if only == "endpoint.after_create_batch":
        told["after_create_batch"] = after_create
    if told:
        manager.registry.register_endpoint(type("ToldEndpoint", (BaseEndpoint,), told))


async def finished(manager: BatchManager):
    batch_id = await manager.create_batch("told", [])
    assert (await manager.process_batch(batch_id)).ok
    return batch_id


async def died(conn, batch_id, hook: str, seconds: float) -> None:
    """A process has claimed a hook and died in it."""
    await conn.execute(
        """INSERT INTO reliable_imports.import_outbox
                  (batch_id, hook, claimed_by, claimed_until, claims)
           VALUES ($1, $2, $3, clock_timestamp() + make_interval(secs => $4), 1)""",
        batch_id,
        hook,
        uuid4(),
        seconds,
    )


async def by_processing_it_again(manager, batch_id, heard):
    await manager.process_batch(batch_id)


async def by_processing_another(manager, batch_id, heard):
    await asyncio.sleep(0.35)  # until the claim has run out
    heard.hooks.clear()
    await manager.process_batch(await manager.create_batch("told", []))


async def by_a_worker(manager, batch_id, heard):
    await background(manager.run_worker(), heard)


async def by_an_api_without_a_worker(manager, batch_id, heard):
    api = APIManager(manager, worker=False)
    async with api.running(allow_anonymous=True):
        await heard.until(1)


async def background(work, heard) -> None:
    task = asyncio.create_task(work)
    try:
        await heard.until(1)
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize(
    "how",
    [by_processing_it_again, by_processing_another, by_a_worker, by_an_api_without_a_worker],
)
@pytest.mark.parametrize("hook", HOOKS)
async def test_a_hook_whose_process_died_runs_once_its_claim_has_run_out(
    manager, conn, monkeypatch, hook, how
):
    sweep_every(monkeypatch, 0.05)
    heard = Heard()
    register(manager, heard, only=hook)
    batch_id = await finished(manager)
    assert heard.hooks == [hook]
    heard.hooks.clear()
    await died(conn, batch_id, hook, 0.3)
    await how(manager, batch_id, heard)
    assert hook in heard.hooks
    assert await conn.fetch(LEFT) == []


@pytest.mark.parametrize("hook", HOOKS)
async def test_a_hook_that_is_running_elsewhere_is_waited_for_and_not_repeated(
    manager, dsn, conn, hook, monkeypatch
):
    heard = Heard()
    heard.gate = asyncio.Event()
    register(manager, heard, only=hook)
    batch_id = await manager.create_batch("told", [])
    async with BatchManager(dsn) as other:
        register(other, heard, only=hook)
        first = asyncio.create_task(manager.process_batch(batch_id))
        await heard.begun.wait()
        second = asyncio.create_task(other.process_batch(batch_id))
        done, _ = await asyncio.wait([second], timeout=0.2)
        assert not done
        heard.gate.set()
        await asyncio.wait_for(asyncio.gather(first, second), PATIENCE)
    assert heard.hooks == [hook]
    assert await conn.fetch(LEFT) == []


async def test_between_the_end_and_the_hook_nothing_is_lost(manager, dsn, conn, monkeypatch):
    heard = Heard()
    register(manager, heard)
    batch_id = await manager.create_batch("told", [])

    async def dies(*args, **kwargs):
        raise RuntimeError("killed here")

    with monkeypatch.context() as patch:
        patch.setattr(outbox_of(manager), "deliver", dies)
        with pytest.raises(RuntimeError):
            await manager.process_batch(batch_id)
    assert (await manager.get_batch(batch_id)).status is BatchStatus.COMPLETED
    assert sorted(row["hook"] for row in await conn.fetch(LEFT)) == sorted(HOOKS)
    await manager.process_batch(batch_id)
    assert sorted(heard.hooks) == sorted(HOOKS)


async def test_a_stopped_hook_is_anybodys_at_once(manager, dsn, conn):
    heard = Heard()
    heard.gate = asyncio.Event()
    register(manager, heard, only=HOOKS[0])
    batch_id = await manager.create_batch("told", [])
    processing = asyncio.create_task(manager.process_batch(batch_id))
    await heard.begun.wait()
    processing.cancel()
    await asyncio.wait([processing])
    heard.gate = None
    async with BatchManager(dsn) as other:
        register(other, heard, only=HOOKS[0])
        assert await other.announce_finished() == 1
    assert heard.hooks == [HOOKS[0]]


async def test_the_claim_is_renewed_while_the_hook_runs(manager, dsn, conn, monkeypatch):
    claim_hooks_for(monkeypatch, 2.0, renewed_every=0.2)
    renewed, renew = asyncio.Event(), outbox.renew
    count = 0

    async def counted(*args):
        nonlocal count
        await renew(*args)
        count += 1
        if count == 12:  # longer than the claim alone would have lasted
            renewed.set()

    monkeypatch.setattr(outbox, "renew", counted)
    heard = Heard()
    heard.gate = asyncio.Event()
    register(manager, heard, only=HOOKS[0])
    batch_id = await manager.create_batch("told", [])
    processing = asyncio.create_task(manager.process_batch(batch_id))
    await asyncio.wait_for(renewed.wait(), PATIENCE)
    async with BatchManager(dsn) as other:
        register(other, heard, only=HOOKS[0])
        assert await other.announce_finished() == 0
    heard.gate.set()
    await processing
    assert heard.hooks == [HOOKS[0]]


async def test_a_hook_that_hangs_is_given_up_and_logged(manager, conn):
    heard = Heard()
    heard.gate = asyncio.Event()
    register(manager, heard, timeout=0.05)
    batch_id = await manager.create_batch("told", [])
    assert (await asyncio.wait_for(manager.process_batch(batch_id), PATIENCE)).ok
    errors = [one.message async for one in manager.get_logs(batch_id, levels=[LogLevel.ERROR])]
    assert errors == ["after_batch_complete failed: it took longer than hook_timeout (0.05 s)"] * 2
    assert await conn.fetch(LEFT) == []


async def test_a_hook_may_process_its_own_batch_again(manager):
    called = []

    async def after_batch_complete(self, summary, ctx):
        called.append(summary.batch_id)
        await manager.process_batch(summary.batch_id)

    async def process_item(self, item, ctx): ...

    hooks = {"process_item": process_item, "after_batch_complete": after_batch_complete}
    manager.registry.register(type("ToldProcessor", (BaseProcessor,), hooks))
    batch_id = await manager.create_batch("told", [])
    await asyncio.wait_for(manager.process_batch(batch_id), PATIENCE)
    assert called == [batch_id]


async def test_the_log_lines_of_hooks_keep_their_times(manager, conn):
    times = []

    async def on_batch_start(self, ctx):
        for n in range(3):
            ctx.info(f"line {n}")
            times.append(await ctx.fetchval("SELECT clock_timestamp()"))

    async def process_item(self, item, ctx): ...

    hooks = {"process_item": process_item, "on_batch_start": on_batch_start}
    manager.registry.register(type("ToldProcessor", (BaseProcessor,), hooks))
    batch_id = await manager.create_batch("told", [])
    await manager.process_batch(batch_id)
    logged = [
        one.logged_at async for one in manager.get_logs(batch_id) if one.message[:4] == "line"
    ]
    assert logged[0] < times[0] < logged[1] < times[1] < logged[2] < times[2]


KILLED = """
import asyncio, os, signal, sys
from uuid import UUID
from reliable_imports_async import BaseEndpoint, BaseProcessor, BatchManager
from tests.runner.reach import outbox

outbox.LEASE_SECONDS = 0.5

class ToldProcessor(BaseProcessor):
    async def process_item(self, item, ctx):
        return None

class ToldEndpoint(BaseEndpoint):
    pass

async def dies(*args):
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    owner = {"processor": ToldProcessor, "endpoint": ToldEndpoint}[sys.argv[3].split(".")[0]]
    setattr(owner, sys.argv[3].split(".")[1], dies)
    async with BatchManager(sys.argv[1]) as manager:
        manager.registry.register(ToldProcessor)
        manager.registry.register_endpoint(ToldEndpoint)
        if sys.argv[2]:
            await manager.process_batch(UUID(sys.argv[2]))
        else:
            asked = {"metadata": {"a": 1}, "process": "background"}
            created = await manager.create_or_find_batch(
                "told", [{"n": 1}], enqueue=True, after_create=asked
            )
            batch_id = created.batch_id
            await manager.run_after_create(batch_id, dies)

asyncio.run(main())
"""


async def killed(dsn, batch_id, hook) -> None:
    arguments = (sys.executable, "-c", KILLED, dsn, str(batch_id or ""), hook)
    process = await asyncio.create_subprocess_exec(*arguments)
    assert await asyncio.wait_for(process.wait(), PATIENCE) == -signal.SIGKILL


@pytest.mark.parametrize("hook", HOOKS)
async def test_a_real_kill_in_the_hook(manager, dsn, hook):
    heard = Heard()
    register(manager, heard, only=hook)
    batch_id = await manager.create_batch("told", [])
    await killed(dsn, batch_id, hook)
    await asyncio.wait_for(manager.process_batch(batch_id), PATIENCE)
    assert heard.hooks == [hook]


CREATE = "endpoint.after_create_batch"


async def held(manager: BatchManager, heard: Heard, *, enqueue: bool):
    register(manager, heard, only=CREATE)
    asked = {"metadata": {"a": 1}, "process": "background"}
    created = await manager.create_or_find_batch(
        "told", [{"n": 1}], enqueue=enqueue, after_create=asked
    )
    return created.batch_id


async def test_no_item_runs_before_after_create_batch(manager, dsn, conn, monkeypatch):
    heard = Heard()
    batch_id = await held(manager, heard, enqueue=True)
    async with BatchManager(dsn) as other:
        register(other, heard, only=CREATE)
        processing = asyncio.create_task(other.process_batch(batch_id))
        working = asyncio.create_task(manager.run_worker())
        done, _ = await asyncio.wait([processing], timeout=1.5)
        assert (done, heard.hooks) == (set(), [])

        async def hook():
            await heard.note(CREATE)

        assert await manager.run_after_create(batch_id, hook)
        assert not await manager.run_after_create(batch_id, hook), "it has run"
        await asyncio.wait_for(processing, PATIENCE)
        working.cancel()
        await asyncio.wait([working])
    assert heard.hooks == [CREATE, "item"]
    assert await conn.fetch(LEFT) == []


async def test_what_it_raises_reaches_the_caller_and_the_batch_goes_on(manager, conn):
    heard = Heard()
    batch_id = await held(manager, heard, enqueue=False)
    heard.broken = True

    async def hook():
        await heard.note(CREATE)

    with pytest.raises(RuntimeError, match="nobody answers"):
        await manager.run_after_create(batch_id, hook)
    assert (await manager.process_batch(batch_id)).ok


async def test_it_may_process_the_batch_itself(manager):
    heard = Heard()
    batch_id = await held(manager, heard, enqueue=False)

    async def hook():
        assert (await manager.process_batch(batch_id)).ok

    await asyncio.wait_for(manager.run_after_create(batch_id, hook), PATIENCE)


@pytest.mark.parametrize("how", ["process_batch", "worker"])
async def test_a_kill_in_after_create_batch_delays_the_batch_by_the_claim(
    manager, dsn, conn, monkeypatch, how
):
    sweep_every(monkeypatch, 0.05)
    heard = Heard()
    register(manager, heard, only=CREATE)
    await killed(dsn, None, CREATE)
    batch_id = await conn.fetchval("SELECT id FROM reliable_imports.import_batches")
    if how == "worker":
        working = asyncio.create_task(manager.run_worker())
        await asyncio.wait_for(manager.wait_for_batch(batch_id), PATIENCE)
        working.cancel()
        await asyncio.wait([working])
    else:
        await asyncio.wait_for(manager.process_batch(batch_id), PATIENCE)
    assert heard.hooks == [CREATE, "item"]
    (request,) = heard.requests
    assert (request.metadata, request.items, request.process) == ({"a": 1}, None, "background")


async def test_a_migration_carries_over_what_was_due(empty_dsn, monkeypatch):
    """Batches of the version before: one hook due, one not, one cancelled."""
    all_of_them = migrations.migrations()
    before = tuple(one for one in all_of_them if one.name < "0011")
    conn = await asyncpg.connect(empty_dsn)
    try:
        with_migrations(monkeypatch, before)
        await migrations.migrate(conn)
        await conn.execute(
            """INSERT INTO reliable_imports.import_batches
                      (id, batch_type, root_batch_id, status, finished_at, completed_items,
                       notified_at, announced_at)
               SELECT i, 'told', i, s, now(), 0, n, a
                 FROM (VALUES (gen_random_uuid(), 'completed', now(), NULL::timestamptz),
                              (gen_random_uuid(), 'partial', NULL, now()),
                              (gen_random_uuid(), 'cancelled', NULL, NULL)) AS v(i, s, n, a)"""
        )
        with_migrations(monkeypatch, all_of_them)
        await migrations.migrate(conn)
        rows = await conn.fetch(
            """SELECT b.status, o.hook FROM reliable_imports.import_outbox o
                 JOIN reliable_imports.import_batches b ON b.id = o.batch_id ORDER BY 1"""
        )
    finally:
        await conn.close()
    assert [tuple(row) for row in rows] == [("completed", HOOKS[1]), ("partial", HOOKS[0])]
