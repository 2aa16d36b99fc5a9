"""The queue between the drain, the preparers and the slots."""

import uuid

import anyio
import pytest

from reliable_imports_async.models import ImportBatchItem

from .reach import Channel, Queue, QueuedItem


def queued(*numbers: int) -> list[QueuedItem]:
    batch_id = uuid.uuid4()
    items = [ImportBatchItem(batch_id=batch_id, item_number=number) for number in numbers]
    return [QueuedItem(item, held=None) for item in items]  # type: ignore[arg-type]  # nobody looks


def numbers(taken: list[QueuedItem]) -> list[int]:
    return [entry.item.item_number for entry in taken]


async def test_what_is_there_is_taken_in_order_and_no_more_than_asked_for() -> None:
    channel = Channel()
    channel.put(queued(1, 2, 3))
    assert numbers(await channel.take(2, None)) == [1, 2]
    assert numbers(await channel.take(2, None)) == [3]
    assert len(channel) == 0


async def test_an_impatient_taker_gets_nothing() -> None:
    assert await Channel().take(1, 0.01) == []


async def test_as_many_takers_are_woken_as_items_arrive() -> None:
    channel = Channel()
    taken: list[int] = []

    async def take() -> None:
        taken.extend(numbers(await channel.take(1, None)))

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(take)
        await anyio.wait_all_tasks_blocked()
        channel.put(queued(1, 2))
        await anyio.wait_all_tasks_blocked()
        assert taken == [1, 2]
        channel.end()
    assert taken == [1, 2]


async def test_at_the_end_takers_get_what_is_left_and_then_nothing() -> None:
    channel = Channel()
    channel.put(queued(1))
    channel.end()
    assert numbers(await channel.take(5, None)) == [1]
    assert await channel.take(5, None) == []


@pytest.mark.parametrize("backend_turns", [0, 1, 2])
async def test_a_work_for_which_a_cancelled_taker_was_woken_goes_to_another(
    backend_turns: int,
) -> None:
    channel = Channel()
    taken: list[int] = []

    async def take() -> None:
        taken.extend(numbers(await channel.take(1, None)))

    async with anyio.create_task_group() as group:
        cancelled = anyio.CancelScope()

        async def cancelled_taker() -> None:
            with cancelled:
                await take()

        group.start_soon(cancelled_taker)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(take)
        await anyio.wait_all_tasks_blocked()
        channel.put(queued(7))
        for _ in range(backend_turns):
            await anyio.lowlevel.cancel_shielded_checkpoint()
        cancelled.cancel()
        with anyio.move_on_after(1):
            while not taken:
                await anyio.sleep(0.001)
        channel.end()
    assert taken == [7]


async def test_preparers_stay_a_few_items_ahead_of_the_slots() -> None:
    queue = Queue(2, prepared_ahead=True)
    queue.put(queued(1, 2, 3), portion=1)
    ahead: list[int] = []

    async def preparer() -> None:
        while (entry := await queue.take_unprepared()) is not None:
            await queue.put_prepared(entry)
            ahead.append(entry.item.item_number)

    async with anyio.create_task_group() as group:
        group.start_soon(preparer)
        await anyio.wait_all_tasks_blocked()
        assert ahead == [1, 2]
        assert numbers(await queue.take(1, None)) == [1]
        await anyio.wait_all_tasks_blocked()
        assert ahead == [1, 2, 3]
        queue.read.end()
