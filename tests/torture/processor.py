"""The processor under test: each item leaves traces that show a loss, a double and a torn write."""

import contextlib
import csv
import gzip
import os
import random
import signal
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import asyncpg

from reliable_imports_async import BaseProcessor, Skip

FLIGHTS = Path(__file__).parents[2] / "examples/data/flights-2013-01.csv.gz"
ACCOUNTS = 10_000  # so many that a frozen worker's locks do not stop the others as well
HOT = 10  # and so few for some items that they deadlock
OUTCOMES = {
    7: "exception",
    27: "data",
    57: "transaction",
    77: "skipped",
}  # by the number modulo 100
POISON = "poison"  # the key of a record that kills the process
SUPERSEDED = "superseded"  # what a worker writes down when it finds an item settled by another
SPILL = "INSERT INTO spill VALUES ($1, $2, repeat('x', 1000))"  # where a disk gets full

LEDGER = "INSERT INTO ledger (batch_id, number, worker) VALUES ($1, $2, $3)"
MOVE = "UPDATE accounts SET balance = balance + $2 WHERE id = $1"
FLIGHT = "INSERT INTO flights VALUES ($1, $2, $3, $4, $5, $6, $7)"


def rows(path: Path, most: int | None) -> list[dict[str, str]]:
    """The records of a gzipped CSV file."""
    with gzip.open(path, "rt") as file:
        return list(islice(csv.DictReader(file), most))


def records(
    flights: list[dict[str, str]], count: int, offset: int, poison: int | None
) -> Iterator[dict[str, str]]:
    """Real flights, over and over; the one at `poison` kills whoever processes it."""
    for number in range(count):
        row = flights[(offset + number) % len(flights)]
        yield row | {POISON: "1"} if number == poison else row


def expected(number: int) -> str:
    """What must become of an item: completed, skipped, or the kind of its failure."""
    return OUTCOMES.get(number % 100, "completed")


class TortureProcessor(BaseProcessor):
    """Moves one from an account to another around everything else that can go wrong."""

    batch_type = "torture"

    async def process_item(self, item, ctx):
        number, row = item.item_number, item.source_data
        source, target = random.sample(range(HOT if random.random() < 0.02 else ACCOUNTS), 2)
        await ctx.execute(LEDGER, item.batch_id, number, os.getpid())
        await ctx.execute(MOVE, source, 1)
        if POISON in row:
            os.kill(os.getpid(), signal.SIGKILL)
        await ctx.fetchrow("SELECT * FROM limits")  # its columns change in mid run
        if number % 50 == 0:
            await ctx.execute(SPILL, item.batch_id, number)
        match expected(number):
            case "exception":
                raise ValueError("this item always fails")
            case "data":
                await ctx.execute("SELECT (2147483647 + $1::integer)::integer", number)
            case "transaction":
                with contextlib.suppress(asyncpg.DivisionByZeroError):
                    await ctx.execute("SELECT 1 / 0")
                return None
        await ctx.execute(MOVE, target, -1)
        if number % 10 == 0:
            ctx.info("moved", source=source, target=target)
        flight = (row["carrier"], int(row["flight"]), row["origin"], row["dest"])
        await ctx.execute(FLIGHT, item.batch_id, number, *flight, int(row["distance"]))
        return Skip("as expected") if expected(number) == "skipped" else None

    async def on_batch_start(self, ctx):
        await ctx.execute("INSERT INTO hooks VALUES ($1, 'start')", ctx.batch.id)

    async def on_batch_complete(self, summary, ctx):
        counts = (summary.completed_items, summary.skipped_items, summary.failed_items)
        await ctx.execute(
            "INSERT INTO hooks VALUES ($1, 'complete', $2, $3, $4)", ctx.batch.id, *counts
        )

    async def after_batch_complete(self, summary, ctx):
        Acknowledged.write(f"after {summary.batch_id}")


class IntervalProcessor(TortureProcessor):
    """Twenty items share a transaction."""

    batch_type = "torture_interval"
    commit_interval = 20


class SetProcessor(TortureProcessor):
    """So they do here, in one call; log lines belong to no item then."""

    batch_type = "torture_set"
    commit_interval = 20

    async def process_items(self, items, ctx):
        return [await self.process_item(item, ctx) for item in items]


PROCESSORS = {"item": TortureProcessor, "interval": IntervalProcessor, "set": SetProcessor}


class Acknowledged:
    """What this process was told is true, appended line by line: the history of the clients."""

    path: Path

    @classmethod
    def write(cls, line: str) -> None:
        with cls.path.open("a") as file:
            file.write(f"{line}\n")
