"""Import products from a CSV file into a table, typed by a pydantic model.

Run it with `python -m examples.products_csv_example [postgresql://…]`.
"""

import sys
from decimal import Decimal
from pathlib import Path

import uvloop
from pydantic import BaseModel

from reliable_imports_async import BaseProcessor, BatchManager, ImportBatchItem, ImportContext

FILE = Path(__file__).parent / "data" / "products.csv"


class Product(BaseModel):
    sku: str
    name: str
    price: Decimal
    stock: int | None


class ProductProcessor(BaseProcessor[Product]):  # -> batch type "product"
    null_values = ("",)  # the model reads these strings as None

    async def on_batch_start(self, ctx: ImportContext) -> None:
        await ctx.execute(
            "CREATE TABLE IF NOT EXISTS products"
            " (sku text PRIMARY KEY, name text NOT NULL, price numeric NOT NULL, stock integer)"
        )

    async def process_item(self, item: ImportBatchItem[Product], ctx: ImportContext) -> None:
        await ctx.upsert("products", item.data.model_dump(), key="sku")


async def main(url: str | None = None) -> None:
    """Import the file and print the result."""
    async with BatchManager(url) if url else BatchManager.embedded("examples") as manager:
        manager.registry.register(ProductProcessor)
        summary = await manager.import_file(FILE, "product", on_same_file="force")

        print(f"{summary.completed_items} of {summary.total_items} products imported")
        for group in await manager.failure_groups(summary.batch_id):
            print(group.count, "failed:", group.message, "- items", *group.sample_items)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:2]))
