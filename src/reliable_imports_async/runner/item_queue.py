"""The queue between the drain, which reads items, and the slots, which run them.

It holds a limited number of items. Items that share a key leave it in the order of their numbers,
and no two slots have items of one key at the same time.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, ClassVar, TypeAlias, cast

import anyio

from ..execution.key_order import Ordering
from ..execution.prepare import Prepared
from ..execution.whole_set import Records
from ..models import ImportBatchItem
from ..outcomes import Failure
from .leases import HeldRange

PAGE_ITEMS = 500
FIRST_PAGE_ITEMS = 50
PAGE_BYTES = 8 * 1024 * 1024


class Place(Enum):
    """Where an item with keys is."""

    QUEUED = auto()
    PARKED = auto()  # a slot could take it, but an earlier item of its keys must run first
    TAKEN = auto()
    HANDED_BACK = auto()  # left to the next process that claims its range


QUEUED, PARKED, TAKEN, HANDED_BACK = Place  # looked up once


@dataclass(slots=True, eq=False)
class QueuedItem:
    """An item that waits for a slot, and the range that it belongs to.

    Attributes:
        poison: Why the item is failed without being run.
        keys: Of items that share a key, the earlier takes effect first.
        read: Whether its model has read it already, because its keys needed that.
        settled: Whether it has an outcome, or was deferred: later items of its keys may follow.
        place: Where it is, if it has keys.
    """

    item: ImportBatchItem[Any]
    held: HeldRange
    prepared: Prepared | None = None
    poison: Failure | None = None
    keys: tuple[str, ...] = ()
    read: bool = False
    settled: bool = False
    place: Place = QUEUED

    size: ClassVar[int] = 1

    @property
    def number(self) -> int:
        """The item's number."""
        return self.item.item_number


@dataclass(slots=True, eq=False)
class QueuedSet:
    """Records that wait for a slot together; the attributes are those of a `QueuedItem`.

    Attributes:
        keys: All keys of its records.
        unsettled: Those records that have no outcome, once it has run.
    """

    records: Records
    held: HeldRange
    ordering: Ordering
    keys: tuple[str, ...] = ()
    unsettled: list[QueuedItem] = field(default_factory=list)
    settled: bool = False
    place: Place = QUEUED

    @property
    def size(self) -> int:
        """How many records it has."""
        return len(self.records.rows)

    @property
    def number(self) -> int:
        """The number of its first record."""
        return cast("int", self.records.rows[0][0])

    def as_items(self) -> list[QueuedItem]:
        """Its records as items, with their keys."""
        return queued(self.records.new_items(), self.held, self.ordering)


Queued: TypeAlias = QueuedItem | QueuedSet


def queued(
    items: Iterable[ImportBatchItem[Any]], held: HeldRange, ordering: Ordering
) -> list[QueuedItem]:
    """Items of a range, with their keys."""
    entries = [QueuedItem(item, held) for item in items]
    if ordering.active:
        for entry in entries:
            entry.keys, entry.read = ordering.keys(entry.item)
    return entries


class Queue:
    """The items that were read, and those of them that are ready for a slot.

    Args:
        concurrency: How many slots take from it.
        prepared_ahead: Whether preparers work on the items before the slots get them.
        ordered: Whether items may have keys.

    Attributes:
        lanes: Keep items of one key in order.
        read: The items that the drain has read.
        ready: The items for the slots; the same channel, unless they are prepared ahead.
        page_items: How many items to read next, so that a page of large records fits in memory.
    """

    def __init__(self, concurrency: int, *, prepared_ahead: bool, ordered: bool = False) -> None:
        self._ahead = anyio.Semaphore(concurrency)  # prepared, and not yet taken
        self.lanes = Lanes()
        self._ordered = ordered
        self.ready = Channel()
        if ordered:
            self.ready = OrderedChannel(self.lanes, self._passed)
        self.read = Channel() if prepared_ahead else self.ready
        self.prepared_ahead = prepared_ahead
        self.page_items = FIRST_PAGE_ITEMS
        self._least = 2 * concurrency
        self._enough = self._least
        self._room = anyio.Event()

    @property
    def full(self) -> bool:
        """Whether there are enough items for now."""
        return self.read.size > self._enough or self.lanes.parked > max(
            self._enough, 2 * self.page_items
        )

    @property
    def small_records(self) -> bool:
        """Whether records are known to be so small that a page has as many as a page may have."""
        return self.page_items >= PAGE_ITEMS

    def portion(self, size: int) -> int:
        """How many of `size` items a slot takes at once; fewer when they are large."""
        return size if self.small_records else min(size, self.page_items)

    def put(self, page: list[Queued], portion: int) -> None:
        """Queue a page of items, for slots that take `portion` at once."""
        self._enough = max(self._least, 4 * portion)
        self.page_items = _page_items(page[-1])
        self.read.put(self.lanes.enter(page) if self._ordered else page)

    async def wait_for_room(self, seconds: float) -> None:
        """Wait until the queue is not full any more, at most for so many seconds."""
        self._room = anyio.Event()
        with anyio.move_on_after(seconds):
            await self._room.wait()

    async def take_unprepared(self) -> QueuedItem | None:
        """The next item for a preparer; None when there are no more."""
        entries = await self.read.take(1, None)
        self._made_room()
        # There are no sets of a processor that prepares each of its items.
        return cast("QueuedItem", entries[0]) if entries else None

    async def put_prepared(self, entry: QueuedItem) -> None:
        """Hand a prepared item on to the slots, once there is room."""
        await self._ahead.acquire()
        self.ready.put([entry])

    async def take(
        self, max_items: int, max_wait: float | None, owner: object = None
    ) -> list[Queued]:
        """The next items for a slot; an empty list when none arrive within `max_wait` seconds.

        Args:
            owner: Stands for the items that the slot runs together.
        """
        entries = await self.ready.take(max_items, max_wait, owner)
        if not self._ordered:
            self._passed(len(entries))
        return entries

    def release(self, entries: Sequence[Queued]) -> None:
        """Take note that a slot is done with items: later items of their keys may follow."""
        if self.lanes.used and isinstance(self.ready, OrderedChannel):
            self.ready.release(entries)

    def give_up(self, entry: QueuedItem) -> None:
        """Drop an item that will not reach the slots."""
        if entry.place is not HANDED_BACK:
            self.lanes.close(entry)
        entry.held.finish_items()
        if isinstance(self.ready, OrderedChannel):
            self.ready.wake()

    def _passed(self, count: int) -> None:
        """So many items have left the slots' channel."""
        if self.prepared_ahead:
            for _ in range(count):
                self._ahead.release()
        self._made_room()

    def _made_room(self) -> None:
        """Items were taken: the drain reads on when few are queued."""
        if not self.full:
            self._room.set()


def _page_items(last: Queued) -> int:
    """How many items to read next, so that a page of large records fits in memory."""
    sample = last.item.source_data if isinstance(last, QueuedItem) else last.records.sources[-1]
    size = sum(len(value) for value in sample.values() if isinstance(value, str)) + 64
    return max(1, min(PAGE_ITEMS, PAGE_BYTES // size))


class Channel:
    """Hands items from those who put them to those who take them, many at a time.

    Attributes:
        ended: Whether no more items come.
        size: How many items wait here, those of sets among them.
    """

    def __init__(self) -> None:
        self._entries: deque[Queued] = deque()
        self.size = 0
        self._takers: deque[anyio.Event] = deque()
        self.ended = False

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def _over(self) -> bool:
        """Whether there is nothing left to wait for."""
        return self.ended

    def put(self, entries: Sequence[Queued]) -> None:
        """Add items, and wake as many takers."""
        self._entries.extend(entries)
        self.size += sum(entry.size for entry in entries)
        self._wake(len(entries))

    async def take(
        self,
        max_items: int,
        max_wait: float | None,
        owner: object = None,
    ) -> list[Queued]:
        """The next items; an empty list when none arrive within `max_wait` seconds."""
        if not self._entries and not self.ended:
            with anyio.move_on_after(max_wait):
                await self._arrival()
        return self._next(max_items, owner)

    def _next(self, max_items: int, owner: object) -> list[Queued]:
        """The first items; a set is the last of them, and counts as all that a slot takes."""
        entries, taken = self._entries, list[Queued]()
        while entries and len(taken) < max_items:
            entry = entries.popleft()
            taken.append(entry)
            self.size -= entry.size
            if type(entry) is QueuedSet:
                break
        return taken

    def end(self) -> None:
        """No more items come: takers get what is there, and then nothing."""
        self.ended = True
        self._wake(len(self._takers))

    async def _arrival(self) -> None:
        while not len(self) and not self._over:
            woken = anyio.Event()
            self._takers.append(woken)
            try:
                await woken.wait()
            except BaseException:
                if woken.is_set() and len(self):  # another taker has to have them
                    self._wake(1)
                raise
            finally:
                with suppress(ValueError):
                    self._takers.remove(woken)

    def _wake(self, count: int) -> None:
        for _ in range(min(count, len(self._takers))):
            self._takers.popleft().set()


class OrderedChannel(Channel):
    """A channel whose takers must not have items of one key at the same time; see `Lanes`.

    Args:
        passed: Called with the number of items that have left the channel, to be run or parked.
    """

    def __init__(self, lanes: "Lanes", passed: Callable[[int], object]) -> None:
        super().__init__()
        self._lanes = lanes
        self._passed = passed

    def __len__(self) -> int:
        return len(self._entries) + len(self._lanes.freed)

    @property
    def _over(self) -> bool:
        return self.ended and not len(self) and not self._lanes.parked

    async def take(
        self, max_items: int, max_wait: float | None, owner: object = None
    ) -> list[Queued]:
        """The next items that may run now.

        Args:
            owner: Stands for the items that a slot runs together: it may have several of one key.
        """
        entries = self._next(max_items, owner)
        if not entries and not self._over:
            with anyio.move_on_after(max_wait):
                while not entries and not self._over:
                    await self._arrival()
                    entries = self._next(max_items, owner)
        if self._over:
            self._wake(len(self._takers))
        return entries

    def put(self, entries: Sequence[Queued]) -> None:
        """Add items, and wake as many takers."""
        super().put(entries)
        self.wake()

    def release(self, entries: Sequence[Queued]) -> None:
        """Take note that a slot is done with these items."""
        self._lanes.release(entries)
        self.wake()

    def wake(self) -> None:
        """Wake takers for items that are parked no more, and all of them at the end."""
        self._wake(len(self._takers) if self._over else len(self._lanes.freed))

    def _next(self, max_items: int, owner: object) -> list[Queued]:
        lanes, entries, taken = self._lanes, self._entries, list[Queued]()
        if not lanes.used:
            taken = super()._next(max_items, owner)
            self._passed(len(taken))
            return taken
        freed, before = lanes.freed, len(entries)
        while (freed or entries) and len(taken) < max_items:
            if freed:
                entry = freed.popleft()
            else:
                entry = entries.popleft()
                self.size -= entry.size
            if not entry.keys:
                taken.append(entry)
            elif entry.place is HANDED_BACK:
                lanes.drop(entry)
            elif entry.place is not TAKEN and lanes.take(entry, owner):
                taken.append(entry)
            if taken and type(taken[-1]) is QueuedSet:
                break
        self._passed(before - len(entries))
        return taken


class Lanes:
    """Keeps items of one key in order: one slot has them at a time, the rest park behind it.

    When an item is not settled here (it is retried later, its range is lost, the batch pauses),
    later items of its keys are handed back: the next process that claims their ranges finds out in
    the database whether they may run.

    Attributes:
        clock: Counts the closing of keys.
        parked: How many items wait here for an earlier one.
        freed: Parked items that can go on now.
        used: Whether any item has had a key.
    """

    def __init__(self) -> None:
        self.clock = 0
        self.parked = 0
        self.freed: deque[Queued] = deque()
        self._lanes: dict[str, Lane | Queued] = {}  # most keys have a single item
        self._closed: dict[str, Closed] = {}
        self.used = False

    def enter(self, entries: Sequence[Queued]) -> list[Queued]:
        """Give each item its place behind earlier ones; return the items that may run here."""
        lanes, runnable = self._lanes, list[Queued]()
        for entry in entries:
            if isinstance(entry, QueuedSet):
                if self._bars_some(entry):
                    runnable += self.enter(entry.as_items())
                    continue
            elif entry.keys and self._is_barred(entry):
                entry.place = HANDED_BACK
                self.close(entry)
                entry.held.finish_items()
                continue
            runnable.append(entry)
            for key in entry.keys:
                if lanes.setdefault(key, entry) is not entry:
                    self._lane(key).add(entry)
        self.used = self.used or bool(lanes)
        return runnable

    def _bars_some(self, entry: QueuedSet) -> bool:
        """Whether some records of a set may be barred; each of them is looked at as an item."""
        blocked = entry.held.claimed.blocked
        return bool(blocked and not set(blocked).isdisjoint(entry.records.numbers)) or not (
            self._closed.keys().isdisjoint(entry.keys)
        )

    def _is_barred(self, entry: QueuedItem) -> bool:
        blocked = entry.held.claimed.blocked
        return bool((blocked and entry.number in blocked) or self._is_closed(entry))

    def _lane(self, key: str) -> "Lane":
        """The lane of a key, also if it has had a single item so far."""
        lane = self._lanes[key]
        if not isinstance(lane, Lane):
            lane = self._lanes[key] = Lane(lane)
        return lane

    def _is_closed(self, entry: QueuedItem) -> bool:
        for key in entry.keys if self._closed else ():
            closed = self._closed.get(key)
            if closed and entry.held.lanes_clock < closed.clock and entry.number > closed.number:
                if closed.held is entry.held:
                    entry.held.behind.add(entry.number)
                return True
        return False

    def take(self, entry: Queued, owner: object) -> bool:
        """Give an item to a slot if it may run now; otherwise park it."""
        if entry.place is QUEUED and all(self._lanes[key] is entry for key in entry.keys):
            entry.place = TAKEN
            return True
        lanes = [self._lane(key) for key in entry.keys]
        for lane in lanes:
            if lane.waiting[0] is not entry or not (lane.owner is None or lane.owner is owner):
                self.parked += entry.size * (entry.place is not PARKED)
                entry.place = PARKED
                return False
        self.parked -= entry.size * (entry.place is PARKED)
        entry.place = TAKEN
        for lane in lanes:
            lane.remove_first()
            lane.owner = owner
            lane.taken += 1
            if lane.waiting:
                self._free_first(lane)  # it may join the same slot
        return True

    def drop(self, entry: Queued) -> None:
        """Forget an item that was handed back and has come to a slot all the same."""
        entry.place = TAKEN
        entry.held.finish_items(entry.size)

    def release(self, entries: Sequence[Queued]) -> None:
        """Take note that a slot is done with the items it took."""
        for entry in entries:
            for unsettled in _unsettled(entry):
                self.close(unsettled)
        freed = dict[Queued, None]()
        for entry in entries:
            for key in entry.keys:
                lane = self._lanes[key]
                if lane is entry:
                    del self._lanes[key]
                    continue
                lane = self._lane(key)
                lane.taken -= 1
                if lane.taken:
                    continue
                lane.owner = None
                if not lane.waiting:
                    del self._lanes[key]
                elif lane.waiting[0].place is PARKED:
                    freed[lane.waiting[0]] = None
        self.freed.extend(freed)

    def close(self, entry: QueuedItem) -> None:
        """Hand back all later items of the keys of an item that is not settled here."""
        self.used = True
        unsettled: list[Queued] = [entry]
        while unsettled:
            first = unsettled.pop()
            first.held.incomplete = True
            for key in first.keys:
                unsettled += self._close(key, first)

    def _close(self, key: str, first: Queued) -> list[Queued]:
        """Close one key; return the items that are handed back because of it."""
        self.clock += 1
        before = self._closed.get(key)
        number = first.number if before is None else min(first.number, before.number)
        self._closed[key] = Closed(self.clock, number, first.held)
        if key not in self._lanes:
            return []
        lane = self._lane(key)
        later = [entry for entry in lane.waiting if entry.number >= first.number]
        if later:
            lane.waiting = deque(entry for entry in lane.waiting if entry.number < first.number)
        behind = [entry for entry in later if entry.place is not HANDED_BACK]
        for entry in behind:
            if entry.held is first.held and entry is not first:
                entry.held.behind.update(_numbers(entry))
            if entry.place is PARKED:
                self.parked -= entry.size
                self.freed.append(entry)  # the next taker drops it
            entry.place = HANDED_BACK
        return [entry for entry in behind if entry is not first]

    def _free_first(self, lane: "Lane") -> None:
        if lane.waiting[0].place is PARKED:
            self.freed.append(lane.waiting[0])


class Lane:
    """The items of one key, in order.

    Args:
        first: The first item, which a slot may have already.

    Attributes:
        waiting: The items that no slot has taken.
        taken: How many items a slot has.
        owner: Stands for the items of that slot; None when no slot has any.
    """

    __slots__ = ("owner", "taken", "waiting")

    def __init__(self, first: Queued) -> None:
        taken = first.place is TAKEN
        self.waiting: deque[Queued] = deque(() if taken else (first,))
        self.taken = int(taken)
        self.owner: object = first if taken else None

    def add(self, entry: Queued) -> None:
        """Add an item at the end."""
        self.waiting.append(entry)

    def remove_first(self) -> None:
        """Remove the first item: a slot has it."""
        self.waiting.popleft()


def _unsettled(entry: Queued) -> Iterable[QueuedItem]:
    """The items with keys of an entry which has run, that have no outcome."""
    if entry.settled or not entry.keys:
        return ()
    return (entry,) if isinstance(entry, QueuedItem) else entry.unsettled


def _numbers(entry: Queued) -> Sequence[int]:
    return (entry.number,) if isinstance(entry, QueuedItem) else entry.records.numbers


@dataclass(frozen=True, slots=True)
class Closed:
    """A key with an item that is not settled, and will not be settled here.

    Attributes:
        clock: When it was closed. Ranges claimed later were checked against that item already.
        number: The number of the item; earlier items may run.
        held: The item's range.
    """

    clock: int
    number: int
    held: HeldRange
