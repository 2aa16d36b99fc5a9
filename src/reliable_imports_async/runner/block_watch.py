"""Reports the line of code that blocks the event loop, for which leases and other items wait."""

import asyncio
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from types import FrameType

from ..failures import is_users

LOOK_SECONDS = 0.25
BLOCKED_SECONDS = 0.4
_ASYNCIO = str(Path(asyncio.__file__).parent)

Report = Callable[[str, float], None]
"""Called in the watching thread with the place in the user's code, and seconds."""


@contextmanager
def watching(report: Report) -> Iterator[None]:
    """While the block runs, report once when the user's code keeps the loop of this thread busy.

    A loop that is late because the machine is busy is not reported: a thread looks at what the
    loop's own thread is doing, and only lines of the user's code count.
    """
    ended = threading.Event()
    arguments = (asyncio.get_running_loop(), threading.get_ident(), ended, report)
    thread = threading.Thread(target=_watch, args=arguments, name="block-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()


def _watch(
    loop: asyncio.AbstractEventLoop, thread_id: int, ended: threading.Event, report: Report
) -> None:
    while not ended.wait(LOOK_SECONDS):
        answered = threading.Event()
        try:
            loop.call_soon_threadsafe(answered.set)
        except RuntimeError:  # the loop is closed
            return
        if answered.wait(BLOCKED_SECONDS):
            continue
        place = _user_line(thread_id)
        if place is not None:
            report(place, BLOCKED_SECONDS)
            return


def _user_line(thread_id: int) -> str | None:
    """The innermost line of the user's code that the loop runs in a thread; None: it runs none."""
    innermost = sys._current_frames().get(thread_id)  # noqa: SLF001 - made for such a look
    stack = traceback.walk_stack(innermost) if innermost is not None else ()
    for frame, line in takewhile(_runs_in_loop, stack):
        if is_users(frame.f_code.co_filename):
            return f"{frame.f_code.co_filename}, line {line}"
    return None


def _runs_in_loop(place: tuple[FrameType, int]) -> bool:
    """Whether the loop has called this frame, and not this frame the loop."""
    return not place[0].f_code.co_filename.startswith(_ASYNCIO)
