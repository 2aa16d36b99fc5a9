"""The application whose database the dumps hold: tables, processors, an endpoint; and a look at it."""

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

from pydantic import BaseModel

from reliable_imports_async import BaseEndpoint, BaseProcessor, BatchManager, Defer, Retry

TABLES = """
CREATE TABLE orders (number integer PRIMARY KEY, customer text NOT NULL, total numeric CHECK (total >= 0));
CREATE TABLE categories (name text PRIMARY KEY, parent text REFERENCES categories);
CREATE TABLE warehouses (name text PRIMARY KEY);
CREATE TABLE stock (sku text PRIMARY KEY, warehouse text NOT NULL REFERENCES warehouses);
CREATE TABLE invoices (number integer PRIMARY KEY, amount integer NOT NULL);
INSERT INTO warehouses VALUES ('north');
"""
LEDGER = "CREATE TABLE ledger (account text)"
TRANSLATIONS = "CREATE TABLE translations (category text PRIMARY KEY)"
SUMMARY = (
    "batch_type", "status", "parent_batch_id", "root_batch_id", "total_items", "completed_items",
    "skipped_items", "failed_items", "outstanding_items", "deferred_items", "created_at", "started_at",
    "finished_at", "pause_reason", "error", "source_name", "source_encoding", "notes", "created_by",
)  # fmt: skip
ITEM = (
    "item_number", "status", "attempts", "source_data", "raw_base64", "source_line", "item_key",
    "root_item_number", "due_at", "target_table", "target_id", "processed_data", "skip_reason", "failure",
    "reprocessed_by", "finished_at", "idempotency_key",
)  # fmt: skip
LOG = ("item_number", "level", "message", "details", "logged_at")


class Order(BaseModel):
    number: int
    customer: str
    total: Decimal


class OrderProcessor(BaseProcessor[Order]):
    on_duplicate = "skip"
    skip_unchanged = True

    def item_key(self, record):
        return record["number"]

    async def process_item(self, item, ctx):
        if item.attempt == 1 and item.data.customer in ("Soon", "Later"):
            raise Retry("no such customer yet", after=0.1 if item.data.customer == "Soon" else 60)
        await ctx.upsert("orders", item.data.model_dump(), key="number")
        ctx.info("order written", total=str(item.data.total))
        return {
            "target_table": "orders",
            "target_id": item.data.number,
            "processed_data": {"vat": str(item.data.total / 5)},
        }


class CategoryProcessor(BaseProcessor):
    concurrency = 1

    async def process_item(self, item, ctx):
        name, parent = item.source_data["name"], item.source_data["parent"]
        if parent and not await ctx.fetchval("SELECT true FROM categories WHERE name = $1", parent):
            raise Defer(f"the category {parent} is missing")
        await ctx.execute("INSERT INTO categories VALUES ($1, $2)", name, parent)
        if item.source_data.get("translated"):
            await ctx.execute("INSERT INTO translations VALUES ($1)", name)


class StockProcessor(BaseProcessor):
    concurrency = 1

    async def process_item(self, item, ctx):
        sku, warehouse = item.source_data["sku"], item.source_data["warehouse"]
        await ctx.execute("INSERT INTO stock VALUES ($1, $2)", sku, warehouse)


class InvoiceProcessor(BaseProcessor):
    only_one = True

    async def process_item(self, item, ctx):
        values = {"number": item.source_data["number"], "amount": item.source_data["amount"]}
        await ctx.upsert("invoices", values, key="number")

    async def check(self, ctx):
        numbers = ctx.metadata["numbers"]
        amount = await ctx.fetchval(
            "SELECT sum(amount) FROM invoices WHERE number = ANY ($1)", numbers
        )
        if amount != ctx.metadata["sum"]:
            raise ValueError(f"the invoices come to {amount}, not {ctx.metadata['sum']}")

    async def on_batch_complete(self, summary, ctx):
        if "account" in ctx.metadata:
            await ctx.execute("INSERT INTO ledger VALUES ($1)", ctx.metadata["account"])

    async def after_batch_complete(self, summary, ctx):
        ctx.info("the accountant was told")


class InvoiceEndpoint(BaseEndpoint):
    async def after_create_batch(self, batch_id, data, ctx):
        ctx.info("the accountant may begin")

    async def after_batch_complete(self, batch_id, summary, ctx):
        ctx.info("the website was told")


PROCESSORS = (OrderProcessor, CategoryProcessor, StockProcessor, InvoiceProcessor)


def stock(start: int, count: int, warehouse: str = "north") -> list[dict[str, str]]:
    """Records for `StockProcessor`."""
    return [{"sku": f"S{n}", "warehouse": warehouse} for n in range(start, start + count)]


def invoices(start: int, *amounts: int) -> list[dict[str, int]]:
    """Records for `InvoiceProcessor`."""
    return [{"number": n, "amount": amount} for n, amount in enumerate(amounts, start)]


def register(manager: BatchManager) -> None:
    """Everything the shop imports."""
    for processor in PROCESSORS:
        manager.registry.register(processor)
    manager.registry.register_endpoint(InvoiceEndpoint)


async def look(manager: BatchManager) -> dict[str, Any]:
    """All that is said about each batch; what is None is left out."""
    return {
        str(batch.id): await _look_at(manager, batch.id) async for batch in manager.list_batches()
    }


async def _look_at(manager: BatchManager, batch_id: Any) -> dict[str, Any]:
    summary = (await manager.get_batch_summary(batch_id)).as_dict()
    items = [_picked(one, ITEM) async for one in _dicts(manager.list_items(batch_id))]
    numbers = [one["item_number"] for one in items]
    history = {n: await manager.item_history(batch_id, n) for n in numbers}
    return {
        "summary": _picked(summary, SUMMARY),
        "groups": {one["message"]: one["count"] for one in summary["groups"]},
        "items": items,
        "edits": {
            str(n): [one.as_dict() for one in edits] for n, edits in history.items() if edits
        },
        "logs": [_picked(one, LOG) async for one in _dicts(manager.get_logs(batch_id))],
    }


async def _dicts(found: AsyncIterator[Any]) -> AsyncIterator[dict[str, Any]]:
    async for one in found:
        yield one.as_dict()


def _picked(given: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: given[name] for name in names if given[name] is not None}
