"""The dashboard in a real browser: from a file to 100 %, watched while it moves, and kept in order."""

import asyncio
import re

import pytest
import pytest_asyncio

from reliable_imports_async import APIManager

from ..browsers import chromium, needs_browser
from ..http_server import serving
from .test_dashboard import PersonProcessor, ThingProcessor, batch_id  # noqa: F401 - a fixture

pytestmark = needs_browser

CSV = b"name,age\n" + b"".join(b"p%d,%d\n" % (n, 200 if n in (3, 5) else 30) for n in range(40))
STARTS_WITH = "([name, text]) => document.querySelector(`[data-live=${name}]`).textContent === text"
WIDTH = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


class GatedProcessor(PersonProcessor):
    """Lets twenty people in; the others wait until the test opens the gate."""

    batch_type = "gated"
    gate = asyncio.Event()

    async def process_item(self, item, ctx):
        if item.item_number > 20 and ctx.batch.parent_batch_id is None:
            await self.gate.wait()
        await super().process_item(item, ctx)


@pytest_asyncio.fixture(loop_scope="session")
async def api(manager):
    """An API whose worker knows the gated processor from its start."""
    GatedProcessor.gate = asyncio.Event()
    for processor in (PersonProcessor, ThingProcessor, GatedProcessor):
        manager.registry.register(processor)
    api = APIManager(manager)
    async with api.running(allow_anonymous=True):
        yield api


@pytest_asyncio.fixture(loop_scope="session")
async def site(api, manager):
    """A page of a browser, and the address of the dashboard."""
    async with (
        serving(api.app, manager.settings, api.end_streams) as running,
        chromium() as browser,
    ):
        page = await browser.new_page()
        try:
            yield page, f"{running.url}/dashboard"
        finally:
            GatedProcessor.gate.set()


async def live(page, name, text):
    """Wait until the page says so by itself."""
    await page.wait_for_function(STARTS_WITH, arg=[name, text])


async def test_from_a_file_to_a_hundred_percent(site, manager):
    page, base = site
    await page.goto(f"{base}/upload")
    await page.select_option("select[name=batch_type]", "gated")
    file = {"name": "people.csv", "mimeType": "text/csv", "buffer": CSV}
    await page.set_input_files("input[type=file]", file)
    await page.click("main button.main")
    await page.wait_for_selector("text=Preview of the import")
    assert "Read as csv" in await page.inner_text("main")
    assert await page.inner_text("table.rows tbody tr:first-child") == "1\tp0\t30"
    await page.click("text=Start")
    await page.click("dialog button.main")

    await page.wait_for_selector("h1 .badge.processing")
    await page.evaluate("window.never_reloaded = true")
    await live(page, "percent", "50 %")
    await live(page, "failed_items", "2")
    await page.wait_for_selector("article.group")
    assert await page.evaluate("window.never_reloaded")
    assert await page.get_attribute(".bar .completed", "width") == "45"
    GatedProcessor.gate.set()

    await page.wait_for_selector("h1 .badge.partial")
    assert await page.inner_text("[data-live=percent]") == "100 %"
    await page.click("article.group h3 a")
    await page.click("table.items tbody a")
    await page.click("text=Edit and retry")
    await page.get_by_label("age").fill("31")
    await page.click("text=Save and retry")
    await page.wait_for_selector("h1 .badge.completed")
    await page.click("text=Reprocessing of >> a")
    await page.wait_for_selector("text=1 record of the import")
    PersonProcessor.oldest = 300
    try:
        await page.click("text=Reprocess this group")
        await page.click("dialog button.main")
        await page.wait_for_selector("h1 .badge.completed")
    finally:
        PersonProcessor.oldest = 100
    assert await page.inner_text("[data-live=percent]") == "100 %"
    assert "Nothing is outstanding" in await page.inner_text("main")


async def test_a_list_moves_by_itself(site, manager):
    page, base = site
    records = [{"name": "n", "age": 1} for _ in range(40)]
    await manager.create_batch("gated", records, enqueue=True)
    await page.goto(base)
    await page.wait_for_selector("td .badge.pending, td .badge.processing")
    while not await page.locator("tr[data-events]").count():
        await page.reload()  # it has just been claimed
    await live(page, "percent", "50 %")
    GatedProcessor.gate.set()
    await page.wait_for_selector("td .badge.completed")
    await live(page, "percent", "100 %")


async def test_what_failed_is_downloaded_and_noted(site, manager, batch_id):  # noqa: F811
    page, base = site
    await page.goto(f"{base}/batches/{batch_id}")
    await page.click("text=Download failures")
    async with page.expect_download() as started:
        await page.click("dialog button:has-text('CSV')")
    download = await started.value
    assert re.fullmatch(r"failures-person-\w{8}\.csv", download.suggested_filename)
    text = await asyncio.to_thread(open, await download.path())
    with text:
        assert text.readline().startswith("\ufeff_batch,age,name,_item")
    await page.wait_for_selector("dialog", state="detached")
    messages = [line.message async for line in manager.get_logs(batch_id)]
    assert "dashboard: failures downloaded as csv" in messages


async def test_the_keyboard_is_enough(site, manager, batch_id):  # noqa: F811
    page, base = site
    await page.goto(f"{base}/batches/{batch_id}")
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.textContent") == "Skip to the content"
    link = page.locator("text=Reprocess all failed")
    await link.focus()
    await page.keyboard.press("Enter")
    await page.wait_for_selector("dialog[open]")
    inside = "document.querySelector('dialog').contains(document.activeElement)"
    assert await page.evaluate(inside)
    await page.keyboard.press("Escape")
    await page.wait_for_selector("dialog", state="detached")
    assert await link.evaluate("link => link === document.activeElement")


async def test_everything_works_without_javascript(site, manager, batch_id):  # noqa: F811
    page, base = site
    context = await page.context.browser.new_context(java_script_enabled=False)
    plain = await context.new_page()
    await plain.goto(f"{base}/batches/{batch_id}")
    assert "too old" in await plain.inner_text("main")
    assert await plain.locator("details").count() == 0
    await plain.click("text=Try a few first")
    assert await plain.inner_text("h1") == "Try a few items first?"
    await plain.click("main button.main")
    assert "Reprocessing of" in await plain.inner_text("main")
    await context.close()


@pytest.mark.long
@pytest.mark.parametrize("width", [320, 1180])
async def test_no_page_is_wider_than_its_window(site, manager, batch_id, width):  # noqa: F811
    page, base = site
    await page.set_viewport_size({"width": width, "height": 700})
    here = f"/batches/{batch_id}"
    ends = ("", "/items", "/items/2", "/items/2/edit", "/logs", "/reprocess?canary=1", "/corrected")
    for path in ("", "/types", "/types/person", "/upload", *[here + end for end in ends]):
        await page.goto(base + path)
        assert await page.evaluate(WIDTH) == 0, path
