"""How many intervals run at once, by how long a trivial statement takes among them."""

from contextlib import AsyncExitStack

import anyio
import pytest

from reliable_imports_async.crowding import FIRST, Crowd

ALONE = 0.000_1  # seconds that a trivial statement takes with nobody in front of it


async def with_everybody_inside(crowd: Crowd, waits: list[float]) -> None:
    """As many slots as may execute intervals do, and each of them tells what it met."""
    async with AsyncExitStack() as inside:
        for _ in range(crowd.limit):
            await inside.enter_async_context(_Place(crowd))
        crowd.learn(waits)


class _Place:
    """A place that is another borrower's each time, as with slots in tasks of their own."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd

    async def __aenter__(self) -> None:
        await self._crowd.places.acquire_on_behalf_of(self)

    async def __aexit__(self, *_: object) -> None:
        self._crowd.places.release_on_behalf_of(self)


async def test_over_a_slow_network_all_slots_are_used() -> None:
    crowd = Crowd(16)
    for _ in range(30):
        await with_everybody_inside(crowd, [0.020, 0.021, 0.020])
    assert crowd.limit == 16


async def test_on_one_busy_machine_it_stays_at_few() -> None:
    crowd = Crowd(16)
    crowd.learn([ALONE])
    for _ in range(30):
        await with_everybody_inside(crowd, [crowd.limit * ALONE * 2] * 3)
    assert crowd.limit == FIRST


async def test_it_shrinks_when_the_server_gets_busy_and_grows_when_it_has_room_again() -> None:
    crowd = Crowd(16)
    for _ in range(30):
        await with_everybody_inside(crowd, [ALONE])
    grown = crowd.limit
    for _ in range(60):
        await with_everybody_inside(crowd, [crowd.limit * ALONE * 4])
    busy = crowd.limit
    for _ in range(60):
        await with_everybody_inside(crowd, [ALONE])
    assert (grown, busy, crowd.limit) == (16, FIRST, 16)


@pytest.mark.parametrize("most", [1, 2, 3])
async def test_never_more_than_there_are_slots_and_never_none(most: int) -> None:
    crowd = Crowd(most)
    for wait in (ALONE, 1.0):
        for _ in range(20):
            await with_everybody_inside(crowd, [wait])
        assert crowd.limit == most


async def test_it_does_not_grow_while_there_is_room_anyway() -> None:
    crowd = Crowd(16)
    async with crowd.places:
        for _ in range(20):
            crowd.learn([ALONE])
    assert crowd.limit == FIRST


async def test_who_waits_for_a_place_gets_it_when_it_grows() -> None:
    crowd = Crowd(8)
    inside = 0
    leave = anyio.Event()

    async def slot() -> None:
        nonlocal inside
        async with crowd.places:
            inside += 1
            await leave.wait()

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(slot)
        await anyio.wait_all_tasks_blocked()
        assert inside == FIRST
        crowd.learn([ALONE])
        await anyio.wait_all_tasks_blocked()
        assert inside == FIRST + 1
        leave.set()
