"""How many chunks run at the same time: as many as make the import faster, and no more."""

from collections.abc import Callable
from time import monotonic, thread_time

import anyio

FIRST = 5
CHUNKS_EACH = 2  # chunks of each slot that a measurement covers
LEAST_SECONDS = 0.2
GAIN, LOSS = 1.15, 0.95  # twice as many must bring the first, half as many may cost the second
BUSY = 0.7  # this thread's share of a processor beyond which more slots can bring little
FIRST_REST, LONGEST_REST = 8, 64


class AdaptiveLimit:
    """Limits the slots that run chunks, by trying which number is faster.

    When the processors are busy already, one more transaction only waits in line with the others;
    it warms no cache, and foreign keys have to share row locks among more of them: on two cores,
    sixteen slots are a quarter slower than five. On a slow network each slot fills a gap. So it
    begins with few slots, and from time to time tries twice or half as many for a few chunks; more
    only while this thread has time for more. A number that is no better is tried less often then.

    Args:
        most: Never more slots than this.
        clock: Returns the time in seconds.
        worked: Returns how many seconds this thread has been working.

    Attributes:
        capacity: What a slot holds while it takes and runs chunks.
    """

    def __init__(
        self,
        most: int,
        clock: Callable[[], float] = monotonic,
        worked: Callable[[], float] = thread_time,
    ) -> None:
        self.capacity = anyio.CapacityLimiter(min(FIRST, most))
        self._most = most
        self._clock, self._worked = clock, worked
        self._kept = self.limit
        self._rate = 0.0  # items per second with as many as are kept
        self._upwards = True
        self._pause = self._rest = 1  # measurements until it tries another number
        self._measure()

    @property
    def limit(self) -> int:
        """How many slots may run chunks now."""
        return int(self.capacity.total_tokens)

    @property
    def exceeded(self) -> bool:
        """Whether a slot should stop taking chunks."""
        return self.capacity.borrowed_tokens > self.limit

    def finished(self, items: int) -> None:
        """Take note of a chunk of so many items that has ended, together or one by one."""
        self._chunks += 1
        if self._chunks <= self.limit:  # begun beside a different number of chunks
            self._began = self._clock(), self._worked()
            return
        self._items += items
        began, worked = self._began
        seconds = self._clock() - began
        if self._chunks >= (1 + CHUNKS_EACH) * self.limit and seconds > LEAST_SECONDS:
            self._conclude(self._items / seconds, (self._worked() - worked) / seconds)
            self._measure()

    def _measure(self) -> None:
        self._chunks = self._items = 0
        self._began = self._clock(), self._worked()

    def _conclude(self, rate: float, busy: float) -> None:
        """Keep the number that was tried, or go back; try another one when it is time."""
        if self.limit == self._kept:
            self._rate = rate
            self._rest -= 1
        elif rate > self._rate * (GAIN if self.limit > self._kept else LOSS):
            self._kept, self._rate = self.limit, rate
            self._pause, self._rest = 1, 0  # perhaps the next step is better still
        else:
            self._upwards = not self._upwards
            self._pause = self._rest = min(FIRST_REST * self._pause, LONGEST_REST)
        if self._next == self._kept:  # this is the end in this direction
            self._upwards = not self._upwards
            self._rest = max(self._rest, 1)
        resting = self._rest > 0 or (self._upwards and busy > BUSY)
        self.capacity.total_tokens = self._kept if resting else self._next

    @property
    def _next(self) -> int:
        """The number to try next."""
        if self._upwards:
            return min(2 * self._kept, self._most)
        return max(self._kept // 2, min(FIRST, self._most))
