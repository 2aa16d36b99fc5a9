"""The items between the feeder and the slots, and as many of them as fit."""

from dataclasses import dataclass
from typing import Any

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from .control import HeldRange
from .models import ImportBatchItem
from .outcomes import Failure
from .prepared import Prepared

PAGE_ITEMS = 500
FIRST_PAGE_ITEMS = 50
PAGE_BYTES = 8 * 1024 * 1024


@dataclass(slots=True)
class Work:
    """An item waiting for a slot, and the range it counts for.

    Attributes:
        doomed: Why it is not run but failed.
    """

    item: ImportBatchItem[Any]
    held: HeldRange
    prepared: Prepared | None = None
    doomed: Failure | None = None


class Queue:
    """Items that were read, and behind the preparers those that are ready for a slot.

    Args:
        concurrency: How many slots take from it.
        apart: Whether items are prepared apart from the slots, a few ahead of them.

    Attributes:
        page_items: How many items to read next, so that a page of large records fits in memory.
    """

    def __init__(self, concurrency: int, *, apart: bool) -> None:
        self.send: MemoryObjectSendStream[Work]
        self.receive: MemoryObjectReceiveStream[Work]
        self.send, self.receive = anyio.create_memory_object_stream[Work](float("inf"))
        self.ready_send, self.ready = self.send, self.receive
        self.apart = apart
        if apart:
            self.ready_send, self.ready = anyio.create_memory_object_stream[Work](concurrency)
        self.page_items = FIRST_PAGE_ITEMS
        self._least = 2 * concurrency
        self._enough = self._least
        self._queued = 0
        self._room = anyio.Event()

    @property
    def waiting(self) -> int:
        """How many items wait for a slot."""
        return self.ready.statistics().current_buffer_used

    @property
    def full(self) -> bool:
        """Whether there are enough items for now."""
        return self._queued > self._enough

    def portion(self, size: int) -> int:
        """How many of `size` items a slot takes at once; fewer when they are large."""
        return size if self.page_items >= PAGE_ITEMS else min(size, self.page_items)

    def put(self, page: list[Work], portion: int) -> None:
        """Queue a page of items, for slots that take `portion` at once."""
        self._queued += len(page)
        self._enough = max(self._least, 4 * portion)
        for work in page:
            self.send.send_nowait(work)
        self.page_items = _page_items(page)

    def took_one(self) -> None:
        """An item was taken: the feeder goes on when there are few."""
        self._queued -= 1
        if not self.full:
            self._room.set()

    async def wait_for_room(self, seconds: float) -> None:
        """Wait until the queue is not full any more, for so long at most."""
        self._room = anyio.Event()
        with anyio.move_on_after(seconds):
            await self._room.wait()

    def close(self) -> None:
        """Nothing is queued or taken any more."""
        for stream in (self.send, self.receive, self.ready_send, self.ready):
            stream.close()


def _page_items(page: list[Work]) -> int:
    """How many items to read next, so that a page of large records fits in memory."""
    sample = page[-1].item.source_data
    size = sum(len(value) for value in sample.values() if isinstance(value, str)) + 64
    return max(1, min(PAGE_ITEMS, PAGE_BYTES // size))
