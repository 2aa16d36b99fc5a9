"""``python -m tests.web.dashboard.screenshots DIRECTORY``: pictures of every page of the dashboard, from the flights demo.

An hour of a flight data desk: reference data, one file of flights a day, one of them damaged, a month
at once; what failed is looked at, tried again, repaired in part. One import is under way.
"""

import asyncio
import csv
import gzip
import io
import shutil
import sys
import tempfile
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
from examples.flights.demo import DATA, JANUARY, SCHEMA

from reliable_imports_async import APIManager, BatchManager, read_file

from ...database.reach import EmbeddedServer
from ..browsers import chromium
from ..http_server import serving

WIDE, PHONE = {"width": 1240, "height": 820}, {"width": 390, "height": 780}
SHORTER = {"group": 600}  # the text of many rows makes a large file
DARK = ("batches", "batch", "item")
NARROW = ("batches", "batch")
EARLIER = (  # as if they had come in over an hour
    """
UPDATE reliable_imports.import_batch_items
   SET started_at = started_at - $2::interval, finished_at = finished_at - $2::interval
 WHERE batch_id = $1
""",
    """
UPDATE reliable_imports.import_logs SET logged_at = logged_at - $2::interval WHERE batch_id = $1
""",
    """
UPDATE reliable_imports.import_batches
   SET created_at = created_at - $2::interval, started_at = started_at - $2::interval,
       finished_at = finished_at - $2::interval
 WHERE id = $1
""",
)


async def main(target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.gettempdir()) / f"ri-shots-{uuid4().hex[:12]}"
    try:
        async with EmbeddedServer(directory) as server:
            await BatchManager(server.url("postgres")).migrate()
            async with BatchManager(server.url("postgres")) as manager:
                manager.registry.discover("examples.flights.processors")
                async with served(manager) as base, chromium() as browser:
                    await shoot(browser, base, {"empty": ""}, target)
                    pages = await story(manager, server.url("postgres"))
                    await shoot(browser, base, pages, target)
                    await clicks(browser, base, pages, target)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@asynccontextmanager
async def served(manager: BatchManager):
    """The dashboard's address."""
    api = APIManager(manager, worker=False)
    async with (
        api.running(allow_anonymous=True),
        serving(api.app, manager.settings, api.end_streams) as running,
    ):
        yield f"{running.url}/dashboard"


async def story(manager: BatchManager, url: str) -> dict[str, str]:
    """Make the batches; the paths of the pages by the names of their pictures."""
    connection = await asyncpg.connect(url)
    await connection.execute(SCHEMA.read_text(encoding="utf-8"))
    made = [
        (await manager.import_file(DATA / f"{name}s.csv", name, created_by="ann")).batch_id
        for name in ("airline", "airport", "plane")
    ]
    days = _days()
    for day in (25, 26):
        made.append((await _import(manager, days, day)).batch_id)
    month = (await manager.import_file(JANUARY, "flight", created_by="ben")).batch_id
    damaged = await _create(manager, days, 27, _damaged)
    await manager.pause_batch(damaged, reason="waits for the airports", actor="ben")
    await manager.resume_batch(damaged, reason="no, it does not", actor="ann")
    await manager.process_batch(damaged)
    await manager.reprocess_batch(damaged, canary=10, actor="ann")
    edited = await _edited(manager, damaged)
    await connection.execute(
        "INSERT INTO flights_demo.airports SELECT 'BQN', 'Rafael Hernandez', lat, lon, alt, tz, dst, tzone"
        " FROM flights_demo.airports LIMIT 1"
    )
    groups = (await manager.get_batch_summary(month)).groups
    child = (await manager.reprocess_batch(month, group=groups[0].group, actor="ann")).batch_id
    made += [month, damaged]
    for place, batch_id in enumerate(made):
        for statement in EARLIER:
            await connection.execute(statement, batch_id, timedelta(minutes=56 - 6 * place))
    waiting = await manager.create_batch(
        "airport", read_file(DATA / "missing_airports.csv"), created_by="ben"
    )
    await _half(manager, days, 28)
    await connection.close()
    pages = await _pages(manager, month, damaged, child, waiting)
    return pages | {"item-fields": f"/batches/{damaged}/items/{edited}"}


async def _edited(manager, damaged: UUID) -> int:
    """Correct an item that was not tried again; its number."""
    groups = (await manager.get_batch_summary(damaged)).groups
    wrong = next(one.group for one in groups if one.kind == "validation")
    items = [one async for one in manager.list_items(damaged, group=wrong)]
    item = next(one for one in items if one.reprocessed_by is None)
    record = item.source_data | {"tailnum": "N13134"}
    await manager.update_item_source(
        damaged, item.item_number, record, reason="as painted on the plane", actor="ann"
    )
    return item.item_number


async def _pages(manager, month: UUID, damaged: UUID, child: UUID, waiting: UUID) -> dict[str, str]:
    batch = f"/batches/{month}"
    groups = (await manager.get_batch_summary(month)).groups
    (open_item,) = [one async for one in manager.list_items(child, status="failed", limit=1)]
    sample = (await manager.failure_groups(month))[0].sample_items[0]
    return {
        "batches": "",
        "batch": batch,
        "causes": f"/batches/{damaged}",
        "reprocessing": f"/batches/{child}",
        "group": f"{batch}/items?group={groups[0].group}",
        "item": f"{batch}/items/{sample}",
        "edit": f"/batches/{child}/items/{open_item.item_number}/edit",
        "log": f"/batches/{damaged}/logs",
        "upload": "/upload?batch_type=flight",
        "preview": f"/batches/{waiting}",
        "corrected": f"{batch}/corrected",
        "types": "/types",
        "type": "/types/airport",
        "no-items": f"{batch}/items?status=skipped",
    }


def _days() -> dict[int, list[dict[str, str]]]:
    """The flights of January by day."""
    days: dict[int, list[dict[str, str]]] = {}
    with gzip.open(JANUARY, "rt", newline="") as file:
        for row in csv.DictReader(file):
            days.setdefault(int(row["day"]), []).append(row)
    return days


def _damaged(rows: list[dict[str, str]]) -> None:
    for row in rows[17::40]:
        row["arr_delay"] = "n/a"
    for row in rows[5::120]:
        row["carrier"] = "ZZ"
    for row in rows[11::90]:
        row["time_hour"] = "2014-02-30 05:00"


async def _import(manager, days, day: int, damage=lambda rows: None):
    """Import the flights of a day, each with the year after it, so that none is there twice."""
    return await manager.process_batch(await _create(manager, days, day, damage))


async def _create(manager, days, day: int, damage=lambda rows: None) -> UUID:
    later = {"year": "2014"}
    rows = [row | later | {"time_hour": f"2014{row['time_hour'][4:]}"} for row in days[day]]
    damage(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    source = read_file(io.BytesIO(text.getvalue().encode()), name=f"flights-2014-01-{day}.csv")
    return await manager.create_batch("flight", source, created_by="cron")


async def _half(manager, days, day: int) -> None:
    """Process a batch until it is half done, and leave it there."""
    batch_id = await _create(manager, days, day)
    processing = asyncio.create_task(manager.process_batch(batch_id))
    while (await manager.get_batch_summary(batch_id)).settled_items < 400:
        await asyncio.sleep(0.02)
    processing.cancel()
    await asyncio.wait([processing])


async def shoot(browser, base: str, pages: dict[str, str], target: Path) -> None:
    """One picture a page, and more where colours or width matter."""
    for scheme, viewport, suffix, names in (
        ("light", WIDE, "", pages),
        ("dark", WIDE, "-dark", DARK),
        ("light", PHONE, "-phone", NARROW),
    ):
        context = await browser.new_context(viewport=viewport, color_scheme=scheme)
        page = await context.new_page()
        for name in names:
            if name in pages:
                await page.goto(base + pages[name])
                height = SHORTER.get(name, viewport["height"])
                clip = {"x": 0, "y": 0, "width": viewport["width"], "height": height}
                await page.screenshot(path=target / f"{name}{suffix}.png", clip=clip)
        await context.close()


async def click(browser, url: str, button: str, awaited: str, picture: Path) -> None:
    """What comes of a click on a page."""
    context = await browser.new_context(viewport=WIDE)
    page = await context.new_page()
    await page.goto(url)
    await page.click(f"text={button}")
    await page.wait_for_selector(awaited)
    await page.screenshot(path=picture)
    await context.close()


async def clicks(browser, base: str, pages: dict[str, str], target: Path) -> None:
    """A question, asked in a dialog; and what a dry run found."""
    first, dialog = target / "dialog.png", "dialog[open]"
    await click(browser, base + pages["batch"], "Try a few first", dialog, first)
    tried = target / "dry-run.png"
    await click(browser, base + pages["preview"], "Dry run", "h1:has-text('Dry run')", tried)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
