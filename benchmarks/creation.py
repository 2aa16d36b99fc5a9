"""Creating a batch next to a bare COPY of the very same rows: `make bench NAME=creation`.

The bare COPY is asyncpg's `copy_records_to_table` into the table of items, of rows that lie ready:
the JSON text is made, the file is read, nothing is hashed, no range is written. What it leaves in
the table is what creating the batch leaves there. So a ratio of 1 would be creation for nothing.
"""

import csv
import gzip
import io
import json
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import asyncpg
import uvloop
from pydantic import BaseModel

from reliable_imports_async import BatchManager, read_file

from .ground import Ground, ground
from .modes import WorkloadProcessor
from .report import Measured, Report, chosen, save, terminal, versions
from .spent import Spent
from .workloads import JANUARY, YEAR, flights

BAR = 0.8
REFERENCE = "bare COPY"
COLUMNS = ("batch_id", "item_number", "status", "source_data", "source_line")
SAME = """
SELECT count(*) FROM reliable_imports.import_batch_items o
 WHERE o.batch_id = $1 AND o.status = 'pending' AND EXISTS (
       SELECT FROM reliable_imports.import_batch_items b
        WHERE b.batch_id = $2 AND b.item_number = o.item_number
          AND b.source_data = o.source_data AND b.source_line IS NOT DISTINCT FROM o.source_line)
"""

Rows: TypeAlias = list[tuple[int, str, int | None]]
"""Item number, JSON text, line of the file."""


class Flight(BaseModel):
    """A flight as a model that was read already."""

    time_hour: str
    carrier: str
    flight: int
    origin: str
    dest: str
    tailnum: str | None
    distance: float


async def bare_copy(ground: Ground, rows: Rows) -> tuple[UUID, Spent]:
    """The rows, ready, in one transaction."""
    batch_id = uuid4()
    records = [(batch_id, number, "pending", text, line) for number, text, line in rows]
    conn = await asyncpg.connect(ground.dsn)
    with ground.spending() as spent:
        async with conn.transaction():
            await conn.copy_records_to_table(
                "import_batch_items",
                schema_name="reliable_imports",
                columns=COLUMNS,
                records=records,
            )
    await conn.close()
    return batch_id, spent


async def create(ground: Ground, source: Any) -> tuple[UUID, Spent]:
    """A batch of the same records."""
    async with BatchManager(ground.dsn) as manager:
        manager.registry.register(WorkloadProcessor(flights(1)))
        await manager.create_batch("workload", [{}])  # connects, as the other has done
        with ground.spending() as spent:
            batch_id = await manager.create_batch("workload", source)
    return batch_id, spent


Make: TypeAlias = Callable[[], Any]
Contenders: TypeAlias = dict[str, Callable[[Ground], Awaitable[tuple[UUID, Spent]]]]


def _compared(rows: Rows, make: Make) -> Contenders:
    return {
        REFERENCE: lambda ground: bare_copy(ground, rows),
        "create_batch": lambda ground: create(ground, make()),
    }


def _rows(texts: Sequence[str], *, lines: bool = False) -> Rows:
    return [(n, text, n + 1 if lines else None) for n, text in enumerate(texts, 1)]


def workloads(records: list[dict[str, str]], folder: Path) -> dict[str, Contenders]:
    """Each way in that creation knows, over the same flights."""
    texts = [json.dumps(record, separators=(",", ":")) for record in records]
    file, packed = folder / "flights.csv", folder / "flights.csv.gz"
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
    packed.write_bytes(gzip.compress(file.read_bytes(), 6))
    lines = folder / "flights.jsonl"
    lines.write_text("\n".join(texts) + "\n", encoding="utf-8")
    models = [Flight.model_validate(record) for record in records]
    of_models = [model.model_dump_json() for model in models]
    return {
        "dicts": _compared(_rows(texts), lambda: records),
        "generator": _compared(_rows(texts), lambda: iter(records)),
        "CSV file": _compared(_rows(texts, lines=True), lambda: read_file(file)),
        "CSV file, gzipped": _compared(_rows(texts, lines=True), lambda: read_file(packed)),
        "JSON Lines": _compared(
            [(n, text, n) for n, text in enumerate(texts, 1)], lambda: read_file(lines)
        ),
        "models": _compared(_rows(of_models), lambda: models),
    }


def main(rounds: int = 5, items: int = 100_000, only: str = "") -> None:
    """Measure.

    Args:
        rounds: Interleaved rounds; the median is shown.
        items: Rows.
        only: Names of ways in, separated by semicolons, or nothing for all.
    """
    report, console = Report(REFERENCE), terminal()
    version = "unknown"
    try:
        version = uvloop.run(_measure(rounds, items, only, report))
    finally:  # whatever stops it, what was measured is shown
        report.show(console, rounds)
        about = {"versions": versions(version), "items": items, "bar": BAR}
        console.print(f"The bar is {BAR}. {save('creation', about | report.as_json())}")


async def _measure(rounds: int, items: int, only: str, report: Report) -> str:
    records = _flights(items)
    with tempfile.TemporaryDirectory() as folder:
        ways = workloads(records, Path(folder))
        taken = {name: ways[name] for name in chosen(ways, only)}
        async with ground() as place:
            for number in range(rounds):
                for workload, contenders in taken.items():
                    await _round(place, number, workload, contenders, items, report)
            return place.version


async def _round(
    place: Ground, number: int, workload: str, contenders: Contenders, items: int, report: Report
) -> None:
    """Each on a database of its own: nobody meets pages that another one has written."""
    for name in list(contenders)[:: 1 if number % 2 else -1]:
        await place.renew()
        _, spent = await contenders[name](place)
        report.add(workload, name, number, Measured(items, spent))
    if number == 0:
        await _require_same(place, contenders, items)


async def _require_same(place: Ground, contenders: Contenders, items: int) -> None:
    """Once more, both into one database, to compare row by row."""
    await place.renew()
    (bare, _), (ours, _) = [await one(place) for one in contenders.values()]
    conn = await asyncpg.connect(place.dsn)
    same = await conn.fetchval(SAME, ours, bare)
    await conn.close()
    if same != items:
        raise RuntimeError(f"only {same} of {items} rows are the same")


def _flights(items: int) -> list[dict[str, str]]:
    """Consecutive flights, over again where there are too few."""
    with gzip.open(YEAR if YEAR.exists() else JANUARY, "rb") as file:
        rows = list(csv.DictReader(io.TextIOWrapper(file, encoding="utf-8", newline="")))
    return [rows[number % len(rows)] for number in range(items)]
