"""The main job: create, process, see why items failed, reprocess just those."""

from reliable_imports_async import BaseProcessor, BatchManager, BatchStatus


class CustomerDataProcessor(BaseProcessor):
    async def validate_item(self, item, ctx):
        return "@" in (item.source_data.get("email") or "")

    async def process_item(self, item, ctx):
        number = await ctx.fetchval(
            "INSERT INTO customers (email) VALUES ($1) RETURNING id", item.source_data["email"]
        )
        return {"target_table": "customers", "target_id": number}


async def test_a_batch_is_created_processed_and_reprocessed(manager: BatchManager, conn) -> None:
    await conn.execute("CREATE TABLE customers (id bigserial PRIMARY KEY, email text UNIQUE)")
    manager.registry.register(CustomerDataProcessor)
    records = [{"email": f"a{number}@example.org"} for number in range(1, 101)]
    records[4] = {"email": "nobody"}
    records[5] = records[0]

    batch_id = await manager.create_batch("customer_data", records)
    summary = await manager.process_batch(batch_id)

    assert summary.status is BatchStatus.PARTIAL
    assert (summary.completed_items, summary.failed_items, summary.total_items) == (98, 2, 100)
    assert await conn.fetchval("SELECT count(*) FROM customers") == 98
    kinds = {group.kind: group for group in await manager.failure_groups(batch_id)}
    assert kinds["validation"].sample_items == (5,)
    assert kinds["data"].values == (("email=a1@example.org", 1),)

    await conn.execute("DELETE FROM customers WHERE email = 'a1@example.org'")
    again = await manager.reprocess_batch(batch_id, failed_items_only=True)
    assert (again.total_items, again.completed_items, again.failed_items) == (2, 1, 1)
    first = await manager.get_batch_summary(batch_id)
    assert first.outstanding_items == 1
