"""A model, a table and a key are a processor."""

from datetime import date, datetime
from decimal import Decimal

import pytest
from pydantic import BaseModel

from reliable_imports_async import BaseProcessor, BatchStatus
from reliable_imports_async.errors import NotAProcessor
from reliable_imports_async.testing import run_item


class Product(BaseModel):
    sku: str
    name: str | None
    price: Decimal
    weight: float = 1.0
    tags: list[str] = []
    extra: dict[str, int] = {}
    since: date | None = None
    seen: datetime | None = None
    picture: bytes = b""


class ProductProcessor(BaseProcessor[Product]):
    null_values = ("NA",)
    table = "shop.products"
    key = ("sku",)


TABLE = """
CREATE SCHEMA shop;
CREATE TABLE shop.products (
    id serial, sku text PRIMARY KEY, name varchar(20), price numeric(10, 2) CHECK (price >= 0), weight float8,
    tags text[], extra jsonb, since date, seen timestamptz, picture bytea)
"""


def product(number: int, **changes) -> dict:
    return {"sku": f"s{number}", "name": f"Product {number}", "price": f"{number}.50"} | changes


async def load(manager, records):
    manager.registry.register(ProductProcessor)
    return await manager.process_batch(await manager.create_batch("product", records))


async def test_items_are_inserted_and_updated(manager, conn):
    await conn.execute(TABLE)
    assert (await load(manager, [product(n) for n in range(100)])).ok
    changed = product(
        7,
        name="NA",
        weight=float("inf"),
        tags=["a", "b,c"],
        extra={"x": 1},
        since="2026-01-02",
        seen="2026-01-02T03:04:05Z",
        picture="abc",
    )
    changed["weight"] = "Infinity"
    summary = await load(manager, [changed, product(100)])
    assert summary.ok
    assert await conn.fetchval("SELECT count(*) FROM shop.products") == 101
    row = await conn.fetchrow("SELECT * FROM shop.products WHERE sku = 's7'")
    assert (row["name"], row["price"], row["weight"]) == (None, Decimal("7.50"), float("inf"))
    assert (row["tags"], row["extra"], row["since"]) == (["a", "b,c"], '{"x": 1}', date(2026, 1, 2))
    assert (row["seen"].hour, row["picture"]) == (3, b"abc")
    item = await manager.get_item(summary.batch_id, 1)
    assert (item.target_table, item.target_id) == ("shop.products", "s7")


async def test_bad_items_fail_alone(manager, conn):
    await conn.execute(TABLE)
    records = [product(n) for n in range(60)]
    records[10] = product(10, price="-1")
    records[20] = product(20, name="x" * 21)
    records[30] = product(30, price="many")
    summary = await load(manager, records)
    assert sorted((group.kind, group.count) for group in summary.groups) == [
        ("data", 1),
        ("data", 1),
        ("validation", 1),
    ]
    assert await conn.fetchval("SELECT count(*) FROM shop.products") == 57


async def test_items_with_the_same_key_are_written_in_order(manager, conn):
    await conn.execute(TABLE)
    records = [product(n % 5, price=str(n)) for n in range(20)]
    records[17] = product(2, price="-1")  # the last but one of its key stays
    summary = await load(manager, records)
    assert (summary.completed_items, summary.failed_items) == (19, 1)
    rows = await conn.fetch("SELECT price FROM shop.products ORDER BY sku")
    assert [int(row["price"]) for row in rows] == [15, 16, 12, 18, 19]


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("CREATE SCHEMA shop", "The table shop.products does not exist"),
        (TABLE.replace("weight float8,", ""), "has no column weight"),
        (TABLE.replace(" PRIMARY KEY", ""), "has no unique constraint on (sku)"),
    ],
)
async def test_a_mismatch_pauses_the_batch_before_the_first_item(manager, conn, table, reason):
    await conn.execute(table)
    summary = await load(manager, [product(1)])
    assert summary.status is BatchStatus.PAUSED
    assert reason in summary.pause_reason
    assert summary.pending_items == 1
    await conn.execute(f"DROP SCHEMA shop CASCADE; {TABLE}")
    await manager.resume_batch(summary.batch_id)
    assert (await manager.process_batch(summary.batch_id)).ok


async def test_one_item_can_be_tried(conn):
    await conn.execute(TABLE)
    async with conn.transaction():
        await run_item(ProductProcessor, product(1), conn=conn)
        assert await conn.fetchval("SELECT price FROM shop.products") == Decimal("1.50")


def test_a_declaration_without_its_key_is_refused(manager):
    class NoModelProcessor(BaseProcessor):
        table = "t"
        key = ("a",)

    class NoKeyProcessor(BaseProcessor[Product]):
        table = "t"

    class WrongKeyProcessor(BaseProcessor[Product]):
        table = "t"
        key = ("nothing",)

    for cls in (NoModelProcessor, NoKeyProcessor, WrongKeyProcessor):
        with pytest.raises(NotAProcessor):
            manager.registry.register(cls)
