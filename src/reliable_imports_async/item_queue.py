"""The items between the feeder and the slots, and as many of them as fit."""

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import anyio

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


class Belt:
    """Works from those who put them on to those who take them off, many at a time.

    Attributes:
        ended: Whether nothing more comes.
    """

    def __init__(self) -> None:
        self._works: deque[Work] = deque()
        self._takers: deque[anyio.Event] = deque()
        self.ended = False

    def __len__(self) -> int:
        return len(self._works)

    def put(self, works: Sequence[Work]) -> None:
        """Put works on; as many takers as that are woken."""
        self._works.extend(works)
        self._wake(len(works))

    async def take(self, most: int, patience: float | None) -> list[Work]:
        """The next works, `most` or fewer; none when none come within `patience` seconds."""
        if not self._works and not self.ended:
            with anyio.move_on_after(patience):
                await self._arrival()
        works = self._works
        return [works.popleft() for _ in range(min(most, len(works)))]

    def end(self) -> None:
        """Nothing more comes: who waits gets what is there, and then nothing."""
        self.ended = True
        self._wake(len(self._takers))

    async def _arrival(self) -> None:
        while not self._works and not self.ended:
            woken = anyio.Event()
            self._takers.append(woken)
            try:
                await woken.wait()
            except BaseException:
                if woken.is_set() and self._works:  # somebody else has to take them
                    self._wake(1)
                raise
            finally:
                with suppress(ValueError):
                    self._takers.remove(woken)

    def _wake(self, count: int) -> None:
        for _ in range(min(count, len(self._takers))):
            self._takers.popleft().set()


class Queue:
    """Items that were read, and behind the preparers those that are ready for a slot.

    Args:
        concurrency: How many slots take from it.
        apart: Whether items are prepared apart from the slots, a few ahead of them.

    Attributes:
        read: What the feeder has read.
        ready: What slots take; the same, unless items are prepared apart.
        page_items: How many items to read next, so that a page of large records fits in memory.
    """

    def __init__(self, concurrency: int, *, apart: bool) -> None:
        self.read = Belt()
        self.ready = Belt() if apart else self.read
        self.apart = apart
        self.page_items = FIRST_PAGE_ITEMS
        self._ahead = anyio.Semaphore(concurrency)  # prepared, and not yet taken
        self._least = 2 * concurrency
        self._enough = self._least
        self._room = anyio.Event()

    @property
    def full(self) -> bool:
        """Whether there are enough items for now."""
        return len(self.read) > self._enough

    def portion(self, size: int) -> int:
        """How many of `size` items a slot takes at once; fewer when they are large."""
        return size if self.page_items >= PAGE_ITEMS else min(size, self.page_items)

    def put(self, page: list[Work], portion: int) -> None:
        """Queue a page of items, for slots that take `portion` at once."""
        self._enough = max(self._least, 4 * portion)
        self.read.put(page)
        self.page_items = _page_items(page)

    async def take(self, most: int, patience: float | None) -> list[Work]:
        """The next items for a slot, `most` of them or fewer; none within `patience` seconds."""
        works = await self.ready.take(most, patience)
        if self.apart:
            for _ in works:
                self._ahead.release()
        else:
            self._made_room()
        return works

    async def take_unprepared(self) -> Work | None:
        """The next item for a preparer; None when none comes any more."""
        works = await self.read.take(1, None)
        self._made_room()
        return works[0] if works else None

    async def put_prepared(self, work: Work) -> None:
        """Hand a prepared item on to the slots, once there is room."""
        await self._ahead.acquire()
        self.ready.put([work])

    async def wait_for_room(self, seconds: float) -> None:
        """Wait until the queue is not full any more, for so long at most."""
        self._room = anyio.Event()
        with anyio.move_on_after(seconds):
            await self._room.wait()

    def _made_room(self) -> None:
        """Items were taken: the feeder goes on when there are few."""
        if not self.full:
            self._room.set()


def _page_items(page: list[Work]) -> int:
    """How many items to read next, so that a page of large records fits in memory."""
    sample = page[-1].item.source_data
    size = sum(len(value) for value in sample.values() if isinstance(value, str)) + 64
    return max(1, min(PAGE_ITEMS, PAGE_BYTES // size))
