"""The REST API next to bare Starlette endpoints with the same SQL: `python -m benchmarks.api`.

Each server has a process of its own, the client a third. The servers take turns in every round;
what counts is the median of the ratios.
"""

import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import asyncpg
import typer
import uvloop
from rich.console import Console
from rich.table import Table

from reliable_imports_async import BatchManager
from reliable_imports_async.embedded import EmbeddedServer

from .load import WRK, Answered, Load, measure
from .servers import SERVERS, CustomerProcessor

BAR = 0.8
ROOT = Path(__file__).parents[1]
PATIENCE = 60.0

Measured = dict[str, dict[str, list[Answered]]]


def main(rounds: int = 5, seconds: float = 5.0, only: str = "") -> None:
    """Measure.

    Args:
        rounds: Interleaved rounds; the median is shown.
        seconds: How long each server is under load in a round.
        only: A part of a load's name, or nothing for all.
    """
    _show(uvloop.run(_measure(rounds, seconds, only)), rounds)


async def _measure(rounds: int, seconds: float, only: str) -> Measured:
    measured: Measured = {}
    async with EmbeddedServer() as server, _database(server) as (dsn, batch_id):
        loads = {name: load for name, load in _loads(batch_id).items() if only in name}
        with serving("ours", dsn) as ours, serving("bare", dsn) as bare:
            urls = {"ours": ours[0], "bare": bare[0]}
            for number in range(-1, rounds):  # the first round warms up
                for name, load in loads.items():
                    for who in list(urls) if number % 2 else reversed(urls):
                        found = await asyncio.to_thread(
                            measure, urls[who], load, seconds if number >= 0 else 1
                        )
                        if number >= 0:
                            measured.setdefault(name, {}).setdefault(who, []).append(found)
                    await _tidy(dsn, batch_id)
    return measured


@asynccontextmanager
async def _database(server: EmbeddedServer) -> AsyncIterator[tuple[str, Any]]:
    """A database with one finished batch, of which one in a hundred has failed."""
    admin = await asyncpg.connect(server.url())
    await admin.execute("DROP DATABASE IF EXISTS bench_api WITH (FORCE)")
    await admin.execute("CREATE DATABASE bench_api")
    dsn = server.url("bench_api")
    await BatchManager(dsn).migrate()
    async with BatchManager(dsn) as manager:
        manager.registry.register(CustomerProcessor)
        batch_id = await manager.create_batch("customer", _items(1000))
        await manager.process_batch(batch_id)
    yield dsn, batch_id
    await admin.execute("DROP DATABASE bench_api WITH (FORCE)")
    await admin.close()


async def _tidy(dsn: str, batch_id: Any) -> None:
    """Leave the tables as small as they were."""
    conn = await asyncpg.connect(dsn)
    for table in ("items", "ranges"):
        await conn.execute(
            f"DELETE FROM reliable_imports.import_batch_{table} WHERE batch_id <> $1", batch_id
        )
    await conn.execute("DELETE FROM reliable_imports.import_logs WHERE batch_id <> $1", batch_id)
    await conn.execute("DELETE FROM reliable_imports.import_batches WHERE id <> $1", batch_id)
    for table in ("batch_items", "batch_ranges", "logs", "batches"):
        await conn.execute(f"VACUUM ANALYZE reliable_imports.import_{table}")
    await conn.execute("CHECKPOINT")
    await conn.close()


def _loads(batch_id: Any) -> dict[str, Load]:
    return {
        "POST, 1 item": Load("/api/batches", _body(1), 16),
        "POST, 1,000 items": Load("/api/batches", _body(1000), 4),
        "GET a batch": Load(f"/api/batches/{batch_id}", None, 16),
    }


def _body(count: int) -> bytes:
    batch = {"batch_type": "customer", "process": False, "items": _items(count)}
    return json.dumps(batch).encode()


def _items(count: int) -> list[dict[str, Any]]:
    return [
        {"n": n, "email": f"c{n}@example.org", "name": f"Customer {n}", "city": "Zürich"}
        for n in range(1, count + 1)
    ]


@contextmanager
def serving(name: str, dsn: str) -> Iterator[tuple[str, int]]:
    """One of the servers, in a process of its own: its URL and process id."""
    if name not in SERVERS:
        raise ValueError(name)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.servers", name, dsn, str(port)]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        url = f"http://127.0.0.1:{port}"
        _await_answer(url, process)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait()


def _await_answer(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = monotonic() + PATIENCE
    while process.poll() is None and monotonic() < deadline:
        try:
            urlopen(f"{url}/api/nothing").close()
        except URLError as exc:
            if hasattr(exc, "code"):  # it answers, if only that there is nothing
                return
            sleep(0.05)
    raise RuntimeError("the server did not start")


def _show(measured: Measured, rounds: int) -> None:
    table = Table(title=f"Median of {rounds} rounds (min to max); the bar is {BAR}")
    for heading in ("load", "ratio", "ours: requests/s", "bare", "ours: p99 ms", "bare"):
        table.add_column(heading)
    for name, answers in measured.items():
        pairs = list(zip(answers["ours"], answers["bare"], strict=True))
        ratios = [one.rate / other.rate for one, other in pairs]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        rates = [statistics.median(one.rate for one in answers[who]) for who in answers_order]
        late = [statistics.median(one.p99 for one in answers[who]) for who in answers_order]
        shown = [f"{rate:,.0f}" for rate in rates] + [f"{1000 * p99:,.1f}" for p99 in late]
        table.add_row(name, spread, *shown)
    console = Console()
    console.print(table)
    console.print(f"client: {'wrk' if WRK else 'Python'}, cores: {os.cpu_count()}")


answers_order = ("ours", "bare")


if __name__ == "__main__":
    typer.run(main)
