"""The dashboard without a browser: its pages, who may see them, and what forms may do."""

import re
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import pytest_asyncio
from pydantic import BaseModel
from starlette.applications import Starlette

from reliable_imports_async import APIManager, BaseEndpoint, BaseProcessor, Settings, Visible
from reliable_imports_async.models import ItemStatus, Tick

from ...support.trying import PATIENCE
from ..reach import PAGES, hash_of, new_api_key, percent, shown, size, span, timeline

SAME_SITE = {"Sec-Fetch-Site": "same-origin"}


class Person(BaseModel):
    name: str
    age: int


class PersonProcessor(BaseProcessor[Person]):
    """People, one a record."""

    oldest = 100

    async def process_item(self, item, ctx):
        if item.data.age > self.oldest:
            raise ValueError("too old")
        ctx.info("seen")


class ThingProcessor(BaseProcessor):
    async def process_item(self, item, ctx):
        pass


def browser(app, prefix=""):
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url=f"http://test{prefix}", timeout=PATIENCE)


@pytest_asyncio.fixture(loop_scope="session")
async def api(manager):
    manager.registry.register(PersonProcessor)
    manager.registry.register(ThingProcessor)
    api = APIManager(manager)
    async with api.running(allow_anonymous=True):
        yield api


@pytest_asyncio.fixture(loop_scope="session")
async def client(api):
    async with browser(api.app) as client:
        yield client


PEOPLE = [
    {"name": "Ann", "age": "30"},
    {"name": "Bob", "age": "x"},
    {"name": "Cid", "age": "200"},
    {"name": "Dan", "age": "300"},
]


@pytest_asyncio.fixture(loop_scope="session")
async def batch_id(api, manager):
    return (await manager.process_batch(await manager.create_batch("person", PEOPLE))).batch_id


async def token_of(client, path):
    page = await client.get(path)
    assert page.status_code == 200, page.text
    return re.search(r'name="token" value="([^"]+)"', page.text)[1]


async def send(client, path, form_path=None, headers=SAME_SITE, files=None, **fields):
    """Fill in the form of a page and send it."""
    token = await token_of(client, form_path or path)
    return await client.post(path, data={"token": token, **fields}, headers=headers, files=files)


async def group_of(manager, batch_id, kind):
    groups = (await manager.get_batch_summary(batch_id)).groups
    return next(one.group for one in groups if one.kind == kind)


async def test_every_page_answers_with_a_strict_policy(client, manager, batch_id):
    group = await group_of(manager, batch_id, "validation")
    paths = [
        "", "?status=partial", "?search=person", "?batch_type=thing", "/types", "/types/person", "/types/thing",
        "/upload", f"/batches/{batch_id}", f"/batches/{batch_id}/items", f"/batches/{batch_id}/logs",
        f"/batches/{batch_id}/items?status=failed", f"/batches/{batch_id}/items?group={group}",
        f"/batches/{batch_id}/items/2", f"/batches/{batch_id}/items/2/edit", f"/batches/{batch_id}/corrected",
        f"/batches/{batch_id}/reprocess?group={group}", f"/batches/{batch_id}/cancel",
    ]  # fmt: skip
    for path in paths:
        page = await client.get(f"/dashboard{path}")
        assert page.status_code == 200, (path, page.text)
        policy = page.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert page.headers["cache-control"] == "no-store"
        assert not re.search(r"style=|<style|onclick|<script(?! src=)", page.text), path
        assert page.text.count("<h1>") == 1, path


async def test_a_batch_shows_what_failed_and_why(client, batch_id):
    page = (await client.get(f"/dashboard/batches/{batch_id}")).text
    assert "too old" in page
    assert "Failures by cause" in page
    assert f"/dashboard/batches/{batch_id}/download" in page
    assert "batch partial" not in page  # no words run together


async def test_an_item_marks_the_field_that_is_wrong(client, batch_id):
    page = (await client.get(f"/dashboard/batches/{batch_id}/items/2")).text
    assert re.search(r'<tr class="wrong-field"><th scope="row"><bdi>age</bdi>', page)
    assert '<tr><th scope="row"><bdi>name</bdi>' in page


async def test_lists_are_paged_by_keys(client, manager, api):
    ids = [await manager.create_batch("thing", [{"n": n}]) for n in range(27)]
    first = (await client.get("/dashboard?batch_type=thing")).text
    assert str(ids[-1]) in first
    assert str(ids[0]) not in first
    older = re.search(r'href="(/dashboard\?[^"]*before=[^"]*)"', first)[1].replace("&amp;", "&")
    second = (await client.get(older)).text
    assert str(ids[0]) in second
    assert "Older" not in second


async def test_a_status_is_found_wherever_it_is(client, manager, api):
    records = [{"name": "n", "age": 200 if n in (3, 390) else 1} for n in range(400)]
    summary = await manager.process_batch(await manager.create_batch("person", records))
    items = f"/dashboard/batches/{summary.batch_id}/items"
    failed = (await client.get(f"{items}?status=failed")).text
    assert re.findall(r"/items/(\d+)\"", failed) == ["4", "391"]
    first = await manager.item_previews(summary.batch_id, status=ItemStatus.COMPLETED, limit=300)
    rest = await manager.item_previews(
        summary.batch_id, status=ItemStatus.COMPLETED, after=first[-1].item_number, limit=300
    )
    numbers = [one.item_number for one in (*first, *rest)]
    assert numbers == [n + 1 for n in range(400) if n not in (3, 390)]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("?status=strange", 422),
        ("?before=zz", 404),
        ("/batches/00000000-0000-7000-8000-000000000000", 404),
        ("/batches/00000000-0000-7000-8000-000000000000/strange", 404),
        ("/types/strange", 404),
        ("/static/strange", 404),
        ("/strange/page", 404),
    ],
)
async def test_refusals_are_pages(client, path, status):
    page = await client.get(f"/dashboard{path}")
    assert page.status_code == status
    assert page.headers["content-type"].startswith("text/html")


async def test_a_stroke_at_the_end_is_forgiven(client):
    for path, meant in (("/", ""), ("/types/", "/types"), ("/?search=x", "?search=x")):
        answer = await client.get(f"/dashboard{path}")
        assert answer.status_code in (303, 307)
        assert answer.headers["location"].removeprefix("http://test") == f"/dashboard{meant}"


async def test_numbers_beyond_postgresql_are_refused_politely(client, batch_id):
    base = f"/dashboard/batches/{batch_id}"
    assert (await client.get(f"{base}/items/99999999999")).status_code == 404
    assert (await client.get(f"{base}/items?after=99999999999")).status_code == 200
    assert (await client.get(f"{base}/items?after=x")).status_code == 422
    assert (await client.get(f"{base}/logs?before=999999999999999999")).status_code == 200


async def test_a_form_needs_its_token_and_its_site(client, manager, api):
    batch_id = await manager.create_batch("thing", [{}])
    path = f"/dashboard/batches/{batch_id}/pause"
    token = await token_of(client, path)
    for headers, given in [
        (SAME_SITE, "x"),
        ({"Sec-Fetch-Site": "cross-site"}, token),
        ({"Sec-Fetch-Site": "same-site"}, token),
        ({"Origin": "http://evil"}, token),
        ({"Origin": "null"}, token),
        ({}, token),
    ]:
        answer = await client.post(path, data={"token": given}, headers=headers)
        assert answer.status_code == 403
    assert (await manager.get_batch(batch_id)).status == "pending"
    answer = await client.post(path, data={"token": token}, headers={"Origin": "http://test"})
    assert answer.status_code == 303
    assert (await manager.get_batch(batch_id)).status == "paused"


async def test_a_token_of_another_browser_is_refused(client, api, manager):
    batch_id = await manager.create_batch("thing", [{}])
    path = f"/dashboard/batches/{batch_id}/pause"
    async with browser(api.app) as other:
        token = await token_of(other, path)
    await client.get(path)
    answer = await client.post(path, data={"token": token}, headers=SAME_SITE)
    assert answer.status_code == 403


async def test_pause_resume_and_cancel(client, manager, api):
    batch_id = await manager.create_batch("thing", [{}] * 3)
    path = f"/dashboard/batches/{batch_id}"
    await send(client, f"{path}/pause", reason="lunch")
    assert (await manager.get_batch(batch_id)).pause_reason == "lunch"
    assert "lunch" in (await client.get(path)).text
    await send(client, f"{path}/cancel")
    assert (await manager.get_batch(batch_id)).status == "cancelled"
    again = await send(client, f"{path}/resume")
    assert again.status_code == 409


async def test_start_and_resume_have_workers_process(client, manager, api):
    batch_id = await manager.create_batch("thing", [{}] * 3)
    path = f"/dashboard/batches/{batch_id}"
    await send(client, f"{path}/start")
    assert (await manager.wait_for_batch(batch_id, timeout=PATIENCE)).ok


async def test_a_group_is_reprocessed(client, manager, batch_id):
    group = await group_of(manager, batch_id, "exception")
    path = f"/dashboard/batches/{batch_id}/reprocess"
    answer = await send(client, path, f"{path}?group={group}", group=group)
    child = answer.headers["location"].rpartition("/")[2]
    summary = await manager.wait_for_batch(child, timeout=PATIENCE)
    assert (summary.total_items, summary.failed_items) == (2, 2)
    tree = (await client.get(f"/dashboard/batches/{child}")).text
    assert "Lineage" in tree
    assert "3 records</strong> of the import" in tree


async def test_a_canary_is_a_few_items(client, manager, batch_id):
    path = f"/dashboard/batches/{batch_id}/reprocess"
    answer = await send(client, path, f"{path}?canary=1", canary="1")
    child = answer.headers["location"].rpartition("/")[2]
    summary = await manager.wait_for_batch(child, timeout=PATIENCE)
    assert summary.total_items == 1
    assert "The other items were not run" in (await client.get(f"/dashboard/batches/{child}")).text
    assert (await send(client, path, f"{path}?canary=1", canary="0")).status_code == 422


async def test_an_item_is_edited_and_tried_again(client, manager, batch_id):
    path = f"/dashboard/batches/{batch_id}/items/2/edit"
    answer = await send(client, path, **{"field-0": "31", "retry": "1", "reason": "typo"})
    child = answer.headers["location"].rpartition("/")[2]
    assert (await manager.wait_for_batch(child, timeout=PATIENCE)).ok
    item = await manager.get_item(batch_id, 2)
    assert item.source_data == {"name": "Bob", "age": "31"}
    shown = (await client.get(f"/dashboard/batches/{batch_id}/items/2")).text
    assert "typo" in shown
    assert "Retried in" in shown
    assert (await client.get(path)).status_code == 409


async def test_what_a_form_cannot_hold_is_edited_as_json(client, manager, api):
    records = [{"name": "evil\u202etxt", "age": "x", "n": 1}]
    summary = await manager.process_batch(await manager.create_batch("person", records))
    path = f"/dashboard/batches/{summary.batch_id}/items/1/edit"
    assert "evil\\u202etxt" in (await client.get(path)).text
    wrong = await send(client, path, record="{")
    assert wrong.status_code == 422
    assert "not valid JSON" in wrong.text
    for text in ("[]", '{"a": NaN}'):
        assert (await send(client, path, record=text)).status_code == 422
    assert (await send(client, path, record='{"name": "a", "age": 2}')).status_code == 303
    assert (await manager.get_item(summary.batch_id, 1)).source_data == {"name": "a", "age": 2}


async def test_line_ends_of_untouched_fields_survive(client, manager, api):
    record = {"name": "two\r\nlines\nhere", "age": "x"}
    summary = await manager.process_batch(await manager.create_batch("person", [record]))
    path = f"/dashboard/batches/{summary.batch_id}/items/1/edit"
    await send(client, path, **{"field-1": "two\r\nlines\r\nhere", "field-0": "4"})
    item = await manager.get_item(summary.batch_id, 1)
    assert item.source_data == {"name": "two\r\nlines\nhere", "age": "4"}


CSV = b"name,age\nAnn,30\nBob,x\nCid,200\n"


async def test_an_upload_says_where_its_header_is(client, manager, api):
    async def upload(line):
        file = ("people.csv", b"x,y\nz,w\n" + CSV)
        return await send(
            client, "/dashboard/upload", files={"file": file}, batch_type="person", header_row=line
        )

    for line in ("x", "9" * 5_000, "0", "-1"):
        assert (await upload(line)).status_code == 422
    answer = await upload("3")
    assert answer.status_code == 303, answer.text
    batch = await manager.get_batch(answer.headers["location"].rpartition("/")[2])
    assert batch.total_items == 3


async def test_an_upload_is_looked_at_tried_and_started(client, manager, api):
    answer = await send(
        client, "/dashboard/upload", files={"file": ("people.csv", CSV)}, batch_type="person"
    )
    assert answer.status_code == 303, answer.text
    path = answer.headers["location"]
    page = (await client.get(path)).text
    assert "Read as <strong>csv</strong>" in page
    assert "Bob" in page
    batch_id = path.rpartition("/")[2]
    tried = await send(client, f"{path}/dry-run", path)
    assert 'Would fail</dt><dd class="bad">2' in tried.text
    assert (await manager.get_batch(batch_id)).status == "pending"
    await send(client, f"{path}/start")
    assert (await manager.wait_for_batch(batch_id, timeout=PATIENCE)).completed_items == 1
    same = await send(
        client, "/dashboard/upload", files={"file": ("people.csv", CSV)}, batch_type="person"
    )
    assert same.status_code == 409
    assert "Show the earlier batch" in same.text


async def test_a_corrected_file_comes_back(client, manager, batch_id):
    exported = b"".join([one async for one in manager.export_failures(batch_id)])
    better = exported.replace(b"200", b"20").replace(b"300", b"30").replace(b"x,Bob", b"1,Bob")
    path = f"/dashboard/batches/{batch_id}/corrected"
    answer = await send(client, path, files={"file": ("failures.csv", better)})
    assert answer.status_code == 303, answer.text
    child = answer.headers["location"].rpartition("/")[2]
    assert (await manager.wait_for_batch(child, timeout=PATIENCE)).ok
    page = (await client.get(f"/dashboard/batches/{batch_id}")).text
    assert "Nothing is outstanding" in page
    wrong = await send(client, path, files={"file": ("failures.csv", b"a,b\n1,2\n")})
    assert wrong.status_code in (409, 422)


KEY = new_api_key()


@pytest_asyncio.fixture(loop_scope="session")
async def guard(dsn, manager):
    settings = Settings(
        api_keys=(f"ann:{hash_of(KEY)}",), api_secret="a secret that nobody can guess at all"
    )
    manager.registry.register(ThingProcessor)
    manager.settings = manager.settings.model_copy(
        update=settings.model_dump(include={"api_keys", "api_secret"})
    )
    api = APIManager(manager, worker=False)
    async with api.running(allow_anonymous=True), browser(api.app) as client:
        yield client


async def test_people_sign_in_with_an_api_key(guard, manager):
    batch_id = await manager.create_batch("thing", [{}])
    asked = await guard.get(f"/dashboard/batches/{batch_id}")
    assert asked.status_code == 303
    where = asked.headers["location"]
    assert where.startswith("/dashboard/sign-in?next=%2Fdashboard%2Fbatches")
    assert (await guard.post(f"/dashboard/batches/{batch_id}/pause")).status_code == 401
    wanted = f"/dashboard/batches/{batch_id}"
    wrong = await send(guard, "/dashboard/sign-in", key="wrong", next=wanted)
    assert wrong.status_code == 401
    away = await send(guard, "/dashboard/sign-in", key=KEY, next="//evil.example/x")
    assert away.headers["location"] == "/dashboard"
    assert (await guard.get(wanted)).status_code == 200
    await send(guard, f"{wanted}/pause")
    lines = [line async for line in manager.get_logs(batch_id)]
    assert any(line.details == {"actor": "ann", "reason": "paused on request"} for line in lines)
    assert (await guard.get(f"/api/batches/{batch_id}")).status_code == 200
    await send(guard, "/dashboard/sign-out", "/dashboard")
    assert (await guard.get(wanted)).status_code == 303


async def test_whatever_changes_something_names_who_did_it(guard, manager):
    """Each action leaves a line in the log of its batch, with the user."""
    await send(guard, "/dashboard/sign-in", key=KEY, next="")
    manager.registry.register(PersonProcessor)
    upload = {"files": {"file": ("people.csv", CSV)}, "batch_type": "person"}
    path = (await send(guard, "/dashboard/upload", **upload)).headers["location"]
    await send(guard, f"{path}/dry-run", path)
    for verb in ("pause", "resume", "start"):
        assert (await send(guard, f"{path}/{verb}")).status_code == 303
    batch_id = path.rpartition("/")[2]
    await manager.process_batch(batch_id)
    taken = await send(guard, f"{path}/download", format="csv")
    await send(guard, f"{path}/items/2/edit", **{"field-1": "Bo", "force": "1"})
    child = await send(guard, f"{path}/reprocess", f"{path}/reprocess?canary=1", canary="1")
    await manager.process_batch(child.headers["location"].rpartition("/")[2])
    better = {"file": ("failures.csv", taken.content.replace(b"200", b"20"))}
    await send(guard, f"{path}/corrected", files=better)
    other = await manager.create_batch("person", [{}])
    await send(guard, f"/dashboard/batches/{other}/cancel")
    ids = [one.id async for one in manager.list_batches()]
    lines = [line for one in ids async for line in manager.get_logs(one)]
    mine = {line.message for line in lines if (line.details or {}).get("actor") == "ann"}
    said = {message.removeprefix("dashboard: ") for message in mine}
    assert said >= {
        "file uploaded", "dry run", "batch paused", "batch resumed", "started", "record edited", "reprocess",
        "failures downloaded as csv", "corrected file uploaded", "batch cancelled",
    }  # fmt: skip


async def test_failures_are_downloaded_by_a_form(client, manager, batch_id):
    path = f"/dashboard/batches/{batch_id}/download"
    asked = (await client.get(path)).text
    assert "JSON Lines" in asked
    group = await group_of(manager, batch_id, "exception")
    answer = await send(client, path, f"{path}?group={group}", group=group, format="jsonl")
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    assert len(answer.text.splitlines()) == 2
    assert (await client.post(path, headers=SAME_SITE)).status_code == 403


async def test_what_postgresql_names_is_marked_on_the_fields(client, manager, conn):
    class KeyProcessor(BaseProcessor):
        async def process_item(self, item, ctx):
            await ctx.execute("INSERT INTO keyed VALUES ($1, $2)", *item.source_data.values())

    await conn.execute("CREATE TABLE keyed (a text, b text, PRIMARY KEY (a, b))")
    manager.registry.register(KeyProcessor)
    batch_id = await manager.create_batch("key", [{"a": "1", "b": "2"}] * 2)
    summary = await manager.process_batch(batch_id)
    group = summary.groups[0].group
    here = f"/dashboard/batches/{batch_id}/items"
    failed = [one async for one in manager.list_items(batch_id, status=ItemStatus.FAILED)]
    page = (await client.get(f"{here}/{failed[0].item_number}")).text
    assert page.count('<tr class="wrong-field">') == 2
    assert page.count('class="field-error"') == 1
    listed = (await client.get(f"{here}?group={group}")).text
    assert listed.count('class="pair wrong"') == 2
    assert "already exists" in listed


async def test_a_list_shows_records_in_the_order_of_the_file(client, manager, api):
    answer = await send(
        client, "/dashboard/upload", files={"file": ("people.csv", CSV)}, batch_type="person"
    )
    page = (await client.get(answer.headers["location"])).text
    assert page.index("<th><bdi>name</bdi></th>") < page.index("<th><bdi>age</bdi></th>")
    items = (await client.get(f"{answer.headers['location']}/items")).text
    assert items.index("<bdi>name</bdi>") < items.index("<bdi>age</bdi>")


async def test_there_is_nothing_yet(client):
    page = (await client.get("/dashboard")).text
    assert "No batches yet" in page
    assert 'role="search"' not in page
    assert "No matching batches" in (await client.get("/dashboard?search=x")).text


async def test_a_session_does_not_change_anything_through_the_api(guard, manager):
    await send(guard, "/dashboard/sign-in", key=KEY, next="")
    batch_id = await manager.create_batch("thing", [{}])
    answer = await guard.post(f"/api/batches/{batch_id}/pause", headers=SAME_SITE)
    assert answer.status_code == 401


async def test_every_page_but_the_entrance_is_closed(guard):
    number = {"batch_id:uuid": "00000000-0000-7000-8000-000000000000", "item_number:number": "1"}
    for page in PAGES:
        if page.public:
            continue
        path = page.path
        for name, value in {**number, "name": "x", "action": "pause"}.items():
            path = path.replace(f"{{{name}}}", value)
        answer = await guard.request(page.method, f"/dashboard{path}", headers=SAME_SITE)
        assert answer.status_code == (303 if page.method == "GET" else 401), path


async def test_the_applications_hooks_hold_here_too(manager):
    class PersonEndpoint(BaseEndpoint):
        def authorize(self, ctx, action, batch):
            return action == "view"

        def visible_batches(self, ctx):
            return Visible(created_by="ann")

    manager.registry.register(PersonProcessor)
    manager.registry.register_endpoint(PersonEndpoint)
    api = APIManager(manager, worker=False)
    mine = await manager.create_batch("person", [{}], created_by="ann")
    other = await manager.create_batch("person", [{}], created_by="bob")
    async with api.running(allow_anonymous=True), browser(api.app) as client:
        listed = (await client.get("/dashboard")).text
        assert str(mine) in listed
        assert str(other) not in listed
        assert (await client.get(f"/dashboard/batches/{other}")).status_code == 404
        assert (await client.get(f"/dashboard/batches/{mine}")).status_code == 200
        assert (await client.get(f"/dashboard/batches/{mine}/pause")).status_code == 403


async def test_it_can_be_switched_off_and_mounted(manager):
    manager.registry.register(ThingProcessor)
    off = APIManager(manager, worker=False, dashboard=False)
    async with off.running(allow_anonymous=True), browser(off.app) as client:
        assert (await client.get("/dashboard")).status_code == 404
        assert (await client.get("/health")).status_code == 200
    host, api = Starlette(), APIManager(manager, worker=False)
    api.mount_into(host, "/imports", allow_anonymous=True)
    async with api.running(allow_anonymous=True), browser(host) as client:
        page = (await client.get("/imports/dashboard")).text
        assert 'href="/imports/dashboard/static/dashboard.css"' in page
        assert (await client.get("/imports/dashboard/static/dashboard.css")).status_code == 200


def test_values_are_written_for_people():
    assert shown("a<b") == "<bdi>a&lt;b</bdi>"
    assert "U+202E" in shown("x\u202ey")
    assert "\u202e" not in shown("x\u202ey")
    assert "1,000 more characters" in shown("x" * 3000)
    assert (percent(999_999, 1_000_000), percent(1, 1_000_000)) == ("> 99.9 %", "< 0.1 %")
    assert (percent(1, 1), percent(0, 1), percent(1, 3)) == ("100 %", "0 %", "33.3 %")
    assert (span(3.21), span(75), span(3700), span(90_000)) == (
        "3.2 s", "1 min 15 s", "1 h 1 min", "1 d 1 h",
    )  # fmt: skip
    assert (size(5), size(1234), size(5_000_000_000)) == ("5 B", "1.2 kB", "5.0 GB")


def test_a_timeline_counts_every_item_once():
    start = datetime(2026, 1, 1, tzinfo=UTC)
    ticks = [Tick(start + timedelta(seconds=n), n % 10 == 0) for n in range(120)]
    chart = timeline(ticks, 1)
    assert len(chart.bars) == 60
    height = sum(bar.good_height + bar.failed_height for bar in chart.bars)
    assert height * chart.peak / 90 * (119 / 60) == pytest.approx(120, rel=0.01)
    assert timeline(ticks[:1], 1) is None
