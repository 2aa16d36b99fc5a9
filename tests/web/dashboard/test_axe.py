"""No page has a serious violation of accessibility, as axe-core finds them, in either scheme."""

from pathlib import Path

import pytest

from ..browsers import chromium, needs_browser
from ..http_server import serving
from .test_dashboard import PEOPLE, api  # noqa: F401 - a fixture

AXE = Path(__file__).parents[3] / ".axe" / "package" / "axe.min.js"
pytestmark = [
    needs_browser,
    pytest.mark.skipif(not AXE.exists(), reason="make axe fetches axe-core"),
]
RUN = (
    "axe.run().then(found => found.violations.map(one => [one.impact, one.id, one.nodes[0].html]))"
)


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_page_is_accessible(api, manager, scheme):  # noqa: F811
    paths = await _paths(manager)
    async with (
        serving(api.app, manager.settings, api.end_streams) as running,
        chromium() as browser,
    ):
        page = await browser.new_page(color_scheme=scheme, bypass_csp=True)  # axe is not ours
        for path in paths:
            await page.goto(f"{running.url}/dashboard{path}")
            assert await _violations(page) == [], path
        await page.goto(f"{running.url}/dashboard{paths[0]}")
        await page.click("text=Reprocess all failed")
        await page.wait_for_selector("dialog[open]")
        assert await _violations(page) == []


async def _violations(page):
    await page.add_script_tag(path=AXE)
    return await page.evaluate(RUN)


async def _paths(manager) -> list[str]:
    """Every page, and each in the states that look different; a batch with failures comes first."""
    people = await manager.create_batch("person", PEOPLE, expect={"count": 4}, metadata={"a": 1})
    await manager.process_batch(people)
    group = (await manager.get_batch_summary(people)).groups[0].group
    await manager.update_item_source(people, 2, {"name": "Bob", "age": 31}, reason="typo")
    child = (await manager.reprocess_batch(people, canary=1)).batch_id
    waiting = await manager.create_batch("person", PEOPLE)
    paused = await manager.create_batch("thing", [{}])
    await manager.pause_batch(paused, reason="lunch")
    good = await manager.process_batch(await manager.create_batch("thing", [{"n": 1}]))
    here = f"/batches/{people}"
    ends = ["", "/items", f"/items?group={group}", "/items?status=skipped", "/items/1", "/items/2"]
    ends += [
        "/items/3/edit",
        "/logs",
        "/reprocess",
        "/cancel",
        "/download",
        "/corrected",
        "/strange",
    ]
    others = [f"/batches/{one}" for one in (child, waiting, paused, good.batch_id)]
    paths = ["", "?search=nothing", "/types", "/types/person", "/types/thing", "/upload"]
    return [*[here + end for end in ends], *others, *paths]
