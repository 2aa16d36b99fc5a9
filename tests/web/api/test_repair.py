"""Failures are repaired over HTTP: causes, edits, a corrected file, a canary, a dry run."""

import csv
import io
from uuid import UUID

import httpx
import pytest
import pytest_asyncio

from reliable_imports_async import APIManager, BaseEndpoint, BaseProcessor, BatchManager

from ...support.trying import appears


class TownsProcessor(BaseProcessor):
    async def process_item(self, item, ctx):
        await ctx.execute("INSERT INTO towns VALUES ($1)", item.source_data["land"])


@pytest_asyncio.fixture(loop_scope="session")
async def client(manager: BatchManager, conn):
    await conn.execute(
        "CREATE TABLE lands (name text PRIMARY KEY); INSERT INTO lands VALUES ('A');"
        "CREATE TABLE towns (land text REFERENCES lands)"
    )
    manager.registry.register(TownsProcessor)
    api = APIManager(manager)
    async with (
        api.running(allow_anonymous=True),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(api.app), base_url="http://test", timeout=120
        ) as opened,
    ):
        yield opened


async def created(client, lands, **more) -> dict:
    items = [{"land": land} for land in lands]
    body = {"batch_type": "towns", "items": items, "process": "wait"} | more
    return (await client.post("/api/batches", json=body)).json()


async def test_causes_edits_and_their_history(client):
    batch = await created(client, ["A", "B", "B", "C"])
    path = f"/api/batches/{batch['batch_id']}"
    found = (await client.get(f"{path}/failures")).json()
    (group,) = found["groups"]
    assert (group["count"], group["values"]) == (3, [["name=B", 2], ["name=C", 1]]) or (
        group["values"] == [["land=B", 2], ["land=C", 1]]
    )
    assert (group["seen_before"], group["sample_items"], found["unreadable_items"]) == (
        0,
        [2, 3, 4],
        0,
    )
    assert (await client.get(f"{path}/failures?group=none")).json()["groups"] == []
    body = {"source_data": {"land": "A"}, "reason": "a typing error"}
    edited = await client.patch(f"{path}/items/2", json=body)
    assert (edited.status_code, edited.json()["source_data"]) == (200, {"land": "A"})
    (edit,) = (await client.get(f"{path}/items/2/edits")).json()["edits"]
    assert (edit["before"], edit["after"]) == ({"land": "B"}, {"land": "A"})
    assert edit["reason"] == "a typing error"
    assert (await client.patch(f"{path}/items/1", json=body)).status_code == 409
    assert (await client.patch(f"{path}/items/99", json=body)).status_code == 404
    assert (await client.patch(f"{path}/items/2", json={})).status_code == 422
    again = {"process": "wait", "item_numbers": [2]}
    assert (await client.post(f"{path}/reprocess", json=again)).json()["ok"]


async def test_a_corrected_file_comes_back(client):
    batch = await created(client, ["A", "B", "C"])
    path = f"/api/batches/{batch['batch_id']}"
    text = (await client.get(f"{path}/failures.csv")).text
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    rows = [rows[0] | {"land": "A"}, rows[1] | {"_item": "1"}]
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    answer = await client.post(
        f"{path}/reprocess/upload?process=wait",
        content=out.getvalue().encode(),
        headers={"content-type": "text/csv"},
    )
    body = answer.json()
    assert (answer.status_code, body["ok"], body["total_items"]) == (200, True, 1)
    assert (body["accepted"], body["unchanged"], body["refused_rows"]) == (1, 0, 1)
    (refused,) = body["refused"]
    assert (refused["line"], refused["item_number"]) == (3, 1)
    form = {"file": ("corrected.csv", b"land\nA\n", "text/csv")}
    assert (await client.post(f"{path}/reprocess/upload", files=form)).status_code == 422


async def test_a_canary_is_followed_by_the_rest(client, conn):
    batch = await created(client, ["B"] * 30)
    path = f"/api/batches/{batch['batch_id']}"
    await conn.execute("INSERT INTO lands VALUES ('B')")
    body = {"process": "wait", "canary": 5, "min_success": 1}
    canary = (await client.post(f"{path}/reprocess", json=body)).json()
    assert (canary["total_items"], canary["ok"]) == (5, True)
    rest = "SELECT FROM reliable_imports.import_batches WHERE total_items = 25"
    await appears(conn, rest)  # whoever has finished the canary creates it
    lineage = (await client.get(path)).json()["lineage"]
    assert [one["total_items"] for one in lineage] == [30, 5, 25]
    assert (await client.post(f"{path}/reprocess", json={"canary": 0})).status_code == 422


async def test_a_dry_run_answers_with_what_it_would_come_to(client, conn):
    batch = await created(client, ["A", "A", "B"], process=False)
    path = f"/api/batches/{batch['batch_id']}"
    report = (await client.post(f"{path}/process", json={"dry_run": True})).json()
    assert (report["completed"], report["failed"]) == (2, 1)
    assert report["tables"] == [
        {"table": "public.towns", "inserted": 2, "updated": 0, "deleted": 0}
    ]
    assert await conn.fetchval("SELECT count(*) FROM towns") == 0
    assert (await client.get(path)).json()["status"] == "pending"


ALL_BACK = """
SELECT WHERE NOT EXISTS (SELECT FROM reliable_imports.import_batch_ranges WHERE state = 'leased')
"""


async def test_thresholds_and_control_totals(client, conn):
    paused = await created(client, ["B"] * 40, max_failures=2)
    assert paused["status"] == "paused"
    path = f"/api/batches/{paused['batch_id']}"
    await appears(conn, ALL_BACK)  # an item that fails meanwhile would pause it again
    resumed = await client.post(f"{path}/resume", json={"reason": "known"})
    assert resumed.status_code == 200
    logs = (await client.get(f"{path}/logs")).json()["logs"]
    assert "known" in [(line["details"] or {}).get("reason") for line in logs]
    expect = {"count": 2, "sum": {"land": 0}}
    body = {"batch_type": "towns", "items": [{"land": "A"}], "expect": expect}
    wrong = await client.post("/api/batches", json=body)
    assert wrong.status_code == 422
    assert "count is 1, expected 2; 1 value is not a number" in wrong.json()["detail"]
    waiting = await created(client, ["B"] * 40, process=False)
    body = {"process": "wait", "max_failure_rate": 0.5, "min_processed": 5}
    path = f"/api/batches/{waiting['batch_id']}"
    assert (await client.post(f"{path}/process", json=body)).json()["status"] == "paused"
    upload = "/api/batches/upload?batch_type=towns&process=wait&format=csv&expect_count=3"
    sent = await client.post(upload, content=b"land\nA\n", headers={"content-type": "text/csv"})
    assert (sent.status_code, "count is 1, expected 3" in sent.json()["detail"]) == (422, True)


@pytest.mark.parametrize(
    "body", [{"max_failure_rate": 5}, {"max_failures": -1}, {"expect": {"sums": 1}}]
)
async def test_what_cannot_work_is_refused(client, body):
    request = {"batch_type": "towns", "items": []} | body
    assert (await client.post("/api/batches", json=request)).status_code == 422


async def test_outstanding_failures_are_those_of_the_lineage_whoever_is_asked(client, conn):
    batch = await created(client, ["A", "B", "B", "C"])
    root = f"/api/batches/{batch['batch_id']}"
    await conn.execute("INSERT INTO lands VALUES ('B')")
    child = (await client.post(f"{root}/reprocess", json={"process": "wait"})).json()
    assert (child["created"], child["message"], child["completed_items"]) == (True, None, 2)
    for path in (root, f"/api/batches/{child['batch_id']}"):
        found = (await client.get(f"{path}/failures")).json()
        assert (found["root_batch_id"], found["outstanding_items"]) == (batch["batch_id"], 1)
        (group,) = found["outstanding"]
        assert (group["batch_id"], group["count"], group["sample_items"]) == (
            child["batch_id"],
            1,
            [3],
        )
        assert (await client.get(path)).json()["outstanding_items"] == 1
    listed = (await client.get(f"/api/batches?root={batch['batch_id']}")).json()["batches"]
    counts = (
        "total_items",
        "completed_items",
        "failed_items",
        "pending_items",
        "outstanding_items",
    )
    assert [tuple(one[name] for name in counts) for one in listed] == [
        (3, 2, 1, 0, 1),
        (4, 1, 3, 0, 1),
    ]


async def test_reprocessing_nothing_says_so(client, conn):
    batch = await created(client, ["A", "B"])
    path = f"/api/batches/{batch['batch_id']}/reprocess"
    await conn.execute("INSERT INTO lands VALUES ('B')")
    child = (await client.post(path, json={"process": "wait"})).json()
    nothing = await client.post(path)
    assert nothing.status_code == 200
    body = nothing.json()
    assert (body["created"], body["batch_id"]) == (False, child["batch_id"])
    assert body["message"].startswith("Nothing to reprocess: all failures")
    page = (await client.get(f"/dashboard/batches/{child['batch_id']}?nothing=1")).text
    assert "Nothing to reprocess: all failures" in page


@pytest.mark.parametrize(("dashboard", "place"), [(True, "/dashboard"), (False, "/docs")])
async def test_the_root_leads_somewhere_useful(manager, dashboard, place):
    api = APIManager(manager, worker=False, dashboard=dashboard)
    transport = httpx.ASGITransport(api.app)
    async with (
        api.running(allow_anonymous=True),
        httpx.AsyncClient(transport=transport, base_url="http://t") as client,
    ):
        answer = await client.get("/")
        assert (answer.status_code, answer.headers["location"]) == (307, place)
        assert (await client.get(place)).status_code == 200


async def test_nothing_is_no_success_over_http(client):
    upload = "/api/batches/upload?batch_type=towns&process=wait&format=csv"
    for content in (b"", b"land\n"):
        sent = await client.post(upload, content=content, headers={"content-type": "text/csv"})
        assert (sent.status_code, "no records" in sent.json()["detail"]) == (422, True)
        assert "`allow_empty` to true" in sent.json()["hint"]
    allowed = await client.post(f"{upload}&allow_empty=true", content=b"land\n")
    assert (allowed.json()["status"], allowed.json()["total_items"]) == ("completed", 0)
    body = {"batch_type": "towns", "items": [], "process": "wait"}
    assert (await client.post("/api/batches", json=body)).status_code == 422
    answer = await client.post("/api/batches", json=body | {"allow_empty": True})
    assert answer.json()["status"] == "completed"


async def test_a_guessed_encoding_is_in_the_answer(client):
    upload = "/api/batches/upload?batch_type=towns&process=wait&format=csv"
    sent = await client.post(upload, content="land\nÖlüß\n".encode("cp1252"))
    assert sent.json()["source_encoding"] == "cp1252"
    assert "Ölüß" in sent.json()["notes"][0]


async def test_with_nothing_left_a_cancelled_reprocessing_is_answered(client, conn):
    batch = await created(client, ["B"])
    path = f"/api/batches/{batch['batch_id']}"
    child = (await client.post(f"{path}/reprocess", json={"process": "wait"})).json()
    await conn.execute(  # its last item has just completed when it is cancelled
        "UPDATE reliable_imports.import_batches SET status = 'cancelled' WHERE id = $1",
        child["batch_id"],
    )
    await conn.execute(
        "UPDATE reliable_imports.import_batch_items SET status = 'completed' WHERE batch_id = $1",
        child["batch_id"],
    )
    again = await client.post(f"{path}/reprocess", json={"process": "wait"})
    assert (again.status_code, again.json()["batch_id"]) == (200, child["batch_id"])
    assert again.json()["status"] == "cancelled"


async def test_a_replayed_request_runs_no_hook_again(manager, client):
    told = []

    def after_create_batch(self, batch_id, request_data, ctx):
        told.append((batch_id, request_data.batch_type, ctx.request is not None))

    hooks = {"after_create_batch": after_create_batch}
    manager.registry.register_endpoint(type("TownsEndpoint", (BaseEndpoint,), hooks))
    body = {"batch_type": "towns", "items": [{"land": "A"}], "process": "wait"}
    for _ in range(2):
        answered = await client.post("/api/batches", json=body, headers={"Idempotency-Key": "k"})
        assert answered.json()["status"] == "completed"
    assert told == [(UUID(answered.json()["batch_id"]), "towns", True)]
