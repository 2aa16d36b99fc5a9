"""The worker in the API's process, which processes batches after the response.

An accepted batch is a job in the database, so another worker continues it if this process dies.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..manager import BatchManager

logger = logging.getLogger("reliable_imports_async")

RESTART_SECONDS = 5.0


class Background:
    """Runs a manager's worker in its own task, or only the completion hooks that are due.

    Args:
        manager: The manager.
        enabled: False leaves the batches to other workers.
    """

    def __init__(self, manager: BatchManager, *, enabled: bool = True) -> None:
        self._manager = manager
        self._enabled = enabled
        self._task: asyncio.Task[None] | None = None
        self._failed = False

    @property
    def state(self) -> str:
        """The state that /health reports: "running", "off" or "failed"."""
        if not self._enabled:
            return "off"
        return "failed" if self._failed or self._task is None else "running"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the worker in this block; at its end, unfinished ranges are handed back."""
        # A task, not a task group: a lifespan may be entered and left in different tasks.
        self._task = asyncio.create_task(self._work(), name="imports in the background")
        try:
            yield
        finally:
            task, self._task = self._task, None
            task.cancel()
            await asyncio.wait([task])

    async def _work(self) -> None:
        """Run the worker, and restart it if it fails.

        Without a worker, the completion hooks of finished batches still run here.
        """
        works = self._enabled and self._manager.registry.batch_types
        while True:
            try:
                self._failed = False
                await (self._manager.run_worker() if works else self._manager.keep_announcing())
            except Exception:
                self._failed = True
                logger.exception("the worker failed and is restarted")
                await asyncio.sleep(RESTART_SECONDS)
