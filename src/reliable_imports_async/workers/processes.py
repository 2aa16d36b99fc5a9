"""Starts child processes that work beside this one, and keeps them running."""

import logging
import multiprocessing
import pickle
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection as Pipe
from multiprocessing.process import BaseProcess
from time import monotonic
from typing import Any
from uuid import UUID

import anyio
import anyio.lowlevel
from anyio import from_thread, to_thread
from pydantic import SecretStr

from ..database.pool import RESERVED_CONNECTIONS, Database
from ..errors import ConfigurationError, WorkerProcessFailed
from ..processors.registry import Registry
from ..settings import Settings
from ..wording import counted
from . import child
from .child import ChildManager, Job, levels

logger = logging.getLogger("reliable_imports_async")

MOST_PROCESSES = 256
EARLY_SECONDS = 10.0  # a process that ends sooner may end like that each time
EARLY_DEATHS = 5
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
STOP_SECONDS = 20.0  # for a child to settle its items and hand back its ranges
KILL_SECONDS = 5.0
_SPAWN = multiprocessing.get_context("spawn")


def check_processes(processes: object) -> int:
    """Check a number of processes.

    Raises:
        ConfigurationError: It is not a whole number from 1 to 256.
    """
    if isinstance(processes, bool) or not isinstance(processes, int):
        raise ConfigurationError(f"processes={processes!r:.100} is not a whole number.")
    if not 1 <= processes <= MOST_PROCESSES:
        raise ConfigurationError(
            f"processes={processes} is not possible.",
            hint=f"use a number from 1 to {MOST_PROCESSES}; the processor's cores are a good one.",
        )
    return processes


def refuse_while_starting() -> None:
    """Refuse to work while a child process imports the main module: it would do all of it again.

    Raises:
        ConfigurationError: The main module starts its work when it is imported.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ConfigurationError(
            "A child process has imported the main module, which started to work at once.",
            hint='put the code that starts the work below `if __name__ == "__main__":`.',
        )


def pickled(objects: Iterable[object]) -> tuple[bytes, ...]:
    """Processors and endpoints, each pickled by itself.

    Raises:
        ConfigurationError: One of them cannot be sent to another process.
    """
    return tuple(map(_pickled, objects))


def _pickled(value: object) -> bytes:
    cls = type(value)
    name = f"{cls.__module__}.{cls.__qualname__}"
    if cls.__module__ == "__main__" and not hasattr(sys.modules["__main__"], "__file__"):
        raise ConfigurationError(
            f"{name} is defined in an interactive session, so another process cannot import it.",
            hint="move it into a module.",
        )
    try:
        return pickle.dumps(value)
    except Exception as exc:  # noqa: BLE001 - whatever its attributes raise
        raise ConfigurationError(
            f"{name} cannot be sent to another process: {exc}",
            hint="define the class at the top level of a module, and keep connections, locks and "
            "functions out of its attributes: `resources` can open them in each process.",
        ) from None


async def check_connections(database: Database, processes: int) -> str:
    """The URL for child processes.

    Raises:
        ConfigurationError: There is none, or the server allows too few connections.
    """
    url = database.url
    if url is None:
        raise ConfigurationError(
            "Several processes cannot share a pool.",
            hint="pass a database URL to the manager instead of a pool.",
            cli_hint="",
            web_hint="",
        )
    each = database.concurrency + RESERVED_CONNECTIONS
    allowed = await database.allowed_connections()
    if allowed is not None and processes * each > allowed:
        raise ConfigurationError(
            f"{counted(processes, 'process', 'processes')} with {counted(each, 'connection')} each "
            f"need {processes * each}; the server allows {allowed}.",
            hint="lower the concurrency or the number of processes, or raise the server's "
            "max_connections.",
        )
    return url


async def job_of(
    manager: type[ChildManager],
    database: Database,
    settings: Settings,
    registry: Registry,
    processes: int,
) -> Job:
    """What so many processes, with this one, need for any work.

    Raises:
        ConfigurationError: They cannot have it.
    """
    url = await check_connections(database, processes)
    own = {"database_url": SecretStr(url), "processors": ()}
    processors = [registry.get(name) for name in registry.batch_types]
    return Job(
        manager,
        settings.model_copy(update=own),
        pickled([*processors, *registry.endpoints]),
        levels=levels(),
    )


def on_batches(
    count: int, job: Job, commit_interval: int | None
) -> Callable[[UUID], AbstractAsyncContextManager[None]]:
    """What keeps child processes working on a batch."""
    return lambda batch_id: beside(
        count, replace(job, batch_id=batch_id, commit_interval=commit_interval)
    )


@asynccontextmanager
async def beside(count: int, job: Job) -> AsyncIterator[None]:
    """Keep child processes working on a job while the block runs.

    A child that has nothing left to do ends; one that dies is started again. At the end of the
    block the others hand back their ranges.

    Raises:
        WorkerProcessFailed: A child has died again and again right after its start.
    """
    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(_keep_running, job)
        yield
        group.cancel_scope.cancel()


async def _keep_running(job: Job) -> None:
    """Run a child until it ends by itself without an error."""
    deaths, pause = 0, FIRST_PAUSE
    while True:
        began = monotonic()
        code = await _run(job)
        if code == 0:
            return
        if monotonic() - began > EARLY_SECONDS:
            deaths, pause = 0, FIRST_PAUSE
        deaths += 1
        if deaths == EARLY_DEATHS:
            raise WorkerProcessFailed(code, deaths)
        logger.warning(
            "a worker process has ended with exit code %s; the next starts in %.1f s", code, pause
        )
        await anyio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


async def _run(job: Job) -> int | None:
    """Run a child to its end; returns its exit code. When cancelled, stop it in order."""
    here, there = _SPAWN.Pipe()
    process = _SPAWN.Process(target=child.main, args=(there, job))
    with anyio.CancelScope(shield=True):
        await to_thread.run_sync(process.start)
    there.close()
    ended = anyio.Event()
    token = anyio.lowlevel.current_token()
    threading.Thread(target=_relay, args=(here, ended, token), daemon=True).start()
    try:
        await ended.wait()
        await to_thread.run_sync(process.join)
    finally:
        with anyio.CancelScope(shield=True):
            await _stop(process, here, ended)
    return process.exitcode


async def _stop(process: BaseProcess, pipe: Pipe, ended: anyio.Event) -> None:
    """Let a child hand back its ranges; kill it if that takes too long."""
    with suppress(OSError):
        pipe.send(child.STOP)
    for seconds, insist in ((STOP_SECONDS, process.terminate), (KILL_SECONDS, process.kill)):
        await to_thread.run_sync(process.join, seconds)
        if process.exitcode is not None:
            break
        logger.warning("worker process %s has not stopped after %.0f s", process.pid, seconds)
        insist()
    await to_thread.run_sync(process.join, KILL_SECONDS)
    with anyio.move_on_after(KILL_SECONDS):
        await ended.wait()
    pipe.close()


def _relay(pipe: Pipe, ended: anyio.Event, token: Any) -> None:
    """Show the log records of a child until it ends."""
    with suppress(EOFError, OSError):
        while True:
            record: logging.LogRecord = pipe.recv()
            log = logging.getLogger(record.name)
            if log.isEnabledFor(record.levelno):
                log.handle(record)
    with suppress(RuntimeError):  # the event loop is gone
        from_thread.run_sync(ended.set, token=token)
