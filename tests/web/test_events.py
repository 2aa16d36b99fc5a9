"""Live progress: events, resumption, and nothing left behind, whoever leaves and when."""

import asyncio
import gc
import json
from contextlib import AsyncExitStack, aclosing

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Route

from reliable_imports_async import BatchManager
from reliable_imports_async.errors import BatchNotFound, TooManyClients

from ..support.trying import processor, records
from .http_server import PATIENCE, client, running, serving, until
from .reach import (
    EventStream,
    ProgressFeed,
    ping_every,
    polls,
    progress_response,
    shared_feeds,
    watches,
)

NOBODY = "019a0000-0000-7000-8000-0000000000ff"


class Gate:
    """A processor that lets items pass one by one."""

    def __init__(self, manager: BatchManager):
        self._permits = asyncio.Semaphore(0)

        async def process_item(item, ctx):
            await self._permits.acquire()
            assert item.source_data["n"] != 2, "two is refused"

        manager.registry.register(processor(process_item))

    def open(self, items: int = 1000) -> None:
        for _ in range(items):
            self._permits.release()


def parsed(chunk: bytes | str) -> dict:
    """The fields of one chunk, with the data as an object."""
    text = chunk if isinstance(chunk, str) else chunk.decode()
    lines = [line.partition(": ") for line in text.splitlines() if line]
    fields = {name: value for name, _, value in lines}
    return fields | ({"data": json.loads(fields["data"])} if "data" in fields else {})


async def following(stream) -> dict:
    """The next event that says something."""
    async with asyncio.timeout(PATIENCE):
        async for chunk in stream:
            if "event" in (event := parsed(chunk)):
                return event
    return {}


async def pending(manager: BatchManager, items: int = 2):
    return await manager.create_batch("tried", records(items))


async def test_a_batch_is_told_from_its_start_to_its_end(manager):
    gate = Gate(manager)
    batch_id = await pending(manager)
    feed = ProgressFeed(manager, interval=0.02)
    async with aclosing(feed.stream(batch_id)) as stream, asyncio.TaskGroup() as group:
        first = parsed(await anext(stream))
        assert (first["event"], first["retry"]) == ("progress", "2000")
        assert first["data"]["status"] == "pending"
        assert "groups" not in first["data"]
        group.create_task(manager.process_batch(batch_id))
        second = await following(stream)
        assert (second["event"], second["data"]["status"]) == ("progress", "processing")
        assert second["id"] != first["id"]
        gate.open()
        last = second
        while last["event"] == "progress":
            last = await following(stream)
        assert last["event"] == "finished"
        assert [chunk async for chunk in stream] == []
    summary = (await manager.get_batch_summary(batch_id)).as_dict()
    assert last["data"] == summary
    assert (summary["completed_items"], summary["groups"][0]["count"]) == (1, 1)


async def test_a_reconnecting_client_gets_what_it_has_not_had(manager):
    Gate(manager).open()
    batch_id = await pending(manager)
    feed = ProgressFeed(manager, interval=0.02)
    async with aclosing(feed.stream(batch_id)) as stream:
        first = parsed(await anext(stream))
    async with aclosing(feed.stream(batch_id, first["id"])) as stream:
        assert parsed(await anext(stream)) == {"retry": "2000"}  # nothing has changed
        await manager.process_batch(batch_id)
        changed = await following(stream)
        assert changed["id"] != first["id"]
    async with aclosing(feed.stream(batch_id, first["id"])) as stream:  # settled meanwhile
        finished = parsed(await anext(stream))
        assert finished["event"] == "finished"
    async with aclosing(feed.stream(batch_id, finished["id"])) as stream:
        assert [chunk async for chunk in stream] == []


async def test_a_paused_batch_is_followed_again_once_it_goes_on(manager):
    Gate(manager)
    batch_id = await pending(manager)
    feed = ProgressFeed(manager, interval=0.02)
    await manager.pause_batch(batch_id, reason="a look at it")
    async with aclosing(feed.stream(batch_id)) as paused:
        event = parsed(await anext(paused))
        assert (event["event"], event["data"]["pause_reason"]) == ("finished", "a look at it")
        await manager.resume_batch(batch_id)  # while the first still holds the old watch
        async with aclosing(feed.stream(batch_id, event["id"])) as resumed:
            assert parsed(await anext(resumed))["data"]["status"] == "pending"


async def test_what_cannot_be_followed_raises(manager):
    Gate(manager)
    batch_id = await pending(manager)
    feed = ProgressFeed(manager, max_clients=1)
    with pytest.raises(BatchNotFound):
        await anext(feed.stream(NOBODY))
    async with aclosing(feed.stream(batch_id)) as stream:
        await anext(stream)
        with pytest.raises(TooManyClients):
            await anext(feed.stream(batch_id))
    assert parsed(await anext(feed.stream(batch_id)))["event"] == "progress"  # the slot is free


async def test_a_purged_batch_ends_its_streams(manager, conn):
    Gate(manager)
    batch_id = await pending(manager)
    async with aclosing(ProgressFeed(manager, interval=0.02).stream(batch_id)) as stream:
        await anext(stream)
        await conn.execute("DELETE FROM reliable_imports.import_batches")
        assert await following(stream) == {}


async def test_one_query_serves_all(manager, monkeypatch):
    Gate(manager)
    batches = [await pending(manager) for _ in range(20)]
    asked, at_once = [], 0
    read = manager.batch_progress

    async def counted(ids):
        nonlocal at_once
        at_once += 1
        assert at_once == 1
        asked.append(len(ids))
        found = await read(ids)
        at_once -= 1
        return found

    monkeypatch.setattr(manager, "batch_progress", counted)
    feed = ProgressFeed(manager, interval=0.02)
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(aclosing(feed.stream(batch_id)))
            for batch_id in batches * 10
        ]
        async with asyncio.TaskGroup() as group:
            first = [group.create_task(anext(stream)) for stream in streams]
        assert {parsed(one.result())["data"]["batch_id"] for one in first} == set(map(str, batches))
        assert sum(asked) <= 20 * len(asked)
        joining = len(asked)
        await until(lambda: len(asked) >= joining + 3)
        assert asked[-1] == 20
    await until(lambda: not polls(feed))
    assert (feed.clients, watches(feed)) == (0, 0)


async def test_an_outage_is_waited_out(manager, monkeypatch):
    Gate(manager).open()
    batch_id = await pending(manager)
    read, failures = manager.batch_progress, 0

    async def failing(ids):
        nonlocal failures
        failures += 1
        raise ConnectionResetError("the server went away")

    feed = ProgressFeed(manager, interval=0.01)
    async with aclosing(feed.stream(batch_id)) as stream:
        await anext(stream)
        monkeypatch.setattr(manager, "batch_progress", failing)
        await until(lambda: failures > 3)
        with pytest.raises(ConnectionResetError):  # a new client is told
            await anext(feed.stream(batch_id if failures < 0 else await pending(manager)))
        monkeypatch.setattr(manager, "batch_progress", read)
        await manager.process_batch(batch_id)
        assert (await following(stream))["event"] in {"progress", "finished"}


async def test_a_silent_stream_is_kept_alive(manager, monkeypatch):
    ping_every(monkeypatch, 0.01)
    Gate(manager)
    async with aclosing(ProgressFeed(manager).stream(await pending(manager))) as stream:
        await anext(stream)
        assert await anext(stream) == b": ping\n\n"


async def test_leaving_the_block_ends_all_streams(manager):
    Gate(manager)
    batch_id = await pending(manager)
    async with AsyncExitStack() as stack:
        async with ProgressFeed(manager) as feed:
            stream = await stack.enter_async_context(aclosing(feed.stream(batch_id)))
            await anext(stream)
        assert not polls(feed)
        assert [chunk async for chunk in stream] == []
        late = [chunk async for chunk in feed.stream(batch_id)]
        assert late == [b"retry: 2000\n\n"]  # comes back to the next server


async def test_a_manager_that_is_closed_ends_its_streams(dsn):
    async with BatchManager(dsn, concurrency=1) as manager:
        Gate(manager)
        batch_id = await pending(manager)
        feed = ProgressFeed(manager, interval=0.02)
        stream = feed.stream(batch_id)
        await anext(stream)
    assert await following(stream) == {}
    await until(lambda: not polls(feed))


def starlette_app(manager: BatchManager) -> Starlette:
    async def events(request):
        return progress_response(manager, request.path_params["batch_id"])

    return Starlette(routes=[Route("/{batch_id:uuid}", events)])


def fastapi_app(manager: BatchManager) -> FastAPI:
    app = FastAPI()

    @app.get("/{batch_id}")
    def events(batch_id: str):  # in a thread, as FastAPI runs plain functions
        return progress_response(manager, batch_id)

    return app


@pytest.mark.parametrize("make", [starlette_app, fastapi_app])
async def test_a_route_of_ones_own(make, manager):
    Gate(manager).open()
    batch_id = await pending(manager)
    async with serving(make(manager)) as server, client(server.port) as browser:
        await browser.get(f"/{batch_id}")
        head = await browser.until("\r\n\r\n")
        assert "200 OK" in head
        assert "content-type: text/event-stream; charset=utf-8" in head
        assert "cache-control: no-store" in head
        assert '"status": "pending"' in await browser.until("}\n\n")
        await manager.process_batch(batch_id)
        await browser.until("event: finished")
        event = parsed(await browser.until("}\n\n"))
        await browser.until("0\r\n\r\n")  # ended as HTTP ends it; the connection lives
        await browser.get(f"/{batch_id}", last_event_id=event["id"])
        assert "204 No Content" in await browser.until("\r\n\r\n")  # an EventSource stays away
        await browser.get(f"/{NOBODY}")
        assert "404 Not Found" in await browser.until("\r\n\r\n")
    gc.collect()
    assert shared_feeds() == []


async def test_a_route_says_when_it_cannot(manager, monkeypatch):
    Gate(manager)
    batch_id = await pending(manager)
    app = starlette_app(manager)

    async def failing(ids):
        raise ConnectionResetError

    async with serving(app) as server, client(server.port) as browser:
        monkeypatch.setattr(manager, "batch_progress", failing)
        await browser.get(f"/{batch_id}")
        head = await browser.until("\r\n\r\n")
        assert "503 Service Unavailable" in head
        assert "retry-after: 5" in head


async def test_too_many_clients_are_told(manager):
    Gate(manager)
    batch_id = await pending(manager)
    few = manager.settings.model_copy(update={"max_event_clients": 1})
    manager.settings = few
    async with serving(starlette_app(manager)) as server, client(server.port) as one:
        await one.get(f"/{batch_id}")
        await one.until("\n\n")
        async with client(server.port) as other:
            await other.get(f"/{batch_id}")
            assert "503 Service Unavailable" in await other.until("\r\n\r\n")


async def test_head_answers_without_following(manager):
    Gate(manager)
    batch_id = await pending(manager)
    async with serving(starlette_app(manager)) as server, client(server.port) as browser:
        await browser.send(f"HEAD /{batch_id} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")
        head = await browser.rest()
        assert "text/event-stream" in head
        assert head.endswith("\r\n\r\n")


async def test_a_plain_uvicorn_that_is_told_to_stop_does(manager):
    Gate(manager)
    batch_id = await pending(manager)
    config = uvicorn.Config(starlette_app(manager), port=0, lifespan="off", log_config=None)
    assert config.timeout_graceful_shutdown is None  # it would wait for ever
    async with running(uvicorn.Server(config)) as server, client(server.port) as browser:
        await browser.get(f"/{batch_id}")
        await browser.until("\n\n")
        server.stop()
        assert (await browser.rest()).endswith("0\r\n\r\n")


async def test_our_server_ends_the_streams_first(manager):
    Gate(manager)
    batch_id = await pending(manager)
    feed = ProgressFeed(manager, interval=3600)  # the poller itself will not look again

    async def events(request):
        return EventStream(feed, batch_id)

    app = Starlette(routes=[Route("/", events)])
    async with serving(app, end_streams=feed.close) as server, client(server.port) as browser:
        await browser.get("/")
        await browser.until("\n\n")
        server.stop()
        assert (await browser.rest()).endswith("0\r\n\r\n")


async def test_a_thousand_clients_that_come_and_go_leak_nothing(manager):
    Gate(manager)
    batches = [await pending(manager) for _ in range(5)]
    before = asyncio.all_tasks()

    async def come_and_go(port: int, number: int) -> None:
        async with client(port) as browser:
            await browser.get(f"/{batches[number % 5]}")
            if number % 10:
                await browser.until("\n\n")  # else gone before the answer

    async with serving(starlette_app(manager)) as server:
        for wave in range(4):
            async with asyncio.TaskGroup() as group:
                for number in range(250):
                    group.create_task(come_and_go(server.port, 250 * wave + number))
        state = server.server.server_state
        await until(lambda: not state.tasks and not state.connections)
        gc.collect()
        assert all(feed.clients == 0 for feed in shared_feeds())
        await until(lambda: all(not polls(feed) for feed in shared_feeds()))
    assert not {task for task in asyncio.all_tasks() - before if not task.done()}
    gc.collect()
    assert shared_feeds() == []
    use = manager.pool_use()
    assert (use.lent, use.size <= use.limit) == (0, True)
