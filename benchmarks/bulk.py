"""A CSV file into a table, end to end: `make bench NAME=bulk`.

Customers of five columns, read by a model and upserted by their key. Next to this library: a COPY
into a temporary table with one INSERT … ON CONFLICT, which checks nothing; and a script of 15 lines
with csv.DictReader, the same model and `executemany`, which loses its place when it is stopped.
"""

import csv
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from datetime import date
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import asyncpg
import uvloop
from pydantic import BaseModel, ValidationError
from rich.table import Table

from reliable_imports_async import BaseProcessor, BatchManager, read_file

from .ground import Ground, ground
from .modes import CONNECTIONS
from .report import Measured, ratio, save, terminal, verdict, versions
from .spent import Spent

COLUMNS = ("email", "name", "city", "since", "balance")
SCHEMA = """
CREATE TABLE customers (
    email text PRIMARY KEY, name text NOT NULL, city text NOT NULL, since date NOT NULL,
    balance numeric(12, 2) NOT NULL)
"""
UPSERT = """
INSERT INTO customers VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (email) DO UPDATE SET (name, city, since, balance)
     = (excluded.name, excluded.city, excluded.since, excluded.balance)
"""
TOGETHER = 1_000
SCRIPT, COPY = "script", "bare COPY"
BARS = {SCRIPT: 1.0, COPY: 0.25}


class Customer(BaseModel):
    """One line of the file."""

    email: str
    name: str
    city: str
    since: date
    balance: Decimal


class DeclaredProcessor(BaseProcessor[Customer]):
    """Writes what the model has read."""

    batch_type = "declared"
    table = "customers"
    key = "email"
    pause_after = None


class OwnProcessor(BaseProcessor[Customer]):
    """The same by its own statement, for a set of records."""

    batch_type = "own"
    key = "email"
    pause_after = None

    async def process_items(self, items: Any, ctx: Any) -> None:
        """Upsert the records."""
        rows = [tuple(item.data.__dict__.values()) for item in items]
        await ctx.connection.executemany(UPSERT, rows)


def write_file(path: Path, count: int, bad: float) -> int:
    """A file of so many customers; returns how many of them the model refuses."""
    every = round(1 / bad) if bad else 0
    refused = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for number in range(count):
            wrong = bool(every) and number % every == every // 2
            refused += wrong
            balance = "many" if wrong else f"{number % 9_000}.25"
            day = f"2024-{number % 12 + 1:02}-{number % 28 + 1:02}"
            email = f"c{number}@example.org"
            writer.writerow((email, f"Customer {number}", f"City {number % 500}", day, balance))
    return refused


async def copy(place: Ground, path: Path) -> Spent:
    """COPY and one INSERT; a bad row would stop it, so it gets a clean file."""
    conn = await asyncpg.connect(place.dsn)
    with place.spending() as spent:
        async with conn.transaction():
            await conn.execute("CREATE TEMP TABLE raw (LIKE customers) ON COMMIT DROP")
            await conn.copy_to_table("raw", source=path, format="csv", header=True)
            await conn.execute(
                "INSERT INTO customers SELECT * FROM raw ON CONFLICT (email) DO UPDATE SET"
                " (name, city, since, balance)"
                " = (excluded.name, excluded.city, excluded.since, excluded.balance)"
            )
    await conn.close()
    return spent


async def script(place: Ground, path: Path) -> Spent:
    """What a developer would write first."""
    conn = await asyncpg.connect(place.dsn)
    with place.spending() as spent, path.open(encoding="utf-8", newline="") as file:
        rows = _read(csv.DictReader(file))
        while chunk := list(islice(rows, TOGETHER)):
            await conn.executemany(UPSERT, chunk)
    await conn.close()
    return spent


def _read(records: Iterator[dict[str, str]]) -> Iterator[tuple[Any, ...]]:
    for record in records:
        try:
            customer = Customer.model_validate(record)
        except ValidationError:
            continue
        yield tuple(customer.__dict__.values())


def ours(batch_type: str) -> Callable[[Ground, Path], Awaitable[Spent]]:
    """Create a batch of the file, and process it."""

    async def run(place: Ground, path: Path) -> Spent:
        async with BatchManager(place.dsn, concurrency=CONNECTIONS) as manager:
            for cls in (DeclaredProcessor, OwnProcessor):
                manager.registry.register(cls)
            with place.spending() as spent:
                batch_id = await manager.create_batch(batch_type, read_file(path))
                await manager.process_batch(batch_id)
            return spent

    return run


CONTENDERS = {
    COPY: copy,
    SCRIPT: script,
    "declared": ours("declared"),
    "process_items": ours("own"),
}


def main(rounds: int = 3, items: int = 300_000) -> None:
    """Measure.

    Args:
        rounds: Interleaved rounds; the median of the ratios is shown.
        items: Lines of the file.
    """
    found = uvloop.run(_measure(rounds, items))
    console = terminal()
    raw: dict[str, Any] = {}
    for title, of in found.items():
        table = Table("", "rows/s", "client µs", "server µs", *(f"of {name}" for name in BARS))
        table.title = f"{items:,} rows, {title}"
        for name, measured in of.items():
            table.add_row(name, *_cells(name, measured, of))
            raw[f"{title}: {name}"] = [vars_of(one) for one in measured]
        console.print(table)
    about = {"versions": versions("embedded"), "items": items}
    console.print(f"{save('bulk', about | {'rounds': raw})}")


def vars_of(measured: Measured) -> dict[str, float]:
    """A round as it is saved."""
    spent = measured.spent
    return {"seconds": spent.seconds, "client": spent.client, "server": spent.server}


def _cells(name: str, measured: list[Measured], of: dict[str, list[Measured]]) -> Iterator[str]:
    middle = sorted(measured, key=lambda one: one.spent.seconds)[len(measured) // 2]
    yield f"{middle.items / middle.spent.seconds:,.0f}"
    yield f"{middle.spent.client / middle.items * 1e6:.1f}"
    yield f"{middle.spent.server / middle.items * 1e6:.1f}"
    seconds = [1 / one.spent.seconds for one in measured]
    for reference, bar in BARS.items():
        compared = ratio(seconds, [1 / one.spent.seconds for one in of[reference]])
        judged = f" {verdict(compared.median, bar)}" if name not in BARS else ""
        yield f"{compared}{judged}"


async def _measure(rounds: int, items: int) -> dict[str, dict[str, list[Measured]]]:
    found: dict[str, dict[str, list[Measured]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        async with ground() as place:
            for title, bad in {"clean": 0.0, "1 % bad": 0.01}.items():
                path, clean = Path(folder, "customers.csv"), Path(folder, "clean.csv")
                good = items - write_file(path, items, bad)
                write_file(clean, items, 0.0)
                of = found[title] = {name: [] for name in CONTENDERS}
                for number in range(rounds):
                    names = list(CONTENDERS)
                    shift = number % len(names)
                    for name in names[shift:] + names[:shift]:
                        await place.renew(SCHEMA)
                        given, written = (clean, items) if name == COPY else (path, good)
                        spent = await CONTENDERS[name](place, given)
                        await _check(place, written)
                        of[name].append(Measured(items, spent))
    return found


async def _check(place: Ground, written: int) -> None:
    """Only who has written all rows takes part."""
    conn = await asyncpg.connect(place.dsn)
    rows = await conn.fetchval("SELECT count(*) FROM customers")
    await conn.close()
    if rows != written:
        raise SystemExit(f"{rows:,} rows in the table instead of {written:,}")
