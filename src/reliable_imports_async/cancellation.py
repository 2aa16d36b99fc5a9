"""A time limit for one item after the other: one cancel scope and one timer serve them all."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
import asyncpg

from .errors import TransactionEnded
from .failures import ends_process, unfold

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


def cancelled_from_outside() -> bool:
    """Whether the current task was really cancelled, and not handed a CancelledError of its own."""
    task = asyncio.current_task()
    native = task is not None and task.cancelling() > 0
    return native or anyio.current_effective_deadline() == -math.inf


def must_propagate(exc: BaseException) -> bool:
    """Whether the exception ends the drain or the process, and is no verdict on the item."""
    if ends_process(exc):
        return True
    cancelled = any(isinstance(one, asyncio.CancelledError) for one in unfold(exc))
    return cancelled and cancelled_from_outside()


# After these nobody knows what a connection is in the middle of.
_DISTURBING = (OSError, asyncpg.InternalClientError, TransactionEnded, ItemTimeout)


def undisturbed(seen: tuple[BaseException, ...]) -> bool:
    """Whether the connection is known to be in order: it only ever answered, or was not asked."""
    return all(
        isinstance(exc, Exception)
        and not isinstance(exc, _DISTURBING)
        and (not isinstance(exc, asyncpg.InterfaceError) or isinstance(exc, asyncpg.DataError))
        for exc in seen
    )


async def in_child_task(function: Callable[[], Awaitable[Any]]) -> Any:
    """Run something in a child task of its own, and return what it returns.

    A native cancellation of the caller, such as asyncio.wait_for's, pierces shielded scopes in
    the caller's own task; a child only ever meets the cancellation of its scope.
    """
    results: list[Any] = []
    errors: list[Exception] = []

    async def child() -> None:
        try:
            results.append(await function())
        except Exception as exc:  # noqa: BLE001 - raised again below, outside of the group
            errors.append(exc)

    async with anyio.create_task_group() as group:
        group.start_soon(child)
    if errors:
        raise _only(errors[0])
    return results[0]


def _only(exc: Exception) -> Exception:
    """The exception inside groups; the first where all tasks met the same."""
    while isinstance(exc, ExceptionGroup) and len({type(one) for one in exc.exceptions}) == 1:
        exc = exc.exceptions[0]
    return exc
