"""Compares the table of flights with the file, and reads the file without the library."""

import csv
import gzip
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import asyncpg


async def compare(connection: "asyncpg.Connection[Any]", file: Path) -> str:
    """Return a summary of the shared values, or raise SystemExit if table and file differ."""
    rows: Counter[str] = Counter()
    distance = 0
    for row in _read(file):
        rows["|".join(row.values())] += 1
        distance += int(row["distance"])
    flights = rows.total()

    async with connection.transaction():
        async for record in connection.cursor("SELECT * FROM flights_demo.flights", prefetch=2000):
            rows["|".join(map(_as_in_file, record.values()))] -= 1
    stored, total = await connection.fetchrow(  # type: ignore[misc]  # an aggregate has a row
        "SELECT count(*), coalesce(sum(distance), 0) FROM flights_demo.flights"
    )

    missing, unexpected = (+rows).total(), (-rows).total()
    if missing or unexpected or (stored, total) != (flights, distance):
        examples = ", ".join(list(+rows)[:3] or list(-rows)[:3])
        raise SystemExit(
            f"The table differs from {file.name}: {stored:,} flights instead of {flights:,}, "
            f"sum of distance {total:,} instead of {distance:,}; {missing:,} rows of the file are "
            f"missing and {unexpected:,} rows of the table are not in it, such as {examples}."
        )
    return f"{flights:,} flights, all values as in {file.name}; sum of distance {distance:,}"


def _read(file: Path) -> Iterator[dict[str, str]]:
    with _opened(file) as text:
        yield from csv.DictReader(text)


def _opened(file: Path) -> TextIO:
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8", newline="")
    return file.open(encoding="utf-8", newline="")


def _as_in_file(value: object) -> str:
    match value:
        case None:
            return "NA"
        case datetime():
            return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return str(value)
