"""Items that update two of a few rows: the adaptive number of slots next to each fixed number.

Each contender drains the same batch for some seconds, in fresh processes. Run as a module, it is
one of these processes.
"""

import asyncio
import random
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import anyio
import asyncpg
import uvloop
from rich.table import Table

from reliable_imports_async import BaseProcessor, BatchManager, ImportBatchItem, ImportContext
from reliable_imports_async.runner import slots as slots_of
from reliable_imports_async.runner.adaptive_limit import AdaptiveLimit

from .ground import Ground, ground
from .report import save, terminal, verdict, versions

BAR = 0.9
ADAPTIVE = 0
FIXED = (1, 2, 4, 8, 16, 64)
ROWS = (5, 20, 200, 100_000)
SLOTS = (16, 64)
SCHEMA = """
CREATE TABLE accounts (id integer PRIMARY KEY, balance integer NOT NULL DEFAULT 0)
    WITH (fillfactor = 50);
INSERT INTO accounts SELECT generate_series(0, {rows} - 1);
CREATE TABLE ledger (number integer);
"""
PLAIN_ROLE = """
DROP ROLE IF EXISTS importer;
CREATE ROLE importer LOGIN;
GRANT ALL ON ALL TABLES IN SCHEMA public, reliable_imports TO importer;
GRANT ALL ON ALL SEQUENCES IN SCHEMA public, reliable_imports TO importer;
GRANT USAGE ON SCHEMA reliable_imports TO importer;
"""


class Transfers(BaseProcessor):
    """Moves one unit between two random rows."""

    batch_type = "transfers"

    def __init__(self, rows: int) -> None:
        self.rows = rows

    async def process_item(self, item: ImportBatchItem, ctx: ImportContext) -> None:
        payer, payee = random.sample(range(self.rows), 2)
        await ctx.execute("INSERT INTO ledger VALUES ($1)", item.item_number)
        await ctx.execute("UPDATE accounts SET balance = balance - 1 WHERE id = $1", payer)
        await ctx.execute("UPDATE accounts SET balance = balance + 1 WHERE id = $1", payee)


class FixedLimit(AdaptiveLimit):
    """A number of slots that does not change."""

    fixed = 1

    def __init__(self, most: int) -> None:
        super().__init__(1)
        self._set(min(self.fixed, most))

    def finished(self, items: int) -> None:
        """Learn nothing."""

    def conflict(self) -> None:
        """Learn nothing."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One workload.

    Attributes:
        rows: How many rows the items share.
        slots: The `concurrency` of the manager.
        processes: How many processes drain the batch.
        delay: Milliseconds that the network adds to each round trip.
        plain: Whether the role may not set `deadlock_timeout`.
    """

    rows: int
    slots: int
    processes: int
    delay: float
    plain: bool

    def __str__(self) -> str:
        role = ", plain role" if self.plain else ""
        processes = f"{self.processes} proc., {self.delay:g} ms{role}"
        return f"{self.rows:,} rows, {self.slots} slots, {processes}"


@dataclass(frozen=True, slots=True)
class Result:
    """What a contender has done in the given seconds."""

    rate: float
    deadlocks: int
    failed: int
    limits: Sequence[int]


async def drain_for(
    dsn: str, batch_id: str, rows: int, slots: int, fixed: int, seconds: float
) -> None:
    """Drain a batch, once the parent says so, and print the final number of slots."""
    limits: list[AdaptiveLimit] = []
    FixedLimit.fixed = fixed

    def new_limit(most: int, processes: Callable[[], int]) -> AdaptiveLimit:
        limits.append(FixedLimit(most) if fixed else AdaptiveLimit(most, processes))
        return limits[-1]

    slots_of.AdaptiveLimit = new_limit  # type: ignore[assignment,misc]
    async with BatchManager(dsn, concurrency=slots) as manager:
        manager.registry.register(Transfers(rows))
        print("ready", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.readline)
        with anyio.move_on_after(seconds):
            await manager.process_batch(UUID(batch_id))
        print(limits[0].limit, flush=True)


@asynccontextmanager
async def delayed(dsn: str, milliseconds: float) -> AsyncIterator[str]:
    """A URL by which each round trip to the server takes so much longer."""
    if not milliseconds:
        yield dsn
        return
    socket, user, database = unix_socket(dsn)
    loop, half = asyncio.get_running_loop(), milliseconds / 2000

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            loop.call_later(half, writer.write, data)
        loop.call_later(half, writer.close)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, server = await asyncio.open_unix_connection(socket)
        await asyncio.gather(pump(reader, server), pump(answers, writer), return_exceptions=True)

    async with await asyncio.start_server(accept, "127.0.0.1") as listener:
        port = listener.sockets[0].getsockname()[1]
        yield f"postgresql://{user}@127.0.0.1:{port}/{database}"


def unix_socket(dsn: str) -> tuple[str, str, str]:
    """The socket, user and database of the embedded server's URL."""
    parts = urlsplit(dsn)
    directory = parse_qs(parts.query)["host"][0]
    return f"{directory}/.s.PGSQL.5432", parts.username or "postgres", parts.path.strip("/")


class Field:
    """The server, and the contenders' processes."""

    def __init__(self, place: Ground, seconds: float) -> None:
        self._place = place
        self._seconds = seconds

    async def measure(self, cell: Cell, fixed: int) -> Result:
        """Drain a batch for some seconds, with a fixed number of slots or the adaptive one."""
        await self._place.renew(SCHEMA.format(rows=cell.rows))
        items = int(10_000 * self._seconds)
        async with BatchManager(self._place.dsn) as manager:
            manager.registry.register(Transfers(cell.rows))
            batch_id = await manager.create_batch("transfers", [{}] * items)
        await self._place.execute(PLAIN_ROLE)
        await self._place.settle()
        dsn = self._place.dsn
        if cell.plain:
            dsn = dsn.replace(unix_socket(dsn)[1] + "@", "importer@", 1)
        async with delayed(dsn, cell.delay) as url:
            limits = await self._drain(url, batch_id, cell, fixed)
        return await self._result(batch_id, limits)

    async def _drain(self, url: str, batch_id: UUID, cell: Cell, fixed: int) -> list[int]:
        """Run the processes; returns their last numbers of slots."""
        arguments = (url, batch_id, cell.rows, cell.slots, fixed, self._seconds)
        children = [
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "benchmarks.hot_rows",
                *map(str, arguments),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            for _ in range(cell.processes)
        ]
        for child in children:
            assert child.stdout is not None
            assert child.stdin is not None
            await child.stdout.readline()
        for child in children:
            child.stdin.write(b"\n")  # type: ignore[union-attr]
        said = [(await child.communicate())[0] for child in children]
        if any(child.returncode for child in children):
            raise SystemExit("a process has failed")
        return [int(last) for last in said]

    async def _result(self, batch_id: UUID, limits: Sequence[int]) -> Result:
        conn = await asyncpg.connect(self._place.dsn)
        await conn.execute("SELECT pg_stat_force_next_flush()")
        row = await conn.fetchrow(
            "SELECT count(*) FILTER (WHERE status = 'completed') AS completed, "
            "count(*) FILTER (WHERE status = 'failed') AS failed, "
            "(SELECT count(*) FROM ledger) AS booked, "
            "(SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()) "
            "AS deadlocks "
            "FROM reliable_imports.import_batch_items WHERE batch_id = $1",
            batch_id,
        )
        await conn.close()
        if row["booked"] != row["completed"]:
            raise SystemExit(f"{row['booked']} rows of {row['completed']} completed items")
        return Result(row["completed"] / self._seconds, row["deadlocks"], row["failed"], limits)


def main(
    cells: str = ",".join(f"{rows}x{slots}" for rows in ROWS for slots in SLOTS),
    processes: str = "1,2",
    delay: str = "0,2",
    roles: str = "owner",
    seconds: float = 15.0,
    rounds: int = 1,
) -> None:
    """Items that update two of a few rows: adaptive concurrency next to fixed numbers of slots.

    Args:
        cells: How many rows the items share, and the concurrency of each process.
        processes: How many processes drain the batch.
        delay: Milliseconds that the network adds to each round trip.
        roles: "owner" may set deadlock_timeout, "plain" may not.
        seconds: How long each contender works.
        rounds: How often each cell is measured.
    """
    chosen = [
        Cell(*map(int, cell.split("x")), int(count), float(milliseconds), plain=role == "plain")
        for cell, count, milliseconds, role in product(
            *(given.split(",") for given in (cells, processes, delay, roles))
        )
    ]
    uvloop.run(_compare(chosen, seconds, rounds))


async def _compare(cells: Sequence[Cell], seconds: float, rounds: int) -> None:
    """Measure all cells, print each as soon as it is known, and the table at the end."""
    found: list[dict[str, Any]] = []
    table = Table(title="Items per second; adaptive over the best fixed number of slots")
    for heading in ("workload", *map(str, FIXED), "adaptive", "ratio", "failed", ""):
        table.add_column(heading, justify="left" if heading == "workload" else "right")
    async with ground({"max_connections": "300"}) as place:
        field = Field(place, seconds)
        for cell in cells:
            results: dict[int, list[Result]] = {}
            for _ in range(rounds):
                for number in (*(one for one in FIXED if one <= cell.slots), ADAPTIVE):
                    results.setdefault(number, []).append(await field.measure(cell, number))
            row = _row(cell, results)
            table.add_row(*row)
            print(*row, flush=True)
            rounds_of = {number: [asdict(one) for one in results[number]] for number in results}
            found.append({"cell": asdict(cell), "rounds": rounds_of})
    terminal().print(table)
    print("saved as", save("hot-rows", {"versions": versions(place.version), "cells": found}))


def _row(cell: Cell, results: Mapping[int, Sequence[Result]]) -> list[str]:
    """A row of the table."""
    rates = {number: statistics.median(one.rate for one in of) for number, of in results.items()}
    adaptive = rates.pop(ADAPTIVE)
    reached = adaptive / max(rates.values())
    failed = sum(one.failed for one in results[ADAPTIVE])
    fixed = [f"{rates[number]:,.0f}" if number in rates else "" for number in FIXED]
    adapted = [f"{adaptive:,.0f}", f"{reached:.2f}", str(failed), verdict(reached, BAR)]
    return [str(cell), *fixed, *adapted]


if __name__ == "__main__":
    url, batch, shared_rows, concurrency, fixed_slots, duration = sys.argv[1:]
    uvloop.run(
        drain_for(url, batch, int(shared_rows), int(concurrency), int(fixed_slots), float(duration))
    )
