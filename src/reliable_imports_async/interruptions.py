"""Telling apart who interrupted an item: the caller, the process's end, or its own code."""

import asyncio
import math

import anyio
import asyncpg

from .errors import TransactionEnded
from .judgement import ends_process, unfold
from .time_limit import ItemTimeout


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
