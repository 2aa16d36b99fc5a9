"""Repair 680 failed flights in four different ways: `python -m examples.flights.triage`.

It uses an embedded PostgreSQL, or RELIABLE_IMPORTS_DATABASE_URL, in a separate schema.
"""

import csv
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import uvloop

from reliable_imports_async import BatchManager, BatchSummary, ReliableImportsError, read_file
from reliable_imports_async.database.embedded import is_embedded_url

from .demo import DATA, EMBEDDED, JANUARY, SCHEMA, connect

MISSING = {"SJU": "MIA", "BQN": "MCO", "STT": "FLL", "PSE": "TPA"}  # replacements that exist
CHUNK = 200  # flights per transaction: faster, and each still has its own outcome
CHECKSUM = "SELECT count(*), coalesce(sum(hashtextextended(f::text, 0)), 0) FROM flights_demo.{} f"

Way = Callable[[BatchManager, UUID], Awaitable[BatchSummary]]


async def main(url: str = EMBEDDED) -> None:
    """Run all repairs on a database."""
    if not is_embedded_url(url):
        await BatchManager(url).migrate()
    async with BatchManager(url) as manager:
        manager.registry.discover("examples.flights.processors")
        connection = await connect(url)
        try:
            await connection.execute(SCHEMA.read_text(encoding="utf-8"))
            for batch_type in ("airline", "airport", "plane"):
                await import_file(manager, DATA / f"{batch_type}s.csv", batch_type)
            await try_first(manager, connection)
            for way in (add_the_airports, try_a_few_first, edit_the_values, correct_the_file):
                await repair(manager, connection, way)
        finally:
            await connection.close()


async def try_first(manager: BatchManager, connection: "asyncpg.Connection[Any]") -> None:
    """Preview an import with a dry run, which changes nothing."""
    before = await checksums(connection)
    batch_id = await manager.create_batch("flight", read_file(JANUARY), on_same_file="force")
    report = await manager.process_batch(batch_id, dry_run=True)
    print(f"dry run: {report.completed:,} would complete, {report.failed:,} would fail")
    for table in report.tables:
        print(f"  {table.table}: {table.inserted:,} inserted, {table.updated} updated")
    print(f"  tables unchanged: {await checksums(connection) == before}")
    await manager.cancel_batch(batch_id, reason="only a dry run")


async def repair(manager: BatchManager, connection: "asyncpg.Connection[Any]", way: Way) -> None:
    """Import January again, repair it, and check that all flights are imported."""
    await connection.execute("TRUNCATE flights_demo.flights")
    await connection.execute(
        "DELETE FROM flights_demo.airports WHERE faa = ANY ($1)", list(MISSING)
    )
    batch_id = await manager.create_batch("flight", read_file(JANUARY), on_same_file="force")
    first = await manager.process_batch(batch_id, commit_interval=CHUNK)
    await way(manager, batch_id)
    outstanding = (await manager.get_batch_summary(batch_id)).outstanding_items
    (stored,) = await connection.fetch(
        "SELECT count(*) AS flights, sum(distance) AS distance FROM flights_demo.flights"
    )
    print(
        f"{way.__name__}: {first.failed_items} failed, {outstanding} outstanding; "
        f"{stored['flights']:,} flights, sum of distance {stored['distance']:,}"
    )


async def add_the_airports(manager: BatchManager, batch_id: UUID) -> BatchSummary:
    """Remove the cause, then reprocess the failures."""
    await import_file(manager, DATA / "missing_airports.csv", "airport")
    return await manager.reprocess_batch(batch_id)


async def try_a_few_first(manager: BatchManager, batch_id: UUID) -> BatchSummary:
    """Reprocess one group, starting with twenty items; without a repair it stops after them."""
    (group,) = await manager.failure_groups(batch_id)
    stopped = await manager.reprocess_batch(batch_id, group=group.group, canary=20, min_success=0.9)
    print(f"  {stopped.stopped}")
    await import_file(manager, DATA / "missing_airports.csv", "airport")
    return await manager.reprocess_batch(batch_id, group=group.group, canary=20, min_success=0.9)


async def edit_the_values(manager: BatchManager, batch_id: UUID) -> BatchSummary:
    """Edit the stored records: one by hand, the rest with a function."""
    (group,) = await manager.failure_groups(batch_id)
    item = await manager.get_item(batch_id, group.sample_items[0])
    by_hand = item.source_data | {"dest": MISSING[item.source_data["dest"]]}
    await manager.update_item_source(
        batch_id, item.item_number, by_hand, reason="diverted", actor="ann"
    )

    def diverted(record: dict[str, Any]) -> dict[str, Any] | None:
        known = MISSING.get(record["dest"])
        return None if known is None else record | {"dest": known}

    count = await manager.update_item_sources(batch_id, diverted, reason="diverted", actor="ann")
    (edit,) = await manager.item_history(batch_id, item.item_number)
    print(f"  edited 1 and {count} records; the first had {(edit.before or {})['dest']} before")
    return await manager.reprocess_batch(batch_id)


async def correct_the_file(manager: BatchManager, batch_id: UUID) -> BatchSummary:
    """Export the failures, correct them as in a spreadsheet, and import the corrected file."""
    with tempfile.TemporaryDirectory() as directory:
        bad, corrected = Path(directory) / "bad.csv", Path(directory) / "corrected.csv"
        chunks = [chunk async for chunk in manager.export_failures(batch_id)]
        bad.write_bytes(b"".join(chunks))
        rows = [row | {"dest": MISSING[row["dest"]]} for row in _rows(bad)]
        with corrected.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        print(f"  the file has {len(rows)} rows")
        return await manager.reprocess_from_file(batch_id, corrected)


async def import_file(manager: BatchManager, file: Path, batch_type: str) -> None:
    """Import a file without errors."""
    summary = await manager.import_file(file, batch_type, on_same_file="force")
    summary.raise_for_status()


async def checksums(connection: "asyncpg.Connection[Any]") -> list[tuple[Any, ...]]:
    """Return the row count and a checksum of each table."""
    tables = ("airlines", "airports", "planes", "flights")
    rows = [await connection.fetchrow(CHECKSUM.format(table)) for table in tables]
    return [tuple(row) for row in rows if row is not None]


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


if __name__ == "__main__":
    try:
        uvloop.run(main(os.environ.get("RELIABLE_IMPORTS_DATABASE_URL") or EMBEDDED))
    except ReliableImportsError as error:  # the message says what to do
        sys.exit(str(error))
