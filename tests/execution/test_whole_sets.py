"""A set that runs as a whole leaves what its items would have left, one by one."""

import random
from decimal import Decimal
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from reliable_imports_async import BaseProcessor, Retry, Skip

from .reach import settled_by_chunks

ROWS = 300


class Stock(BaseModel):
    sku: str
    pieces: Annotated[int, Field(ge=0)]
    price: Decimal | None = None


class StockProcessor(BaseProcessor[Stock]):
    table = "stock"
    key = "sku"
    commit_interval = 60
    null_values = "-"


class OwnProcessor(StockProcessor):
    batch_type = "stock"
    table = ""

    async def process_items(self, items, ctx):
        rows: dict[str, Stock] = {item.data.sku: item.data for item in items}
        await ctx.execute(
            "INSERT INTO stock SELECT * FROM unnest($1::text[], $2::integer[], $3::numeric[])"
            " ON CONFLICT (sku) DO UPDATE SET (pieces, price) = (excluded.pieces, excluded.price)",
            list(rows),
            [row.pieces for row in rows.values()],
            [row.price for row in rows.values()],
        )
        ctx.info("written", records=len(items))
        return [
            Skip("nothing in stock")
            if item.data.pieces == 0
            else {"target_table": "stock", "target_id": item.data.sku}
            for item in items
        ]


@pytest.fixture(autouse=True)
async def stock(conn):
    await conn.execute(
        "CREATE TABLE stock (sku text PRIMARY KEY, pieces integer CHECK (pieces <> 13),"
        " price numeric)"
    )


def made(seed: int, model_errors: float, database_errors: float) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    rows = []
    for _ in range(ROWS):
        pieces: Any = chance.randrange(0, 12)
        if chance.random() < model_errors:
            pieces = chance.choice([-1, "many", None])
        elif chance.random() < database_errors:
            pieces = 13
        price = chance.choice(["-", "1.10", "0.30"])
        rows.append({"sku": f"s{chance.randrange(80)}", "pieces": pieces, "price": price})
    return rows


def expected(rows: list[dict[str, Any]]) -> dict[str, tuple[int, Decimal | None]]:
    """What a loop over the rows leaves."""
    left: dict[str, tuple[int, Decimal | None]] = {}
    for row in rows:
        if isinstance(row["pieces"], int) and row["pieces"] not in (-1, 13):
            left[row["sku"]] = (
                row["pieces"],
                None if row["price"] == "-" else Decimal(row["price"]),
            )
    return left


ERRORS = {"none": (0, 0), "of the model": (0.05, 0), "of the database": (0, 0.03), "of both": (0.05, 0.02)}  # fmt: skip


@pytest.mark.parametrize("errors", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("cls", [StockProcessor, OwnProcessor])
async def test_a_set_leaves_what_its_items_would(manager, conn, cls, errors):
    rows = made(len(cls.__name__), *errors)
    good = [number for number, row in enumerate(rows, 1) if row["pieces"] in range(13)]
    manager.registry.register(cls)
    summary = await manager.process_batch(await manager.create_batch("stock", rows))

    left = await conn.fetch("SELECT * FROM stock")
    assert {row["sku"]: (row["pieces"], row["price"]) for row in left} == expected(rows)
    assert summary.failed_items == ROWS - len(good)
    stored = await conn.fetch(
        "SELECT item_number, status, attempts, target_table, target_id"
        " FROM reliable_imports.import_batch_items WHERE status <> 'failed' ORDER BY 1"
    )
    assert [row["item_number"] for row in stored] == good
    for number, status, attempts, table, target in stored:
        row = rows[number - 1]
        skipped = cls is OwnProcessor and row["pieces"] == 0
        assert (status, attempts) == ("skipped" if skipped else "completed", 1)
        assert (table, target) == ((None, None) if skipped else ("stock", row["sku"]))
    skips = sum(row["status"] == "skipped" for row in stored)
    assert (summary.skipped_items, summary.completed_items) == (skips, len(good) - skips)


async def test_clean_sets_run_as_a_whole(manager, monkeypatch):
    chunks = settled_by_chunks(monkeypatch)
    manager.registry.register(OwnProcessor)
    batch_id = await manager.create_batch("stock", made(1, 0, 0))
    summary = await manager.process_batch(batch_id)

    assert summary.ok
    assert chunks == []
    lines = [line.message async for line in manager.get_logs(batch_id)]
    assert "written" in lines, "log lines of sets are kept"


async def test_a_record_that_waits_holds_back_its_key(manager):
    """The set is undone, and later records of the key that waits stay behind it."""
    written: list[tuple[str, int]] = []
    waited = False

    class Waiting(StockProcessor):
        batch_type = "stock"
        table = ""

        async def process_items(self, items, ctx):
            nonlocal waited
            if any(item.item_number == 5 for item in items) and not waited:
                if len(items) == 1:
                    waited = True
                raise Retry("later", after=0.01)
            await ctx.execute("SELECT 1")
            written.extend((item.data.sku, item.item_number) for item in items)

    manager.registry.register(Waiting)
    rows = [{"sku": f"s{n % 40}", "pieces": n} for n in range(1, 121)]
    summary = await manager.process_batch(await manager.create_batch("stock", rows))

    assert summary.completed_items == 120
    for key in {row["sku"] for row in rows}:
        numbers = [number for sku, number in written if sku == key]
        assert list(dict.fromkeys(numbers)) == sorted({*numbers}), key
