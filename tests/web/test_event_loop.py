"""No single input keeps the event loop busy: each step of the loop is measured in processor time."""

import asyncio
import gc
import json
import time
from contextlib import contextmanager

import httpx
import pytest
import pytest_asyncio
from pydantic import BaseModel

from reliable_imports_async import APIManager, BaseProcessor, BatchManager

from ..support.trying import some_long

MOST_SECONDS = 0.05
LARGE = 1_000_000


class Watchdog:
    """The longest step of the loop, in seconds of its thread's processor time.

    Without Python's garbage collections: one walks every object of the process, also those of all
    the tests before, and falls into a step by chance.
    """

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
        gc.disable()
        try:
            yield self
        finally:
            gc.enable()
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
    api = APIManager(manager, allow_anonymous=True)
    transport = httpx.ASGITransport(api.app, raise_app_exceptions=False)
    async with (
        api.running(),
        httpx.AsyncClient(transport=transport, base_url="http://test", timeout=120) as client,
    ):
        yield client


def repeated(piece):
    """A text of a piece again and again, as JSON, near the limit of a record."""
    return json.dumps(piece * (LARGE // (len(json.dumps(piece)) - 2)), ensure_ascii=True)


def listed(element):
    return array(element, LARGE // (len(element) + 1))


VALUES = {
    "urls": repeated("://:"),
    "words": repeated("password="),
    "quotes": repeated("'\""),
    "markup": repeated("<&"),
    "hidden": repeated("\u200b"),
    "backslashes": repeated("\\"),
    "lines": repeated("\n"),
    "blanks": repeated(" "),
    "digits": repeated("1"),
    "letters": repeated("aA"),
    "brackets": repeated("(a)=("),
    "emoji": repeated("\U0001f389"),
    "ones": listed("1"),
    "texts": listed('"a"'),
    "objects": listed("{}"),
    "pairs": listed('{"a":1}'),
    "long fractions": listed("0." + "1" * 15_000),
    "a key": '{"' + "k" * LARGE + '":1}',
}
QUICK = {"urls", "brackets", "digits", "emoji", "long fractions"}
KINDS = ("orders", "free")


def batches_of(name):
    """Records that have the value in each field that code may validate, raise, log or write."""
    value = VALUES[name]
    kind = "text" if value.startswith('"') else "structure"
    fields = {"text": ("number", "fail", "log"), "structure": ("lines", "fail", "give")}[kind]
    yield "orders", [f'{{"{fields[0]}":{value}}}']
    yield "free", [f'{{"{field}":{value}}}' for field in fields[1:]]
    if value.startswith("{"):
        yield "orders", [value]


async def steps_of(client, kind, records):
    """The longest step of the loop while records are created and tried, and while they are shown."""
    dog = Watchdog()
    steps = {}
    body = f'{{"batch_type":"{kind}","process":"wait","items":[{",".join(records)}]}}'.encode()
    headers = {"content-type": "application/json"}

    async def step(name, request):
        dog.longest = 0.0
        answer = await request
        assert answer.status_code < 500, (name, answer.text[:500])
        steps[f"{kind} {name}"] = dog.longest
        return answer

    with dog.watching():
        made = await step("create", client.post("/api/batches", content=body, headers=headers))
        assert made.status_code < 300, made.text[:500]
        batch_id = made.json()["batch_id"]
        here, there = f"/api/batches/{batch_id}", f"/dashboard/batches/{batch_id}"
        urls = [here, f"{here}/items", f"{here}/logs", f"{here}/failures", f"{here}/failures.csv",
                f"{here}/failures.jsonl", f"{here}/events", there, f"{there}/items", f"{there}/logs"]  # fmt: skip
        for item in ("items/1", f"items/{len(records)}"):
            urls += [f"{here}/{item}", f"{there}/{item}", f"{there}/{item}/edit"]
        for url in urls:
            await step(url.replace(batch_id, ""), client.get(url))
        text = (await client.get(f"{here}/failures.jsonl")).content
        corrected = client.post(
            f"{here}/reprocess/upload", content=text, params={"process": "false"}
        )
        await step("corrected", corrected)
        change = f'{{"source_data":{records[0]},"force":true}}'.encode()
        await step("change", client.patch(f"{here}/items/1", content=change, headers=headers))
    return steps


@pytest.mark.parametrize("name", some_long(VALUES, QUICK))
async def test_a_large_value_blocks_nothing(served, name):
    """Created, tried, stored as an error, shown, exported, edited and brought back."""
    for kind in KINDS:
        await steps_of(served, kind, ['{"fail": "x"}'])  # templates and statements are ready now
    value = json.loads(VALUES[name])
    allowed = MOST_SECONDS * slowness() + timed(lambda: str(value))  # by the processor itself
    steps = [await steps_of(served, kind, records) for kind, records in batches_of(name)]
    slow = [
        f"{s} {seconds:.3f}" for one in steps for s, seconds in one.items() if seconds > allowed
    ]
    assert not slow, (f"allowed {allowed:.3f}", slow)
