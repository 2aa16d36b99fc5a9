"""A child process: works on a batch, or on all batches, until it is done, told to stop or orphaned.

`processes` starts it with multiprocessing's "spawn", so everything that it needs is pickled.
"""

import logging
import logging.handlers
import os
import pickle
import signal
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from typing import Any, Protocol, Self, cast
from uuid import UUID

import anyio
import anyio.from_thread
import anyio.lowlevel

from ..processors.registry import Registry
from ..settings import Settings

STOP = "stop"
ORPHANED_SECONDS = 30.0  # to hand back its ranges once the parent has died


class ChildManager(Protocol):
    """What a child needs of a `BatchManager`, which this room does not know."""

    registry: Registry

    def __init__(self, *, settings: Settings) -> None: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_exc: object) -> None: ...

    async def run_worker(self, batch_types: Sequence[str] | None = None) -> None:
        """Process enqueued batches until cancelled."""

    async def _drain(self, batch_id: UUID, commit_interval: int | None) -> None: ...


@dataclass(frozen=True, slots=True)
class Job:
    """The work of a child process.

    Attributes:
        manager: The class of the manager.
        settings: Its settings; the URL is that of the parent's database.
        pickled: The processors and endpoints, each pickled by itself.
        batch_id: The batch to drain; None: work on enqueued batches.
        commit_interval: For the batch, as in `process_batch`.
        batch_types: The types of enqueued batches.
        levels: The levels of the loggers.
    """

    manager: type[ChildManager]
    settings: Settings
    pickled: tuple[bytes, ...]
    batch_id: UUID | None = None
    commit_interval: int | None = None
    batch_types: tuple[str, ...] = ()
    levels: tuple[tuple[str, int], ...] = ()

    async def run(self) -> None:
        """Do the work."""
        async with self.manager(settings=self.settings) as manager:
            for each in self.pickled:
                manager.registry.register(pickle.loads(each))  # noqa: S301 - the parent's own
            if self.batch_id is None:
                await manager.run_worker(self.batch_types)
            else:
                await manager._drain(self.batch_id, self.commit_interval)  # noqa: SLF001 - ours


def main(pipe: Pipe, job: Job) -> None:
    """Run in the child process. The parent passes on Ctrl-C, so that both stop in order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger().handlers[:] = [_ToParent(pipe)]
    for name, level in job.levels:
        logging.getLogger(name).setLevel(level)
    anyio.run(_run, pipe, job)


async def _run(pipe: Pipe, job: Job) -> None:
    with anyio.CancelScope() as scope:
        token = anyio.lowlevel.current_token()
        listener = threading.Thread(target=_listen, args=(pipe, scope, token), daemon=True)
        listener.start()
        await job.run()


def _listen(pipe: Pipe, scope: anyio.CancelScope, token: Any) -> None:
    """Cancel the work when the parent says so, or has died."""
    try:
        pipe.recv()
    except (EOFError, OSError):
        threading.Timer(ORPHANED_SECONDS, os._exit, (1,)).start()
    anyio.from_thread.run_sync(scope.cancel, token=token)


class _ToParent(logging.handlers.QueueHandler):
    """Sends log records to the parent, whose handlers show them."""

    def __init__(self, pipe: Pipe) -> None:
        super().__init__(cast("Any", pipe))
        self._pipe = pipe

    def enqueue(self, record: logging.LogRecord) -> None:
        """Send a record, unless the parent has died."""
        with suppress(OSError):
            self._pipe.send(record)


def levels() -> tuple[tuple[str, int], ...]:
    """The levels of this process's loggers, for its children."""
    known = {name: logging.getLogger(name) for name in logging.root.manager.loggerDict}
    loggers = {"": logging.root} | known
    return tuple((name, log.level) for name, log in loggers.items() if log.level)
