"""The REST API next to bare Starlette endpoints with the same SQL: `make bench NAME=api`.

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
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import asyncpg
import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from reliable_imports_async import BatchManager
from reliable_imports_async.database.embedded import EmbeddedServer

from .load import WRK, Answered, Load, measure
from .servers import SERVERS, CustomerProcessor

BAR = 0.8
ROOT = Path(__file__).parents[1]
PATIENCE = 60.0

ORDER = ("ours", "bare")


@dataclass(frozen=True, slots=True)
class Result:
    """What a client saw, and the processor time in seconds that a request took.

    On a machine that has other work too, the processor time is what can be compared.
    """

    answered: Answered
    server: float
    database: float


Measured = dict[str, dict[str, list[Result]]]


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
        postmaster = await _postmaster(dsn)
        with serving("ours", dsn) as ours, serving("bare", dsn) as bare:
            servers = {"ours": ours, "bare": bare}
            for number in range(-1, rounds):  # the first round warms up
                for name, load in loads.items():
                    for who in ORDER if number % 2 else reversed(ORDER):
                        length = seconds if number >= 0 else 1
                        found = await asyncio.to_thread(
                            _once, servers[who], postmaster, load, length
                        )
                        if number >= 0:
                            measured.setdefault(name, {}).setdefault(who, []).append(found)
                    await _tidy(dsn, batch_id)
    return measured


def _once(server: tuple[str, int], postmaster: int, load: Load, seconds: float) -> Result:
    url, process = server
    before = _processor_time(process), _below(postmaster)
    answered = measure(url, load, seconds)
    after = _processor_time(process), _below(postmaster)
    spent = [(late - early) / answered.requests for early, late in zip(before, after, strict=True)]
    return Result(answered, *spent)


def _processor_time(process: int) -> float:
    """User and system seconds of a process so far."""
    try:
        spent = psutil.Process(process).cpu_times()
    except psutil.NoSuchProcess:  # such as a worker of autovacuum, just gone
        return 0.0
    return float(spent.user + spent.system)


def _below(postmaster: int) -> float:
    """The same of the database's processes; the pools keep theirs for as long as we measure."""
    return sum(_processor_time(one.pid) for one in psutil.Process(postmaster).children())


async def _postmaster(dsn: str) -> int:
    conn = await asyncpg.connect(dsn)
    backend = await conn.fetchval("SELECT pg_backend_pid()")
    parent = psutil.Process(backend).ppid()
    await conn.close()
    return int(parent)


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
    for heading in ("load", "requests/s", *ORDER, "CPU", *ORDER, "p99", *ORDER):
        table.add_column(heading)
    for name, results in measured.items():
        rates = {who: [one.answered.rate for one in results[who]] for who in ORDER}
        spent = {who: [one.server + one.database for one in results[who]] for who in ORDER}
        late = {who: [one.answered.p99 for one in results[who]] for who in ORDER}
        table.add_row(
            name,
            _ratio(rates["ours"], rates["bare"]),
            *[f"{statistics.median(rates[who]):,.0f}" for who in ORDER],
            _ratio(spent["bare"], spent["ours"]),
            *[_both(results[who]) for who in ORDER],
            _ratio(late["bare"], late["ours"]),
            *[f"{1000 * statistics.median(late[who]):,.1f}" for who in ORDER],
        )
    console = Console()
    console.print(table)
    console.print("Ratios: larger is better. CPU: ms a request of server + database. p99: ms.")
    console.print(f"client: {'wrk' if WRK else 'Python'}, cores: {os.cpu_count()}")


def _ratio(ones: list[float], others: list[float]) -> str:
    found = [one / other for one, other in zip(ones, others, strict=True)]
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def _both(results: list[Result]) -> str:
    server = statistics.median(one.server for one in results)
    database = statistics.median(one.database for one in results)
    return f"{1000 * server:.2f} + {1000 * database:.2f}"
