"""``python -m tests.screenshots DIRECTORY``: pictures of the dashboard, from the flights demo."""

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path
from uuid import uuid4

import asyncpg
from examples.flights.demo import DATA, SCHEMA

from reliable_imports_async import APIManager, BatchManager, read_file
from reliable_imports_async.embedded import EmbeddedServer

from .browsers import chromium
from .http_server import serving


async def main(target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.gettempdir()) / f"ri-shots-{uuid4().hex[:12]}"
    try:
        async with EmbeddedServer(directory) as server:
            url = server.url("postgres")
            await BatchManager(url).migrate()
            connection = await asyncpg.connect(url)
            await connection.execute(SCHEMA.read_text(encoding="utf-8"))
            await connection.close()
            async with BatchManager(url) as manager:
                await _picture(manager, target)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def _picture(manager: BatchManager, target: Path) -> None:
    manager.registry.discover("examples.flights.processors")
    for name in ("airline", "airport", "plane"):
        await manager.import_file(DATA / f"{name}s.csv", name, created_by="ann")
    flights = DATA / "flights-2013-01.csv.gz"
    summary = await manager.import_file(flights, "flight", created_by="ann")
    child = await manager.reprocess_batch(summary.batch_id, canary=20, actor="ann")
    waiting = await manager.create_batch(
        "airport", read_file(DATA / "missing_airports.csv"), created_by="ben"
    )
    groups = await manager.failure_groups(summary.batch_id)
    number = groups[0].sample_items[0]
    batch = f"/batches/{summary.batch_id}"
    pages = {
        "batches": "",
        "batch": batch,
        "group": f"{batch}/items?group={groups[0].group}",
        "item": f"{batch}/items/{number}",
        "edit": f"/batches/{child.batch_id}/items/1/edit",
        "upload": "/upload",
        "preview": f"/batches/{waiting}",
        "types": "/types",
        "type": "/types/airport",
        "confirm": f"{batch}/reprocess?canary=1",
    }
    api = APIManager(manager, worker=False)
    async with api.running(), serving(api.app, manager.settings, api.end_streams) as running:
        async with chromium() as browser:
            await _shoot(browser, f"{running.url}/dashboard", pages, target)


async def _shoot(browser, base: str, pages: dict[str, str], target: Path) -> None:
    for scheme, names in {"light": pages, "dark": ["batch"]}.items():
        context = await browser.new_context(
            viewport={"width": 1180, "height": 760}, color_scheme=scheme
        )
        page = await context.new_page()
        for name in names:
            await page.goto(base + pages[name])
            suffix = "" if scheme == "light" else "-dark"
            await page.screenshot(path=target / f"{name}{suffix}.png")
        await context.close()
    context = await browser.new_context(viewport={"width": 390, "height": 780})
    page = await context.new_page()
    for name in ("batches", "batch"):
        await page.goto(base + pages[name])
        await page.screenshot(path=target / f"{name}-phone.png")
    await context.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
