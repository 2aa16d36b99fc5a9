"""How many slots work at once, by what is faster."""

from collections.abc import Callable
from functools import partial
from statistics import mean

import anyio
import anyio.lowlevel
import pytest

from .reach import AdaptiveLimit

Speed = Callable[[int], float]


class World:
    """Slots that end so many items in a second as `speed` says; some attempts conflict before.

    Args:
        most: How many slots there are.
        speed: Items per second, by how many slots work.
        conflicts: Conflicts for each item, by how many slots work.
    """

    def __init__(self, most: int, speed: Speed, conflicts: Speed = lambda _: 0.0) -> None:
        self.most, self.speed, self.conflicts = most, speed, conflicts
        self.now = 0.0
        self._due = 0.0
        self.processes = 1
        self.adaptive = AdaptiveLimit(most, lambda: self.processes, lambda: self.now)

    def run(self, seconds: float) -> list[int]:
        """End items for so long; returns how many slots worked at each end."""
        limits, end = [], self.now + seconds
        while self.now < end:
            limit = self.adaptive.limit
            self.now += 1 / self.speed(limit)
            limits.append(limit)
            self._due += self.conflicts(limit)
            while self._due >= 1:
                self._due -= 1
                self.adaptive.conflict()
            self.adaptive.finished(1)
        return limits

    def achieved(self, seconds: float) -> float:
        """The items of some seconds, as a share of what the best fixed number would end."""
        slots = range(1, self.most + 1)
        return len(self.run(seconds)) / (seconds * max(map(self.speed, slots)))


def far_away(slots: int) -> float:
    """Each slot waits for the network most of the time."""
    return 20.0 * slots


def busy(slots: int) -> float:
    """Two processors are busy with four; with more, slots wait for each other."""
    return 150.0 * min(slots, 4) * 0.95 ** max(0, slots - 4)


def crowded(slots: int) -> float:
    """A few rows: with every further slot there are more deadlocks."""
    return max(5.0, 150.0 * 0.3 ** (slots - 1))


def shared(slots: int) -> float:
    """Some more rows: two slots are faster, more are not."""
    return {1: 100.0, 2: 160.0}.get(slots, 120.0 / slots)


def declining(slots: int) -> float:
    """Each further slot costs all of them a little."""
    return max(5.0, 100.0 * 0.85 ** (slots - 1))


def flat(_: int) -> float:
    """The number makes no difference."""
    return 150.0


def deadlocks(slots: int) -> float:
    """The conflicts of a few rows."""
    return 0.1 * (slots - 1)


WORKLOADS = {
    "far away": (far_away, lambda _: 0.0),
    "busy": (busy, lambda _: 0.0),
    "crowded": (crowded, deadlocks),
    "shared": (shared, lambda slots: 0.01 * (slots - 1)),
    "declining": (declining, lambda slots: 0.01 * (slots - 1)),
    "flat": (flat, lambda _: 0.0),
    "flat with conflicts": (flat, deadlocks),
}


@pytest.mark.parametrize("most", [1, 2, 5, 16, 64])
@pytest.mark.parametrize("workload", WORKLOADS)
def test_it_comes_close_to_the_best_fixed_number(workload: str, most: int) -> None:
    world = World(most, *WORKLOADS[workload])
    assert world.achieved(120.0) >= 0.9


@pytest.mark.parametrize("most", [16, 64])
@pytest.mark.parametrize("before", WORKLOADS)
@pytest.mark.parametrize("after", WORKLOADS)
def test_it_notices_that_the_workload_has_changed(before: str, after: str, most: int) -> None:
    world = World(most, *WORKLOADS[before])
    world.run(60.0)
    world.speed, world.conflicts = WORKLOADS[after]
    world.run(60.0)
    assert world.achieved(120.0) >= 0.85


class Shared:
    """Two processes whose slots share the speed of a workload."""

    def __init__(self, workload: str) -> None:
        speed, conflicts = WORKLOADS[workload]
        self.speed = speed
        self.worlds = [World(16, speed, conflicts), World(16, speed, conflicts)]
        for world, other in (self.worlds, self.worlds[::-1]):
            world.processes = 2
            world.speed = partial(self.part, other)
            world.conflicts = partial(self.conflicts_with, other, conflicts)

    def part(self, other: World, slots: int) -> float:
        """The items per second of a process with so many slots."""
        total = slots + other.adaptive.limit
        return self.speed(total) * slots / total

    @staticmethod
    def conflicts_with(other: World, conflicts: Speed, slots: int) -> float:
        """The conflicts of each item, when another process has slots too."""
        return conflicts(slots + other.adaptive.limit)

    def run(self, seconds: float) -> int:
        """Let both end items for so long; returns how many they end."""
        end, ended = max(world.now for world in self.worlds) + seconds, 0
        while (world := min(self.worlds, key=lambda one: one.now)).now < end:
            ended += len(world.run(0.0001))
        return ended


@pytest.mark.parametrize("workload", WORKLOADS)
def test_two_processes_together_come_close_to_the_best_fixed_number(workload: str) -> None:
    shared = Shared(workload)
    shared.run(20.0)
    best = max(shared.speed(2 * slots) for slots in range(1, 17))
    assert shared.run(120.0) / 120.0 >= 0.85 * best


@pytest.mark.parametrize("speed", [10.0, 500.0])
def test_all_slots_work_soon_if_that_is_faster(speed: float) -> None:
    world = World(16, lambda slots: speed * slots)
    world.run(2.0)
    assert mean(world.run(60.0)) > 15


def test_it_gives_up_a_number_as_soon_as_conflicts_slow_it_down() -> None:
    world = World(64, far_away)
    world.run(60.0)
    assert world.adaptive.limit == 64
    world.speed, world.conflicts = WORKLOADS["shared"]
    world.run(10.0)
    assert world.adaptive.limit < 8


def test_numbers_that_were_in_vain_are_tried_less_often() -> None:
    world = World(16, busy)
    first = sum(limit != 4 for limit in world.run(8.0))
    world.run(300.0)
    assert sum(limit != 4 for limit in world.run(80.0)) / 10 < first / 2


@pytest.mark.parametrize("most", [1, 2, 3, 5, 10])
def test_there_are_never_more_slots_than_allowed_and_never_none(most: int) -> None:
    limits = {limit for work in WORKLOADS.values() for limit in World(most, *work).run(20.0)}
    assert limits <= set(range(1, most + 1))


def test_items_that_take_no_time_say_nothing() -> None:
    adaptive = AdaptiveLimit(16, clock=lambda: 0.0)
    for _ in range(1_000):
        adaptive.finished(100)
    assert adaptive.limit == 1


async def test_slow_items_run_side_by_side_before_the_first_ends() -> None:
    adaptive = AdaptiveLimit(10)

    async def no_waits() -> bool:
        return False

    with anyio.fail_after(5):
        await adaptive.start(no_waits)
    assert adaptive.limit == 10


async def test_there_are_not_more_slots_while_they_wait_for_locks() -> None:
    adaptive, asked = AdaptiveLimit(10), 0

    async def waits() -> bool:
        nonlocal asked
        asked += 1
        return asked < 3

    async with anyio.create_task_group() as group:
        group.start_soon(adaptive.start, waits)
        with anyio.fail_after(5):
            while asked < 2:
                await anyio.lowlevel.checkpoint()
            assert adaptive.limit == 1
            while adaptive.limit == 1:
                await anyio.lowlevel.checkpoint()
    assert asked > 3


async def test_slots_wait_for_their_places() -> None:
    world = World(8, far_away)
    inside: list[int] = []
    leave = anyio.Event()

    async def slot(number: int) -> None:
        async with world.adaptive.place():
            inside.append(number)
            await leave.wait()

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(slot, number)
        await anyio.wait_all_tasks_blocked()
        assert len(inside) == 1
        world.run(3.0)
        await anyio.wait_all_tasks_blocked()
        assert len(inside) == world.adaptive.limit == 8
        assert not world.adaptive.exceeded
        world.speed, world.conflicts = crowded, lambda slots: slots - 1.0
        world.run(3.0)
        assert world.adaptive.exceeded
        leave.set()
