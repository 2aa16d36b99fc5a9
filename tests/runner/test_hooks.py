"""The hooks of a batch, and what each of them guarantees."""

import json
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import uuid4

import anyio
import asyncpg
import pytest

from reliable_imports_async import BaseProcessor, BatchManager, BatchStatus, LogLevel, Retry
from reliable_imports_async.errors import (
    BatchCancelled,
    BatchNotCompleted,
    BatchNotFound,
    BatchPaused,
    ConfigurationError,
    DatabaseUnavailable,
    DatabaseUrlMissing,
    PoolTooSmall,
    SchemaMissing,
    WrongBatchStatus,
)

from ..support.trying import PATIENCE, appears


class HookProcessor(BaseProcessor):
    """Records what happens, in the database where the hook is transactional."""

    def __init__(self) -> None:
        self.broken: set[str] = set()
        self.seen: list[str] = []

    async def on_batch_start(self, ctx):
        await self._note("start", ctx)
        ctx.set_metadata(started=True)

    @asynccontextmanager
    async def resources(self, ctx):
        self.seen.append("resources")
        yield "shared"
        self.seen.append("released")

    async def on_connection(self, connection):
        await connection.execute("CREATE TEMP TABLE IF NOT EXISTS scratch (n integer)")

    async def process_item(self, item, ctx):
        assert ctx.shared == "shared"
        assert ctx.metadata["started"]
        await ctx.execute("INSERT INTO scratch VALUES (1)")

    async def on_batch_complete(self, summary, ctx):
        await self._note(f"complete {summary.status} {summary.completed_items}", ctx)

    async def after_batch_complete(self, summary, ctx):
        self.seen.append(f"after {summary.status}")
        if "after" in self.broken:
            raise RuntimeError("nobody answers")

    async def _note(self, what: str, ctx) -> None:
        await ctx.execute("INSERT INTO notes VALUES ($1)", what)
        ctx.info(f"noted {what}")
        if what.split(maxsplit=1)[0] in self.broken:
            raise RuntimeError(f"{what} is broken")


@pytest.fixture
async def processor(manager: BatchManager, conn) -> HookProcessor:
    await conn.execute("CREATE TABLE notes (what text)")
    made = HookProcessor()
    manager.registry.register(made)
    return made


async def notes(conn) -> list[str]:
    return [row["what"] for row in await conn.fetch("SELECT what FROM notes")]


async def create(manager: BatchManager, count: int = 3):
    return await manager.create_batch("hook", [{"n": n} for n in range(count)])


async def test_hooks_run_in_their_order(manager, conn, processor):
    batch_id = await create(manager)
    assert (await manager.process_batch(batch_id)).ok
    assert await notes(conn) == ["start", "complete completed 3"]
    assert processor.seen == ["resources", "released", "after completed"]
    assert (await manager.get_batch(batch_id)).metadata == {"started": True}
    lines = [line.message async for line in manager.get_logs(batch_id)]
    assert lines == ["batch created", "noted start", "noted complete completed 3"]
    await manager.process_batch(batch_id)
    assert processor.seen.count("after completed") == 1, "a finished batch is a no-op"


async def test_two_managers_start_and_finish_a_batch_once(manager, conn, dsn, processor):
    batch_id = await create(manager, 200)
    async with BatchManager(dsn, concurrency=2) as other:
        other.registry.register(processor)
        async with anyio.create_task_group() as group:
            group.start_soon(manager.process_batch, batch_id)
            group.start_soon(other.process_batch, batch_id)
    assert await notes(conn) == ["start", "complete completed 200"]


@pytest.mark.parametrize("hook", ["start", "complete"])
async def test_a_raising_hook_fails_the_batch_and_runs_again(manager, conn, processor, hook):
    batch_id = await create(manager)
    processor.broken = {hook}
    summary = await manager.process_batch(batch_id)
    assert summary.status is BatchStatus.FAILED
    assert summary.finished_at is None
    assert "is broken" in summary.error
    assert hook not in {what.split()[0] for what in await notes(conn)}, "it was rolled back"
    processor.broken = set()
    assert (await manager.process_batch(batch_id)).ok
    assert await notes(conn) == ["start", "complete completed 3"]


async def test_an_error_after_the_end_is_only_logged(manager, processor):
    processor.broken = {"after"}
    batch_id = await create(manager)
    assert (await manager.process_batch(batch_id)).ok
    errors = [one.message async for one in manager.get_logs(batch_id, levels=[LogLevel.ERROR])]
    assert errors == ["after_batch_complete failed: nobody answers"]


async def test_an_after_hook_whose_process_died_runs_again(manager, conn, processor):
    batch_id = await create(manager)
    await manager.process_batch(batch_id)
    await conn.execute(
        "INSERT INTO reliable_imports.import_outbox "
        "(batch_id, hook, claimed_by, claimed_until, claims) VALUES "
        "($1, 'processor.after_batch_complete', $1, now() - interval '1 s', 1)",
        batch_id,
    )
    await manager.process_batch(batch_id)
    assert processor.seen.count("after completed") == 2


async def test_pause_resume_and_cancel(manager, processor):
    batch_id = await create(manager)
    await manager.pause_batch(batch_id, reason="lunch", actor="ann")
    with pytest.raises(BatchPaused, match="lunch"):
        await manager.process_batch(batch_id)
    with pytest.raises(WrongBatchStatus, match="is paused; it cannot be paused"):
        await manager.pause_batch(batch_id)
    await manager.resume_batch(batch_id, actor="bob")
    assert (await manager.process_batch(batch_id)).ok
    with pytest.raises(WrongBatchStatus):
        await manager.cancel_batch(batch_id)
    other = await create(manager)
    await manager.cancel_batch(other, actor="eve")
    with pytest.raises(BatchCancelled):
        await manager.process_batch(other)
    actors = [
        line.details["actor"]
        async for line in manager.get_logs(batch_id, levels=None)
        if line.message in ("batch paused", "batch resumed")
    ]
    assert actors == ["ann", "bob"]


class SlowProcessor(BaseProcessor):
    """Waits at its fifth item until it is let go."""

    def __init__(self) -> None:
        self.reached = anyio.Event()
        self.go_on = anyio.Event()

    async def process_item(self, item, ctx):
        if item.item_number == 5:
            self.reached.set()
            await self.go_on.wait()


@pytest.mark.parametrize(("verb", "status"), [("pause", "paused"), ("cancel", "cancelled")])
async def test_a_running_batch_stops_within_seconds(manager, verb, status):
    processor = SlowProcessor()
    manager.registry.register(processor)
    batch_id = await manager.create_batch("slow", [{"n": n} for n in range(20_000)])
    summaries = []

    async def process() -> None:
        summaries.append(await manager.process_batch(batch_id))

    async with anyio.create_task_group() as group:
        group.start_soon(process)
        await processor.reached.wait()
        await getattr(manager, f"{verb}_batch")(batch_id)
        processor.go_on.set()
    assert summaries[0].status == status
    assert 0 < summaries[0].pending_items < 20_000
    assert summaries[0].settled_items == summaries[0].completed_items


class AskingProcessor(BaseProcessor):
    """Another system says 429 twice."""

    retry_on = (ConnectionRefusedError,)

    def __init__(self) -> None:
        self.prepared: list[tuple[int, str]] = []

    async def prepare_item(self, item, ctx):
        self.prepared.append((item.attempt, item.idempotency_key))
        if item.attempt == 1:
            raise Retry("429", after=1.0)
        if item.attempt == 2:
            raise ConnectionRefusedError("down")
        return "answer"

    async def process_item(self, item, ctx):
        assert item.prepared == "answer"
        return {"processed_data": {"attempt": item.attempt}}


async def test_a_retry_is_stored_and_survives_its_manager(manager, dsn, conn):
    asking = AskingProcessor()
    manager.registry.register(asking)
    batch_id = await manager.create_batch("asking", [{"n": 1}])
    async with anyio.create_task_group() as group:
        group.start_soon(manager.process_batch, batch_id)
        await appears(conn, "SELECT FROM reliable_imports.import_batch_items WHERE attempts = 1")
        group.cancel_scope.cancel()
    async with BatchManager(dsn, concurrency=2) as other:
        other.registry.register(asking)
        summary = await other.process_batch(batch_id)
    assert summary.ok
    assert [attempt for attempt, _ in asking.prepared] == [1, 2, 3]
    assert {key for _, key in asking.prepared} == {f"{batch_id}:1"}
    item = await manager.get_item(batch_id, 1)
    assert (item.attempts, item.processed_data) == (3, {"attempt": 3})


class ManyWaiting(BaseProcessor):
    """All its items wait together, while few connections exist."""

    def __init__(self, together: int) -> None:
        self.together = together
        self.waiting = 0
        self.all_there = anyio.Event()

    async def prepare_item(self, item, ctx):
        self.waiting += 1
        if self.waiting == self.together:
            self.all_there.set()
        await self.all_there.wait()

    async def process_item(self, item, ctx):
        return None


async def test_many_items_prepare_while_few_connections_exist(manager):
    manager.registry.register(ManyWaiting(60))
    batch_id = await manager.create_batch("many_waiting", [{"n": n} for n in range(60)])
    with anyio.fail_after(PATIENCE):
        assert (await manager.process_batch(batch_id)).ok


async def test_purge_deletes_a_whole_lineage(manager, conn, processor):
    first = await create(manager)
    await manager.process_batch(first)
    await manager.reprocess_batch(first, failed_items_only=False)
    waiting = await create(manager)
    with pytest.raises(WrongBatchStatus):
        await manager.purge(waiting)
    assert await manager.purge(older_than=timedelta(days=1)) == 0
    assert await manager.purge(older_than=timedelta(0)) == 2
    with pytest.raises(BatchNotFound):
        await manager.get_batch(first)
    for table in ("batches", "batch_items", "batch_ranges", "logs"):
        key = "id" if table == "batches" else "batch_id"
        left = f"SELECT count(*) FROM reliable_imports.import_{table} WHERE {key} <> $1"
        assert await conn.fetchval(left, waiting) == 0


async def test_pages_summaries_and_views(manager, conn, processor):
    batch_id = await create(manager, 1100)
    await manager.process_batch(batch_id)
    numbers = [item.item_number async for item in manager.list_items(batch_id)]
    assert numbers == list(range(1, 1101))
    last = [item.item_number async for item in manager.list_items(batch_id, after=1098, limit=5)]
    assert last == [1099, 1100]
    summaries = [summary async for summary in manager.watch(batch_id)]
    assert [summary.status for summary in summaries] == [BatchStatus.COMPLETED]
    assert (await manager.wait_for_batch(batch_id, timeout=PATIENCE)).success_rate == 100.0
    plain = json.loads(json.dumps(summaries[0].as_dict()))
    assert (plain["completed_items"], plain["ok"]) == (1100, True)
    row = await conn.fetchrow("SELECT * FROM reliable_imports.import_batch_summary")
    assert (row["completed_items"], row["pending_items"], row["success_rate"]) == (1100, 0, 100)
    assert await manager.find_batch(str(batch_id)[-12:]) == batch_id
    assert await manager.find_batch("latest:hook") == batch_id
    with pytest.raises(BatchNotFound):
        await manager.find_batch("latest:nothing")


class FailingProcessor(BaseProcessor):
    def __init__(self) -> None:
        self.broken = True

    async def process_item(self, item, ctx):
        if self.broken:
            raise ValueError("not yet")


async def test_a_repaired_batch_leaves_the_report(manager, conn):
    manager.registry.register(failing := FailingProcessor())
    batch_id = await manager.create_batch("failing", [{"n": 1}])
    summary = await manager.process_batch(batch_id)
    assert summary.status is BatchStatus.FAILED
    with pytest.raises(BatchNotCompleted, match="1 of 1 item failed"):
        summary.raise_for_status()
    report = "SELECT count(*) FROM reliable_imports.failed_imports_report"
    assert await conn.fetchval(report) == 1
    failing.broken = False
    await manager.reprocess_batch(batch_id)
    assert await conn.fetchval(report) == 0


async def test_refusals_say_what_to_do(dsn, empty_dsn):
    async with asyncpg.create_pool(dsn, min_size=1, max_size=3) as pool:
        with pytest.raises(PoolTooSmall, match="max_size=4"):
            await BatchManager(pool=pool).open()
    with pytest.raises(SchemaMissing, match="reliable-imports migrate"):
        await BatchManager(empty_dsn).open()
    with pytest.raises(DatabaseUnavailable, match=r"127\.0\.0\.1:1"):
        await BatchManager("postgresql://nobody:secret-word@127.0.0.1:1/none").open()
    with pytest.raises(ConfigurationError, match="not open"):
        await BatchManager(dsn).process_batch(uuid4())
    async with BatchManager(dsn, concurrency=1) as manager:
        with pytest.raises(BatchNotFound, match="reliable-imports list"):
            await manager.process_batch(uuid4())


async def test_without_any_url_both_ways_are_named(monkeypatch):
    monkeypatch.delenv("RELIABLE_IMPORTS_DATABASE_URL", raising=False)
    with pytest.raises(DatabaseUrlMissing) as refused:
        await BatchManager().open()
    assert "RELIABLE_IMPORTS_DATABASE_URL" in str(refused.value)
    assert "embedded:" in str(refused.value)
