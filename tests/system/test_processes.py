"""Real processes, real kills, a real restart: nothing is lost and nothing happens twice."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio

from reliable_imports_async import BaseProcessor, BatchManager, BatchStatus, Settings
from reliable_imports_async.outcomes import Failed

from ..database.reach import EmbeddedServer
from ..store.reach import settlements
from ..support.proxy import Fault, Proxy
from ..support.trying import PATIENCE, appears

LEDGER = """
CREATE TABLE ledger (
    number integer NOT NULL, worker integer NOT NULL, at timestamptz DEFAULT clock_timestamp())
"""
BUSY = """
SELECT FROM pg_stat_activity WHERE datname = current_database() AND state LIKE '%trans%'
"""
BEFORE = "INSERT INTO ledger (number, worker) VALUES ($1, $2)"

# A worker that says each item it is in the middle of, and that obeys `go`.
WORKER = """
import asyncio, os, signal, sys
from uuid import UUID
from reliable_imports_async import BaseProcessor, BatchManager

class ItemProcessor(BaseProcessor):
    async def process_item(self, item, ctx):
        insert = "INSERT INTO ledger (number, worker) VALUES ($1, $2)"
        await ctx.execute(insert, item.item_number, os.getpid())
        print(item.item_number, flush=True)
        await ctx.execute("SELECT pg_sleep(0.005)")

async def main():
    async with BatchManager(sys.argv[1], concurrency=2) as manager:
        manager.registry.register(ItemProcessor)
        print("ready", flush=True)
        sys.stdin.readline()
        summary = await manager.process_batch(UUID(sys.argv[2]))
        print(summary.status, flush=True)

signal.signal(signal.SIGINT, signal.default_int_handler)  # also where whoever started us ignores it
asyncio.run(main())
"""


class ItemProcessor(BaseProcessor):
    """Writes its item into the ledger, and tells whoever waits for it."""

    def __init__(self, reached: Callable[[int], Awaitable[None]] | None = None) -> None:
        self.executions: list[int] = []
        self._reached = reached

    async def process_item(self, item, ctx):
        insert = "INSERT INTO ledger (number, worker) VALUES ($1, $2)"
        await ctx.execute(insert, item.item_number, os.getpid())
        self.executions.append(item.item_number)
        if self._reached is not None:
            await self._reached(item.item_number)


class SetProcessor(ItemProcessor):
    """Writes sets of items into the ledger."""

    batch_type = "item"

    async def process_items(self, items, ctx):
        self.executions.append(len(items))
        if self._reached is not None:
            await self._reached(len(self.executions))
        rows = [(item.item_number, os.getpid()) for item in items]
        await ctx.execute(
            "INSERT INTO ledger SELECT * FROM unnest($1::integer[], $2::integer[])",
            *map(list, zip(*rows, strict=True)),
        )

    process_item = BaseProcessor.process_item


class Worker:
    """A process that works on a batch."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.pid = process.pid

    async def line(self) -> str:
        async with asyncio.timeout(PATIENCE):
            return (await self.process.stdout.readline()).decode().strip()

    async def ready(self) -> None:
        assert await self.line() == "ready"

    async def go(self) -> None:
        self.process.stdin.write(b"go\n")
        await self.process.stdin.drain()

    async def items(self, count: int) -> None:
        """Wait until it has been in the middle of so many items."""
        for _ in range(count):
            assert (await self.line()).isdigit()

    async def last_line(self) -> str:
        line = ""
        while following := await self.line():
            line = following
        return line

    async def end(self, number: int) -> None:
        self.process.send_signal(number)
        await self.process.communicate()


@asynccontextmanager
async def worker(dsn: str, batch_id: UUID, **environment: str) -> AsyncIterator[Worker]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WORKER, dsn, str(batch_id)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
    )
    try:
        yield Worker(process)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()
        process._transport.close()


@pytest_asyncio.fixture
async def proxy(dsn: str) -> AsyncIterator[Proxy]:
    if "host=" not in dsn:
        pytest.skip("needs the unix socket of the embedded server")
    async with Proxy(dsn) as opened:
        yield opened


async def create(dsn: str, count: int) -> UUID:
    async with BatchManager(dsn) as manager:
        manager.registry.register(ItemProcessor)
        return await manager.create_batch("item", [{"n": n} for n in range(1, count + 1)])


async def process(dsn: str, batch_id: UUID, processor: ItemProcessor, **settings: object):
    """Process a batch in this process."""
    options = {"lease_seconds": 1.0, "concurrency": 4} | settings
    async with BatchManager(dsn, settings=Settings(**options)) as manager:
        manager.registry.register(processor)
        async with asyncio.timeout(PATIENCE):
            return await manager.process_batch(batch_id)


async def assert_exactly_once(conn: asyncpg.Connection, count: int, batch_id: UUID) -> None:
    rows = await conn.fetch("SELECT number, count(*) FROM ledger GROUP BY number")
    assert {row["number"]: row["count"] for row in rows} == dict.fromkeys(range(1, count + 1), 1)
    settled = await conn.fetch(
        "SELECT status, attempts, count(*) FROM reliable_imports.import_batch_items"
        " WHERE batch_id = $1 GROUP BY 1, 2",
        batch_id,
    )
    assert [tuple(row) for row in settled] == [("completed", 1, count)]


async def ranges(conn: asyncpg.Connection, column: str) -> set[object]:
    """The different values of a column of the ranges."""
    rows = await conn.fetch(f"SELECT DISTINCT {column} FROM reliable_imports.import_batch_ranges")
    return {row[0] for row in rows}


async def test_kill_9_in_the_middle_of_a_batch_loses_and_doubles_nothing(dsn, conn):
    await conn.execute(LEDGER)
    batch_id = await create(dsn, 100)
    async with worker(dsn, batch_id, RELIABLE_IMPORTS_LEASE_SECONDS="1") as victim:
        await victim.ready()
        await victim.go()
        await victim.items(30)
        await victim.end(signal.SIGKILL)
    left = "SELECT FROM reliable_imports.import_batch_ranges WHERE state = 'leased'"
    assert await conn.fetch(left), "it died with leases"
    began = len(await conn.fetch("SELECT FROM ledger"))

    summary = await process(dsn, batch_id, processor := ItemProcessor())

    assert summary.status is BatchStatus.COMPLETED
    await assert_exactly_once(conn, 100, batch_id)
    assert len(processor.executions) == 100 - began, "what was settled does not run again"
    assert await ranges(conn, "crashes") == {0, 1}
    assert await ranges(conn, "state") == {"done"}


@pytest.mark.parametrize("lease", ["15", "-1"], ids=["lease", "no_lease"])
async def test_two_processes_drain_one_batch_together(dsn, conn, lease):
    """Without leases that hold, they run many items twice; only the fence decides what counts."""
    await conn.execute(LEDGER)
    batch_id = await create(dsn, 400)
    environment = {"RELIABLE_IMPORTS_LEASE_SECONDS": lease}
    async with (
        worker(dsn, batch_id, **environment) as one,
        worker(dsn, batch_id, **environment) as other,
    ):
        for each in (one, other):
            await each.ready()
        for each in (one, other):
            await each.go()
        assert await one.last_line() == "completed"
        assert await other.last_line() == "completed"
    await assert_exactly_once(conn, 400, batch_id)
    parts = await conn.fetch("SELECT worker, count(*) FROM ledger GROUP BY worker")
    if lease == "15":  # without a lease both race for the same ranges, and one may always win
        assert {row["worker"] for row in parts} == {one.pid, other.pid}
        assert min(row["count"] for row in parts) >= 10
        assert await ranges(conn, "crashes") == {0}, "nobody takes a range from the living"


async def test_ctrl_c_hands_the_ranges_back(dsn, conn):
    await conn.execute(LEDGER)
    batch_id = await create(dsn, 60)
    async with worker(dsn, batch_id, RELIABLE_IMPORTS_LEASE_SECONDS="600") as interrupted:
        await interrupted.ready()
        await interrupted.go()
        await interrupted.items(30)
        await interrupted.end(signal.SIGINT)
        assert interrupted.process.returncode == -signal.SIGINT
    assert await ranges(conn, "state") == {"ready", "done"}

    summary = await process(dsn, batch_id, ItemProcessor(), lease_seconds=600)

    assert summary.status is BatchStatus.COMPLETED
    assert await ranges(conn, "crashes") == {0}
    await assert_exactly_once(conn, 60, batch_id)


@pytest.mark.parametrize("native", [True, False], ids=["asyncio", "timeout"])
async def test_a_cancelled_process_batch_can_be_called_again(dsn, conn, native):
    await conn.execute(LEDGER)
    batch_id = await create(dsn, 80)
    reached = asyncio.Event()

    async def halt(number: int) -> None:
        if number > 30:
            reached.set()
            await asyncio.Event().wait()

    async with BatchManager(dsn, concurrency=4, settings=Settings(lease_seconds=600)) as manager:
        manager.registry.register(ItemProcessor(halt))
        task = asyncio.create_task(manager.process_batch(batch_id))
        await reached.wait()
        if native:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(task, 0.01)
        assert await ranges(conn, "state") == {"ready", "done"}
        assert await ranges(conn, "crashes") == {0}
        manager.registry.get("item")._reached = None
        async with asyncio.timeout(PATIENCE):
            summary = await manager.process_batch(batch_id)
        assert not await conn.fetch(BUSY)
    assert summary.status is BatchStatus.COMPLETED
    await assert_exactly_once(conn, 80, batch_id)


@pytest.mark.long
async def test_an_immediate_restart_of_postgresql_needs_nobody_to_act(template):
    """Its own server, whose commits survive: the session's server runs without durability."""
    directory = Path(tempfile.gettempdir()) / f"ri-restart-{uuid4().hex[:12]}"
    reached = asyncio.Event()

    async def tell(number: int) -> None:
        if number == 25:
            reached.set()

    async with EmbeddedServer(directory, settings={"fsync": "off"}) as server:
        dsn = await server.ensure_database("restarted")
        await BatchManager(dsn).migrate()
        first = await asyncpg.connect(dsn)
        await first.execute(LEDGER)
        batch_id = await create(dsn, 100)
        task = asyncio.create_task(process(dsn, batch_id, ItemProcessor(tell)))
        await reached.wait()
        postmaster = int((directory / "data/postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGQUIT)
        await server.start()
        summary = await task
        assert first.is_closed(), "the server was gone"
        conn = await asyncpg.connect(dsn)
        await assert_exactly_once(conn, 100, batch_id)
        await conn.close()
    shutil.rmtree(directory)
    assert summary.status is BatchStatus.COMPLETED


@pytest.mark.parametrize("fault", [Fault.LOSE_COMMIT, Fault.LOSE_ANSWER])
async def test_a_connection_cut_while_commit_is_in_flight(dsn, conn, proxy, fault):
    await conn.execute(LEDGER)
    batch_id = await create(dsn, 20)

    async def arm(number: int) -> None:
        if number == 10 and not proxy.hit.is_set():
            proxy.arm(fault)

    processor = ItemProcessor(arm)
    summary = await process(proxy.url(), batch_id, processor)

    assert proxy.struck[fault] == 1
    assert summary.status is BatchStatus.COMPLETED
    await assert_exactly_once(conn, 20, batch_id)
    again = len(processor.executions) - 20
    assert again == (1 if fault is Fault.LOSE_COMMIT else 0), "only what was rolled back runs again"


@pytest.mark.parametrize("fault", [Fault.LOSE_COMMIT, Fault.LOSE_ANSWER])
async def test_a_whole_set_whose_commit_is_in_doubt(dsn, conn, proxy, fault):
    await conn.execute(LEDGER)
    batch_id = await create(dsn, 20)

    async def arm(call: int) -> None:
        if call == 1:
            proxy.arm(fault)

    processor = SetProcessor(arm)
    summary = await process(proxy.url(), batch_id, processor)

    assert proxy.struck[fault] == 1
    assert summary.status is BatchStatus.COMPLETED
    await assert_exactly_once(conn, 20, batch_id)
    again = processor.executions[1:]
    assert again == ([20] if fault is Fault.LOSE_COMMIT else []), "only what was rolled back"


async def test_an_outcome_in_doubt_is_read_under_the_row_lock(dsn, conn, proxy):
    """The old backend is still in its COMMIT when the new connection asks what became of it."""
    await conn.execute(
        LEDGER
        + """;
        CREATE FUNCTION wait_in_commit() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END';
        CREATE CONSTRAINT TRIGGER slow_commit AFTER INSERT ON ledger DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (NEW.number = 3) EXECUTE FUNCTION wait_in_commit()
        """
    )
    batch_id = await create(dsn, 5)
    await conn.execute("SELECT pg_advisory_lock(1)")
    reached = asyncio.Event()

    async def arm(number: int) -> None:
        if number == 3 and not reached.is_set():
            reached.set()
            proxy.arm(Fault.ABANDON_COMMIT)

    processor = ItemProcessor(arm)
    running = asyncio.create_task(process(proxy.url(), batch_id, processor, concurrency=1))
    await appears(
        conn,
        "SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
        " WHERE NOT l.granted AND l.locktype = 'transactionid' AND a.datname = current_database()",
    )
    await conn.execute("SELECT pg_advisory_unlock(1)")
    summary = await running

    assert proxy.struck[Fault.ABANDON_COMMIT] == 1
    assert summary.status is BatchStatus.COMPLETED
    assert processor.executions.count(3) == 1, "it had committed, and was not run again"
    await assert_exactly_once(conn, 5, batch_id)


async def test_every_connection_cut_over_and_over(dsn, conn, proxy):
    await conn.execute(LEDGER)
    batch_id = await create(dsn, 60)

    due = {10, 20, 30, 40, 50}

    async def cut(number: int) -> None:
        if number in due:
            due.remove(number)
            assert proxy.cut_everything()

    summary = await process(proxy.url(), batch_id, ItemProcessor(cut))
    assert summary.status is BatchStatus.COMPLETED
    await assert_exactly_once(conn, 60, batch_id)


async def test_giving_an_item_up_sees_an_outage_through(dsn, conn, monkeypatch):
    """An item that breaks its connections fails, also when storing that breaks one more."""
    await conn.execute(LEDGER)
    batch_id = await create(dsn, 3)
    settle_item, answers = settlements.settle_item, []

    async def lost_at_first(conn, item, outcome, *args, **options) -> bool:
        stored = await settle_item(conn, item, outcome, *args, **options)
        if not isinstance(outcome, Failed):
            return stored
        answers.append(stored)
        if len(answers) == 1:
            raise asyncpg.ConnectionDoesNotExistError("the answer is lost")
        return stored

    class Poison(ItemProcessor):
        batch_type = "item"

        async def process_item(self, item, ctx):
            if item.item_number == 3:  # the last, so that it settles in a message of its own
                await ctx.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    monkeypatch.setattr(settlements, "settle_item", lost_at_first)
    summary = await process(dsn, batch_id, Poison())

    assert (summary.completed_items, summary.failed_items) == (2, 1)
    assert [group.kind for group in summary.groups] == ["connection_lost"]
    assert answers == [True]
