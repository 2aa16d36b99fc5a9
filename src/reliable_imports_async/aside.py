"""Work on large values is done in a thread: meanwhile the event loop answers everybody else."""

from collections.abc import Callable
from typing import TypeVar

from anyio import CancelScope, to_thread

Result = TypeVar("Result")

LARGE = 16_384  # bytes or characters; for less, a thread would cost more than the work


async def aside(size: int, work: Callable[[], Result]) -> Result:
    """Do some work, in a thread where it is much; it is not interrupted.

    Args:
        size: Of what is worked on, in bytes or characters.
        work: What to do.
    """
    if size <= LARGE:
        return work()
    done: list[Result] = []
    with CancelScope(shield=True):
        await to_thread.run_sync(lambda: done.append(work()))
    return done[0]
