"""The second half of a canary is in the database: whoever comes next brings it to its end."""

import asyncio

import httpx
import pytest
import pytest_asyncio

from reliable_imports_async import APIManager, BaseProcessor, BatchManager
from reliable_imports_async.errors import BatchPaused

from ..support.trying import PATIENCE
from .reach import after_a_canary, look_for_canaries


class SeedsProcessor(BaseProcessor):
    pause_after = None
    good = False

    async def process_item(self, item, ctx):
        await ctx.execute("INSERT INTO ledger VALUES ($1)", item.root_item_number)
        if not type(self).good:
            raise ValueError("not yet")


class Killed(Exception):
    """What a process meets last."""


@pytest_asyncio.fixture(loop_scope="session")
async def failed(dsn, conn):
    """A batch of eight failed items; a server that answers, but works on nothing, and its client."""
    await conn.execute("CREATE TABLE ledger (number integer)")
    SeedsProcessor.good = False
    async with opened(dsn) as manager:
        root = await manager.create_batch("seeds", [{"n": n} for n in range(8)])
        await manager.process_batch(root)
    SeedsProcessor.good = True
    async with opened(dsn) as manager:
        api = APIManager(manager, worker=False)
        transport = httpx.ASGITransport(api.app)
        async with (
            api.running(allow_anonymous=True),
            httpx.AsyncClient(transport=transport, base_url="http://test") as client,
        ):
            yield root, client


def opened(dsn):
    manager = BatchManager(dsn)
    manager.registry.register(SeedsProcessor)
    return manager


async def canary_of(failed, **body):
    root, client = failed
    body = {"canary": 2, "min_success": 0.5} | body
    answer = await client.post(f"/api/batches/{root}/reprocess", json=body)
    assert answer.status_code == 202, answer.text
    assert answer.json()["total_items"] == 2
    return answer.json()["batch_id"]


async def outstanding(manager, root):
    return (await manager.get_batch_summary(root)).outstanding_items


async def work(manager, root, until=0):
    """Be a worker until so many items are outstanding."""
    worker = asyncio.create_task(manager.run_worker())
    async with asyncio.timeout(PATIENCE):
        while await outstanding(manager, root) > until:
            await asyncio.sleep(0.02)
    worker.cancel()
    await asyncio.wait([worker])


async def assert_all_ran_once(conn, manager, root, batches=3):
    numbers = [row[0] for row in await conn.fetch("SELECT number FROM ledger ORDER BY number")]
    assert numbers == list(range(1, 9))
    lineage = await manager.lineage(root)
    assert [one.total_items for one in lineage] == [8, 2, 6][:batches]


async def test_a_worker_of_another_process_runs_both_halves(failed, dsn, conn):
    root, _ = failed
    await canary_of(failed)
    async with opened(dsn) as other:
        await work(other, root)
        await assert_all_ran_once(conn, other, root)


async def test_so_does_process_batch(failed, dsn, conn):
    root, _ = failed
    canary = await canary_of(failed)
    async with opened(dsn) as other:
        summary = await other.process_batch(canary)
        assert (str(summary.batch_id), summary.total_items) == (canary, 2)
        await assert_all_ran_once(conn, other, root)
        again = await other.process_reprocessing(canary)
        assert (again.total_items, again.ok) == (6, True)


async def test_a_paused_canary_keeps_its_rest(failed, dsn, conn):
    root, client = failed
    canary = await canary_of(failed)
    assert (await client.post(f"/api/batches/{canary}/pause", json={})).status_code == 200
    async with opened(dsn) as other:
        with pytest.raises(BatchPaused):
            await other.process_batch(canary)
        assert (await client.post(f"/api/batches/{canary}/resume", json={})).status_code == 200
        await work(other, root)
        await assert_all_ran_once(conn, other, root)


@pytest.mark.parametrize("by", ["sweep", "process_batch", "process_reprocessing"])
async def test_a_kill_between_the_halves_loses_nothing(failed, dsn, conn, by):
    root, _ = failed
    canary = await canary_of(failed)

    async def die(batch):
        raise Killed

    async with opened(dsn) as other:
        after_a_canary(other, die)
        with pytest.raises(Killed):
            await other.process_batch(canary)
    async with opened(dsn) as other:
        assert await outstanding(other, root) == 6
        if by == "sweep":
            await work(other, root)
        else:
            await getattr(other, by)(canary)
        await assert_all_ran_once(conn, other, root)


async def test_two_who_finish_it_create_one_rest(failed, dsn, conn):
    root, _ = failed
    canary = await canary_of(failed)
    async with opened(dsn) as one, opened(dsn) as two:
        await asyncio.gather(one.process_batch(canary), two.process_batch(canary))
        await asyncio.gather(one.process_batch(canary), two.process_reprocessing(canary))
        await assert_all_ran_once(conn, one, root)


async def test_the_rest_of_one_that_does_not_pass_is_left_alone(failed, dsn, conn):
    root, _ = failed
    canary = await canary_of(failed)
    SeedsProcessor.good = False
    async with opened(dsn) as other:
        await other.process_batch(canary)
        SeedsProcessor.good = True
        assert await outstanding(other, root) == 8
        await other.process_batch(canary)
        await look_for_canaries(other, ["seeds"], 10)
        assert len(await other.lineage(root)) == 2


async def test_so_is_that_of_a_cancelled_one(failed, dsn):
    root, client = failed
    canary = await canary_of(failed, min_success=0)
    assert (await client.post(f"/api/batches/{canary}/cancel", json={})).status_code == 200
    async with opened(dsn) as other:
        await look_for_canaries(other, ["seeds"], 10)
        assert len(await other.lineage(root)) == 2
