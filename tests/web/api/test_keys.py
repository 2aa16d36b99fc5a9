"""Over HTTP: keys and reasons in what is read, and 409 where only one batch may run."""

import httpx
import pytest_asyncio
from uuid_utils.compat import uuid7

from reliable_imports_async import APIManager, BatchManager

from ...support.keyed_processors import NightlyProcessor, PatientProcessor, StockProcessor, running


@pytest_asyncio.fixture(loop_scope="session")
async def client(manager: BatchManager):
    for one in (NightlyProcessor, PatientProcessor, StockProcessor):
        manager.registry.register(one)
    api = APIManager(manager)
    async with (
        api.running(allow_anonymous=True),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(api.app), base_url="http://test", timeout=120
        ) as opened,
    ):
        yield opened


async def created(client, batch_type="stock", **more):
    items = [{"sku": sku, "count": "1"} for sku in ("a", "b", "a")]
    body = {"batch_type": batch_type, "items": items, "process": "wait"} | more
    return await client.post("/api/batches", json=body)


async def test_keys_and_reasons_are_shown(client):
    await created(client)
    batch = (await created(client)).json()
    assert (batch["completed_items"], batch["skipped_items"]) == (0, 3)
    path = f"/api/batches/{batch['batch_id']}"
    assert (await client.get(path)).json()["skip_reasons"] == [
        {"reason": "unchanged since item … of batch …", "count": 2},
        {"reason": "duplicate of item …", "count": 1},
    ]
    items = (await client.get(f"{path}/items")).json()["items"]
    assert [item["item_key"] for item in items] == ["a", "b", "a"]
    assert items[2]["skip_reason"] == "duplicate of item 1"


async def test_a_batch_and_an_upload_can_ask_for_everything(client):
    await created(client)
    assert (await created(client, skip_unchanged=False)).json()["completed_items"] == 2
    assert (await created(client, skip_unchanged=True)).status_code == 422
    upload = "/api/batches/upload?batch_type=stock&process=wait&on_same_file=force&name=a.csv"
    content = b"sku,count\na,1\n"
    for more, completed in (("", 0), ("&skip_unchanged=false", 1)):
        answer = await client.post(upload + more, content=content)
        assert answer.json()["completed_items"] == completed
    assert (await client.post(f"{upload}&skip_unchanged=true", content=content)).status_code == 422


async def test_a_second_batch_is_409_and_nothing_is_stored(client, conn):
    other = uuid7()
    stored = (await created(client, "nightly", process=False)).json()["batch_id"]
    await running(conn, other, "nightly")
    for answer in (
        await created(client, "nightly"),
        await client.post(f"/api/batches/{stored}/process", json={}),
    ):
        assert answer.status_code == 409
        problem = answer.json()
        assert str(other) in problem["detail"]
        assert str(other) in problem["detail"]
    assert await conn.fetchval("SELECT count(*) FROM reliable_imports.import_batches") == 2


async def test_a_second_batch_is_accepted_where_it_waits(client, conn):
    await running(conn, uuid7(), "patient")
    answer = await created(client, "patient", process="background")
    assert (answer.status_code, answer.json()["status"]) == (202, "pending")
