"""Import categories in any order: children wait until their parents are imported.

Run it with `python -m examples.categories_example [postgresql://…]`.
"""

import sys
from typing import Any

import uvloop

from reliable_imports_async import BaseProcessor, BatchManager, ImportBatchItem, ImportContext

CATEGORIES = [
    {"name": "boots", "parent": "shoes"},
    {"name": "spades", "parent": "garden"},  # "garden" does not exist
    {"name": "shoes", "parent": "clothes"},
    {"name": "clothes", "parent": None},
    {"name": "shirts", "parent": "clothes"},
]


class CategoryProcessor(BaseProcessor[dict[str, Any]]):  # -> batch type "category"
    defer_on = "foreign_key"

    async def on_batch_start(self, ctx: ImportContext) -> None:
        await ctx.execute(
            "CREATE TABLE IF NOT EXISTS categories"
            " (name text PRIMARY KEY, parent text REFERENCES categories)"
        )

    async def process_item(self, item: ImportBatchItem[dict[str, Any]], ctx: ImportContext) -> None:
        await ctx.upsert("categories", item.data, key="name")


async def main(url: str | None = None) -> None:
    """Import the categories and print the parents that are missing."""
    async with BatchManager(url) if url else BatchManager.embedded("examples") as manager:
        manager.registry.register(CategoryProcessor)
        batch_id = await manager.create_batch("category", CATEGORIES)
        summary = await manager.process_batch(batch_id)

        print(f"{summary.completed_items} of {summary.total_items} categories imported")
        for group in await manager.failure_groups(batch_id):
            for value, count in group.values:
                print(f"{count} failed, missing {value}")


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:2]))
