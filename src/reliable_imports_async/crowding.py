"""How many intervals run at once: as many as pays, and no more."""

from collections.abc import Sequence

import anyio

FIRST = 4
FEW_IN_LINE, MANY_IN_LINE = 2.0, 4.0
SMOOTHING = 0.3


class Crowd:
    """Bounds the slots that execute intervals, by how long a trivial statement takes among them.

    Where the processors are busy already, one more transaction only waits in line with the
    others: it warms no cache, holds row locks for longer, and makes foreign keys share them among
    more transactions. Over a slow network it fills a gap instead. Which of the two it is, the
    statement between two runs of items tells, which does nothing by itself: its time beyond the
    shortest one seen is spent in line. This is the rule of TCP Vegas (Brakmo and Peterson, 1995),
    with transactions for packets.

    Args:
        most: Never more slots than this.

    Attributes:
        places: What a slot holds while it takes and executes intervals.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.places = anyio.CapacityLimiter(min(FIRST, most))
        self._shortest = float("inf")
        self._usual: float | None = None

    @property
    def limit(self) -> int:
        """How many slots may execute intervals now."""
        return int(self.places.total_tokens)

    @property
    def too_many(self) -> bool:
        """Whether somebody should give up a place."""
        return self.places.borrowed_tokens > self.limit

    def learn(self, waits: Sequence[float]) -> None:
        """Adapt to how many seconds each trivial statement of an interval took."""
        self._shortest = min(self._shortest, *waits)
        mean = sum(waits) / len(waits)
        usual = mean if self._usual is None else self._usual
        self._usual = usual + SMOOTHING * (mean - usual)
        inside = self.places.borrowed_tokens
        in_line = inside * (1 - self._shortest / self._usual)
        if in_line > MANY_IN_LINE:
            self.places.total_tokens = self.limit - 1
        elif in_line < FEW_IN_LINE and inside >= self.limit:
            self.places.total_tokens = min(self._most, self.limit + 1)
