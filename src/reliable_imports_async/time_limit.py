"""A time limit for one item after the other: one cancel scope and one timer serve them all."""

import asyncio
from collections.abc import Awaitable
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio

R = TypeVar("R")


class ItemTimeout(Exception):
    """The item took longer than its item_timeout.

    Args:
        seconds: How long that is.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the item took longer than item_timeout ({seconds:g} s)")


def hook_seconds(processor: Any, usual: float) -> float:
    """How long each hook of a processor may take.

    Args:
        usual: The setting `item_timeout`.
    """
    own: float | None = processor.hook_timeout
    return max(usual, processor.item_timeout or 0.0) if own is None else own


class TimeLimit:
    """Bounds what is awaited through `run`, each time anew.

    Entering a scope with a deadline for every item costs more than the rest of what is done for
    one in Python; so the scope stays, and its timer looks how long the current item has been
    running. Used in one task, as ``with TimeLimit() as limit``.
    """

    __slots__ = ("_loop", "_running", "_scope", "_timer", "_until")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._scope = anyio.CancelScope()
        self._timer: asyncio.TimerHandle | None = None
        self._running = False
        self._until = 0.0

    def __enter__(self) -> Self:
        self._scope.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if self._timer is not None:
            self._timer.cancel()
        return bool(self._scope.__exit__(exc_type, exc, traceback))

    async def run(self, work: Awaitable[R], seconds: float) -> R:
        """The result of `work`, if it comes within so many seconds.

        Raises:
            ItemTimeout: It did not; it was cancelled.
        """
        self._until = self._loop.time() + seconds
        if self._timer is None:
            self._timer = self._loop.call_at(self._until, self._look)
        elif self._timer.when() > self._until:
            self._timer.cancel()
            self._timer = self._loop.call_at(self._until, self._look)
        self._running = True
        try:
            result = await work
        except BaseException as exc:
            self._running = False
            if self._scope.cancel_called:
                caught = self._renew(exc)
                if caught or isinstance(exc, Exception):  # what its clean-up raised on the way out
                    raise ItemTimeout(seconds) from exc
            raise
        self._running = False
        if self._scope.cancel_called:
            self._renew(None)
        return result

    async def shielded(self, work: Awaitable[R]) -> R:
        """The result of `work`, which no cancellation from outside interrupts."""
        self._scope.shield = True
        try:
            return await work
        finally:
            self._scope.shield = False

    def _look(self) -> None:
        """Cancel what has run for too long, and look again later if something else runs by now."""
        self._timer = None
        if not self._running:
            return
        if self._loop.time() < self._until:
            self._timer = self._loop.call_at(self._until, self._look)
        else:
            self._scope.cancel()

    def _renew(self, exc: BaseException | None) -> bool:
        """Leave the scope that has cancelled, for a new one; whether `exc` was its doing."""
        traceback = None if exc is None else exc.__traceback__
        caught = self._scope.__exit__(None if exc is None else type(exc), exc, traceback)
        self._scope = anyio.CancelScope()
        self._scope.__enter__()
        return bool(caught)
