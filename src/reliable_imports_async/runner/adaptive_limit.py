"""How many intervals run at once: as many as it pays to, and no more."""

from collections.abc import Callable
from time import monotonic, thread_time

import anyio

FIRST = 5
EACH = 2  # intervals of each slot that a measurement covers
LEAST_SECONDS = 0.2
GAIN, LOSS = 1.15, 0.95  # twice as many have to bring the one, half as many may cost the other
BUSY = 0.7  # this thread's share of a processor beyond which more slots can bring little
PATIENCE, LONGEST_REST = 8, 64


class AdaptiveLimit:
    """Bounds the slots that execute intervals, by trying what is faster.

    Where the processors are busy already, one more transaction only waits in line with the
    others; it warms no cache, and foreign keys have to share row locks among more of them: on two
    cores, sixteen are a quarter slower than five. Over a slow network each of them fills a gap. So
    it begins with few, and now and then tries twice or half as many for a few intervals; more only
    while this thread has time for more. What proves no better is tried again ever more seldom.

    Args:
        most: Never more slots than this.
        clock: Tells the time in seconds.
        worked: Tells how many seconds this thread has been working.

    Attributes:
        places: What a slot holds while it takes and executes intervals.
    """

    def __init__(
        self,
        most: int,
        clock: Callable[[], float] = monotonic,
        worked: Callable[[], float] = thread_time,
    ) -> None:
        self.places = anyio.CapacityLimiter(min(FIRST, most))
        self._most = most
        self._clock, self._worked = clock, worked
        self._kept = self.limit
        self._rate = 0.0  # items per second with as many as are kept
        self._upwards = True
        self._patience = self._rest = 1  # measurements until something else is tried
        self._measure()

    @property
    def limit(self) -> int:
        """How many slots may execute intervals now."""
        return int(self.places.total_tokens)

    @property
    def too_many(self) -> bool:
        """Whether somebody should give up a place."""
        return self.places.borrowed_tokens > self.limit

    def finished(self, items: int) -> None:
        """An interval of so many items has ended, together or, after a conflict, one by one."""
        self._intervals += 1
        if self._intervals <= self.limit:  # begun with other neighbours
            self._began = self._clock(), self._worked()
            return
        self._items += items
        began, worked = self._began
        seconds = self._clock() - began
        if self._intervals >= (1 + EACH) * self.limit and seconds > LEAST_SECONDS:
            self._conclude(self._items / seconds, (self._worked() - worked) / seconds)
            self._measure()

    def _measure(self) -> None:
        self._intervals = self._items = 0
        self._began = self._clock(), self._worked()

    def _conclude(self, rate: float, busy: float) -> None:
        """Keep what was tried, or go back; try something else when it is time."""
        if self.limit == self._kept:
            self._rate = rate
            self._rest -= 1
        elif rate > self._rate * (GAIN if self.limit > self._kept else LOSS):
            self._kept, self._rate = self.limit, rate
            self._patience, self._rest = 1, 0  # perhaps further on it is better still
        else:
            self._upwards = not self._upwards
            self._patience = self._rest = min(PATIENCE * self._patience, LONGEST_REST)
        if self._next == self._kept:  # it goes no further in this direction
            self._upwards = not self._upwards
            self._rest = max(self._rest, 1)
        resting = self._rest > 0 or (self._upwards and busy > BUSY)
        self.places.total_tokens = self._kept if resting else self._next

    @property
    def _next(self) -> int:
        """What to try next."""
        if self._upwards:
            return min(2 * self._kept, self._most)
        return max(self._kept // 2, min(FIRST, self._most))
