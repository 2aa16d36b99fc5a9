"""Items that share a key go to one slot at a time, in the order of their numbers."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from .control import HeldRange
from .models import ImportBatchItem
from .outcomes import Failure
from .prepared import Prepared


class Place(Enum):
    """Where an item with keys is."""

    QUEUED = auto()
    PARKED = auto()  # it has come to the slots, and waits for an earlier one of its keys
    TAKEN = auto()
    LEFT = auto()  # to whoever claims its range next


QUEUED, PARKED, TAKEN, LEFT = Place  # looked up once


@dataclass(slots=True, eq=False)
class Work:
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

    def __init__(self, first: Work) -> None:
        self.waiting: deque[Work] | list[Work] = [first]  # most keys have one, and a list is small
        self.taken = 0
        self.owner: object = None

    def add(self, work: Work) -> None:
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
        self.freed: deque[Work] = deque()
        self._lanes: dict[str, Lane] = {}
        self._closed: dict[str, Closed] = {}
        self.used = False

    def enter(self, works: Sequence[Work]) -> list[Work]:
        """Give each item its place behind earlier ones; those that have one, without the others."""
        return [work for work in works if not work.keys or self._enter(work)]

    def _enter(self, work: Work) -> bool:
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

    def _is_closed(self, work: Work) -> bool:
        for key in work.keys:
            closed = self._closed.get(key)
            if closed and work.held.seen < closed.clock and work.number > closed.number:
                if closed.held is work.held:
                    work.held.behind.add(work.number)
                return True
        return False

    def take(self, work: Work, owner: object) -> bool:
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

    def drop(self, work: Work) -> None:
        """An item that was left has come to a slot."""
        work.place = TAKEN
        work.held.finish_item()

    def release(self, works: Sequence[Work]) -> None:
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

    def close(self, work: Work) -> None:
        """Leave later items of the keys of one that has not had its end here."""
        self.used = True
        open_ends = [work]
        while open_ends:
            first = open_ends.pop()
            first.held.incomplete = True
            for key in first.keys:
                open_ends += self._close(key, first)

    def _close(self, key: str, first: Work) -> list[Work]:
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
