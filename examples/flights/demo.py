"""Import flights, show why some fail, fix the cause, and reprocess only those: `make demo`.

Run it with `python -m examples.flights.demo [flights.csv.gz]`.

It uses an embedded PostgreSQL, or RELIABLE_IMPORTS_DATABASE_URL. It drops and recreates the schema
flights_demo there, so that it can be repeated.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import asyncpg
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from reliable_imports_async import BatchManager, BatchSummary, ReliableImportsError, read_file
from reliable_imports_async.database.embedded import (
    EmbeddedServer,
    is_embedded_url,
    parse_embedded_url,
)

from .check import compare

SCHEMA = Path(__file__).with_name("schema.sql")
DATA = Path(__file__).parent.parent / "data"
JANUARY = DATA / "flights-2013-01.csv.gz"
EMBEDDED = "embedded:flights_demo"  # the same as BatchManager.embedded("flights_demo")

console = Console(highlight=False, soft_wrap=True)


async def main(url: str = EMBEDDED, flights: Path = JANUARY) -> None:
    """Run the demo on a database."""
    started = time.monotonic()
    if not is_embedded_url(url):  # the library migrates an embedded database itself
        await BatchManager(url).migrate()
    async with BatchManager(url) as manager:
        console.print(f"PostgreSQL is ready after {time.monotonic() - started:.1f} s.")
        manager.registry.discover("examples.flights.processors")
        connection = await connect(url)  # separate, to create and check the tables
        try:
            await connection.execute(SCHEMA.read_text(encoding="utf-8"))
            await run(manager, connection, flights)
        finally:
            await connection.close()


async def run(manager: BatchManager, connection: "asyncpg.Connection[Any]", flights: Path) -> None:
    """Run the steps of the demo."""
    for batch_type in ("airline", "airport", "plane"):
        summary = await import_file(manager, DATA / f"{batch_type}s.csv", batch_type)
        summary.raise_for_status()

    summary = await import_file(manager, flights, "flight")
    await show_failures(manager, summary)

    console.print("\nFour airports are missing. Import them:")
    repair = await import_file(manager, DATA / "missing_airports.csv", "airport")
    repair.raise_for_status()
    again = await manager.reprocess_batch(summary.batch_id, failed_items_only=True)
    console.print(
        f"Reprocessed: {again.completed_items:,} of {again.total_items:,} completed; only "
        "the failed flights ran again."
    )
    console.print(f"Checked: {await compare(connection, flights)}.")


async def import_file(manager: BatchManager, file: Path, batch_type: str) -> BatchSummary:
    """Import a file and show two progress bars: bytes read, then items settled."""
    with Progress(
        TextColumn("{task.description:30}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        reading = progress.add_task(f"Reading {file.name}", unit="bytes")
        batch_id = await manager.create_batch(
            batch_type,
            read_file(file),
            on_same_file="force",  # so that the demo can be repeated
            progress=lambda _records, done, size: progress.update(
                reading, completed=done, total=size
            ),
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch, manager, batch_id, progress)
            summary = await manager.process_batch(batch_id)
    console.print(
        f"{file.name}: {summary.completed_items:,} of {summary.total_items:,} completed, "
        f"{summary.failed_items:,} failed."
    )
    return summary


async def watch(manager: BatchManager, batch_id: UUID, progress: Progress) -> None:
    """Update a progress bar until the batch ends."""
    processing = progress.add_task("Processing", unit="items")
    async for summary in manager.watch(batch_id, interval=0.1):
        progress.update(processing, completed=summary.settled_items, total=summary.total_items)


async def show_failures(manager: BatchManager, summary: BatchSummary) -> None:
    """Print the failed items, grouped by cause, with the offending values."""
    console.print(
        f"\nBatch {summary.batch_id} is {summary.status}: {summary.completed_items:,} completed, "
        f"{summary.failed_items:,} failed ({summary.items_per_second:,.0f} items/s)."
    )
    for group in await manager.failure_groups(summary.batch_id):
        console.print(f"{group.count:>6,}  {group.title}")
        for value, count in group.values:
            console.print(f"{count:>14,}  {value}")


async def connect(url: str) -> "asyncpg.Connection[Any]":
    """Connect to the database that a manager with this URL uses."""
    if is_embedded_url(url):
        database, directory = parse_embedded_url(url)
        url = EmbeddedServer(directory).url(database)
    return await asyncpg.connect(url)


if __name__ == "__main__":
    configured = os.environ.get("RELIABLE_IMPORTS_DATABASE_URL")
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else JANUARY
    try:
        uvloop.run(main(configured or EMBEDDED, file))
    except ReliableImportsError as error:  # the message says what to do
        sys.exit(str(error))
