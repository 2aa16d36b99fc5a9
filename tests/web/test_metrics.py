"""What Prometheus is told."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from reliable_imports_async import Retry

from ..database.reach import database_of
from ..support.trying import processor, records
from .reach import BOUNDS, render


async def samples(manager) -> dict:
    """Every sample, by its name and the values of its labels."""
    text = (await render(manager)).decode()
    families = list(text_string_to_metric_families(text))
    assert all(family.documentation for family in families)
    return {
        (sample.name.removeprefix("reliable_imports_"), *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


async def odd_only(item, ctx):
    assert item.source_data["n"] % 2


async def test_nothing_yet(manager):
    found = await samples(manager)
    assert found["expired_leases",] == 0
    assert found["pool_connections", "limit"] == 7
    assert found["pool_connections", "lent"] == 0
    assert not [name for name, *_ in found if name in {"batches", "items"}]


async def test_batches_and_items_are_counted(manager):
    manager.registry.register(processor(odd_only))
    done = await manager.process_batch(await manager.create_batch("tried", records(5)))
    assert done.failed_items == 2
    await manager.create_batch("tried", records(3))
    left = await manager.create_batch("tried", records(4))
    await manager.cancel_batch(left)
    found = await samples(manager)
    assert found["batches", "tried", "partial"] == 1
    assert found["batches", "tried", "pending"] == 1
    assert found["batches", "tried", "cancelled"] == 1
    outcomes = {name[2]: count for name, count in found.items() if name[0] == "items"}
    assert outcomes == {"completed": 3, "skipped": 0, "failed": 2, "pending": 7}


async def test_durations_are_a_histogram(manager, conn):
    manager.registry.register(processor(odd_only))
    for seconds in (0.25, 30, 999_999):
        batch = await manager.process_batch(await manager.create_batch("tried", records(1)))
        await conn.execute(
            "UPDATE reliable_imports.import_batches"
            " SET finished_at = started_at + make_interval(secs => $2) WHERE id = $1",
            batch.batch_id,
            seconds,
        )
    found = await samples(manager)
    name = "batch_duration_seconds"
    buckets = [found[f"{name}_bucket", "tried", str(bound)] for bound in BOUNDS]
    assert buckets == [0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]
    assert found[f"{name}_bucket", "tried", "+Inf"] == found[f"{name}_count", "tried"] == 3
    assert found[f"{name}_sum", "tried"] == pytest.approx(1_000_029.25)


async def test_items_of_a_running_batch_count_before_it_ends(manager, conn):
    async def later(item, ctx):
        if item.source_data["n"] == 3:
            raise Retry(after=3600)

    manager.registry.register(processor(later))
    await manager.create_batch("tried", records(3))
    await conn.execute(
        "UPDATE reliable_imports.import_batch_ranges SET completed = 1 WHERE first_item = 1"
    )
    found = await samples(manager)
    assert (found["items", "tried", "completed"], found["items", "tried", "pending"]) == (1, 2)


async def test_an_open_transaction_and_an_expired_lease_show(manager, conn):
    manager.registry.register(processor(odd_only))
    await manager.create_batch("tried", records(3))
    await conn.execute("UPDATE reliable_imports.import_batches SET status = 'processing'")
    expired = await conn.execute(
        "UPDATE reliable_imports.import_batch_ranges SET state = 'leased',"
        " lease_until = clock_timestamp() - interval '1 s' WHERE first_item < 3"
    )
    async with conn.transaction():
        await conn.execute("SELECT 1")
        found = await samples(manager)
    assert found["expired_leases",] == int(expired.removeprefix("UPDATE ")) > 0
    assert found["oldest_transaction_seconds",] > 0


async def test_the_pool_in_use_shows(manager):
    async with database_of(manager).connection():
        assert (await samples(manager))["pool_connections", "lent"] == 1
