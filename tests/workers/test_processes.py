"""Several processes work on a batch: they share it, may die, and never outlive their parent."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from textwrap import dedent

import anyio
import asyncpg
import psutil
import pytest

from reliable_imports_async import BaseProcessor, BatchManager, Settings
from reliable_imports_async.errors import ConfigurationError, WorkerProcessFailed

from ..support.shared_work import (
    EndlessProcessor,
    KilledOnceProcessor,
    MeetingProcessor,
    processes_in,
)
from ..support.trying import LEDGER, PATIENCE, PER_ITEM, records
from ..support.workers import finished, until
from .reach import restart_after

ITEMS = 60
ROOT = Path(__file__).parents[2]


class UnreadableProcessor(BaseProcessor):
    """Cannot be unpickled, so no other process can ever work with it."""

    def __setstate__(self, state):
        raise RuntimeError("not in this process")

    def __getstate__(self):
        return {"a": 1}

    async def process_item(self, item, ctx):
        await anyio.sleep_forever()


class LockedProcessor(BaseProcessor):
    """Has an attribute that cannot be pickled."""

    def __init__(self):
        self.call = lambda: None

    async def process_item(self, item, ctx): ...


async def create(manager, processor, directory, count=ITEMS):
    batch_type = manager.registry.register(processor)
    metadata = {"directory": str(directory), "parent": os.getpid()}
    return await manager.create_batch(batch_type, records(count), metadata=metadata)


async def each_once(conn, count=ITEMS):
    """Whether each item has written its row once."""
    found = [tuple(row) for row in await conn.fetch(PER_ITEM)]
    return found == [(number, 1) for number in range(1, count + 1)]


def is_gone(process):
    return not psutil.pid_exists(process) or psutil.Process(process).status() == "zombie"


async def all_gone(directory):
    """Whether no process lives that worked there, except this one."""
    return all(map(is_gone, processes_in(directory) - {os.getpid()}))


async def test_two_processes_share_a_batch(manager, conn, tmp_path):
    await conn.execute(LEDGER)
    batch_id = await create(manager, MeetingProcessor, tmp_path)
    summary = await manager.process_batch(batch_id, processes=2)
    assert summary.ok
    assert await each_once(conn)
    assert len(processes_in(tmp_path)) == 2
    assert os.getpid() in processes_in(tmp_path)
    assert await all_gone(tmp_path)


async def test_a_killed_process_is_replaced_and_its_items_run_again(
    dsn, conn, tmp_path, monkeypatch, caplog
):
    restart_after(monkeypatch, 0.01)
    await conn.execute(LEDGER)
    settings = Settings(lease_seconds=3)
    async with BatchManager(dsn, concurrency=4, settings=settings) as manager:
        batch_id = await create(manager, KilledOnceProcessor, tmp_path)
        with caplog.at_level(logging.WARNING):
            summary = await manager.process_batch(batch_id, processes=2)
    assert summary.ok
    assert (tmp_path / "killed").exists()
    assert await each_once(conn)
    assert "a worker process has ended with exit code -9" in caplog.text


async def test_a_process_that_dies_at_each_start_ends_the_call(
    manager, conn, tmp_path, monkeypatch, caplog
):
    restart_after(monkeypatch, 0.01)
    batch_id = await create(manager, UnreadableProcessor(), tmp_path)
    with anyio.fail_after(PATIENCE), pytest.raises(WorkerProcessFailed, match="5 times in a row"):
        await manager.process_batch(batch_id, processes=2)
    assert (await manager.get_batch_summary(batch_id)).pending_items == ITEMS
    leased = "SELECT FROM reliable_imports.import_batch_ranges WHERE state = 'leased'"
    assert not await conn.fetch(leased)


async def test_when_the_call_is_cancelled_no_process_and_no_lease_is_left(
    dsn, conn, tmp_path, monkeypatch
):
    async with BatchManager(dsn, concurrency=2) as manager:
        batch_id = await create(manager, EndlessProcessor, tmp_path)

        async def both():
            return len(processes_in(tmp_path)) == 2

        async with anyio.create_task_group() as group:
            group.start_soon(lambda: manager.process_batch(batch_id, processes=2))
            await until(both)
            group.cancel_scope.cancel()
        assert await all_gone(tmp_path)
        leased = "SELECT FROM reliable_imports.import_batch_ranges WHERE state = 'leased'"
        assert not await conn.fetch(leased)
        assert (await manager.get_batch_summary(batch_id)).pending_items == ITEMS


async def test_workers_have_several_processes_too(dsn, conn, tmp_path):
    await conn.execute(LEDGER)
    async with BatchManager(dsn, concurrency=4) as manager:
        batch_id = await create(manager, MeetingProcessor, tmp_path, 300)
        await manager.enqueue_batch(batch_id)
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: manager.run_worker(processes=2))
            summary = await finished(manager, batch_id)
            group.cancel_scope.cancel()
        assert summary.ok
        assert len(processes_in(tmp_path)) == 2
        assert await each_once(conn, 300)
        assert await all_gone(tmp_path)


@pytest.mark.parametrize(
    ("processes", "said"),
    [
        (0, "not possible"),
        (-1, "not possible"),
        (257, "not possible"),
        (True, "not a whole number"),
        (1.5, "not a whole number"),
        ("2", "not a whole number"),
        (None, "not a whole number"),
        (256, "the server allows"),
    ],
)
@pytest.mark.parametrize("verb", ["process", "work"])
async def test_impossible_numbers_are_refused(manager, tmp_path, processes, said, verb):
    batch_id = await create(manager, MeetingProcessor, tmp_path)
    calls = {"process": partial(manager.process_batch, batch_id), "work": manager.run_worker}
    with pytest.raises(ConfigurationError, match=said):
        await calls[verb](processes=processes)


class LocalProcessor(BaseProcessor):
    async def process_item(self, item, ctx): ...


async def test_what_other_processes_cannot_use_is_named(manager, dsn, tmp_path):
    class InnerProcessor(LocalProcessor):
        """Cannot be imported."""

    for processor, name in ((LockedProcessor(), "LockedProcessor"), (InnerProcessor, "Inner")):
        manager.registry.__init__()
        batch_id = await create(manager, processor, tmp_path)
        with pytest.raises(ConfigurationError, match=f"{name}.* cannot be sent") as refused:
            await manager.process_batch(batch_id, processes=2)
        assert "top level of a module" in refused.value.hint

    with pytest.raises(ConfigurationError, match="A dry run has one process"):
        await manager.process_batch(batch_id, processes=2, dry_run=True)
    async with asyncpg.create_pool(dsn, min_size=1, max_size=5) as pool:
        async with BatchManager(pool=pool) as given:
            given.registry.register(LocalProcessor)
            with pytest.raises(ConfigurationError, match="cannot share a pool"):
                await given.run_worker(processes=2)


SCRIPT = """
import asyncio, sys
from reliable_imports_async import BatchManager
from tests.support.shared_work import {processor} as Processor

async def main():
    async with BatchManager(sys.argv[1], concurrency=2) as manager:
        name = manager.registry.register(Processor)
        metadata = {{"directory": sys.argv[2], "parent": 0}}
        items = [{{"n": n}} for n in range(1, 61)]
        batch_id = await manager.create_batch(name, items, metadata=metadata)
        await manager.process_batch(batch_id, processes=2)

{start}
"""


def script(directory, processor, start):
    path = directory / "script.py"
    path.write_text(dedent(SCRIPT).format(processor=processor, start=start))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    return [sys.executable, str(path)], environment


async def test_no_process_outlives_a_killed_parent(dsn, conn, tmp_path):
    start = 'if __name__ == "__main__":\n    asyncio.run(main())'
    command, environment = script(tmp_path, "EndlessProcessor", start)
    parent = await asyncio.create_subprocess_exec(*command, dsn, str(tmp_path), env=environment)
    try:

        async def both():
            assert parent.returncode is None
            return len(processes_in(tmp_path)) == 2

        await until(both)
    finally:
        parent.kill()
        await parent.wait()

    async def gone():
        return all(map(is_gone, processes_in(tmp_path)))

    await until(gone)


@pytest.mark.long
async def test_a_script_without_a_guard_imports_once_and_is_told(dsn, conn, tmp_path):
    command, environment = script(tmp_path, "MeetingProcessor", "asyncio.run(main())")
    done = await asyncio.create_subprocess_exec(
        *command, dsn, str(tmp_path), env=environment, stderr=subprocess.PIPE
    )
    with anyio.fail_after(PATIENCE):
        _, said = await done.communicate()
    assert done.returncode == 1
    assert 'if __name__ == "__main__":' in said.decode()
    assert await conn.fetchval("SELECT count(*) FROM reliable_imports.import_batches") == 1


async def test_the_command_line_starts_and_stops_processes(dsn, conn, tmp_path):
    await conn.execute(LEDGER)
    async with BatchManager(dsn, concurrency=2) as manager:
        batch_id = await create(manager, MeetingProcessor, tmp_path)
        await manager.enqueue_batch(batch_id)
        command = [sys.executable, "-m", "reliable_imports_async", "worker", "--processes", "2"]
        options = ["--processors", "tests.support.shared_work", "--concurrency", "2"]
        variables = {"RELIABLE_IMPORTS_DATABASE_URL": dsn}
        environment = script(tmp_path, "", "")[1] | variables
        worker = await asyncio.create_subprocess_exec(*command, *options, env=environment)
        try:
            assert (await finished(manager, batch_id)).ok
        finally:
            worker.send_signal(signal.SIGTERM)
        with anyio.fail_after(PATIENCE):
            assert await worker.wait() == 0
        assert len(processes_in(tmp_path)) == 2
        assert await all_gone(tmp_path)
        assert await each_once(conn)
