"""Ctrl-C and SIGTERM: the first stops the command cleanly, the second immediately."""

import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskStatus

from .exit_codes import STOPPED
from .output import Output

STOPPING = "Stopping: finishing running items. Press Ctrl-C again to quit immediately."


@asynccontextmanager
async def stoppable(output: Output, announcement: str) -> AsyncIterator[anyio.CancelScope]:
    """Open a cancel scope that the first signal cancels, after printing the announcement."""
    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            # Everywhere else Python turns Ctrl-C into a cancellation and KeyboardInterrupt itself.
            if sys.platform != "win32" and threading.current_thread() is threading.main_thread():
                await group.start(_listen, scope, output, announcement)
            yield scope
        group.cancel_scope.cancel()


async def until_stopped(output: Output) -> None:
    """Wait for a signal."""
    async with stoppable(output, ""):
        await anyio.sleep_forever()


async def _listen(
    scope: anyio.CancelScope,
    output: Output,
    announcement: str,
    *,
    task_status: TaskStatus[None],
) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            if scope.cancel_called:
                output.notes.show_cursor()  # a progress bar had hidden it
                output.note(
                    "Quit immediately. Running items stay pending; a worker or "
                    "`reliable-imports process BATCH` continues them when their lease has expired."
                )
                os._exit(STOPPED)
            if announcement:
                output.note(announcement)
            scope.cancel()
