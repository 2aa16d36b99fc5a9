"""A large file from end to end, and what an item of it costs next to one of a small file.

`make bench NAME=million MODE=interval`: flights with foreign keys as a gzipped CSV file,
more than two in a hundred refused, imported by a process of its own. Meanwhile this process asks
for the batch's summary every half second; how long the server works for that, its log tells: every
statement of the one connection that asks, parsing and binding included.
"""

import asyncio
import csv
import gzip
import io
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import anyio.abc
import asyncpg
import typer
import uvloop
from rich.table import Table

from reliable_imports_async import BatchManager, read_file

from .ground import Ground, ground
from .modes import CONNECTIONS, MODES
from .report import save, terminal, versions
from .workloads import JANUARY, ROOT, YEAR, Workload, flights

SMALL = 10_000
BAR_COST, BAR_MEGABYTES, BAR_SUMMARY_MS = 1.15, 200, 5
ASKING = "summary"
LOGGED = re.compile(rf"^{ASKING} LOG:  duration: ([\d.]+) ms", re.MULTILINE)
SETTINGS = {"log_line_prefix": "%a ", "logging_collector": "off"}
NAMES = {"item": "item mode", "interval": "commit_interval", "set": "process_items"}


@dataclass(frozen=True, slots=True)
class Imported:
    """One import.

    Attributes:
        items: How many.
        creating: Seconds until the batch was there.
        processing: Seconds from then until it had finished.
        processor: Processor seconds of client and server while processing.
        megabytes: The most that the importing process had in memory at any time.
        summaries: Milliseconds that the server took for each summary.
    """

    items: int
    creating: float
    processing: float
    processor: float
    megabytes: float
    summaries: list[float]


def main(mode: str = "interval", items: int = 1_000_000, rounds: int = 3) -> None:
    """Measure.

    Args:
        mode: item, interval or set.
        items: Rows of the large file; the small ones have ten thousand.
        rounds: How often the small file is imported; the median is compared.
    """
    if mode not in NAMES:
        raise typer.BadParameter(f"{mode}: choose from {', '.join(NAMES)}.")
    console = terminal()
    small, large, version = uvloop.run(_measure(mode, items, rounds))
    table = Table(title=f"{mode}: {items:,} items next to {SMALL:,}")
    for heading in ("", f"{SMALL:,}", f"{items:,}", "ratio", "bar"):
        table.add_column(heading, justify="right")
    for name, row in _rows(small, large).items():
        table.add_row(name, *row)
    console.print(table)
    about = {"versions": versions(version), "mode": mode}
    figures = {"small": list(map(_plain, small)), "large": _plain(large)}
    console.print(str(save(f"million-{mode}", about | figures)))


def _rows(small: list[Imported], large: Imported) -> dict[str, tuple[str, ...]]:
    def cost(name: str, bar: str = "") -> tuple[str, ...]:
        one = statistics.median(getattr(each, name) / each.items for each in small)
        other = getattr(large, name) / large.items
        return f"{one * 1e6:,.1f}", f"{other * 1e6:,.1f}", f"{other / one:.2f}", bar

    asked = [each for one in small for each in one.summaries] or [0.0]
    ours = large.summaries or [0.0]
    return {
        "creating, µs an item": cost("creating"),
        "processing, µs an item": cost("processing", f"{BAR_COST}"),
        "its processor time, µs": cost("processor", f"{BAR_COST}"),
        "peak memory, MB": (
            f"{max(one.megabytes for one in small):.0f}",
            f"{large.megabytes:.0f}",
            "",
            f"{BAR_MEGABYTES}",
        ),
        f"summary on the server, ms, median of {len(ours)}": (
            f"{statistics.median(asked):.2f}",
            f"{statistics.median(ours):.2f} (at most {max(ours):.2f})",
            "",
            f"{BAR_SUMMARY_MS}",
        ),
    }


def _plain(imported: Imported) -> dict[str, Any]:
    return {name: getattr(imported, name) for name in Imported.__slots__}


async def _measure(mode: str, items: int, rounds: int) -> tuple[list[Imported], Imported, str]:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        file, large_file = Path(folder) / "small.csv.gz", Path(folder) / "large.csv.gz"
        workload = flights(SMALL)
        await anyio.to_thread.run_sync(write, file, SMALL)
        await anyio.to_thread.run_sync(write, large_file, items)
        async with ground(SETTINGS) as place:
            small = [await _import(place, workload, file, mode) for _ in range(rounds)]
            large = await _import(place, workload, large_file, mode)
            return small, large, place.version


async def _import(place: Ground, workload: Workload, file: Path, mode: str) -> Imported:
    """In a process of its own, asking for summaries meanwhile."""
    await place.renew(workload.schema)
    command = [sys.executable, "-m", "benchmarks.million", place.dsn, str(file), mode]
    async with await anyio.open_process(command, cwd=ROOT, stderr=None) as process:
        try:
            return await _watched(place, process)
        finally:
            if process.returncode is None:
                process.terminate()


async def _watched(place: Ground, process: anyio.abc.Process) -> Imported:
    if process.stdout is None:
        raise AssertionError
    lines = _lines(process.stdout)
    created = json.loads(await anext(lines))
    with place.spending() as spent:
        async with _asking(place, UUID(created["batch"])) as summaries:
            done = json.loads(await anext(lines))
    await process.wait()
    return Imported(
        items=done["items"],
        creating=created["seconds"],
        processing=done["seconds"],
        processor=spent.server + done["processor"],
        megabytes=done["megabytes"],
        summaries=summaries,
    )


async def _lines(stream: Any) -> AsyncIterator[str]:
    waiting = ""
    async for data in stream:
        waiting += data.decode()
        while "\n" in waiting:
            line, _, waiting = waiting.partition("\n")
            yield line


@asynccontextmanager
async def _asking(place: Ground, batch_id: UUID) -> AsyncIterator[list[float]]:
    """Ask for summaries; the milliseconds of each, from the server's log, at the end."""
    settings = {"application_name": ASKING, "log_min_duration_statement": "0"}
    found: list[float] = []
    pool = await asyncpg.create_pool(place.dsn, min_size=1, max_size=4, server_settings=settings)
    async with pool, BatchManager(pool=pool) as manager, anyio.create_task_group() as group:
        group.start_soon(_ask, manager, batch_id, place.log_file, found)
        yield found
        group.cancel_scope.cancel()


async def _ask(manager: BatchManager, batch_id: UUID, log: Path, found: list[float]) -> None:
    await manager.get_batch_summary(batch_id)  # prepares its statements
    while True:
        await asyncio.sleep(0.5)
        begin = len(log.read_bytes())  # noqa: ASYNC240 - a small file, and nobody else waits
        summary = await manager.get_batch_summary(batch_id)
        said = log.read_bytes()[begin:]  # noqa: ASYNC240
        if summary.groups:  # such a summary takes the most statements
            found.append(sum(map(float, LOGGED.findall(said.decode(errors="replace")))))


def write(file: Path, items: int) -> None:
    """Flights of the year, and the same in years before, so that each is another one."""
    with gzip.open(YEAR if YEAR.exists() else JANUARY, "rb") as packed:
        rows = list(csv.DictReader(io.TextIOWrapper(packed, encoding="utf-8", newline="")))
    with gzip.open(file, "wt", 1, encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(_shifted(rows, items))


def _shifted(rows: list[dict[str, str]], items: int) -> Iterator[dict[str, str]]:
    for number in range(items):
        row, weeks = rows[number % len(rows)], 52 * (number // len(rows))
        when = datetime.fromisoformat(row["time_hour"]) - timedelta(weeks=weeks)
        yield {**row, "time_hour": when.isoformat()}


async def work(dsn: str, file: str, mode: str) -> None:
    """The importing process: says when the batch is there, and when it has finished."""
    chosen = MODES[NAMES[mode]]
    workload = Workload("flights", "", [])  # its statements; the year would fill the memory
    async with BatchManager(dsn, concurrency=CONNECTIONS) as manager:
        manager.registry.register(chosen.processor(workload))
        began = time.perf_counter()
        batch_id = await manager.create_batch("workload", read_file(file))
        print(json.dumps({"batch": str(batch_id), "seconds": time.perf_counter() - began}))
        sys.stdout.flush()
        began, processor_began = time.perf_counter(), time.process_time()
        summary = await manager.process_batch(batch_id, **chosen.options)
        done = {
            "items": summary.total_items,
            "seconds": time.perf_counter() - began,
            "processor": time.process_time() - processor_began,
            "megabytes": peak_megabytes(),
        }
        if not summary.failed_items or summary.pending_items:
            raise RuntimeError(f"unexpected: {summary}")
        print(json.dumps(done))


def peak_megabytes() -> float:
    """The most memory this process has had; `ru_maxrss` begins with what its parent had."""
    status = Path("/proc/self/status").read_text()
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return int(kilobytes) / 1024


if __name__ == "__main__":  # the importing process
    uvloop.run(work(*sys.argv[1:]))
