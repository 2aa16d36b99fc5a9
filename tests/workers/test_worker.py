"""Workers: batches that are enqueued get drained, shared, survived and handed back."""

import asyncio
import os
import signal
import sys
from collections import Counter
from contextlib import asynccontextmanager
from datetime import timedelta

import anyio
import anyio.lowlevel
import asyncpg
import pytest
from pgqueuer import PgQueuer
from pgqueuer.models import Job

from reliable_imports_async import BatchManager, Retry, Settings, register
from reliable_imports_async.errors import (
    BatchCancelled,
    BatchNotFound,
    BatchPaused,
    QueueMissing,
    UnknownBatchType,
)

from ..store.reach import enqueue
from ..support.proxy import Proxy
from ..support.trying import LEDGER, PATIENCE, insert, processor, records, written
from ..support.workers import finished, until, worker

JOBS = "SELECT count(*) FROM pgqueuer"
SESSIONS = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
SLOW = """
import asyncio
from reliable_imports_async import BaseProcessor

class SlowProcessor(BaseProcessor):
    async def process_item(self, item, ctx):
        await ctx.execute("INSERT INTO ledger (n) VALUES ($1)", item.item_number)
        await asyncio.sleep(0.05)
"""


async def test_a_worker_drains_what_is_enqueued(manager, conn):
    await conn.execute(LEDGER)
    manager.registry.register(processor(insert))
    enqueued = await manager.create_batch("tried", records(50), enqueue=True)
    later = await manager.create_batch("tried", [{"n": number} for number in range(51, 61)])
    other = await manager.create_batch("tried", records(1))
    assert await conn.fetchval(JOBS) == 1
    async with worker(manager):
        assert (await finished(manager, enqueued)).ok
        await manager.enqueue_batch(later)
        assert (await finished(manager, later)).ok
    assert await written(conn) == list(range(1, 61))
    assert await conn.fetchval(JOBS) == 0
    assert (await manager.get_batch(other)).status == "pending"  # it is nobody's but its caller's
    await manager.enqueue_batch(later)  # it has ended: nothing happens
    assert await conn.fetchval(JOBS) == 0


async def test_a_batch_and_its_jobs_are_created_together_or_not_at_all(manager, conn, dsn):
    manager.registry.register(processor(insert))
    connection = await asyncpg.connect(dsn)
    transaction = connection.transaction()
    await transaction.start()
    await manager.create_batch("tried", records(1), enqueue=True, connection=connection)
    assert await connection.fetchval(JOBS) == 1
    await transaction.rollback()
    await connection.close()
    assert await conn.fetchval(JOBS) == 0


async def test_a_large_batch_gets_several_jobs_and_none_of_them_twice(manager, conn):
    manager.registry.register(processor(insert))
    batch_id = await manager.create_batch("tried", records(4_000), enqueue=True)
    jobs = enqueue.jobs_for(
        await conn.fetchval("SELECT count(*) FROM reliable_imports.import_batch_ranges")
    )
    assert await conn.fetchval(JOBS) == jobs > 1
    await manager.enqueue_batch(batch_id)
    assert await conn.fetchval(JOBS) == jobs


async def test_two_workers_share_a_batch(dsn, manager, conn):
    await conn.execute(LEDGER)
    both = asyncio.Event()
    by: Counter = Counter()

    def counting(name):
        async def process_item(item, ctx):
            by[name] += 1
            if len(by) == 2:
                both.set()
            await both.wait()  # neither gets far without the other
            await insert(item, ctx)

        return processor(process_item)

    async with BatchManager(dsn, concurrency=2) as second:
        manager.registry.register(counting("first"))
        second.registry.register(counting("second"))
        async with worker(manager), worker(second):
            batch_id = await manager.create_batch("tried", records(400), enqueue=True)
            assert (await finished(manager, batch_id)).ok
    assert len(by) == 2
    assert await written(conn) == list(range(1, 401))


async def test_a_cancelled_worker_leaves_nothing_behind(dsn, conn):
    await conn.execute(LEDGER)
    started, go_on = asyncio.Event(), asyncio.Event()

    async def process_item(item, ctx):
        started.set()
        await go_on.wait()
        await insert(item, ctx)

    async with BatchManager(dsn, concurrency=2) as manager:
        manager.registry.register(processor(process_item))
        batch_id = await manager.create_batch("tried", records(100), enqueue=True)
        task = asyncio.ensure_future(manager.run_worker())
        await started.wait()
        tasks = asyncio.all_tasks()
        task.cancel()
        await anyio.lowlevel.checkpoint()
        go_on.set()  # what runs may settle
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not [
            one for one in asyncio.all_tasks() - {asyncio.current_task()} if one not in tasks
        ]
        assert (
            await conn.fetchval(
                "SELECT count(*) FROM reliable_imports.import_batch_ranges WHERE state = 'leased'"
            )
            == 0
        )
        assert len(await written(conn)) <= 4
        async with worker(manager):  # its job waits for the next one at once
            assert (await finished(manager, batch_id, 30)).ok
        assert await written(conn) == list(range(1, 101))
        crashes = "SELECT sum(crashes) FROM reliable_imports.import_batch_ranges"
        assert await conn.fetchval(crashes) == 0

    async def alone():
        return await conn.fetchval(SESSIONS) == 0

    await until(alone)


async def test_an_item_that_does_not_end_is_rolled_back_when_the_worker_stops(dsn, conn):
    await conn.execute(LEDGER)
    started = asyncio.Event()

    async def process_item(item, ctx):
        await insert(item, ctx)
        started.set()
        await asyncio.sleep(600)

    settings = Settings(database_url=dsn, concurrency=2, stop_timeout=0.1)
    async with BatchManager(settings=settings) as manager:
        manager.registry.register(processor(process_item))
        await manager.create_batch("tried", records(10), enqueue=True)
        async with worker(manager):
            await started.wait()
        assert await conn.fetchval(JOBS) == 1
    assert await written(conn) == []


async def test_a_stored_retry_is_a_job_for_later(manager, conn):
    await conn.execute(LEDGER)

    async def process_item(item, ctx):
        if item.attempt == 1:
            raise Retry(after=5)
        await insert(item, ctx)

    manager.registry.register(processor(process_item, max_attempts=2))
    async with worker(manager):
        batch_id = await manager.create_batch("tried", records(1), enqueue=True)

        async def deferred():
            return await conn.fetchval(
                "SELECT EXISTS (SELECT FROM pgqueuer WHERE execute_after > now() + interval '1 s')"
            )

        await until(deferred)
        assert (await finished(manager, batch_id)).ok
    assert await written(conn) == [1]


@pytest.mark.long
async def test_a_small_batch_passes_a_large_one(dsn, conn, monkeypatch):
    await conn.execute(LEDGER)
    entered = asyncio.Event()

    async def process_item(item, ctx):
        entered.set()
        await asyncio.sleep(0.005)
        await insert(item, ctx)

    async with BatchManager(dsn, concurrency=2) as manager:
        manager.registry.register(processor(process_item))
        large = [
            await manager.create_batch("tried", records(20_000), enqueue=True) for _ in range(3)
        ]
        async with worker(manager):
            await entered.wait()
            small = await manager.create_batch("tried", records(20), enqueue=True)
            assert (await finished(manager, small, 60)).ok
            for batch_id in large:
                assert (await manager.get_batch(batch_id)).finished_at is None
                await manager.cancel_batch(batch_id)


async def test_pause_and_cancel_end_the_jobs_and_resume_enqueues(manager, conn):
    await conn.execute(LEDGER)
    entered = asyncio.Event()

    async def process_item(item, ctx):
        entered.set()
        await asyncio.sleep(0.01)
        await insert(item, ctx)

    manager.registry.register(processor(process_item))
    async with worker(manager):
        batch_id = await manager.create_batch("tried", records(2_000), enqueue=True)
        await entered.wait()
        await manager.pause_batch(batch_id)

        async def idle():
            return await conn.fetchval(f"{JOBS} WHERE status = 'picked'") == 0

        await until(idle)
        with pytest.raises(BatchPaused):
            await manager.enqueue_batch(batch_id)
        entered.clear()
        await manager.resume_batch(batch_id)
        await entered.wait()
        await manager.cancel_batch(batch_id)
        await until(idle)
        with pytest.raises(BatchCancelled):
            await manager.enqueue_batch(batch_id)


async def test_a_batch_without_a_job_is_found(manager, conn):
    await conn.execute(LEDGER)
    manager.registry.register(processor(insert))
    batch_id = await manager.create_batch("tried", records(30), enqueue=True)
    await conn.execute("DELETE FROM pgqueuer")
    async with worker(manager):
        assert (await finished(manager, batch_id)).ok
    assert await written(conn) == list(range(1, 31))


async def test_a_range_that_waits_while_no_job_can_be_taken_is_found(manager, conn):
    """So after a kill: every other job of the batch was put off by workers that were busy."""
    await conn.execute(LEDGER)
    manager.registry.register(processor(insert))
    batch_id = await manager.create_batch("tried", records(30), enqueue=True)
    later = "UPDATE pgqueuer SET execute_after = now() + interval '1 hour'"
    assert await conn.execute(later) == "UPDATE 1"
    await conn.execute(
        "UPDATE reliable_imports.import_batches SET status = 'processing', started_at = now()"
    )
    async with worker(manager):
        assert (await finished(manager, batch_id)).ok
        assert await conn.fetchval(JOBS) == 1
    assert await written(conn) == list(range(1, 31))


async def test_a_batch_whose_resources_fail_is_tried_again(manager, conn):
    await conn.execute(LEDGER)
    tries = 0

    @asynccontextmanager
    async def resources(ctx):
        nonlocal tries
        tries += 1
        if tries == 1:
            raise OSError("the model is not there yet")
        yield None

    manager.registry.register(processor(insert, resources=resources))
    async with worker(manager):
        batch_id = await manager.create_batch("tried", records(3), enqueue=True)
        assert (await finished(manager, batch_id)).ok
    assert tries == 2


async def test_a_worker_on_a_given_pool(dsn, conn):
    await conn.execute(LEDGER)
    pool = await asyncpg.create_pool(dsn, min_size=0, max_size=5)
    async with BatchManager(pool=pool) as manager:
        manager.registry.register(processor(insert))
        async with worker(manager):
            batch_id = await manager.create_batch("tried", records(60), enqueue=True)
            assert (await finished(manager, batch_id)).ok
    assert pool.get_idle_size() == pool.get_size()
    await pool.close()


async def test_refusals(manager, empty_dsn, conn):
    with pytest.raises(BatchNotFound):
        await manager.enqueue_batch("019a0000-0000-7000-8000-000000000003")
    with pytest.raises(UnknownBatchType):
        await manager.run_worker(["unheard_of"])
    await conn.execute("DROP TABLE pgqueuer CASCADE")
    with pytest.raises(QueueMissing):
        await manager.run_worker()
    manager.registry.register(processor(insert))
    with pytest.raises(QueueMissing):
        await manager.create_batch("tried", records(1), enqueue=True)
    assert await conn.fetchval("SELECT count(*) FROM reliable_imports.import_batches") == 0


async def test_a_pgqueuer_application_takes_our_jobs_along(dsn, manager, conn):
    await conn.execute(LEDGER)
    manager.registry.register(processor(insert))
    connection = await asyncpg.connect(dsn)
    pgq = PgQueuer.from_asyncpg_connection(connection)
    own: list[bytes] = []

    @pgq.entrypoint("their_own")
    async def their_own(job: Job) -> None:
        own.append(job.payload)

    register(pgq, manager)
    batch_id = await manager.create_batch("tried", records(30), enqueue=True)
    await pgq.qm.queries.enqueue("their_own", b"x")
    running = asyncio.ensure_future(pgq.run(dequeue_timeout=timedelta(seconds=0.5)))
    assert (await finished(manager, batch_id)).ok
    with anyio.fail_after(PATIENCE):
        while not own:
            await anyio.sleep(0.05)
    pgq.shutdown.set()
    await running
    await connection.close()
    assert await written(conn) == list(range(1, 31))


async def test_a_worker_process_hands_back_on_sigterm(dsn, conn, tmp_path):
    await conn.execute(LEDGER)
    (tmp_path / "slow.py").write_text(SLOW)
    async with BatchManager(dsn) as manager:
        manager.registry.register(processor(insert, batch_type="slow"))
        batch_id = await manager.create_batch("slow", records(500))
    environment = os.environ | {
        "RELIABLE_IMPORTS_DATABASE_URL": dsn,
        "RELIABLE_IMPORTS_PROCESSORS": "slow",
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)]),
    }
    command = (sys.executable, "-m", "reliable_imports_async")

    async def some():
        return len(await written(conn)) >= 3

    enqueued = await asyncio.create_subprocess_exec(
        *command,
        "process",
        "latest",
        "--background",
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await enqueued.communicate()
    assert enqueued.returncode == 0
    assert b"is queued" in said
    process = await asyncio.create_subprocess_exec(
        *command, "worker", "--types", "slow", "--concurrency", "2",
        env=environment, stderr=asyncio.subprocess.PIPE, cwd=tmp_path,
    )  # fmt: skip
    try:
        await until(some)
        process.send_signal(signal.SIGTERM)
        with anyio.fail_after(PATIENCE):
            _, notes = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode == 0, notes
    state = "SELECT count(*) FILTER (WHERE state = 'leased') AS leased, sum(crashes) AS crashes"
    ranges = await conn.fetchrow(f"{state} FROM reliable_imports.import_batch_ranges")
    assert tuple(ranges) == (0, 0)
    settled = await conn.fetchval(
        "SELECT count(*) FROM reliable_imports.import_batch_items WHERE status = 'completed'"
    )
    assert 3 <= settled == len(await written(conn)) < 500
    queued = "SELECT count(*) FROM pgqueuer WHERE status = 'queued'"
    assert await conn.fetchval(queued) == await conn.fetchval(JOBS) >= 1
    assert batch_id


@pytest.mark.long
async def test_a_worker_survives_half_open_and_refused_connections(dsn, conn):
    await conn.execute(LEDGER)
    seen = asyncio.Event()

    async def process_item(item, ctx):
        seen.set()
        await insert(item, ctx)
        await asyncio.sleep(0.01)

    async def more_than(count):
        return len(await written(conn)) > count

    async with Proxy(dsn) as proxy:
        settings = Settings(
            database_url=proxy.url(),
            concurrency=2,
            lease_seconds=2.0,
            commit_timeout=1.0,
            connect_timeout=1.0,
            item_timeout=5.0,
        )
        async with BatchManager(settings=settings) as manager:
            manager.registry.register(processor(process_item))
            async with worker(manager):
                batch_id = await manager.create_batch("tried", records(400), enqueue=True)
                await seen.wait()
                proxy.open_road.clear()  # accepted, and silent
                await anyio.sleep(3)
                before = len(await written(conn))
                proxy.open_road.set()
                await until(more_than, before)
                proxy.refusing = True
                proxy.cut_everything()
                await anyio.sleep(3)
                before = len(await written(conn))
                proxy.refusing = False
                await until(more_than, before)
                assert (await finished(manager, batch_id)).ok
    assert await written(conn) == list(range(1, 401))


async def test_a_worker_waits_for_a_pool_that_others_have_emptied(dsn, conn):
    await conn.execute(LEDGER)
    pool = await asyncpg.create_pool(dsn, min_size=0, max_size=5)
    settings = Settings(connect_timeout=0.5)
    async with BatchManager(pool=pool, settings=settings) as manager:
        manager.registry.register(processor(insert))
        async with worker(manager):
            taken = [await pool.acquire() for _ in range(5)]
            await conn.execute("SELECT pg_sleep(2)")
            for connection in taken:
                await pool.release(connection)
            batch_id = await manager.create_batch("tried", records(60), enqueue=True)
            assert (await finished(manager, batch_id)).ok
    await pool.close()
    assert await written(conn) == list(range(1, 61))


async def test_a_worker_that_begins_during_an_outage_waits_and_listens_again(dsn, conn):
    await conn.execute(LEDGER)
    listening = """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
       AND (query LIKE 'LISTEN %' OR query LIKE '%in_recovery%' AND pid <> pg_backend_pid())
    """
    async with Proxy(dsn) as proxy:
        settings = Settings(database_url=proxy.url(), concurrency=2, connect_timeout=1.0)
        async with BatchManager(settings=settings) as manager:
            manager.registry.register(processor(insert))
            proxy.refusing = True
            proxy.cut_everything()
            async with worker(manager) as task:
                done, _ = await asyncio.wait([task], timeout=1.5)
                assert not done
                proxy.refusing = False

                async def listens():
                    return await conn.fetchval(listening) > 0

                await until(listens)
                proxy.cut_everything()
                batch_id = await enqueued_elsewhere(dsn, records(20))
                assert (await finished(manager, batch_id)).ok
    assert await written(conn) == list(range(1, 21))


async def enqueued_elsewhere(dsn, items):
    """A batch that somebody else enqueues."""
    async with BatchManager(dsn) as manager:
        manager.registry.register(processor(insert))
        return await manager.create_batch("tried", items, enqueue=True)


async def test_a_worker_logs_what_it_takes_finishes_takes_over_and_waits_for(
    manager, conn, dsn, caplog
):
    """One line each, and none again while it stays so."""
    caplog.set_level("INFO", "reliable_imports_async.worker")
    await conn.execute(LEDGER)
    first_runs, go_on = anyio.Event(), anyio.Event()

    async def process_item(item, ctx):
        first_runs.set()
        await go_on.wait()
        await insert(item, ctx)

    manager.registry.register(processor(process_item, only_one=True))
    first = await manager.create_batch("tried", records(1), enqueue=True)

    def lines() -> list[str]:
        return [
            one.getMessage()
            for one in caplog.records
            if one.name == "reliable_imports_async.worker"
        ]

    async def says(line: str) -> bool:
        return line in lines()

    async with worker(manager):
        await until(says, f"batch {first} taken: tried, 1 item")
        await first_runs.wait()
        second = await manager.create_batch("tried", [{"n": 2}, {"n": 3}], enqueue=True)
        await until(says, f"batch {second} waits for batch {first} to end")
        go_on.set()
        assert (await finished(manager, first)).ok
        assert (await finished(manager, second)).ok
        ended = "finished: completed, 2 completed, 0 skipped, 0 failed of 2 items"
        await until(says, f"batch {second} {ended}")
    ended = "finished: completed, 1 completed, 0 skipped, 0 failed of 1 item"
    assert sorted(lines()) == sorted(
        [
            f"batch {first} taken: tried, 1 item",
            f"batch {first} {ended}",
            f"batch {second} taken: tried, 2 items",
            f"batch {second} waits for batch {first} to end",
            f"batch {second} {ended.replace('1 item', '2 items').replace('1 comp', '2 comp')}",
        ]
    )


async def test_a_worker_logs_whose_work_it_takes_over(manager, conn, caplog):
    caplog.set_level("INFO", "reliable_imports_async.worker")
    await conn.execute(LEDGER)
    manager.registry.register(processor(insert))
    batch_id = await manager.create_batch("tried", records(50), enqueue=True)
    await conn.execute(
        "UPDATE reliable_imports.import_batches SET status = 'processing', started_at = now();"
        "UPDATE reliable_imports.import_batch_ranges SET state = 'leased', epoch = 1,"
        " worker_id = gen_random_uuid(), lease_until = now() - interval '1 day'"
    )
    async with worker(manager):
        assert (await finished(manager, batch_id)).ok
    told = [one.getMessage() for one in caplog.records if "taking over" in one.getMessage()]
    assert told == [f"batch {batch_id}: taking over from a worker that died, items 1 to 20 first"]
