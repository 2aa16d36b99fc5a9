"""The items between the feeder and the slots, and as many of them as fit.

Items that share a key leave it in the order of their numbers, and no two slots have them at once.
"""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

import anyio

from .lanes import LEFT, TAKEN, Lanes, Work

PAGE_ITEMS = 500
FIRST_PAGE_ITEMS = 50
PAGE_BYTES = 8 * 1024 * 1024


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

    @property
    def _over(self) -> bool:
        """Whether nobody needs to wait for anything any more."""
        return self.ended

    def put(self, works: Sequence[Work]) -> None:
        """Put works on; as many takers as that are woken."""
        self._works.extend(works)
        self._wake(len(works))

    async def take(
        self,
        most: int,
        patience: float | None,
        owner: object = None,
    ) -> list[Work]:
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
        while not len(self) and not self._over:
            woken = anyio.Event()
            self._takers.append(woken)
            try:
                await woken.wait()
            except BaseException:
                if woken.is_set() and len(self):  # somebody else has to take them
                    self._wake(1)
                raise
            finally:
                with suppress(ValueError):
                    self._takers.remove(woken)

    def _wake(self, count: int) -> None:
        for _ in range(min(count, len(self._takers))):
            self._takers.popleft().set()


class OrderedBelt(Belt):
    """The same for slots that must not have items of one key at once, see `Lanes`.

    Args:
        passed: Called when works have left the belt, be it to be parked, with their number.
    """

    def __init__(self, lanes: Lanes, passed: Callable[[int], object]) -> None:
        super().__init__()
        self._lanes = lanes
        self._passed = passed

    def __len__(self) -> int:
        return len(self._works) + len(self._lanes.freed)

    @property
    def _over(self) -> bool:
        return self.ended and not len(self) and not self._lanes.parked

    async def take(self, most: int, patience: float | None, owner: object = None) -> list[Work]:
        """The next works that may run now, `most` or fewer.

        Args:
            owner: Stands for what one slot runs together: of that it may have several of a key.
        """
        works = self._next(most, owner)
        if not works and not self._over:
            with anyio.move_on_after(patience):
                while not works and not self._over:
                    await self._arrival()
                    works = self._next(most, owner)
        if self._over:
            self._wake(len(self._takers))
        return works

    def put(self, works: Sequence[Work]) -> None:
        """Put works on; as many takers as that are woken."""
        super().put(works)
        self.go_on()

    def release(self, works: Sequence[Work]) -> None:
        """A slot is done with these."""
        self._lanes.release(works)
        self.go_on()

    def go_on(self) -> None:
        """Wake takers for what was parked, and all of them at the end."""
        self._wake(len(self._takers) if self._over else len(self._lanes.freed))

    def _next(self, most: int, owner: object) -> list[Work]:
        lanes, works, taken = self._lanes, self._works, list[Work]()
        if not lanes.used:
            taken = [works.popleft() for _ in range(min(most, len(works)))]
            self._passed(len(taken))
            return taken
        freed, before = lanes.freed, len(works)
        while (freed or works) and len(taken) < most:
            work = (freed or works).popleft()
            if not work.keys:
                taken.append(work)
            elif work.place is LEFT:
                lanes.drop(work)
            elif work.place is not TAKEN and lanes.take(work, owner):
                taken.append(work)
        self._passed(before - len(works))
        return taken


class Queue:
    """Items that were read, and behind the preparers those that are ready for a slot.

    Args:
        concurrency: How many slots take from it.
        apart: Whether items are prepared apart from the slots, a few ahead of them.
        ordered: Whether items may have keys.

    Attributes:
        lanes: Keep items of one key in order.
        read: What the feeder has read.
        ready: What slots take; the same, unless items are prepared apart.
        page_items: How many items to read next, so that a page of large records fits in memory.
    """

    def __init__(self, concurrency: int, *, apart: bool, ordered: bool = False) -> None:
        self._ahead = anyio.Semaphore(concurrency)  # prepared, and not yet taken
        self.lanes = Lanes()
        self._ordered = ordered
        self.ready = Belt()
        if ordered:
            self.ready = OrderedBelt(self.lanes, self._passed)
        self.read = Belt() if apart else self.ready
        self.apart = apart
        self.page_items = FIRST_PAGE_ITEMS
        self._least = 2 * concurrency
        self._enough = self._least
        self._room = anyio.Event()

    @property
    def full(self) -> bool:
        """Whether there are enough items for now."""
        return len(self.read) > self._enough or self.lanes.parked > max(
            self._enough, 2 * self.page_items
        )

    def portion(self, size: int) -> int:
        """How many of `size` items a slot takes at once; fewer when they are large."""
        return size if self.page_items >= PAGE_ITEMS else min(size, self.page_items)

    def put(self, page: list[Work], portion: int) -> None:
        """Queue a page of items, for slots that take `portion` at once."""
        self._enough = max(self._least, 4 * portion)
        self.page_items = _page_items(page)
        self.read.put(self.lanes.enter(page) if self._ordered else page)

    async def take(self, most: int, patience: float | None, owner: object = None) -> list[Work]:
        """The next items for a slot, `most` of them or fewer; none within `patience` seconds.

        Args:
            owner: Stands for what the slot runs together.
        """
        works = await self.ready.take(most, patience, owner)
        if not self._ordered:
            self._passed(len(works))
        return works

    def release(self, works: Sequence[Work]) -> None:
        """A slot is done with what it took: later items of the same keys may follow."""
        if self.lanes.used and isinstance(self.ready, OrderedBelt):
            self.ready.release(works)

    def give_up(self, work: Work) -> None:
        """An item that will not come to the slots."""
        if work.place is not LEFT:
            self.lanes.close(work)
        work.held.finish_item()
        if isinstance(self.ready, OrderedBelt):
            self.ready.go_on()

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

    def _passed(self, count: int) -> None:
        """So many works have left the slots' belt."""
        if self.apart:
            for _ in range(count):
                self._ahead.release()
        self._made_room()

    def _made_room(self) -> None:
        """Items were taken: the feeder goes on when there are few."""
        if not self.full:
            self._room.set()


def _page_items(page: list[Work]) -> int:
    """How many items to read next, so that a page of large records fits in memory."""
    sample = page[-1].item.source_data
    size = sum(len(value) for value in sample.values() if isinstance(value, str)) + 64
    return max(1, min(PAGE_ITEMS, PAGE_BYTES // size))
