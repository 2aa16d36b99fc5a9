"""A client that polls is told in a word that nothing has changed."""

import httpx
import pytest
import pytest_asyncio

from reliable_imports_async import APIManager, BaseEndpoint, BaseProcessor, BatchManager

from ...support.trying import PATIENCE


class GoodsProcessor(BaseProcessor):
    async def process_item(self, item, ctx):
        if item.source_data["n"] == 2:
            raise ValueError("two is refused")


class GoodsEndpoint(BaseEndpoint):
    hidden = False

    def visible_batches(self, ctx):
        return not self.hidden


@pytest_asyncio.fixture(loop_scope="session")
async def client(manager: BatchManager):
    manager.registry.register(GoodsProcessor)
    manager.registry.register_endpoint(GoodsEndpoint())
    api = APIManager(manager, worker=False)
    transport = httpx.ASGITransport(api.app)
    async with (
        api.running(allow_anonymous=True),
        httpx.AsyncClient(transport=transport, base_url="http://test", timeout=PATIENCE) as client,
    ):
        yield client


async def create(client):
    body = {"batch_type": "goods", "items": [{"n": 1}, {"n": 2}], "process": False}
    return (await client.post("/api/batches", json=body)).json()["links"]["self"]


async def ask(client, path, tag):
    return await client.get(path, headers={"if-none-match": tag})


@pytest.mark.parametrize("of_list", [True, False])
async def test_an_unchanged_answer_is_not_sent_again(client, manager, of_list):
    batch = await create(client)
    path = "/api/batches?limit=5" if of_list else batch
    first = await client.get(path)
    tag = first.headers["etag"]

    again = await ask(client, path, tag)
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert again.headers["cache-control"] == "no-store"
    assert "x-request-id" in again.headers

    await manager.process_batch(batch.rpartition("/")[2])
    changed = await ask(client, path, tag)
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag
    assert changed.json() != first.json()
    assert (await ask(client, path, changed.headers["etag"])).status_code == 304


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ("{tag}", 304),
        ('"other", {tag}', 304),
        ("{strong}", 304),  # the comparison is weak
        ("*", 304),
        ('"other"', 200),
        ("", 200),
        ("{bare}", 200),
        ("," * 1_000, 200),
        ('W/"' + "x" * 1_000 + '"', 200),
    ],
)
async def test_any_named_tag_counts(client, given, status):
    batch = await create(client)
    tag = (await client.get(batch)).headers["etag"]
    header = given.format(tag=tag, strong=tag.removeprefix("W/"), bare=tag[3:-1])
    assert (await ask(client, batch, header)).status_code == status


async def test_a_running_batch_is_unchanged_although_its_clock_runs(client, conn):
    batch = await create(client)
    await conn.execute(
        "UPDATE reliable_imports.import_batches SET status = 'processing', started_at = now()"
    )
    first = await client.get(batch)
    later = await client.get(batch)
    assert first.json()["duration"] < later.json()["duration"]
    assert (await ask(client, batch, first.headers["etag"])).status_code == 304


async def test_a_tag_does_not_show_a_batch_that_is_hidden_now(client, manager):
    batch = await create(client)
    tag = (await client.get(batch)).headers["etag"]
    manager.registry.endpoint("goods").hidden = True
    assert (await ask(client, batch, tag)).status_code == 404
    assert (await ask(client, batch, "*")).status_code == 404
