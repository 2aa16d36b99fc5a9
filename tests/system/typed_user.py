"""A user's file, as a type checker sees it: test_typing.py runs mypy --strict over it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, TypedDict, assert_type
from uuid import UUID

import asyncpg
from pydantic import BaseModel

from reliable_imports_async import (
    BaseProcessor,
    BatchManager,
    BatchStatus,
    BatchSummary,
    FailureGroup,
    FailureKind,
    ImportBatch,
    ImportBatchItem,
    ImportContext,
    ItemStatus,
    LogEntry,
    Retry,
    Settings,
    Skip,
    read_file,
)


class Customer(BaseModel):
    email: str
    born: date | None = None


@dataclass
class Product:
    sku: str
    price: int


class Order(TypedDict):
    number: int
    lines: list[str]


class CustomerProcessor(BaseProcessor[Customer]):
    """A pydantic model, a plain validate_item, a dict as the result, and every hook."""

    batch_type = "customer"
    item_timeout = 5.0
    concurrency = 2
    pause_after = None
    retry_on = (TimeoutError,)

    async def on_batch_start(self, ctx: ImportContext) -> None:
        assert_type(ctx.batch, ImportBatch)
        ctx.set_metadata(started=True)

    @asynccontextmanager
    async def resources(self, ctx: ImportContext) -> AsyncIterator[list[str]]:
        yield []

    def validate_item(self, item: ImportBatchItem[Customer], ctx: ImportContext) -> bool:
        assert_type(item.data, Customer)
        return "@" in item.data.email

    async def prepare_item(self, item: ImportBatchItem[Customer], ctx: ImportContext) -> str:
        if item.attempt == 1:
            raise Retry("come back later", after=1.5)
        return item.idempotency_key

    async def process_item(
        self, item: ImportBatchItem[Customer], ctx: ImportContext
    ) -> dict[str, Any]:
        assert_type(item.data.born, date | None)
        assert_type(item.source_data, dict[str, Any])
        async with ctx.savepoint():
            row = await ctx.upsert("customers", {"email": item.data.email}, key="email")
        assert_type(row, asyncpg.Record)
        assert_type(await ctx.execute("SELECT 1"), str)
        assert_type(await ctx.fetchrow("SELECT 1"), asyncpg.Record | None)
        ctx.info("written", id=row["id"])
        return {"target_table": "customers", "target_id": row["id"]}

    async def on_batch_complete(self, summary: BatchSummary, ctx: ImportContext) -> None:
        assert_type(summary.status, BatchStatus)

    async def after_batch_complete(self, summary: BatchSummary, ctx: ImportContext) -> None:
        assert_type(summary.success_rate, float)


class ProductProcessor(BaseProcessor[Product]):
    """A dataclass, an async validate_item, and Skip or nothing as the result."""

    async def validate_item(self, item: ImportBatchItem[Product], ctx: ImportContext) -> bool:
        return bool(await ctx.fetchval("SELECT $1 > 0", item.data.price))

    async def process_item(self, item: ImportBatchItem[Product], ctx: ImportContext) -> Skip | None:
        assert_type(item.data, Product)
        assert_type(item.data.price, int)
        return Skip("free of charge") if item.data.price == 0 else None


class OrderProcessor(BaseProcessor[Order]):
    """A TypedDict, and any mapping as the result."""

    async def process_item(
        self, item: ImportBatchItem[Order], ctx: ImportContext
    ) -> Mapping[str, object]:
        assert_type(item.data["lines"], list[str])
        return {"processed_data": item.data}


class PlainProcessor(BaseProcessor):
    """No model: the data are the record."""

    async def process_item(self, item: ImportBatchItem, ctx: ImportContext) -> None:
        assert_type(item.data, dict[str, Any])


async def use(pool: "asyncpg.Pool[asyncpg.Record]", path: Path) -> UUID:
    """The manager, from outside."""
    async with BatchManager(pool=pool, settings=Settings(concurrency=2)) as manager:
        assert_type(manager.registry.register(CustomerProcessor), str)
        manager.registry.register(ProductProcessor())
        manager.registry.discover("my.processors")
        batch_id = await manager.create_batch("product", [Product("a", 1)], created_by="ann")
        assert_type(batch_id, UUID)
        summary = await manager.process_batch(batch_id)
        assert_type(summary, BatchSummary)
        assert_type(summary.groups, tuple[FailureGroup, ...])
        assert_type(summary.duration, timedelta | None)
        assert_type(await manager.import_file(read_file(path), "customer"), BatchSummary)
        assert_type(await manager.reprocess_batch(batch_id, failed_items_only=True), BatchSummary)
        async for entry in manager.get_logs(batch_id):
            assert_type(entry, LogEntry)
        item = await manager.get_item(batch_id, 1)
        assert_type(item.status, ItemStatus)
        if item.failure is not None:
            assert_type(item.failure.kind, FailureKind)
        await manager.cancel_batch(batch_id, reason="enough")
        assert_type(await manager.purge(older_than=timedelta(days=30)), int)
        return batch_id
