"""Data that means harm, in every place that pages show: a browser sees text, and pages keep their shape."""

import io

import pytest
import pytest_asyncio
from pydantic import BaseModel, Field

from reliable_imports_async import APIManager, BaseProcessor, Skip, read_file
from reliable_imports_async.models import ItemStatus

from ..browsers import chromium, needs_browser
from ..http_server import serving

pytestmark = needs_browser

SCRIPT = "<script>window.owned=1</script><img src=x onerror=window.owned=1>\"'><svg onload=window.owned=1>{{7*7}}"
TURNED = "\u202eexe.txt\u2066\u200b"
HARM = f"{SCRIPT}{TURNED}"
LONG = "x" * 1_000_000
WIDTH = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


class HostileModel(BaseModel):
    name: str
    age: int = Field(default=0, description=HARM)


class HostileProcessor(BaseProcessor[HostileModel]):
    __doc__ = HARM
    batch_type = f"type {HARM}"

    async def process_item(self, item, ctx):
        ctx.info(HARM, **{HARM: HARM, "long": LONG[:50_000]})
        match item.data.age:
            case 0:
                raise ValueError(f"{HARM} {LONG}")
            case 1:
                return Skip(HARM)
            case 2:
                await ctx.execute("SELECT 1 / 0")
            case 3:
                await ctx.execute("INSERT INTO hostile VALUES ($1)", f"{SCRIPT} {item.item_number}")
        written = {"note": HARM, HARM: LONG[:20_000]}
        return {"target_table": HARM, "target_id": HARM, "processed_data": written}

    async def check(self, ctx):
        raise ValueError(f"{HARM} {LONG}")


TABLE = (
    "CREATE TABLE allowed (k text PRIMARY KEY); CREATE TABLE hostile (k text REFERENCES allowed)"
)
RECORDS = [
    {"name": HARM, "age": "x"},
    {HARM: HARM, "age": HARM},
    {"name": LONG[:900_000], "age": 0},
    {"name": HARM, "age": 0},
    {"name": HARM, "age": 1},
    {"name": HARM, "age": 2},
    {"name": HARM, "age": 3},
    {"name": HARM, "age": 9, LONG[:5_000]: LONG[:5_000]},
    {"name": {"deep": [HARM, {HARM: LONG[:3_000]}]}},
    {},
]


@pytest_asyncio.fixture(loop_scope="session")
async def hostile(manager, conn):
    """The paths of pages that show what means harm."""
    await conn.execute(TABLE)
    manager.registry.register(HostileProcessor)
    name = HostileProcessor.batch_type
    metadata = {HARM: HARM, "long": LONG}
    created = await manager.create_batch(name, RECORDS, metadata=metadata, created_by=HARM)
    await manager.process_batch(created)
    await manager.update_item_source(created, 1, {"name": HARM, "age": 0}, reason=HARM, actor=HARM)
    child = (await manager.reprocess_batch(created, actor=HARM)).batch_id
    column = HARM.replace('"', '""')
    content = f'"{column}",name\n{LONG[:2_000]},\x00\n'.encode()
    file = read_file(io.BytesIO(content), name=f"{HARM}.csv")
    waiting = await manager.create_batch(name, file, created_by=HARM)
    paused = await manager.create_batch(name, [{}])
    await manager.pause_batch(paused, reason=f"{HARM} {LONG}", actor=HARM)
    return await _paths(manager, created, child, waiting, paused)


async def _paths(manager, created, child, waiting, paused) -> list[str]:
    here = f"/batches/{created}"
    paths = ["", "?search=%3Cscript%3E%E2%80%AE", "/types", "/upload", here, f"{here}/items"]
    paths += [f"{here}/{name}" for name in ("logs", "corrected", "reprocess", "cancel", "download")]
    paths += [f"{here}/items/{number}" for number in range(1, len(RECORDS) + 1)]
    paths += [f"{here}/items?status={status}" for status in ItemStatus]
    groups = (await manager.get_batch_summary(created)).groups
    assert {one.kind for one in groups} >= {"validation", "exception", "data"}
    for one in groups:
        paths += [f"{here}/items?group={one.group}", f"{here}/reprocess?group={one.group}&canary=1"]
    failed = [one async for one in manager.list_items(child, status=ItemStatus.FAILED)]
    paths += [f"/batches/{child}/items/{one.item_number}/edit" for one in failed]
    return [*paths, *(f"/batches/{one}" for one in (child, waiting, paused))]


@pytest.mark.long
@pytest.mark.parametrize("width", [390, 1240])
async def test_what_means_harm_is_only_text(hostile, manager, width):
    api = APIManager(manager, worker=False)
    async with (
        api.running(allow_anonymous=True),
        serving(api.app, manager.settings, api.end_streams) as running,
        chromium() as browser,
    ):
        page = await browser.new_page(viewport={"width": width, "height": 800})
        complaints = []
        page.on("console", lambda line: complaints.append(line.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        await page.goto(f"{running.url}/dashboard/types")
        own = await page.get_attribute("table.types a", "href")
        for path in [*hostile, own.removeprefix("/dashboard")]:
            answer = await page.goto(f"{running.url}/dashboard{path}")
            assert answer.status == 200, path
            await check(page, path, len(await answer.body()))
        assert complaints == []


async def check(page, path: str, size: int) -> None:
    assert await page.evaluate("window.owned") is None, path
    assert (
        await page.locator("main script, main img, main [onerror], main [onload]").count() == 0
    ), path
    text = await page.inner_text("body") + await page.title()
    assert not set("\u202e\u2066\u200b") & set(text), path
    assert ">49" not in text, path  # nothing is taken for a template
    assert await page.evaluate(WIDTH) == 0, path
    assert size < (1_000_000 if path.endswith("/edit") else 100_000), path  # a form has all of it


async def test_the_text_of_an_attack_can_be_read(hostile, manager):
    api = APIManager(manager, worker=False)
    async with (
        api.running(allow_anonymous=True),
        serving(api.app, manager.settings, api.end_streams) as running,
        chromium() as browser,
    ):
        page = await browser.new_page()
        created = next(path for path in hostile if path.startswith("/batches"))
        await page.goto(f"{running.url}/dashboard{created}/items/1")
        text = await page.inner_text("main")
        assert SCRIPT in text
        assert "U+202Eexe.txtU+2066U+200B" in text
