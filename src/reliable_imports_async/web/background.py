"""The worker in the API's process: it processes batches after the answer.

What was accepted for the background is a job in the database, so any other worker goes on with it
when this process dies.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..manager import BatchManager

logger = logging.getLogger("reliable_imports_async")

RESTART_SECONDS = 5.0


class Background:
    """Runs a manager's worker in a task of its own, or only the hooks that are due.

    Args:
        enabled: False leaves the work to workers elsewhere.
    """

    def __init__(self, manager: BatchManager, *, enabled: bool = True) -> None:
        self._manager = manager
        self._enabled = enabled
        self._task: asyncio.Task[None] | None = None
        self._failed = False

    @property
    def state(self) -> str:
        """What /health says about it: "running", "off" or "failed"."""
        if not self._enabled:
            return "off"
        return "failed" if self._failed or self._task is None else "running"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Work while the block runs; unfinished ranges are handed back at its end."""
        # A task of its own: a lifespan may be entered in one task and left in another.
        self._task = asyncio.create_task(self._work(), name="imports in the background")
        try:
            yield
        finally:
            task, self._task = self._task, None
            task.cancel()
            await asyncio.wait([task])

    async def _work(self) -> None:
        """Run the worker, and start it again should it ever end by itself.

        Without one, the hooks of batches that others have finished are run all the same.
        """
        works = self._enabled and self._manager.registry.batch_types
        while True:
            try:
                self._failed = False
                await (self._manager.run_worker() if works else self._manager.keep_announcing())
            except Exception:
                self._failed = True
                logger.exception("the worker failed; it is started again")
                await asyncio.sleep(RESTART_SECONDS)
