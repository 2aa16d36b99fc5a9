"""How many chunks run at once, by what is faster."""

from collections.abc import Callable

import anyio
import pytest

from .reach import FIRST, LONGEST_REST, AdaptiveLimit


class World:
    """Slots that execute chunks of a hundred items, so many in a second as `speed` says."""

    def __init__(self, most: int, speed: Callable[[int], float], work: float = 0.3) -> None:
        self.speed = speed
        self.work = work  # the thread's share of a processor
        self.now = 0.0
        self.adaptive = AdaptiveLimit(
            most, clock=lambda: self.now, worked=lambda: self.now * self.work
        )

    def chunks(self, count: int) -> list[int]:
        """Execute so many; how many slots did it, each time."""
        limits = []
        for _ in range(count):
            self.now += 100 / self.speed(self.adaptive.limit)
            limits.append(self.adaptive.limit)
            self.adaptive.finished(100)
        return limits


def far_away(slots: int) -> float:
    """Each slot waits for the network most of the time."""
    return 300.0 * slots


def busy(slots: int) -> float:
    """The processors are busy with five; with more, they wait for each other."""
    return 5_000.0 * min(slots, 5) / 5 * 0.98 ** max(0, slots - 5)


def test_over_a_slow_network_all_slots_are_used_soon() -> None:
    world = World(16, far_away)
    world.chunks(50)
    assert world.adaptive.limit == 16
    limits = world.chunks(5_000)
    assert sum(limits) / len(limits) > 15.5


def test_on_a_busy_machine_it_stays_at_few_and_tries_more_seldom() -> None:
    world = World(16, busy)
    limits = world.chunks(5_000)
    assert set(limits) == {FIRST, 2 * FIRST}
    assert sum(limit > FIRST for limit in limits[:100]) > 0
    assert sum(limit > FIRST for limit in limits[-LONGEST_REST * FIRST * 2 :]) < 100


@pytest.mark.parametrize("kind", [far_away, busy])
def test_it_finds_out_when_the_world_has_changed(kind: Callable[[int], float]) -> None:
    other = busy if kind is far_away else far_away
    world = World(16, kind)
    world.chunks(500)
    world.speed = other
    world.chunks(4_000)
    expected = FIRST if other is busy else 16
    assert world.adaptive.limit in {expected, 2 * FIRST, 8}  # the second while it tries
    limits = world.chunks(2_000)
    assert sorted(limits)[len(limits) // 2] == expected


def test_a_thread_that_has_no_time_for_more_does_not_try() -> None:
    world = World(16, far_away, work=0.8)
    assert set(world.chunks(1_000)) == {FIRST}
    world.work = 0.5
    assert 16 in world.chunks(100)


@pytest.mark.parametrize("most", [1, 2, 5])
@pytest.mark.parametrize("kind", [far_away, busy])
def test_never_more_than_there_are_slots_and_never_none(
    most: int, kind: Callable[[int], float]
) -> None:
    assert set(World(most, kind).chunks(500)) == {most}


def test_what_takes_no_time_tells_nothing() -> None:
    adaptive = AdaptiveLimit(16, clock=lambda: 0.0, worked=lambda: 0.0)
    for _ in range(1_000):
        adaptive.finished(100)
    assert adaptive.limit == FIRST


async def test_who_waits_for_a_place_gets_it_when_there_are_more() -> None:
    world = World(8, far_away)
    inside = 0
    leave = anyio.Event()

    async def slot() -> None:
        nonlocal inside
        async with world.adaptive.capacity:
            inside += 1
            await leave.wait()

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(slot)
        await anyio.wait_all_tasks_blocked()
        assert inside == FIRST
        world.chunks(30)
        await anyio.wait_all_tasks_blocked()
        assert inside == world.adaptive.limit == 8
        assert not world.adaptive.exceeded
        leave.set()
