"""How many slots of a batch work at the same time: as many as make it faster, and no more.

More slots are faster as long as they fill each other's waiting times. Beyond that they are slower:
on a busy machine they wait for a processor, and where items update the same few rows they wait for
each other's locks and end in deadlocks. Only trying shows which it is, so the limit begins with one
slot, doubles as long as nothing speaks against it, and from then on compares the speeds that it has
measured.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from math import exp
from time import monotonic

import anyio

START_SECONDS = 0.02  # of measuring a number of slots at the start
IDLE_SECONDS = 0.05  # without an outcome, after which the start tries more slots
WINDOW_SECONDS = 0.25  # of measuring a number of slots later
CONFLICT_SECONDS = 1.0  # the same once there were conflicts: they come in bursts
ROUNDS = 2  # outcomes of each slot that a measurement covers
MEMORY_SECONDS = 10.0  # after which a measurement weighs a third
SLOW = 0.75  # of the fastest number's speed
SLOWED_SECONDS = 0.1  # of measuring a number that is slow because of conflicts
MANY_CONFLICTS = 0.25  # for each item or chunk
GAIN = 1.05  # more slots have to be faster by so much
FIRST_REST, LONGEST_REST = 4, 32  # measurements until another number is tried


class AdaptiveLimit:
    """Limits the slots that work, by the speed that is measured with each number of them.

    The numbers are 1, 2, 4 and so on up to `most`. At the start each is measured briefly, until the
    first conflicts. Later the fastest number is kept; twice or half as many are tried from time to
    time, less often each time it was in vain. A number that conflicts slow down is given up soon.

    Args:
        most: Never more slots than this.
        processes: Returns how many processes work on the batch.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        most: int,
        processes: Callable[[], int] = lambda: 1,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._capacity = anyio.CapacityLimiter(1)
        self._most = most
        self._clock = clock
        self._processes = processes
        self._speeds: dict[int, Speed] = {}
        self._kept = 1
        self._starting = most > 1
        self._upwards = True
        self._conflicted = False  # whether there has ever been a conflict
        self._pause = self._rest = FIRST_REST
        self._window = Window(clock(), earlier=1)  # the first item opens connections

    @property
    def limit(self) -> int:
        """How many slots may work now."""
        return int(self._capacity.total_tokens)

    @property
    def exceeded(self) -> bool:
        """Whether a slot should stop taking items."""
        return self._capacity.borrowed_tokens > self.limit

    def place(self) -> AbstractAsyncContextManager[None]:
        """Wait until one more slot may work; it works inside the block."""
        return self._capacity

    def finished(self, items: int) -> None:
        """Note an item, or a chunk of so many items, that has ended."""
        window = self._window
        if window.earlier:  # begun beside another number of slots
            window.earlier -= 1
            window.began = self._clock()
            return
        window.outcomes += 1
        window.items += items
        self._conclude_when_measured()

    def conflict(self) -> None:
        """Note that an attempt conflicted with another transaction."""
        self._conflicted = True
        if self._starting or not self._window.earlier:
            self._window.conflicts += 1
            self._conclude_when_measured()

    async def start(self, waits_for_locks: Callable[[], Awaitable[bool]]) -> None:
        """At the start, allow more slots while the first items take long.

        Args:
            waits_for_locks: Returns whether a transaction waits for another's lock.
        """
        while self._starting:
            outcomes, window = self._window.outcomes, self._window
            await anyio.sleep(IDLE_SECONDS)
            idle = self._window is window and window.outcomes == outcomes
            if idle and not await waits_for_locks() and self._window is window and self._starting:
                self._grow()

    def _conclude_when_measured(self) -> None:
        """Decide once this number of slots is measured, or sooner if conflicts slow it down."""
        window, now = self._window, self._clock()
        seconds = now - window.began
        enough = self._window_seconds(window, now)
        measured = window.outcomes >= ROUNDS * self.limit and seconds >= enough
        slowed = window.conflicts > 1 and seconds >= SLOWED_SECONDS and self._is_slow(window, now)
        if not (measured or slowed):
            return
        if self._starting and not (window.conflicts or self._is_slow(window, now)):
            self._note(window, now)
            self._grow()
        else:
            self._starting = False
            self._decide(window, now)

    def _window_seconds(self, window: "Window", now: float) -> float:
        """How long to measure; a trial that looks better is measured longer after conflicts."""
        if self._starting:
            return START_SECONDS
        if not self._conflicted:
            return WINDOW_SECONDS
        if self.limit != self._kept and self._rate(window, now) < self._speeds[self._kept].rate:
            return WINDOW_SECONDS  # a trial in vain
        return CONFLICT_SECONDS

    def _rate(self, window: "Window", now: float) -> float:
        """The items per second of the batch in a window."""
        return self._batch_items(window) / max(now - window.began, 1e-9)

    def _batch_items(self, window: "Window") -> float:
        """The items that all processes have ended, if each of the others has the kept number.

        Where slots only wait for each other, a process with more of them takes its share from the
        others, and they would all take more and more.
        """
        others = (self._processes() - 1) * self._kept
        return window.items * (self.limit + others) / self.limit

    def _is_slow(self, window: "Window", now: float) -> bool:
        """Whether the current number of slots is clearly slower than the fastest."""
        rate = self._rate(window, now)
        return any(rate < SLOW * speed.rate for speed in self._speeds.values())

    def _grow(self) -> None:
        """Go on to the next number of the start."""
        self._kept = min(2 * self._kept, self._most)
        self._starting = self._kept < self._most
        self._set(self._kept)

    def _note(self, window: "Window", now: float) -> None:
        """Remember how fast the batch was with the current number of slots."""
        speed = self._speeds.setdefault(self.limit, Speed(now))
        if window.conflicts > window.outcomes * MANY_CONFLICTS and self._is_slow(window, now):
            speed.forget()  # it was faster without them
        speed.add(self._batch_items(window), now - window.began, now)

    def _decide(self, window: "Window", now: float) -> None:
        """Keep the fastest number of slots; try another when it is time."""
        self._note(window, now)
        tried, fastest = self.limit, self._fastest()
        self._rest -= 1
        if fastest != self._kept:
            self._upwards = fastest > self._kept
            self._pause = FIRST_REST
            self._rest = 0 if fastest == tried else FIRST_REST  # the next step may be better still
        elif tried != self._kept:
            self._upwards = not self._upwards
            self._pause = self._rest = min(2 * self._pause, LONGEST_REST)
        self._kept = fastest
        self._set(fastest if self._rest > 0 else self._trial())

    def _fastest(self) -> int:
        """The fastest number of slots; of similar ones, the smallest."""
        best = min(self._speeds)
        for slots in sorted(self._speeds)[1:]:
            if self._speeds[slots].rate > self._speeds[best].rate * GAIN:
                best = slots
        return best

    def _trial(self) -> int:
        """The number to try: one step from the kept number, in the current direction if any."""
        steps = {True: min(2 * self._kept, self._most), False: max(self._kept // 2, 1)}
        if steps[self._upwards] == self._kept:
            self._upwards = not self._upwards
        return steps[self._upwards]

    def _set(self, slots: int) -> None:
        earlier = 0 if slots == self.limit else self._capacity.borrowed_tokens
        self._capacity.total_tokens = slots
        self._window = Window(self._clock(), earlier)


class Window:
    """What happens while one number of slots is measured.

    Args:
        began: The time.
        earlier: How many items or chunks began before.

    Attributes:
        earlier: How many of them have not ended.
        outcomes: Items or chunks that have ended.
        items: Items that have ended.
        conflicts: Attempts that conflicted with other transactions.
    """

    __slots__ = ("began", "conflicts", "earlier", "items", "outcomes")

    def __init__(self, began: float, earlier: int = 0) -> None:
        self.began = began
        self.earlier = earlier
        self.outcomes = self.items = self.conflicts = 0


class Speed:
    """How fast a number of slots was, in a memory that fades.

    Args:
        now: The time.
    """

    __slots__ = ("_at", "_items", "_seconds")

    def __init__(self, now: float) -> None:
        self._items = self._seconds = 0.0
        self._at = now

    @property
    def rate(self) -> float:
        """Items per second."""
        return self._items / self._seconds if self._seconds else 0.0

    def forget(self) -> None:
        """Begin anew."""
        self._items = self._seconds = 0.0

    def add(self, items: float, seconds: float, now: float) -> None:
        """Add a measurement."""
        fading = exp((self._at - now) / MEMORY_SECONDS)
        self._items = self._items * fading + items
        self._seconds = self._seconds * fading + seconds
        self._at = now
