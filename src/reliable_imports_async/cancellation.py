"""Time limits for user code, and what to do about cancellation that comes from outside."""

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
        seconds: The item_timeout.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the item took longer than item_timeout ({seconds:g} s)")


def hook_seconds(processor: Any, usual: float) -> float:
    """Seconds that each hook of a processor may take.

    Args:
        usual: The setting `item_timeout`, in seconds.
    """
    own: float | None = processor.hook_timeout
    return max(usual, processor.item_timeout or 0.0) if own is None else own


class TimeLimit:
    """Bounds the time of everything awaited through `run`, one thing after the other.

    Entering a cancel scope with a deadline for every item would take longer than all other Python
    code for it. So one scope stays entered, and its timer checks how long the current item has
    been running. Use it in a single task, as ``with TimeLimit() as limit``.
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
        """Await something for a limited time.

        Args:
            work: What to await.
            seconds: How long it may take.

        Raises:
            ItemTimeout: It took longer, and was cancelled.
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
                if caught or isinstance(exc, Exception):  # which its clean-up has raised
                    raise ItemTimeout(seconds) from exc
            raise
        self._running = False
        if self._scope.cancel_called:
            self._renew(None)
        return result

    async def shielded(self, work: Awaitable[R]) -> R:
        """Await something without being interrupted by cancellation from outside."""
        self._scope.shield = True
        try:
            return await work
        finally:
            self._scope.shield = False

    def _look(self) -> None:
        """Cancel an item that has run for too long, or check the current one again later."""
        self._timer = None
        if not self._running:
            return
        if self._loop.time() < self._until:
            self._timer = self._loop.call_at(self._until, self._look)
        else:
            self._scope.cancel()

    def _renew(self, exc: BaseException | None) -> bool:
        """Replace the scope after it was cancelled; return whether it has caused `exc`."""
        traceback = None if exc is None else exc.__traceback__
        caught = self._scope.__exit__(None if exc is None else type(exc), exc, traceback)
        self._scope = anyio.CancelScope()
        self._scope.__enter__()
        return bool(caught)


def cancelled_from_outside() -> bool:
    """Whether the current task was cancelled, and its code did not just raise CancelledError."""
    task = asyncio.current_task()
    native = task is not None and task.cancelling() > 0
    return native or anyio.current_effective_deadline() == -math.inf


def must_propagate(exc: BaseException) -> bool:
    """Whether the exception ends the drain or the process, and is not a failure of the item."""
    if ends_process(exc):
        return True
    cancelled = any(isinstance(cause, asyncio.CancelledError) for cause in unfold(exc))
    return cancelled and cancelled_from_outside()


# After these, the state of the connection is unknown.
_DISTURBING = (OSError, asyncpg.InternalClientError, TransactionEnded, ItemTimeout)


def undisturbed(seen: tuple[BaseException, ...]) -> bool:
    """Whether a connection that raised these is known to be in order: it has always answered.

    Args:
        seen: The errors of the connection, and the exception that ended the attempt.
    """
    return all(
        isinstance(exc, Exception)
        and not isinstance(exc, _DISTURBING)
        and (not isinstance(exc, asyncpg.InterfaceError) or isinstance(exc, asyncpg.DataError))
        for exc in seen
    )


async def run_in_child_task(function: Callable[[], Awaitable[Any]]) -> Any:
    """Run a function in a child task, and return its result.

    If asyncio cancels the caller, for example by asyncio.wait_for, that reaches into shielded
    scopes of the caller's own task. A child task only meets the cancellation of its scope.
    """
    results: list[Any] = []
    errors: list[Exception] = []

    async def child() -> None:
        try:
            results.append(await function())
        except Exception as exc:  # noqa: BLE001 - raised below, outside of the group
            errors.append(exc)

    async with anyio.create_task_group() as group:
        group.start_soon(child)
    if errors:
        raise _only(errors[0])
    return results[0]


def _only(exc: Exception) -> Exception:
    """The first exception inside a group, if all in it are of the same type."""
    while isinstance(exc, ExceptionGroup) and len({type(each) for each in exc.exceptions}) == 1:
        exc = exc.exceptions[0]
    return exc
