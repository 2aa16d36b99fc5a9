"""No single input keeps the event loop busy: each step of the loop is measured in processor time."""

import asyncio
import json
import time
from contextlib import contextmanager

import httpx
import pytest
import pytest_asyncio
from pydantic import BaseModel

from reliable_imports_async import APIManager, BaseProcessor, BatchManager

MOST_SECONDS = 0.05
LARGE = 1_000_000


class Watchdog:
    """The longest step of the loop, in seconds of its thread's processor time."""

    def __init__(self):
        self.longest = 0.0

    @contextmanager
    def watching(self):
        run = asyncio.events.Handle._run

        def measured(handle):
            began = time.thread_time()
            try:
                run(handle)
            finally:
                self.longest = max(self.longest, time.thread_time() - began)

        asyncio.events.Handle._run = measured
        try:
            yield self
        finally:
            asyncio.events.Handle._run = run


def slowness():
    """How much slower this machine is now than the one on which the limit was chosen; 1 or more."""
    text = array("{}", 340_000)
    best = min(timed(lambda: json.loads(text)) for _ in range(3))
    return max(1.0, best / 0.020)


def array(element, count):
    return f"[{','.join([element] * count)}]"


def timed(work):
    began = time.thread_time()
    work()
    return time.thread_time() - began


class Order(BaseModel):
    number: int
    name: str = ""
    lines: list[int] = []


class OrdersProcessor(BaseProcessor[Order]):
    pause_after = None

    async def process_item(self, item, ctx):
        return None


class FreeProcessor(BaseProcessor):
    pause_after = None

    async def process_item(self, item, ctx):
        ctx.info(f"got {item.source_data.get('log', '')}", record=item.source_data)
        if "fail" in item.source_data:
            raise ValueError(item.source_data["fail"])
        if "sql" in item.source_data:
            await ctx.execute("SELECT $1::text::int", item.source_data["sql"])
        return {
            "processed_data": item.source_data.get("give"),
            "target_id": item.source_data.get("id"),
        }


@pytest_asyncio.fixture(loop_scope="session")
async def served(manager: BatchManager):
    for one in (OrdersProcessor, FreeProcessor):
        manager.registry.register(one)
    api = APIManager(manager)
    transport = httpx.ASGITransport(api.app, raise_app_exceptions=False)
    async with (
        api.running(),
        httpx.AsyncClient(transport=transport, base_url="http://test", timeout=120) as client,
    ):
        yield client


INPUTS = {
    "urls": json.dumps("://:" * (LARGE // 4)),
    "words": json.dumps("password=" * (LARGE // 9)),
    "quotes": json.dumps("'\"" * (LARGE // 3)),
}
FIELDS = {"orders": ("number", "lines"), "free": ("fail", "sql", "give")}


async def steps_of(client, kind, record):
    """The longest step of the loop while a record is created, and while it is shown."""
    dog = Watchdog()
    steps = {}
    body = f'{{"batch_type": "{kind}", "process": "wait", "items": [{record}]}}'.encode()
    headers = {"content-type": "application/json"}
    with dog.watching():
        made = await client.post("/api/batches", content=body, headers=headers)
        steps["create"], dog.longest = dog.longest, 0.0
        if made.status_code >= 400:
            assert made.status_code < 500, made.text
            return steps
        batch_id = made.json()["batch_id"]
        here, there = f"/api/batches/{batch_id}", f"/dashboard/batches/{batch_id}"
        for url in (
            f"{here}/items/1", f"{here}/items", f"{here}/logs", f"{here}/failures",
            f"{here}/failures.csv", f"{here}/failures.jsonl", there, f"{there}/items",
            f"{there}/items/1", f"{there}/items/1/edit", f"{there}/logs",
        ):  # fmt: skip
            assert (await client.get(url)).status_code < 500, url
            steps[url.replace(batch_id, "")], dog.longest = dog.longest, 0.0
    return steps


@pytest.mark.parametrize("name", INPUTS)
async def test_a_large_value_blocks_nothing(served, name):
    """In each field that code may validate, log, raise, or write: created, shown, exported."""
    for kind in FIELDS:
        await steps_of(served, kind, '{"fail": "x"}')  # templates and statements are ready now
    allowed = MOST_SECONDS * slowness()
    slow = []
    for kind, fields in FIELDS.items():
        for field in fields:
            steps = await steps_of(served, kind, f'{{"{field}": {INPUTS[name]}}}')
            slow += [
                f"{kind}.{field} {step} {seconds:.3f}"
                for step, seconds in steps.items()
                if seconds > allowed
            ]
    assert not slow, (f"allowed {allowed:.3f}", slow)
