"""`make bench NAME=dashboard`: every page of the dashboard with 10 million items.

They are in 10,000 batches. Asked by HTTP, one request at a time, of a server in a process of its
own. Cold: PostgreSQL has just been started and the kernel holds none of its files. Warm: the median
of several requests after that. CPU: processor time of server and database for a warm request, which
can be compared also on a machine that has other work.
"""

import asyncio
import os
import shutil
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.request import urlopen

import asyncpg
import uvloop
from rich.console import Console
from rich.table import Table

from reliable_imports_async import BatchManager
from reliable_imports_async.database.embedded import EmbeddedServer

from .api import _below, _postmaster, _processor_time, serving
from .big_data import BATCHES, ITEMS, fill, plan

BAR = 300  # milliseconds
LOADING = {
    "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off",
    "max_wal_size": "8GB", "maintenance_work_mem": "512MB", "work_mem": "256MB",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Found:
    """What asking for a page has shown, in milliseconds, and the size of the page."""

    cold: float | None
    warm: list[float]
    spent: float
    size: int


def main(
    directory: Path | None = None,
    items: int = ITEMS,
    batches: int = BATCHES,
    requests: int = 7,
    only: str = "",
    cold: bool = True,  # noqa: FBT001, FBT002 - typer makes an option of it
) -> None:
    """Generate and measure.

    Args:
        directory: Where the database is, or shall stay; by default a temporary one.
        items: How many items to generate.
        batches: In how many batches.
        requests: How often each page is asked for when it is warm.
        only: A part of a page's name, or nothing for all.
        cold: Whether to restart the database before each page first.
    """
    if directory is not None:
        uvloop.run(_run(directory, items, batches, requests, only, cold=cold))
        return
    made = Path(tempfile.mkdtemp(prefix="ri-big-"))
    made.chmod(0o711)  # for root the server runs as another user
    try:
        uvloop.run(_run(made, items, batches, requests, only, cold=cold))
    finally:
        shutil.rmtree(made, ignore_errors=True)


async def _run(
    directory: Path, items: int, batches: int, requests: int, only: str, *, cold: bool
) -> None:
    if not (directory / "filled").exists():
        await _generate(directory, items, batches)
    if requests:
        await _measure(directory, requests, only, cold=cold)


async def _generate(directory: Path, items: int, batches: int) -> None:
    started = perf_counter()
    async with EmbeddedServer(directory, settings=LOADING) as server:
        dsn = server.url("postgres")
        await BatchManager(dsn).migrate()
        conn = await asyncpg.connect(dsn)
        await fill(conn, plan(items, batches))
        await conn.execute("VACUUM ANALYZE")
        await conn.execute("CHECKPOINT")
        await conn.close()
    (directory / "filled").touch()
    print(f"generated in {perf_counter() - started:,.0f} s")


async def _measure(directory: Path, requests: int, only: str, *, cold: bool) -> None:
    server = EmbeddedServer(directory)
    await server.start()
    dsn = server.url("postgres")
    await BatchManager(dsn).migrate()
    paths = {name: path for name, path in (await _paths(dsn)).items() if only in name}
    found: dict[str, Found] = {}
    with serving("many_types", dsn) as (url, process):
        await asyncio.to_thread(_asked, f"{url}/dashboard/upload")
        for name, path in paths.items():
            first = None
            if cold:
                await server.stop()
                _forget(directory / "data")
                await server.start()
                first, _size = await asyncio.to_thread(_asked, url + path)
            await asyncio.to_thread(_asked, url + path)
            postmaster = await _postmaster(dsn)
            before = _processor_time(process) + _below(postmaster)
            warm = [await asyncio.to_thread(_asked, url + path) for _ in range(requests)]
            spent = _processor_time(process) + _below(postmaster) - before
            times = [milliseconds for milliseconds, _ in warm]
            found[name] = Found(first, times, 1000 * spent / requests, warm[-1][1])
    await server.stop()
    _show(found)


def _asked(url: str) -> tuple[float, int]:
    """How long an answer took in milliseconds, and how large it was."""
    started = perf_counter()
    with urlopen(url, timeout=60) as answer:
        body = answer.read()
    return 1000 * (perf_counter() - started), len(body)


def _forget(directory: Path) -> None:
    """Have the kernel drop what it remembers of some files."""
    for path in directory.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


async def _paths(dsn: str) -> dict[str, str]:
    """The pages to ask for, by name."""
    conn = await asyncpg.connect(dsn)
    rows = await conn.fetch(Path(__file__).with_suffix(".sql").read_text())
    await conn.close()
    one: dict[str, Any] = {row["name"]: row for row in rows}
    large, page = one["largest"], "/dashboard/batches/"
    here, running = f"{page}{large['id']}", f"{page}{one['running']['id']}"
    child, family = f"{page}{one['repair']['id']}", f"{page}{one['family']['id']}"
    items = f"{here}/items"
    api = "/api/batches"
    api_items = f"{api}/{large['id']}/items"
    return {
        "batches": "/dashboard",
        "batches, page 200": f"/dashboard?before={one['deep']['id']}",
        "batches, status=failed": "/dashboard?status=failed",
        "batches, status=pending (one)": "/dashboard?status=pending",
        "batches, search by file": "/dashboard?search=flight-20",
        "batches, search without a hit": "/dashboard?search=nothing-is-like-this",
        "batches, type and status": "/dashboard?batch_type=stock&status=processing",
        "batch of 4,000,000": here,
        "its reprocessing, 80,000": child,
        "batch half done, 1,000,000": running,
        "batch of 200,000, all failed": f"{page}{one['nothing']['id']}",
        "batch not started, 400,000": f"{page}{one['waiting']['id']}",
        "batch cancelled, 200,000": f"{page}{one['cancelled']['id']}",
        "batch with 120 reprocessings": family,
        "items": items,
        "items, deep": f"{items}?after=3900000",
        "items, status=completed, deep": f"{items}?status=completed&after=3900000",
        "items, status=failed": f"{items}?status=failed",
        "items, status=failed, deep": f"{items}?status=failed&after=3900000",
        "items, status=failed, last page": f"{items}?status=failed&after=3999900",
        "items, status=skipped (only at the end)": f"{items}?status=skipped",
        "items, status=pending (none)": f"{items}?status=pending",
        "items, status=pending, half done": f"{running}/items?status=pending",
        "items, cause": f"{items}?group=group-3",
        "items, cause, last page": f"{items}?group=group-3&after=3999000",
        "item, failed": f"{items}/{large['failed']}",
        "item, edit": f"{items}/{one['open']['failed']}/edit",
        "log": f"{here}/logs",
        "log, deep": f"{here}/logs?before={large['log']}",
        "reprocess?": f"{here}/reprocess?canary=1",
        "reprocess a cause?": f"{here}/reprocess?group=group-3",
        "batch types": "/dashboard/types",
        "batch type": "/dashboard/types/flight",
        "upload": "/dashboard/upload?batch_type=flight",
        "API: batches": api,
        "API: batch of 4,000,000": f"{api}/{large['id']}",
        "API: its reprocessing": f"{api}/{one['repair']['id']}",
        "API: batch with 120 reprocessings": f"{api}/{one['family']['id']}",
        "API: items, status=failed, deep": f"{api_items}?status=failed&cursor=3900000&limit=50",
        "API: items, status=skipped": f"{api_items}?status=skipped&limit=50",
        "API: items, cause": f"{api_items}?group=group-3&limit=50",
        "API: logs of an item": f"{api}/{large['id']}/logs?item_number={large['failed']}",
    }


def _show(found: dict[str, Found]) -> None:
    table = Table(title=f"Milliseconds for a whole answer; the bar is {BAR}")
    for heading in ("page", "cold", "warm", "slowest warm", "CPU", "kB"):
        table.add_column(heading, justify="left" if heading == "page" else "right")
    for name, one in found.items():
        median, slowest = statistics.median(one.warm), max(one.warm)
        cold = "-" if one.cold is None else f"{one.cold:,.0f}"
        late = max(one.cold or 0, slowest) > BAR
        shown = [
            f"{median:,.0f}",
            f"{slowest:,.0f}",
            f"{one.spent:,.0f}",
            f"{one.size / 1000:,.0f}",
        ]
        table.add_row(name, cold, *shown, style="bold red" if late else None)
    Console(width=110).print(table)
