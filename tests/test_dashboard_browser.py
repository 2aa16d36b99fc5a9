"""The dashboard in a real browser: from a file to 100 %, and data that means harm."""

from .browsers import chromium, needs_browser
from .http_server import serving
from .test_dashboard import PersonProcessor, api  # noqa: F401 - a fixture

pytestmark = needs_browser

CSV = b"name,age\n" + b"".join(b"p%d,%d\n" % (n, 200 if n in (3, 5) else 30) for n in range(40))
HARM = '<script>document.title="owned"</script><img src=x onerror="document.title=\'owned\'">\u202ename'


async def test_from_a_file_to_a_hundred_percent(api, manager):  # noqa: F811
    async with (
        serving(api.app, manager.settings, api.end_streams) as running,
        chromium() as browser,
    ):
        page = await browser.new_page()
        await page.goto(f"{running.url}/dashboard/upload")
        await page.select_option("select[name=batch_type]", "person")
        file = {"name": "people.csv", "mimeType": "text/csv", "buffer": CSV}
        await page.set_input_files("input[type=file]", file)
        await page.click("main button.main")
        await page.wait_for_selector("text=What would be imported")
        await page.click("text=Start")
        await page.click("dialog button.main")
        await page.wait_for_selector(".badge.partial")
        await page.click("article.group h3 a")
        await page.click("table.items tbody a")
        await page.click("text=Edit and retry")
        await page.get_by_label("age").fill("31")
        await page.click("text=Save and retry")
        await page.wait_for_selector("h1 .badge.completed")
        await page.go_back()
        await page.goto(page.url.partition("/items")[0])
        PersonProcessor.oldest = 300
        try:
            await page.click("text=Reprocess this group")
            await page.click("dialog button.main")
            await page.wait_for_selector("h1 .badge.completed")
        finally:
            PersonProcessor.oldest = 100
        assert "100 %" in await page.text_content("[data-live=percent]")
        assert "Nothing is outstanding" in await page.text_content("main")


async def test_hostile_data_is_only_text(api, manager):  # noqa: F811
    records = [{"name": HARM, "age": "x"}, {HARM: HARM, "age": HARM}, {"name": "x" * 900_000}]
    batch_id = await manager.create_batch("person", records, metadata={HARM: HARM}, created_by=HARM)
    await manager.process_batch(batch_id)
    batch = f"/dashboard/batches/{batch_id}"
    paths = ["/dashboard", batch, f"{batch}/items", f"{batch}/logs", f"{batch}/corrected"]
    paths += [f"{batch}/items/{n}{end}" for n in (1, 2, 3) for end in ("", "/edit")]
    async with (
        serving(api.app, manager.settings, api.end_streams) as running,
        chromium() as browser,
    ):
        page = await browser.new_page()
        complaints = []
        page.on("console", lambda line: complaints.append(line.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        for path in paths:
            await page.goto(running.url + path)
            assert "owned" not in await page.title(), path
            assert await page.locator("main script, main img, main [onerror]").count() == 0, path
            assert "\u202e" not in await page.inner_text("main"), path
        assert complaints == []
