"""Imports the January flights, then the same file once more: `make bench NAME=unchanged`."""

import statistics
from time import perf_counter
from typing import Any

import asyncpg
import uvloop
from examples.flights.demo import DATA, JANUARY, SCHEMA
from examples.flights.processors import FlightProcessor
from rich.console import Console

from reliable_imports_async import BatchManager, BatchSummary, read_file
from reliable_imports_async.database.embedded import EmbeddedServer


class KeyedFlightProcessor(FlightProcessor):
    """The demo's processor, with what the flights table calls a flight."""

    batch_type = "flight"
    skip_unchanged = True

    def item_key(self, record: dict[str, Any]) -> object:
        return record["time_hour"], record["carrier"], record["flight"], record["origin"]


def main(rounds: int = 3) -> None:
    """Measure whole imports, from the file to the summary.

    Args:
        rounds: Rounds, each on a fresh database; the median is shown.
    """
    measured = uvloop.run(_measure(rounds))
    console = Console()
    for name, seconds in measured.items():
        each = ", ".join(f"{one:.2f}" for one in seconds)
        console.print(f"{name:<28} {statistics.median(seconds):6.2f} s   ({each})")
    ratio = statistics.median(measured["first"]) / statistics.median(measured["again"])
    console.print(f"the second import is {ratio:.1f} times as fast")


async def _measure(rounds: int) -> dict[str, list[float]]:
    measured: dict[str, list[float]] = {"without keys": [], "first": [], "again": []}
    async with EmbeddedServer() as server:
        for _ in range(rounds):
            await _afresh(server)
            measured["without keys"].append((await _import(server, FlightProcessor))[0])
            await _afresh(server)
            for name in ("first", "again"):
                seconds, summary = await _import(server, KeyedFlightProcessor)
                measured[name].append(seconds)
                assert summary.failed_items == 680, summary
                assert summary.skipped_items == (26_324 if name == "again" else 0), summary
    return measured


async def _afresh(server: EmbeddedServer) -> None:
    admin = await asyncpg.connect(server.url())
    await admin.execute("DROP DATABASE IF EXISTS bench WITH (FORCE)")
    await admin.execute("CREATE DATABASE bench")
    await admin.close()
    url = server.url("bench")
    await BatchManager(url).migrate()
    conn = await asyncpg.connect(url)
    await conn.execute(SCHEMA.read_text(encoding="utf-8"))
    await conn.close()
    async with BatchManager(url) as manager:
        manager.registry.discover("examples.flights.processors")
        for batch_type in ("airline", "airport"):
            (await manager.import_file(DATA / f"{batch_type}s.csv", batch_type)).raise_for_status()


async def _import(
    server: EmbeddedServer, processor: type[FlightProcessor]
) -> tuple[float, BatchSummary]:
    async with BatchManager(server.url("bench")) as manager:
        manager.registry.register(processor)
        started = perf_counter()
        summary = await manager.import_file(read_file(JANUARY), "flight", on_same_file="force")
        return perf_counter() - started, summary
