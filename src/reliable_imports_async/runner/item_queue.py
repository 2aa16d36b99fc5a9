"""The items between the feeder and the slots, and as many of them as fit.

Items that share a key leave it in the order of their numbers, and no two slots have them at once.
"""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import anyio

from ..execution.prepare import Prepared
from ..models import ImportBatchItem
from ..outcomes import Failure
from .leases import HeldRange


class Place(Enum):
    """Where an item with keys is."""

    QUEUED = auto()
    PARKED = auto()  # it has come to the slots, and waits for an earlier one of its keys
    TAKEN = auto()
    LEFT = auto()  # to whoever claims its range next


QUEUED, PARKED, TAKEN, LEFT = Place  # looked up once


@dataclass(slots=True, eq=False)
class QueuedItem:
    """An item waiting for a slot, and the range it counts for.

    Attributes:
        doomed: Why it is not run but failed.
        keys: Of items that share one, the earlier takes effect first.
        read: The item with its data, where that was needed for its keys.
        settled: Whether it has an outcome, or was deferred: later items of its keys may follow.
        place: Where it is, if it has keys.
    """

    item: ImportBatchItem[Any]
    held: HeldRange
    prepared: Prepared | None = None
    doomed: Failure | None = None
    keys: tuple[str, ...] = ()
    read: ImportBatchItem[Any] | None = None
    settled: bool = False
    place: Place = QUEUED

    @property
    def number(self) -> int:
        """The item's number."""
        return self.item.item_number


class Lane:
    """The items of one key, in order.

    Attributes:
        waiting: Those that no slot has taken.
        taken: How many of them a slot has.
        owner: Stands for what that slot took; None when no slot has any.
    """

    __slots__ = ("owner", "taken", "waiting")

    def __init__(self, first: QueuedItem) -> None:
        self.waiting: deque[QueuedItem] | list[QueuedItem] = [
            first
        ]  # most keys have one, and a list is small
        self.taken = 0
        self.owner: object = None

    def add(self, work: QueuedItem) -> None:
        """One more at the end."""
        if type(self.waiting) is list:
            self.waiting = deque(self.waiting)
        self.waiting.append(work)

    def remove_first(self) -> None:
        """The first has been taken."""
        del self.waiting[0]


@dataclass(frozen=True, slots=True)
class Closed:
    """A key of which an item has not had its end, and will not have it here.

    Attributes:
        clock: When. What was claimed later was compared with that item when it was claimed.
        number: Of that item; earlier ones may run.
        held: Its range.
    """

    clock: int
    number: int
    held: HeldRange


class Lanes:
    """Keeps items of one key in order: one slot has them at a time, the others park behind it.

    When an item is not settled here (it is tried again later, its range is lost, the batch
    pauses), later ones of its keys are left as they are: whoever claims their ranges next finds
    out in the database whether they may run.

    Attributes:
        clock: Counts the closing of keys.
        parked: How many items wait here for an earlier one.
        freed: Parked ones that could go on.
        used: Whether any item has had a key.
    """

    def __init__(self) -> None:
        self.clock = 0
        self.parked = 0
        self.freed: deque[QueuedItem] = deque()
        self._lanes: dict[str, Lane] = {}
        self._closed: dict[str, Closed] = {}
        self.used = False

    def enter(self, works: Sequence[QueuedItem]) -> list[QueuedItem]:
        """Give each item its place behind earlier ones; those that have one, without the others."""
        return [work for work in works if not work.keys or self._enter(work)]

    def _enter(self, work: QueuedItem) -> bool:
        self.used = True
        blocked = work.held.claimed.blocked
        if (blocked and work.number in blocked) or (self._closed and self._is_closed(work)):
            work.place = LEFT
            self.close(work)
            work.held.finish_item()
            return False
        for key in work.keys:
            lane = self._lanes.get(key)
            if lane is None:
                self._lanes[key] = Lane(work)
            else:
                lane.add(work)
        return True

    def _is_closed(self, work: QueuedItem) -> bool:
        for key in work.keys:
            closed = self._closed.get(key)
            if closed and work.held.seen < closed.clock and work.number > closed.number:
                if closed.held is work.held:
                    work.held.behind.add(work.number)
                return True
        return False

    def take(self, work: QueuedItem, owner: object) -> bool:
        """Whether a slot has got the item; else it is parked."""
        lanes = [self._lanes[key] for key in work.keys]
        for lane in lanes:
            if lane.waiting[0] is not work or not (lane.owner is None or lane.owner is owner):
                self.parked += work.place is not PARKED
                work.place = PARKED
                return False
        self.parked -= work.place is PARKED
        work.place = TAKEN
        for lane in lanes:
            lane.remove_first()
            lane.owner = owner
            lane.taken += 1
            if lane.waiting:
                self._free_first(lane)  # it may join the same slot
        return True

    def drop(self, work: QueuedItem) -> None:
        """An item that was left has come to a slot."""
        work.place = TAKEN
        work.held.finish_item()

    def release(self, works: Sequence[QueuedItem]) -> None:
        """A slot is done with what it took."""
        for work in works:
            if work.keys and not work.settled:
                self.close(work)
        for work in works:
            for key in work.keys:
                lane = self._lanes[key]
                lane.taken -= 1
                if lane.taken:
                    continue
                lane.owner = None
                if lane.waiting:
                    self._free_first(lane)
                else:
                    del self._lanes[key]

    def close(self, work: QueuedItem) -> None:
        """Leave later items of the keys of one that has not had its end here."""
        self.used = True
        open_ends = [work]
        while open_ends:
            first = open_ends.pop()
            first.held.incomplete = True
            for key in first.keys:
                open_ends += self._close(key, first)

    def _close(self, key: str, first: QueuedItem) -> list[QueuedItem]:
        """Close one key; the items that are left by it."""
        self.clock += 1
        before = self._closed.get(key)
        number = first.number if before is None else min(first.number, before.number)
        self._closed[key] = Closed(self.clock, number, first.held)
        lane = self._lanes.get(key)
        if lane is None:
            return []
        left = [work for work in lane.waiting if work.number >= first.number]
        if left:
            lane.waiting = deque(work for work in lane.waiting if work.number < first.number)
        behind = [work for work in left if work.place is not LEFT]
        for work in behind:
            if work.held is first.held and work is not first:
                work.held.behind.add(work.number)
            if work.place is PARKED:
                self.parked -= 1
                self.freed.append(work)  # whoever takes it next drops it
            work.place = LEFT
        return [work for work in behind if work is not first]

    def _free_first(self, lane: Lane) -> None:
        if lane.waiting[0].place is PARKED:
            self.freed.append(lane.waiting[0])


PAGE_ITEMS = 500
FIRST_PAGE_ITEMS = 50
PAGE_BYTES = 8 * 1024 * 1024


class Channel:
    """Works from those who put them on to those who take them off, many at a time.

    Attributes:
        ended: Whether nothing more comes.
    """

    def __init__(self) -> None:
        self._works: deque[QueuedItem] = deque()
        self._takers: deque[anyio.Event] = deque()
        self.ended = False

    def __len__(self) -> int:
        return len(self._works)

    @property
    def _over(self) -> bool:
        """Whether nobody needs to wait for anything any more."""
        return self.ended

    def put(self, works: Sequence[QueuedItem]) -> None:
        """Put works on; as many takers as that are woken."""
        self._works.extend(works)
        self._wake(len(works))

    async def take(
        self,
        most: int,
        patience: float | None,
        owner: object = None,
    ) -> list[QueuedItem]:
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


class OrderedBelt(Channel):
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

    async def take(
        self, most: int, patience: float | None, owner: object = None
    ) -> list[QueuedItem]:
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

    def put(self, works: Sequence[QueuedItem]) -> None:
        """Put works on; as many takers as that are woken."""
        super().put(works)
        self.go_on()

    def release(self, works: Sequence[QueuedItem]) -> None:
        """A slot is done with these."""
        self._lanes.release(works)
        self.go_on()

    def go_on(self) -> None:
        """Wake takers for what was parked, and all of them at the end."""
        self._wake(len(self._takers) if self._over else len(self._lanes.freed))

    def _next(self, most: int, owner: object) -> list[QueuedItem]:
        lanes, works, taken = self._lanes, self._works, list[QueuedItem]()
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
        self.ready = Channel()
        if ordered:
            self.ready = OrderedBelt(self.lanes, self._passed)
        self.read = Channel() if apart else self.ready
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

    def put(self, page: list[QueuedItem], portion: int) -> None:
        """Queue a page of items, for slots that take `portion` at once."""
        self._enough = max(self._least, 4 * portion)
        self.page_items = _page_items(page)
        self.read.put(self.lanes.enter(page) if self._ordered else page)

    async def take(
        self, most: int, patience: float | None, owner: object = None
    ) -> list[QueuedItem]:
        """The next items for a slot, `most` of them or fewer; none within `patience` seconds.

        Args:
            owner: Stands for what the slot runs together.
        """
        works = await self.ready.take(most, patience, owner)
        if not self._ordered:
            self._passed(len(works))
        return works

    def release(self, works: Sequence[QueuedItem]) -> None:
        """A slot is done with what it took: later items of the same keys may follow."""
        if self.lanes.used and isinstance(self.ready, OrderedBelt):
            self.ready.release(works)

    def give_up(self, work: QueuedItem) -> None:
        """An item that will not come to the slots."""
        if work.place is not LEFT:
            self.lanes.close(work)
        work.held.finish_item()
        if isinstance(self.ready, OrderedBelt):
            self.ready.go_on()

    async def take_unprepared(self) -> QueuedItem | None:
        """The next item for a preparer; None when none comes any more."""
        works = await self.read.take(1, None)
        self._made_room()
        return works[0] if works else None

    async def put_prepared(self, work: QueuedItem) -> None:
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


def _page_items(page: list[QueuedItem]) -> int:
    """How many items to read next, so that a page of large records fits in memory."""
    sample = page[-1].item.source_data
    size = sum(len(value) for value in sample.values() if isinstance(value, str)) + 64
    return max(1, min(PAGE_ITEMS, PAGE_BYTES // size))
