"""No page has a serious violation of accessibility, as axe-core finds them, in either scheme."""

from pathlib import Path

import pytest

from .browsers import chromium, needs_browser
from .http_server import serving
from .test_dashboard import PEOPLE, api  # noqa: F401 - a fixture

AXE = Path(__file__).parents[1] / ".axe" / "package" / "axe.min.js"
pytestmark = [
    needs_browser,
    pytest.mark.skipif(not AXE.exists(), reason="make axe fetches axe-core"),
]
RUN = (
    "axe.run().then(found => found.violations.map(one => [one.impact, one.id, one.nodes[0].html]))"
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_page_is_accessible(api, manager, scheme):  # noqa: F811
    summary = await manager.process_batch(await manager.create_batch("person", PEOPLE))
    batch = f"/batches/{summary.batch_id}"
    paths = ["", "/upload", "/types", "/types/person", batch, f"{batch}/items", f"{batch}/logs"]
    paths += [
        f"{batch}/items/2",
        f"{batch}/items/2/edit",
        f"{batch}/reprocess",
        f"{batch}/corrected",
    ]
    async with (
        serving(api.app, manager.settings, api.end_streams) as running,
        chromium() as browser,
    ):
        page = await browser.new_page(
            color_scheme=scheme, bypass_csp=True
        )  # axe comes from outside
        for path in paths:
            await page.goto(f"{running.url}/dashboard{path}")
            await page.add_script_tag(path=AXE)
            assert await page.evaluate(RUN) == [], path
