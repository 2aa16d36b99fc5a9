"""A request that is repeated under its Idempotency-Key gets its batch, and nothing happens twice."""

import asyncio

import httpx
import pytest
import pytest_asyncio

from reliable_imports_async import APIManager, BaseEndpoint, BaseProcessor, BatchManager

from ...support.trying import PATIENCE

KEY = {"idempotency-key": "k"}


class GoodsProcessor(BaseProcessor):
    async def process_item(self, item, ctx):
        return None


class GoodsEndpoint(BaseEndpoint):
    """Has every hook of a creation, and changes what is stored, differently each time."""

    def __init__(self):
        self.calls = []

    def before_create_batch(self, request_data, ctx):
        self.calls.append("before")
        for item in request_data.items or []:
            item["call"] = len(self.calls)

    async def after_create_batch(self, batch_id, request_data, ctx):
        self.calls.append("after")


@pytest_asyncio.fixture(loop_scope="session", params=[False, True], ids=["no hooks", "hooks"])
async def served(request, manager: BatchManager):
    manager.registry.register(GoodsProcessor)
    endpoint = None
    if request.param:
        endpoint = GoodsEndpoint()
        manager.registry.register_endpoint(endpoint)
    api = APIManager(manager)
    transport = httpx.ASGITransport(api.app)
    async with (
        api.running(allow_anonymous=True),
        httpx.AsyncClient(transport=transport, base_url="http://test", timeout=PATIENCE) as client,
    ):
        yield client, endpoint


async def by_json(client, content, headers=KEY):
    body = {"batch_type": "goods", "items": [{"n": content}], "process": "wait"}
    return await client.post("/api/batches", json=body, headers=headers)


async def by_file(client, content, headers=KEY, query="&process=wait"):
    url = f"/api/batches/upload?batch_type=goods{query}"
    body = f"n\n{content}\n".encode()
    return await client.post(url, content=body, headers={"content-type": "text/csv", **headers})


async def by_form(client, content, headers=KEY):
    file = {"file": ("goods.csv", f"n\n{content}\n".encode(), "text/csv")}
    url = "/api/batches/upload?batch_type=goods&process=wait"
    return await client.post(url, files=file, headers=headers)


ways = pytest.mark.parametrize("send", [by_json, by_file, by_form])


@ways
async def test_a_repeated_request_gets_its_batch_and_runs_no_hook_again(served, conn, send):
    client, endpoint = served
    first = await send(client, 1)
    hooks = list(endpoint.calls) if endpoint else []
    again = await send(client, 1)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["batch_id"] == again.json()["batch_id"]
    assert (first.json()["replayed"], again.json()["replayed"]) == (False, True)
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert (endpoint.calls if endpoint else []) == hooks
    assert await conn.fetchval("SELECT count(*) FROM reliable_imports.import_batches") == 1


@ways
async def test_the_key_with_other_content_is_refused(served, send):
    client, _ = served
    first = await send(client, 1)
    other = await send(client, 2)
    assert other.status_code == 422
    assert other.json()["type"].endswith("idempotency-conflict")
    assert other.json()["batch_id"] == first.json()["batch_id"]


@ways
async def test_twins_at_the_same_time_make_one_batch(served, conn, send):
    client, _ = served
    answers = await asyncio.gather(*[send(client, 1) for _ in range(6)])
    refused = [one.json() for one in answers if one.status_code == 422]
    # Hooks that store something else each time make another request of it.
    assert not refused or send is by_json
    assert len({one.json()["batch_id"] for one in answers}) == 1
    assert await conn.fetchval("SELECT count(*) FROM reliable_imports.import_batches") == 1


async def test_the_key_goes_before_the_same_file(served):
    client, _ = served
    first = await by_file(client, 1)
    for wish in ("refuse", "skip", "force"):
        again = await by_file(client, 1, query=f"&process=wait&on_same_file={wish}")
        assert again.json()["batch_id"] == first.json()["batch_id"], wish
    without = await by_file(client, 1, headers={})
    assert without.status_code == 409
    other_key = await by_file(client, 1, headers={"idempotency-key": "other"})
    assert other_key.status_code == 409


async def test_a_replay_does_not_start_the_batch_again(served, conn):
    client, _ = served
    first = await by_file(client, 1, query="&process=false")
    assert first.json()["status"] == "pending"
    jobs = await conn.fetchval("SELECT count(*) FROM pgqueuer")
    again = await by_file(client, 1, query="&process=background")
    assert again.json()["status"] == "pending"
    assert await conn.fetchval("SELECT count(*) FROM pgqueuer") == jobs


@pytest.mark.parametrize("key", [b"", b"k" * 256, b"\xff", b"a\x00b", b"\x1b"])
async def test_a_key_that_cannot_be_one_is_refused(served, key):
    client, _ = served
    for send in (by_json, by_file):
        answer = await send(client, 1, headers={"idempotency-key": key})
        assert answer.status_code == 400


async def test_it_is_documented_where_it_counts(served):
    client, _ = served
    paths = (await client.get("/openapi.json")).json()["paths"]
    for path in ("/api/batches", "/api/batches/upload"):
        names = {one["name"] for one in paths[path]["post"]["parameters"]}
        assert "Idempotency-Key" in names
