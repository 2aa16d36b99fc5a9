"""Import customers from a list of dicts, show the failures, correct and reprocess them.

Run it with `python -m examples.customer_import_example [postgresql://…]`.
"""
# mypy: allow-untyped-defs

import sys
from typing import Any

import uvloop

from reliable_imports_async import BaseProcessor, BatchManager

CUSTOMERS = [
    {"email": "ada@example.org", "name": "Ada"},
    {"email": "grace@example.org", "name": "Grace"},
    {"email": "alan at example.org", "name": "Alan"},
    {"email": "edsger@example.org", "name": "Edsger"},
    {"email": None, "name": "Nobody"},
]


class CustomerDataProcessor(BaseProcessor):  # -> batch type "customer_data"
    async def on_batch_start(self, ctx):
        await ctx.execute(
            "CREATE TABLE IF NOT EXISTS customers"
            " (id bigserial PRIMARY KEY, email text NOT NULL UNIQUE, name text NOT NULL)"
        )

    async def validate_item(self, item, ctx):
        return "@" in (item.source_data.get("email") or "")

    async def process_item(self, item, ctx):
        email, name = item.source_data["email"], item.source_data["name"]
        existing = await ctx.execute_one("SELECT id FROM customers WHERE email = $1", email)
        if existing:
            customer_id = existing["id"]
            await ctx.execute("UPDATE customers SET name = $2 WHERE id = $1", customer_id, name)
        else:
            customer_id = await ctx.fetchval(
                "INSERT INTO customers (email, name) VALUES ($1, $2) RETURNING id", email, name
            )
        return {
            "target_table": "customers",
            "target_id": customer_id,
            "processed_data": {"created": existing is None},
        }


def with_at_sign(record: dict[str, Any]) -> dict[str, Any]:
    """Correct e-mail addresses that were written with " at " instead of "@"."""
    return record | {"email": (record["email"] or "").replace(" at ", "@")}


async def main(url: str | None = None) -> None:
    """Import the customers and reprocess the failed records."""
    # Without a URL, the library starts its own PostgreSQL. Other ways are
    # BatchManager("postgresql://…"), BatchManager(pool=pool), and BatchManager() from settings.
    async with BatchManager(url) if url else BatchManager.embedded("examples") as manager:
        manager.registry.discover(__name__)  # in your application: "myapp.processors"

        batch_id = await manager.create_batch(batch_type="customer_data", items=CUSTOMERS)
        summary = await manager.process_batch(batch_id)
        print(f"{summary.completed_items} completed, {summary.failed_items} failed")
        for group in await manager.failure_groups(batch_id):
            print(group.count, "failed:", group.message, "- items", *group.sample_items)

        if summary.failed_items:
            again = await manager.reprocess_batch(
                batch_id, failed_items_only=True, transform=with_at_sign
            )
            print(f"reprocessed: {again.completed_items} completed, {again.failed_items} failed")


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:2]))
