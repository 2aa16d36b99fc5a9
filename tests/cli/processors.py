"""Processors that the command finds: `--processors tests.cli.processors`."""

from pydantic import BaseModel

from reliable_imports_async import BaseProcessor, Skip

HOSTILE = "\x1b]0;owned\x07\x9b31m [bold red]x[/] \u202e"


class Order(BaseModel):
    sku: str
    count: int = 1


class OrdersProcessor(BaseProcessor[Order]):
    async def process_item(self, item, ctx):
        if item.data.sku == "skip":
            return Skip(f"nothing to do {HOSTILE}")
        number = await ctx.fetchval(
            "INSERT INTO orders (sku) VALUES ($1) RETURNING id", item.data.sku
        )
        return {"target_table": "orders", "target_id": number}


class HostileProcessor(BaseProcessor):
    async def process_item(self, item, ctx):
        ctx.warning(f"log {HOSTILE}", detail=HOSTILE)
        raise RuntimeError(f"failure {HOSTILE}")
