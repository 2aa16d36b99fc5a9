"""Runs every contender on every workload, interleaved, and prints ratios to the plain loop."""

import json
import os
import platform
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import typer
import uvloop
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from reliable_imports_async import BatchManager
from reliable_imports_async.embedded import EmbeddedServer

from .contenders import CONNECTIONS, CONTENDERS
from .workloads import Workload, customers, failing, flights, wide

RESULTS = Path(__file__).parent / "results"


def main(rounds: int = 5, items: int = 10_000, only: str = "") -> None:
    """Measure.

    Args:
        rounds: Interleaved rounds; the median is shown.
        items: Records in each workload.
        only: A workload's name, or nothing for all.
    """
    every = (customers(items), flights(items), wide(items), failing(items))
    workloads = [one for one in every if only in one.name]
    measured = uvloop.run(_measure(workloads, rounds))
    _show(measured, rounds)


async def _measure(workloads: list[Workload], rounds: int) -> dict[str, Any]:
    async with EmbeddedServer() as server:
        results: dict[str, dict[str, list[float]]] = {}
        with Progress(transient=True) as progress:
            steps = progress.add_task("", total=rounds * len(workloads) * len(CONTENDERS))
            for number in range(rounds):
                for workload in workloads:
                    for name, contender in _rotated(number):
                        progress.update(steps, description=f"{workload.name}: {name}")
                        seconds = await _once(server, workload, contender)
                        results.setdefault(workload.name, {}).setdefault(name, []).append(
                            len(workload.records) / seconds
                        )
                        progress.advance(steps)
        conn = await asyncpg.connect(server.url())
        version = await conn.fetchval("SHOW server_version")
        await conn.close()
    return {"rates": results, "postgresql": version}


async def _once(server: EmbeddedServer, workload: Workload, contender: Callable[..., Any]) -> float:
    """One contender on a fresh database."""
    admin = await asyncpg.connect(server.url())
    await admin.execute("DROP DATABASE IF EXISTS bench WITH (FORCE)")
    await admin.execute("CREATE DATABASE bench")
    await admin.execute("CHECKPOINT")
    await admin.close()
    dsn = server.url("bench")
    await BatchManager(dsn).migrate()
    conn = await asyncpg.connect(dsn)
    await conn.execute(workload.schema)
    await conn.close()
    return float(await contender(dsn, workload))


def _rotated(number: int) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The contenders, each round beginning with another one."""
    pairs = list(CONTENDERS.items())
    shift = number % len(pairs)
    yield from pairs[shift:] + pairs[:shift]


def _show(measured: dict[str, Any], rounds: int) -> None:
    table = Table(title=f"Ratio to the plain loop, median of {rounds} (min to max)")
    for heading in ("workload", "contender", "ratio", "items/s"):
        table.add_column(heading)
    report: dict[str, Any] = {}
    for workload, rates in measured["rates"].items():
        for name, values in rates.items():
            ratios = [a / b for a, b in zip(values, rates["plain loop"], strict=True)]
            low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
            rate = statistics.median(values)
            table.add_row(workload, name, f"{middle:.2f} ({low:.2f} to {high:.2f})", f"{rate:,.0f}")
            report.setdefault(workload, {})[name] = {"ratio": middle, "min": low, "max": high}
    with _saved() as file:
        versions = {"asyncpg": asyncpg.__version__, "python": platform.python_version()}
        versions |= {"postgresql": measured["postgresql"], "cores": os.cpu_count()}
        json.dump({"versions": versions, "connections": CONNECTIONS, "results": report}, file)
    console = Console()
    console.print(table)
    console.print(", ".join(f"{name} {value}" for name, value in versions.items()))


@contextmanager
def _saved() -> Iterator[Any]:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    with path.open("w", encoding="utf-8") as file:
        yield file


if __name__ == "__main__":
    typer.run(main)
