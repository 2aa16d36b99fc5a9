"""Items run together, or one of them while no other does: after conflicts that would not end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio


class Gate:
    """Lets the slots of one drain run items together, or one slot an item alone.

    Attributes:
        running: How many slots run items together.
    """

    def __init__(self) -> None:
        self.running = 0
        self._turn = anyio.Lock()
        self._opened: anyio.Event | None = None  # set when the item that runs alone has ended
        self._quiet: anyio.Event | None = None  # set when nothing runs beside it any more

    async def enter(self) -> None:
        """Begin to run items beside those of others, once nobody wants to be alone."""
        while self._opened is not None:
            await self._opened.wait()
        self.running += 1

    def leave(self) -> None:
        """These items have ended."""
        self.running -= 1
        if not self.running and self._quiet is not None:
            self._quiet.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Keep others from beginning, and wait until those that run have ended."""
        async with self._turn:
            opened = self._opened = anyio.Event()
            try:
                while self.running:
                    self._quiet = anyio.Event()
                    await self._quiet.wait()
                yield
            finally:
                self._opened = self._quiet = None
                opened.set()
