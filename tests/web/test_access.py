"""Who may do what: every route for every kind of caller, from one table. A route without a line fails."""

import re
from html import unescape
from urllib.parse import urljoin

import httpx
import pytest
import pytest_asyncio

from reliable_imports_async import APIManager, BaseEndpoint, BaseProcessor, Visible

from ..support.trying import PATIENCE
from .reach import ACTIONS, OPERATIONS, PAGES, ApiKeys, forget, hash_of, new_api_key

SAME_SITE = {"Sec-Fetch-Site": "same-origin"}
RIGHTS = {  # all but `other` see the batch
    "other": {"create", "view", "process", "reprocess", "pause", "resume", "cancel", "edit"},
    "viewer": {"view"},
    "editor": {"view", "edit", "reprocess"},
    "operator": {"view", "process", "reprocess", "pause", "resume", "cancel"},
    "owner": {"create", "view", "process", "reprocess", "pause", "resume", "cancel", "edit"},
}
KEYS = {name: new_api_key() for name in RIGHTS}
SECRET = "only-for-the-team"

EVERYBODY, SIGNED_IN = "everybody", "signed in"
API = {  # what a caller has to be allowed to do
    ("GET", "/"): EVERYBODY,
    ("POST", "/api/batches"): "create",
    ("POST", "/api/batches/upload"): "create",
    ("GET", "/api/batches"): SIGNED_IN,
    ("GET", "/api/batches/{batch_id:uuid}"): "view",
    ("POST", "/api/batches/{batch_id:uuid}/process"): "process",
    ("POST", "/api/batches/{batch_id:uuid}/reprocess"): "reprocess",
    ("POST", "/api/batches/{batch_id:uuid}/reprocess/upload"): "edit reprocess",
    ("POST", "/api/batches/{batch_id:uuid}/pause"): "pause",
    ("POST", "/api/batches/{batch_id:uuid}/resume"): "resume",
    ("POST", "/api/batches/{batch_id:uuid}/cancel"): "cancel",
    ("GET", "/api/batches/{batch_id:uuid}/items"): "view",
    ("GET", "/api/batches/{batch_id:uuid}/items/{item_number:number}"): "view",
    ("PATCH", "/api/batches/{batch_id:uuid}/items/{item_number:number}"): "edit",
    ("GET", "/api/batches/{batch_id:uuid}/items/{item_number:number}/edits"): "view",
    ("GET", "/api/batches/{batch_id:uuid}/failures"): "view",
    ("GET", "/api/batches/{batch_id:uuid}/logs"): "view",
    ("GET", "/api/batches/{batch_id:uuid}/failures.csv"): "view",
    ("GET", "/api/batches/{batch_id:uuid}/failures.jsonl"): "view",
    ("GET", "/api/batches/{batch_id:uuid}/events"): "view",
    ("POST", "/api/batches/{batch_id:uuid}/events/ticket"): "view",
    ("POST", "/api/session"): SIGNED_IN,
    ("DELETE", "/api/session"): EVERYBODY,
    ("GET", "/api/batch-types"): SIGNED_IN,
    ("GET", "/health"): EVERYBODY,
    ("GET", "/metrics"): SIGNED_IN,
    ("GET", "/openapi.json"): EVERYBODY,
    ("GET", "/docs"): EVERYBODY,
    ("GET", "/docs/{name}"): EVERYBODY,
}
DASHBOARD = {
    ("GET", ""): SIGNED_IN,
    ("GET", "/static/{name}"): EVERYBODY,
    ("GET", "/sign-in"): EVERYBODY,
    ("POST", "/sign-in"): EVERYBODY,
    ("POST", "/sign-out"): EVERYBODY,
    ("GET", "/types"): SIGNED_IN,
    ("GET", "/types/{name:path}"): SIGNED_IN,
    ("GET", "/upload"): SIGNED_IN,
    ("POST", "/upload"): "create",
    ("GET", "/batches/{batch_id:uuid}"): "view",
    ("GET", "/batches/{batch_id:uuid}/items"): "view",
    ("GET", "/batches/{batch_id:uuid}/items/{item_number:number}"): "view",
    ("GET", "/batches/{batch_id:uuid}/logs"): "view",
    ("GET", "/batches/{batch_id:uuid}/items/{item_number:number}/edit"): "edit",
    ("POST", "/batches/{batch_id:uuid}/items/{item_number:number}/edit"): "edit",
    ("GET", "/batches/{batch_id:uuid}/corrected"): "edit reprocess",
    ("POST", "/batches/{batch_id:uuid}/corrected"): "edit reprocess",
    ("GET", "/batches/{batch_id:uuid}/download"): "view",
    ("POST", "/batches/{batch_id:uuid}/download"): "view",
    ("POST", "/batches/{batch_id:uuid}/dry-run"): "process",
    ("GET", "/batches/{batch_id:uuid}/{action}"): "its own",
    ("POST", "/batches/{batch_id:uuid}/{action}"): "its own",
    ("GET", "/{path:path}"): SIGNED_IN,
}
ACTION = {
    "start": "process",
    "pause": "pause",
    "resume": "resume",
    "cancel": "cancel",
    "reprocess": "reprocess",
}
BODIES = {
    "/api/batches": {"batch_type": "team", "items": [{"fail": 1}]},
    "/api/batches/{batch_id:uuid}/items/{item_number:number}": {"source_data": {"a": 1}},
    "/api/batches/{batch_id:uuid}/process": {},
}
FILE = {"file": ("a.csv", b"a,_item\n1,1\n")}
WITH_FILES = ("/upload", "/corrected")


def test_every_route_has_its_line():
    assert set(API) == {(one.method, one.path) for one in OPERATIONS}
    assert set(DASHBOARD) == {(one.method, one.path) for one in PAGES}
    assert {name: action.permission for name, action in ACTIONS.items()} == ACTION


class TeamProcessor(BaseProcessor):
    """Fails when asked to."""

    async def process_item(self, item, ctx):
        if "fail" in item.source_data:
            raise ValueError(f"{SECRET} has failed")


class TeamEndpoint(BaseEndpoint):
    def visible_batches(self, ctx):
        return Visible(metadata={"team": "b" if ctx.user_id == "other" else SECRET})

    def authorize(self, ctx, action, batch):
        return action in RIGHTS[ctx.user_id]


@pytest_asyncio.fixture(loop_scope="session")
async def api(manager):
    manager.registry.register(TeamProcessor)
    manager.registry.register_endpoint(TeamEndpoint)
    keys = ApiKeys({name: hash_of(key) for name, key in KEYS.items()})
    api = APIManager(manager, authentication=keys, worker=False)
    async with api.running():
        yield api


@pytest_asyncio.fixture(loop_scope="session")
async def batch_id(api, manager):
    records = [{"fail": SECRET}, {"fail": SECRET}, {"a": SECRET}]
    created = await manager.create_batch(
        "team", records, metadata={"team": SECRET}, created_by=SECRET
    )
    await manager.process_batch(created)
    return created


def browser(api):
    transport = httpx.ASGITransport(api.app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test", timeout=PATIENCE)


async def signed_in(client, name):
    page = (await client.get("/dashboard/sign-in")).text
    form = {"token": token_in(page), "key": KEYS[name]}
    answer = await client.post("/dashboard/sign-in", data=form, headers=SAME_SITE)
    assert answer.status_code == 303


def token_in(page):
    return re.search(r'name="token" value="([^"]+)"', page)[1]


def filled(path, batch_id, action="pause"):
    for name, value in {
        "{batch_id:uuid}": batch_id, "{item_number:number}": 1, "{name}": "dashboard.css", "{name:path}": "team",
        "{action}": action, "{path:path}": "", "/docs/dashboard.css": "/docs/start.js",
    }.items():  # fmt: skip
        path = path.replace(name, str(value))
    return path


async def by_api(client, method, path, batch_id, name):
    url = filled(path, batch_id) + ("?batch_type=team" if path == "/api/batches/upload" else "")
    headers = {} if name is None else {"Authorization": f"Bearer {KEYS[name]}"}
    if path.endswith("/upload"):
        return await client.request(method, url, headers=headers, files=FILE)
    body = BODIES.get(path)
    return await client.request(
        method, url, headers=headers, **({} if body is None else {"json": body})
    )


async def by_browser(client, method, url, name):
    if method == "GET":
        return await client.get(url)
    page = (await client.get("/dashboard/types" if name else "/dashboard/sign-in")).text
    sent = {"token": token_in(page), "batch_type": "team", "field-0": "2", "record": '{"a": 1}'}
    files = FILE if url.endswith(WITH_FILES) else None
    return await client.post(url, data=sent, headers=SAME_SITE, files=files)


def verdict(needed, name, *, in_list=False):
    """What a caller must be answered: a status, or None for anything that is no refusal."""
    if needed == EVERYBODY:
        return None
    if name is None:
        return 401
    if needed == SIGNED_IN:
        return None
    wanted = set(needed.split())
    if name == "other" and "create" not in wanted:
        return 404
    return None if wanted <= RIGHTS[name] else 403


def is_as(answer, expected, where):
    if expected is None:
        assert answer.status_code not in (401, 403, 404, 500), (where, answer.text)
        assert "/sign-in?next" not in answer.headers.get("location", ""), where
    elif expected == 401 and answer.status_code == 303:
        assert "/sign-in?next=" in answer.headers["location"], where
    else:
        assert answer.status_code == expected, (where, answer.status_code, answer.text[:300])


async def state_of(conn):
    return await conn.fetchval(
        """SELECT jsonb_build_array(
               (SELECT jsonb_agg(to_jsonb(b) ORDER BY b.id) FROM reliable_imports.import_batches b),
               (SELECT jsonb_agg(to_jsonb(i) ORDER BY i.batch_id, i.item_number)
                  FROM reliable_imports.import_batch_items i),
               (SELECT count(*) FROM reliable_imports.import_logs),
               (SELECT count(*) FROM reliable_imports.import_item_edits))::text"""
    )


ROLES = (None, *RIGHTS)


@pytest.mark.parametrize("name", ROLES)
async def test_every_operation_of_the_api(api, batch_id, conn, name):
    async with browser(api) as client:
        for (method, path), needed in API.items():
            before, expected = await state_of(conn), verdict(needed, name)
            answer = await by_api(client, method, path, batch_id, name)
            is_as(answer, expected, (name, method, path))
            if expected is not None:
                assert await state_of(conn) == before, (name, method, path)
            if name in (None, "other"):
                assert SECRET not in answer.text + str(answer.headers), (name, method, path)
            if method == "GET":  # who may not read may not look at the headers either
                head = await client.head(filled(path, batch_id), headers=answer.request.headers)
                assert head.status_code == answer.status_code, (name, method, path)


@pytest.mark.parametrize("name", ROLES)
async def test_every_page_of_the_dashboard(api, batch_id, conn, name):
    async with browser(api) as client:
        if name is not None:
            await signed_in(client, name)
        for (method, path), line in DASHBOARD.items():
            if path.startswith(("/sign-", "/static")):
                continue
            actions = ACTION if "{action}" in path else {"": line}
            for action, needed in actions.items():
                before, expected = await state_of(conn), verdict(needed, name)
                url = "/dashboard" + filled(path, batch_id, action)
                answer = await by_browser(client, method, url, name)
                is_as(answer, expected, (name, method, url))
                if expected is not None:
                    assert await state_of(conn) == before, (name, method, url)
                if name in (None, "other"):
                    assert SECRET not in answer.text, (name, method, url)


@pytest.mark.parametrize("name", ["viewer", "editor", "operator", "owner"])
async def test_pages_offer_nothing_that_would_be_refused(api, manager, batch_id, name):
    """Every link and every form of every page that a visitor can reach."""
    for _ in range(2):  # one that waits, one that runs
        waiting = await manager.create_batch("team", [{"a": 1}], metadata={"team": SECRET})
    await manager.enqueue_batch(waiting)
    paused = await manager.create_batch("team", [{"a": 1}], metadata={"team": SECRET})
    await manager.pause_batch(paused)
    async with browser(api) as client:
        await signed_in(client, name)
        todo, seen, forms = ["/dashboard"], set(), set()
        while todo:
            url = todo.pop()
            answer = await client.get(url)
            assert answer.status_code not in (401, 403, 404), (name, url)
            if "text/html" not in answer.headers.get("content-type", ""):
                continue
            links = {unescape(one) for one in re.findall(r'href="([^"#]+)"', answer.text)}
            forms |= set(re.findall(r'method="post" action="([^"]+)"', answer.text))
            for link in {urljoin(url, one) for one in links} - seen:
                seen.add(link)
                todo.append(link)
        forms -= {"/dashboard/sign-out"}
        verbs = {form.rpartition("/")[2] for form in forms}
        assert f"/dashboard/batches/{batch_id}/items" in seen
        assert verbs == {
            "viewer": {"download"},
            "editor": {"download", "edit", "corrected", "reprocess"},
            "operator": {"download", "reprocess", "dry-run", "start", "pause", "resume", "cancel"},
            "owner": {"download", "edit", "corrected", "reprocess", "upload", "dry-run", "start", "pause", "resume", "cancel"},
        }[name]  # fmt: skip
        for form in sorted(forms):
            answer = await by_browser(client, "POST", form, name)
            assert answer.status_code not in (401, 403, 404), (name, form, answer.text)


class SilentProcessor(TeamProcessor):
    """Its endpoint runs elsewhere."""


class GhostEndpoint(BaseEndpoint):
    """Its processor runs elsewhere."""

    def visible_batches(self, ctx):
        return False


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ({}, {"silent", "own"}),
        ({"visible_batches": True}, {"silent", "own", "elsewhere"}),
        ({"visible_batches": False}, set()),
        ({"visible_batches": Visible.all()}, {"silent", "own", "elsewhere"}),
        ({"visible_batches": lambda ctx: Visible(created_by=ctx.user_id)}, {"own"}),
    ],
)
async def test_types_without_an_endpoint_here(manager, given, seen):
    for one in (TeamProcessor, SilentProcessor):
        manager.registry.register(one)
    made = {"silent": await manager.create_batch("silent", [])}
    for name, batch_type, user in (
        ("own", "x", "owner"),
        ("elsewhere", "x", "ann"),
        ("ghost", "ghost", "owner"),
    ):
        manager.registry.register(type("XProcessor", (TeamProcessor,), {"batch_type": batch_type}))
        made[name] = await manager.create_batch(batch_type, [], created_by=user)
        forget(manager, batch_type)
    manager.registry.register_endpoint(GhostEndpoint)
    keys = ApiKeys({"owner": hash_of(KEYS["owner"])})
    api = APIManager(manager, authentication=keys, worker=False, **given)
    async with api.running(), browser(api) as client:
        client.headers["X-API-Key"] = KEYS["owner"]
        listed = (await client.get("/api/batches")).json()["batches"]
        assert {one["batch_id"] for one in listed} == {str(made[name]) for name in seen}
        for name, batch_id in made.items():
            status = (await client.get(f"/api/batches/{batch_id}")).status_code
            assert status == (200 if name in seen else 404), name


async def test_the_same_file_of_somebody_else_is_as_if_it_were_not_there(api, manager, conn):
    content = {"headers": {"content-type": "text/csv"}, "content": b"a\n1\n"}
    url = "/api/batches/upload?batch_type=team&process="
    async with browser(api) as client:
        client.headers["X-API-Key"] = KEYS["owner"]
        theirs = (await client.post(url + "false", **content)).json()["batch_id"]
        await conn.execute(
            """UPDATE reliable_imports.import_batches SET metadata = '{"team": "c"}', created_by = 'ann'"""
        )
        answers = [
            await client.post(f"{url}background{more}", **content)
            for more in ("", "&on_same_file=skip")
        ]
        assert [one.status_code for one in answers] == [202, 202]
        made = {one.json()["batch_id"] for one in answers}
        assert theirs not in made
        assert len(made) == 2  # of the first, nothing says that its caller may see it
    batch = await conn.fetchrow(
        "SELECT * FROM reliable_imports.import_batches WHERE id = $1", theirs
    )
    assert (batch["status"], batch["enqueued_at"]) == ("pending", None)


@pytest.mark.parametrize(
    ("rights", "started"), [({"create", "view"}, False), ({"create", "view", "process"}, True)]
)
async def test_skip_starts_an_earlier_batch_only_for_who_may(
    api, monkeypatch, conn, rights, started
):
    monkeypatch.setattr(
        TeamEndpoint,
        "before_create_batch",
        lambda self, data, ctx: data.metadata.update(team=SECRET),
    )
    monkeypatch.setitem(RIGHTS, "viewer", rights)
    content = {"headers": {"content-type": "text/csv"}, "content": b"a\n1\n"}
    url = "/api/batches/upload?batch_type=team&on_same_file=skip&process="
    async with browser(api) as client:
        client.headers["X-API-Key"] = KEYS["owner"]
        first = (await client.post(url + "false", **content)).json()["batch_id"]
        client.headers["X-API-Key"] = KEYS["viewer"]
        answer = await client.post(url + "background", **content)
        assert answer.json()["batch_id"] == first
        assert answer.status_code == (202 if started else 201)
    enqueued = await conn.fetchval("SELECT enqueued_at FROM reliable_imports.import_batches")
    assert (enqueued is not None) is started
