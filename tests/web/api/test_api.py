"""The REST API over a real database: each endpoint, its refusals, and where it is mounted."""

import asyncio
import base64
import gzip
import json
from contextlib import asynccontextmanager

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import Route

from reliable_imports_async import (
    APIManager,
    BaseEndpoint,
    BaseProcessor,
    BatchManager,
    Settings,
    Visible,
)
from reliable_imports_async.errors import ConfigurationError

from ...support.trying import PATIENCE
from ..reach import hash_of, new_api_key


class Customer(BaseModel):
    email: str = Field(examples=["ann@example.com"])
    age: int = 30


class CustomerDataProcessor(BaseProcessor[Customer]):
    """Imports customers."""

    async def process_item(self, item, ctx):
        if item.data.age > 100:
            raise ValueError("too old")
        ctx.info("seen", email=item.data.email)


class PlainProcessor(BaseProcessor):
    async def process_item(self, item, ctx):
        pass


class GatedProcessor(BaseProcessor):
    """Waits until the test opens the gate."""

    def __init__(self):
        self.gate = asyncio.Event()
        self.reached = asyncio.Event()

    async def process_item(self, item, ctx):
        self.reached.set()
        await self.gate.wait()


def register(manager, *more):
    for one in (CustomerDataProcessor, PlainProcessor, *more):
        manager.registry.register(one)
    return manager


@asynccontextmanager
async def client_of(app, prefix="", **options):
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport, base_url=f"http://test{prefix}", timeout=PATIENCE, **options
    ) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def api(manager):
    """A running API over an open manager."""
    api = APIManager(register(manager))
    async with api.running(allow_anonymous=True):
        yield api


@pytest_asyncio.fixture(loop_scope="session")
async def client(api):
    async with client_of(api.app) as client:
        yield client


async def created(client, items, **more):
    body = {"batch_type": "customer_data", "items": items, "process": "wait", **more}
    answer = await client.post("/api/batches", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


def problem_of(answer, status):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert body["request_id"] == answer.headers["x-request-id"]
    return body


JSON = {"content-type": "application/json"}
GOOD, OLD, WRONG = {"email": "a@x"}, {"email": "b@x", "age": 200}, {"email": "c@x", "age": "x"}


# --- creating


async def test_a_batch_is_created_and_processed_while_the_client_waits(client):
    body = {"batch_type": "customer_data", "items": [GOOD, OLD, WRONG], "process": "wait"}
    answer = await client.post("/api/batches", json=body)
    assert answer.status_code == 201
    batch = answer.json()
    assert batch["status"] == "partial"
    assert (batch["completed_items"], batch["failed_items"]) == (1, 2)
    assert answer.headers["location"] == batch["links"]["self"]
    assert (await client.get(answer.headers["location"])).json()["batch_id"] == batch["batch_id"]


async def test_by_default_it_is_processed_after_the_answer(api, client, manager):
    answer = await client.post(
        "/api/batches", json={"batch_type": "customer_data", "items": [GOOD]}
    )
    assert answer.status_code == 202
    summary = await manager.wait_for_batch(answer.json()["batch_id"], timeout=PATIENCE)
    assert summary.ok


async def test_it_may_be_only_created_and_processed_later(client):
    body = {"batch_type": "plain", "items": [{}], "process": False}
    batch = (await client.post("/api/batches", json=body)).json()
    assert batch["status"] == "pending"
    done = await client.post(batch["links"]["self"] + "/process", json={"process": "wait"})
    assert (done.status_code, done.json()["status"]) == (200, "completed")


async def test_items_are_stored_as_they_were_written(client):
    text = (
        b'{"batch_type": "plain", "process": "wait", "items": [{"a": 1.10, "b": 1e400},'
        b'{"a": 1.10, "b": 340282366920938463463374607431768211457}, {"a": NaN}, 7,'
        b' {"a": 1, "a": 2}, {"n": ' + b"9" * 5000 + b"}]}"
    )
    batch = (await client.post("/api/batches", content=text, headers=JSON)).json()
    assert (batch["completed_items"], batch["failed_items"]) == (1, 5)
    items = (await client.get(batch["links"]["items"])).text
    assert '"a":1.1' in items
    assert "340282366920938463463374607431768211457" in items
    failed = (await client.get(batch["links"]["items"], params={"status": "failed"})).json()
    assert {one["failure"]["kind"] for one in failed["items"]} == {"parse"}
    assert b"NaN" in base64.b64decode(failed["items"][1]["raw_base64"])


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"", 400, "not JSON"),
        (b"{", 400, "not JSON"),
        (b"[]", 400, "Expecting an object"),
        (b'{"batch_type": "plain", "items": []} x', 400, "Extra data"),
        (b'{"batch_type": "plain" "items": []}', 400, "Expecting ','"),
        (b'{"batch_type": "plain", "items": [{}}', 400, "Expecting ','"),
        (b"\xff", 400, "not UTF-8"),
        (b'{"batch_type": "plain", "items": ' + b"[" * 100_000, 400, "nested"),
        (b"{}", 422, "batch_type"),
        (b'{"batch_type": "plain"}', 422, "items"),
        (b'{"batch_type": "plain", "items": {}}', 422, "items"),
        (b'{"batch_type": "plain", "items": null}', 422, "items"),
        (b'{"batch_type": "plain", "items": [], "proces": false}', 422, "proces"),
        (b'{"batch_type": "plain", "items": [], "process": "later"}', 422, "process"),
        (
            b'{"batch_type": "plain", "items": [], "allow_empty": true, "metadata": 1}',
            422,
            "metadata",
        ),
        (
            b'{"batch_type": "plain", "items": [], "allow_empty": true, "metadata": {"a": "\\ud800"}}',
            422,
            "metadata",
        ),
        (b'{"batch_type": "\\u0000", "items": []}', 422, "batch_type"),
        (b'{"batch_type": "other", "items": []}', 422, "No processor is registered"),
    ],
)
async def test_a_body_that_cannot_be_a_batch_is_refused(client, content, status, words):
    body = problem_of(await client.post("/api/batches", content=content, headers=JSON), status)
    assert words in body["detail"]
    assert (await client.get("/api/batches")).json()["batches"] == []


async def test_metadata_may_hold_anything_that_json_may(client):
    body = (
        b'{"batch_type": "plain", "items": [{}], "metadata": {"a": "x\\u0000y"}, "process": false}'
    )
    batch = (await client.post("/api/batches", content=body, headers=JSON)).json()
    assert "x" in (await client.get(batch["links"]["self"])).json()["metadata"]["a"]


async def test_strict_refuses_invalid_items_and_names_the_places(client):
    body = {"batch_type": "customer_data", "items": [GOOD, WRONG, 7], "strict": True}
    problem = problem_of(await client.post("/api/batches", json=body), 422)
    assert [one["location"] for one in problem["errors"]] == [
        ["body", "items", 1, "age"],
        ["body", "items", 2],
    ]
    assert (await client.get("/api/batches")).json()["batches"] == []


async def test_the_same_key_gives_the_same_batch(client):
    body = {"batch_type": "plain", "items": [{"a": 1}], "process": "wait"}
    key = {"Idempotency-Key": "k1"}
    first = await client.post("/api/batches", json=body, headers=key)
    again = await client.post("/api/batches", json=body, headers=key)
    assert first.json()["batch_id"] == again.json()["batch_id"]
    other = await client.post("/api/batches", json=body | {"items": [{}]}, headers=key)
    assert problem_of(other, 422)["type"].endswith("idempotency-conflict")
    assert problem_of(
        await client.post("/api/batches", json=body, headers={"Idempotency-Key": "x" * 300}), 400
    )


async def test_too_many_items_or_bytes_are_refused(dsn):
    settings = Settings(max_batch_items=2, max_body_bytes=2_000)
    async with BatchManager(dsn, settings=settings) as manager:
        api = APIManager(register(manager))
        async with api.running(allow_anonymous=True), client_of(api.app) as client:
            body = {"batch_type": "plain", "items": [{}, {}, {}]}
            problem_of(await client.post("/api/batches", json=body), 413)
            body = {"batch_type": "plain", "items": [{"a": "x" * 3_000}]}
            assert (await client.post("/api/batches", json=body)).status_code == 413
    with pytest.raises(ConfigurationError):
        await manager.get_batch_summary("0" * 32)


async def test_another_media_type_is_refused(client):
    answer = await client.post("/api/batches", content="a=1", headers={"content-type": "text/xml"})
    assert "application/json" in problem_of(answer, 415)["detail"]


# --- uploads

CSV = b"email,age\na@x,1\nb@x,200\n"


@pytest.mark.parametrize("way", ["raw", "form", "gz", "jsonl", "json"])
async def test_a_file_is_imported(client, way):
    where = "/api/batches/upload?batch_type=customer_data&process=wait"
    records = [{"email": "a@x", "age": 1}, {"email": "b@x", "age": 200}]
    match way:
        case "raw":
            answer = await client.post(where, content=CSV, headers={"content-type": "text/csv"})
        case "form":
            answer = await client.post(where, files={"file": ("c.csv", CSV)})
        case "gz":
            answer = await client.post(where + "&name=c.csv.gz", content=gzip.compress(CSV))
        case "jsonl":
            content = "\n".join(map(json.dumps, records))
            answer = await client.post(where + "&name=c.jsonl", content=content)
        case _:
            answer = await client.post(where, json=records)
    assert answer.status_code == 201, answer.text
    batch = answer.json()
    assert (batch["completed_items"], batch["failed_items"]) == (1, 1)
    failures = await client.get(batch["links"]["failures_csv"])
    assert "b@x" in failures.text.splitlines()[1]
    assert len(failures.text.splitlines()) == 2


async def test_the_same_file_is_refused_and_the_earlier_batch_named(client):
    where = "/api/batches/upload?batch_type=customer_data&process=wait"
    first = (await client.post(where, content=CSV)).json()
    again = problem_of(await client.post(where, content=CSV), 409)
    assert again["batch_id"] == first["batch_id"]
    skipped = await client.post(where + "&on_same_file=skip", content=CSV)
    assert skipped.json()["batch_id"] == first["batch_id"]
    forced = await client.post(where + "&on_same_file=force", content=CSV)
    assert forced.json()["batch_id"] != first["batch_id"]


async def test_an_upload_says_where_its_table_is(client):
    where = "/api/batches/upload?batch_type=customer_data&process=wait"
    data = b"a,b\nc,d\n# e,f\n" + CSV + b"Total,\n"
    layout = "&skip_rows=2&comment=%23&skip_footer=1"
    plain = (await client.post(where, content=CSV)).json()
    batch = (await client.post(where + layout, content=data)).json()
    assert batch["total_items"] == plain["total_items"]
    assert (await client.post(where + "&header_row=0", content=data)).status_code == 422
    unknown = await client.post(where + "&member=x.csv", content=data)
    assert "`member`" in problem_of(unknown, 422)["hint"]


@pytest.mark.parametrize(
    ("where", "options", "status"),
    [
        ("", {"content": CSV}, 422),
        ("?batch_type=other", {"content": CSV}, 422),
        ("?batch_type=plain&delimiter=ab", {"content": CSV}, 422),
        ("?batch_type=plain&format=xml", {"content": CSV}, 422),
        ("?batch_type=plain&encoding=klingon", {"content": CSV}, 422),
        ("?batch_type=plain&batch_type=plain", {"content": CSV}, 422),
        ("?batch_type=plain", {"files": {"a": ("a.csv", CSV), "b": ("b.csv", CSV)}}, 400),
        ("?batch_type=plain&name=x.csv.gz", {"content": b"\x1f\x8bbroken"}, 422),
        ("?batch_type=plain", {"content": CSV, "headers": {"content-type": "image/png"}}, 415),
        (
            "?batch_type=plain",
            {"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=b"}},
            400,
        ),
    ],
)
async def test_an_upload_that_cannot_be_read_leaves_no_batch(client, where, options, status):
    answer = await client.post("/api/batches/upload" + where, **options)
    problem_of(answer, status)
    assert (await client.get("/api/batches")).json()["batches"] == []


# --- reading


async def test_lists_come_in_pages(client):
    ids = [(await created(client, [GOOD]))["batch_id"] for _ in range(5)]
    seen, cursor = [], None
    while True:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/api/batches", params=query)).json()
        seen += [one["batch_id"] for one in page["batches"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == ids[::-1]


async def test_items_and_logs_come_in_pages_and_by_group(client):
    batch = await created(client, [GOOD, OLD, GOOD, OLD, WRONG])
    seen, cursor = [], 0
    while cursor is not None:
        query = {"limit": 2, "cursor": cursor}
        page = (await client.get(batch["links"]["items"], params=query)).json()
        seen += [one["item_number"] for one in page["items"]]
        cursor = page["next"]
    assert seen == [1, 2, 3, 4, 5]
    group = next(one["group"] for one in batch["groups"] if one["count"] == 2)
    page = (await client.get(batch["links"]["items"], params={"group": group})).json()
    assert [one["item_number"] for one in page["items"]] == [2, 4]
    lines = (await client.get(batch["links"]["logs"], params={"item_number": 1})).json()["logs"]
    assert [(one["message"], one["details"]) for one in lines] == [("seen", {"email": "a@x"})]
    one = (await client.get(batch["links"]["items"] + "/2")).json()
    assert one["failure"]["message"] == "too old"


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"cursor": "x"}, "cursor"),
        ({"status": "gone"}, "status"),
        ({"created_since": "yesterday"}, "created_since"),
        ({"order": "id"}, "order"),
        ({"batch_type": "\0"}, "batch_type"),
    ],
)
async def test_a_query_that_does_not_fit_is_refused(client, query, place):
    problem = problem_of(await client.get("/api/batches", params=query), 422)
    assert problem["errors"][0]["location"] == ["query", place]


MISSING = "01890a5d-ac96-774b-bcce-b302099a8057"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"/api/batches/{MISSING}"),
        ("GET", f"/api/batches/{MISSING}/items"),
        ("GET", f"/api/batches/{MISSING}/items/1"),
        ("GET", f"/api/batches/{MISSING}/logs"),
        ("GET", f"/api/batches/{MISSING}/events"),
        ("GET", f"/api/batches/{MISSING}/failures.csv"),
        ("GET", f"/api/batches/{MISSING}/failures.jsonl"),
        ("POST", f"/api/batches/{MISSING}/process"),
        ("POST", f"/api/batches/{MISSING}/reprocess"),
        ("POST", f"/api/batches/{MISSING}/pause"),
        ("POST", f"/api/batches/{MISSING}/resume"),
        ("POST", f"/api/batches/{MISSING}/cancel"),
        ("POST", f"/api/batches/{MISSING}/events/ticket"),
        ("GET", "/api/batches/no-uuid"),
        ("GET", "/nothing"),
    ],
)
async def test_what_is_not_there_is_404(client, method, path):
    problem_of(await client.request(method, path), 404)


async def test_another_method_is_405(client):
    answer = await client.put("/api/batches")
    problem_of(answer, 405)
    several = await client.request(
        "OPTIONS", "/api/batches/00000000-0000-7000-8000-000000000000/items/1"
    )
    assert several.headers["allow"] == "GET, HEAD, PATCH"
    assert "POST" in answer.headers["allow"] or "GET" in answer.headers["allow"]


async def test_an_item_that_is_not_there_is_404(client):
    batch = await created(client, [GOOD])
    for number in (0, 2, 2**40):
        problem_of(await client.get(f"{batch['links']['items']}/{number}"), 404)


# --- acting


async def test_failures_run_again_and_what_succeeded_does_not(client):
    batch = await created(client, [GOOD, OLD, WRONG])
    own = batch["links"]["self"]
    again = await client.post(own + "/reprocess", json={"process": "wait", "item_numbers": [2]})
    assert again.status_code == 200
    child = again.json()
    assert (child["total_items"], child["parent_batch_id"]) == (1, batch["batch_id"])
    family = (await client.get(own)).json()["lineage"]
    assert [one["batch_id"] for one in family] == [batch["batch_id"], child["batch_id"]]
    refused = await client.post(own + "/reprocess", json={"item_numbers": [1]})
    assert problem_of(refused, 409)["type"].endswith("reprocess-refused")


async def test_pause_resume_and_cancel(manager):
    gated = GatedProcessor()
    api = APIManager(register(manager, gated))
    async with api.running(allow_anonymous=True), client_of(api.app) as client:
        body = {"batch_type": "gated", "items": [{}] * 30}
        own = (await client.post("/api/batches", json=body)).json()["links"]["self"]
        await asyncio.wait_for(gated.reached.wait(), PATIENCE)
        paused = await client.post(own + "/pause", json={"reason": "lunch"})
        assert (paused.json()["status"], paused.json()["pause_reason"]) == ("paused", "lunch")
        assert "lunch" in problem_of(await client.post(own + "/process"), 409)["detail"]
        gated.gate.set()
        assert (await client.post(own + "/resume")).status_code == 200
        batch_id = own.rpartition("/")[2]
        assert (await manager.wait_for_batch(batch_id, timeout=PATIENCE)).ok
        problem_of(await client.post(own + "/cancel"), 409)
        body = {"batch_type": "gated", "items": [{}], "process": False}
        own = (await client.post("/api/batches", json=body)).json()["links"]["self"]
        assert (await client.post(own + "/cancel")).json()["status"] == "cancelled"
        problem_of(await client.post(own + "/process"), 409)


async def test_leaving_while_waiting_cancels_nothing(manager):
    gated = GatedProcessor()
    api = APIManager(register(manager, gated))
    async with api.running(allow_anonymous=True), client_of(api.app) as client:
        body = {"batch_type": "gated", "items": [{}], "process": "wait"}
        waiting = asyncio.ensure_future(client.post("/api/batches", json=body))
        await asyncio.wait_for(gated.reached.wait(), PATIENCE)
        waiting.cancel()
        gated.gate.set()
        async for batch in manager.list_batches():
            assert (await manager.wait_for_batch(batch.id, timeout=PATIENCE)).ok


# --- the server


async def test_health_says_what_is_wrong(client, manager, conn):
    health = (await client.get("/health")).json()
    assert (health["status"], health["database"], health["worker"]) == ("ok", "ok", "running")
    await conn.execute(
        "INSERT INTO reliable_imports.schema_migrations (name, sha256) VALUES ('9999_later', 'x')"
    )
    answer = await client.get("/health")
    assert answer.status_code == 503
    assert "9999_later" in answer.json()["database"]


async def test_an_unexpected_error_shows_nothing(client, manager, monkeypatch, caplog):
    async def broken(*_args, **_more):
        raise RuntimeError("SELECT secret FROM postgresql://user:pw@host")

    monkeypatch.setattr(manager, "get_batch_with_lineage", broken)
    answer = await client.get(f"/api/batches/{MISSING}")
    assert "secret" not in problem_of(answer, 500)["detail"]
    assert "secret" not in answer.text
    assert any("failed" in line for line in caplog.messages)


async def test_the_page_needs_no_other_site(client):
    page = (await client.get("/docs")).text
    assert "http:" not in page
    assert "https:" not in page
    for name in ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png", "start.js"):
        assert (await client.get(f"/docs/{name}")).status_code == 200
    assert (await client.get("/docs/..%2f__init__.py")).status_code == 404


# --- hooks


class Quota(BaseEndpoint):
    """Shows every hook; plain and async ones."""

    batch_type = "customer_data"

    def __init__(self):
        self.seen = []

    def authorize(self, ctx, action, batch):
        self.seen.append(action)
        return ctx.headers.get("x-role") != "guest" or action == "view"

    async def visible_batches(self, ctx):
        tenant = ctx.headers.get("x-tenant")
        return Visible(metadata={"tenant": tenant}) if tenant else True

    def before_create_batch(self, request_data, ctx):
        if request_data.items is not None and len(request_data.items) > 3:
            raise ValueError("at most 3 at once")
        if ctx.headers.get("x-teapot"):
            raise HTTPException(418, "no coffee")
        for item in request_data.items or []:
            if isinstance(item, dict) and "email" in item:
                item["email"] = item["email"].strip()
        request_data.metadata["tenant"] = ctx.headers.get("x-tenant", "none")

    async def after_create_batch(self, batch_id, request_data, ctx):
        ctx.info("created by api", items=len(request_data.items or []))

    def before_process(self, batch_id, ctx):
        if ctx.headers.get("x-night"):
            raise ValueError("not at night")

    def extra_routes(self):
        async def hello(request):
            return JSONResponse({"hello": "you"})

        return [Route("/api/customer-data/hello", hello)]


async def test_hooks_change_refuse_and_log(manager):
    manager.registry.register_endpoint(Quota())
    api = APIManager(register(manager))
    async with api.running(allow_anonymous=True), client_of(api.app) as client:
        batch = await created(client, [{"email": " a@x ", "price": 1.10}, GOOD])
        items = (await client.get(batch["links"]["items"])).json()["items"]
        assert [one["source_data"]["email"] for one in items] == ["a@x", "a@x"]
        lines = (await client.get(batch["links"]["logs"])).json()["logs"]
        assert "created by api" in [one["message"] for one in lines]
        body = {"batch_type": "customer_data", "items": [GOOD] * 4}
        assert problem_of(await client.post("/api/batches", json=body), 422)["detail"] == (
            "at most 3 at once"
        )
        body = {"batch_type": "customer_data", "items": [{}]}
        problem_of(await client.post("/api/batches", json=body, headers={"x-teapot": "1"}), 418)
        problem_of(await client.post("/api/batches", json=body, headers={"x-role": "guest"}), 403)
        own = batch["links"]["self"]
        problem_of(await client.post(own + "/process", headers={"x-night": "1"}), 422)
        problem_of(await client.post(own + "/cancel", headers={"x-role": "guest"}), 403)
        assert (await client.get("/api/customer-data/hello")).json() == {"hello": "you"}


async def test_what_is_not_visible_is_not_there(manager):
    manager.registry.register_endpoint(Quota())
    api = APIManager(register(manager))
    async with api.running(allow_anonymous=True), client_of(api.app) as client:
        mine, yours = {"x-tenant": "mine"}, {"x-tenant": "yours"}
        body = {"batch_type": "customer_data", "items": [GOOD], "process": "wait"}
        batch = (await client.post("/api/batches", json=body, headers=mine)).json()
        listed = (await client.get("/api/batches", headers=mine)).json()["batches"]
        assert [one["batch_id"] for one in listed] == [batch["batch_id"]]
        assert (await client.get("/api/batches", headers=yours)).json()["batches"] == []
        for path in ("", "/items", "/items/1", "/logs", "/events", "/failures.csv"):
            problem_of(await client.get(batch["links"]["self"] + path, headers=yours), 404)


async def test_the_upload_hook_runs_before_the_body_is_read(manager):
    manager.registry.register_endpoint(Quota())
    api = APIManager(register(manager))

    async def body():
        raise AssertionError("the body was read")
        yield b""

    async with api.running(allow_anonymous=True), client_of(api.app) as client:
        answer = await client.post(
            "/api/batches/upload?batch_type=customer_data",
            content=body(),
            headers={"x-teapot": "1"},
        )
        problem_of(answer, 418)


# --- authentication


async def secured(manager, **more):
    key = new_api_key()
    settings = manager.settings.model_copy(update={"api_keys": (f"ann:{hash_of(key)}",), **more})
    manager.settings = settings
    return APIManager(register(manager)), {"Authorization": f"Bearer {key}"}, key


async def test_an_api_key_is_needed_and_names_the_user(manager):
    api, _, key = await secured(manager)
    async with api.running(allow_anonymous=True), client_of(api.app) as client:
        answer = await client.get("/api/batches")
        problem_of(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"
        problem_of(await client.get("/api/batches", headers={"X-API-Key": "wrong"}), 401)
        for path in ("/health", "/openapi.json", "/docs"):
            assert (await client.get(path)).status_code == 200
        client.headers["X-API-Key"] = key
        batch = await created(client, [GOOD])
        assert batch["created_by"] == "ann"


async def test_a_browser_comes_in_by_ticket_or_cookie_for_reading_only(manager):
    api, header, _ = await secured(manager)
    async with api.running(allow_anonymous=True), client_of(api.app) as client:
        client.headers.update(header)
        batch = await created(client, [GOOD])
        events = batch["links"]["events"]
        ticket = (await client.post(events + "/ticket")).json()["ticket"]
        session = await client.post("/api/session")
        assert "samesite=strict" in session.headers["set-cookie"].lower()
        client.headers.pop("authorization")
        assert (await client.get(events)).status_code == 200  # by cookie
        problem_of(await client.post(batch["links"]["self"] + "/process"), 401)
        client.cookies.clear()
        problem_of(await client.get(events), 401)
        assert (await client.get(events, params={"ticket": ticket})).status_code == 200
        problem_of(await client.get(events, params={"ticket": ticket + "x"}), 401)
        other = f"/api/batches/{MISSING}/events"
        problem_of(await client.get(other, params={"ticket": ticket}), 401)
        problem_of(await client.get(batch["links"]["self"] + f"?ticket={ticket}"), 401)


async def test_an_application_may_bring_its_own_backend(manager):
    class Header(AuthenticationBackend):
        async def authenticate(self, conn):
            name = conn.headers.get("x-user")
            return (AuthCredentials(), SimpleUser(name)) if name else None

    api = APIManager(register(manager), authentication=Header())
    async with (
        api.running(allow_anonymous=True),
        client_of(api.app, headers={"x-user": "bob"}) as client,
    ):
        assert (await created(client, [GOOD]))["created_by"] == "bob"


@pytest.mark.parametrize("entry", ["ann", "ann:abc", ":" + "0" * 64])
def test_a_malformed_key_entry_is_refused(entry):
    with pytest.raises(ConfigurationError, match="name:hash"):
        APIManager(BatchManager("postgresql://x", settings=Settings(api_keys=(entry,))))


async def test_a_foreign_host_name_is_refused(manager):
    api = APIManager(register(manager), allowed_hosts=["good.example"])
    async with api.running(allow_anonymous=True), client_of(api.app) as client:
        assert (await client.get("/health")).status_code == 400
        assert (await client.get("/health", headers={"host": "good.example"})).status_code == 200


@pytest.mark.parametrize(
    ("origins", "allowed"), [((), None), (("https://a.example",), "https://a.example")]
)
async def test_other_sites_are_let_in_by_name_only(manager, origins, allowed):
    manager.settings = manager.settings.model_copy(update={"cors_origins": origins})
    api = APIManager(register(manager))
    async with api.running(allow_anonymous=True), client_of(api.app) as client:
        for origin in ("https://a.example", "https://b.example"):
            answer = await client.get("/health", headers={"origin": origin})
            expected = allowed if origin == allowed else None
            assert answer.headers.get("access-control-allow-origin") == expected


# --- mounting


@pytest.mark.parametrize("framework", ["starlette", "fastapi"])
async def test_mounted_into_an_application_everything_works_below_the_prefix(dsn, framework):
    order = []

    @asynccontextmanager
    async def lifespan(app):
        order.append("in")
        yield {"own": 1}
        order.append("out")

    app = {"starlette": Starlette, "fastapi": FastAPI}[framework](lifespan=lifespan)
    manager = register(BatchManager(dsn))
    APIManager(manager).mount_into(app, "/imports", allow_anonymous=True)
    async with app.router.lifespan_context(app) as state:
        assert state == {"own": 1}
        assert manager.is_open
        async with client_of(app) as client:
            body = {"batch_type": "plain", "items": [{}]}
            answer = await client.post("/imports/api/batches", json=body)
            assert answer.status_code == 202, answer.text
            location = answer.headers["location"]
            assert location.startswith("/imports/api/batches/")
            assert (await manager.wait_for_batch(answer.json()["batch_id"], timeout=PATIENCE)).ok
            assert (await client.get(location)).json()["links"]["self"] == location
            assert (
                'data-document="/imports/openapi.json"' in (await client.get("/imports/docs")).text
            )
            document = (await client.get("/imports/openapi.json")).json()
            assert document["servers"] == [{"url": "/imports"}]
    assert order == ["in", "out"]
    assert not manager.is_open


async def test_a_bare_mount_says_what_is_missing(manager, caplog):
    app = Starlette()
    api = APIManager(register(manager))
    app.mount("/imports", api.app)
    async with client_of(app) as client:
        problem = problem_of(await client.get("/imports/api/batches"), 503)
        assert "has not started it" in problem["detail"], "no Python for who asks by HTTP"
        assert "mount_into" in caplog.text
        assert "api.running()" in caplog.text
        async with api.running(allow_anonymous=True):
            assert (await client.get("/imports/api/batches")).status_code == 200
            with pytest.raises(ConfigurationError, match="running already"):
                async with api.running(allow_anonymous=True):
                    pass


@pytest.mark.parametrize("prefix", ["", "imports", "/imports/"])
def test_a_prefix_that_is_none_is_refused(prefix):
    with pytest.raises(ConfigurationError):
        APIManager(BatchManager("postgresql://x")).mount_into(Starlette(), prefix)


async def test_what_was_accepted_is_finished_by_another_process(dsn, manager):
    api = APIManager(register(manager), worker=False)
    async with api.running(allow_anonymous=True), client_of(api.app) as client:
        body = {"batch_type": "plain", "items": [{}]}
        answer = await client.post("/api/batches", json=body)
        assert (answer.status_code, answer.json()["status"]) == (202, "pending")
        assert (await client.get("/health")).json()["worker"] == "off"
    other = register(BatchManager(dsn))
    async with APIManager(other).running(allow_anonymous=True):
        assert (await other.wait_for_batch(answer.json()["batch_id"], timeout=PATIENCE)).ok
