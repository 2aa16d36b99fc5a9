"""Bodies that come too slowly, and request ids; over real sockets."""

import asyncio
import json
import logging
import re

import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from reliable_imports_async import Settings

from ..http_server import client, serving
from ..reach import BodyPace, RequestIdFilter, RequestIds, request_id, set_the_clock

POST = "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n"
CHUNKED = "POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n"


class Receiver:
    """Counts what arrives, and what became of it."""

    def __init__(self):
        self.complete = self.gone = 0

    async def receive(self, request: Request):
        size = 0
        try:
            async for chunk in request.stream():
                size += len(chunk)
        except ClientDisconnect:
            self.gone += 1
            raise
        self.complete += 1
        return PlainTextResponse(f"{size} bytes")


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


def app(endpoint, **limits):
    inner = Starlette(routes=[Route("/", endpoint, methods=["GET", "POST"])])
    return RequestIds(BodyPace(inner, Settings(**limits)))


def problem(answer: str) -> dict:
    head, _, body = answer.partition("\r\n\r\n")
    assert "application/problem+json" in head
    return json.loads(body)


@pytest.mark.parametrize("opening", [POST.format(100) + "abc", CHUNKED + "3\r\nabc\r\n"])
async def test_a_body_that_stops_coming_is_refused(receiver, opening):
    async with serving(app(receiver.receive, receive_timeout=0.05)) as server:
        async with client(server.port) as slow:
            await slow.send(opening)
            answer = await slow.rest()
    assert answer.startswith("HTTP/1.1 408")
    found = problem(answer)
    assert (found["status"], found["title"]) == (408, "Request Timeout")
    assert f"x-request-id: {found['request_id']}" in answer.lower()
    assert (receiver.complete, receiver.gone) == (0, 1)


async def test_a_body_that_trickles_is_refused(receiver):
    limits = {"receive_timeout": 0.05, "min_receive_rate": 1e12}
    async with serving(app(receiver.receive, **limits)) as server, client(server.port) as slow:
        await slow.send(POST.format(10**9))
        try:
            while not receiver.gone:
                await slow.send(b"x" * 100)
        except ConnectionError:
            pass
        assert receiver.gone == 1


async def test_a_trickle_is_told_its_rate():
    sent, parts = await exchange([b"x"] * 3, receive_timeout=10, min_receive_rate=500, each=6)
    assert parts == 2
    assert sent[0]["status"] == 408
    assert "less than 500 B/s" in json.loads(sent[1]["body"])["detail"]


async def test_a_slow_start_and_a_fast_body_pass():
    sent, parts = await exchange([b"", b"x" * 10_000, b"x"], each=6, receive_timeout=10)
    assert parts == 3
    assert sent[0]["status"] == 200


async def test_a_body_may_not_take_for_ever():
    sent, parts = await exchange([b"x" * 10**6] * 99, each=6, receive_total=60)
    assert sent[0]["status"] == 408
    assert parts <= 11
    assert "60 s" in json.loads(sent[1]["body"])["detail"]


async def exchange(parts, *, each, **limits):
    """What is sent for a body whose parts come `each` seconds apart, by a clock that we set."""
    clock, received, sent = [0.0], [], []

    async def receive():
        clock[0] += each
        received.append(parts[len(received)])
        more = len(received) < len(parts)
        return {"type": "http.request", "body": received[-1], "more_body": more}

    async def send(message):
        sent.append(message)

    async def count(scope, receive, send):
        request = Request(scope, receive)
        async for _ in request.stream():
            pass
        await PlainTextResponse("done")(scope, receive, send)

    scope = {"type": "http", "method": "POST", "headers": [(b"transfer-encoding", b"chunked")]}
    with pytest.MonkeyPatch.context() as patch:
        set_the_clock(patch, lambda: clock[0])
        await BodyPace(count, Settings(**limits))(scope, receive, send)
    return sent, len(received)


async def test_what_the_application_takes_does_not_count(receiver):
    gate = asyncio.Event()

    async def slow(request):
        await gate.wait()
        return PlainTextResponse(f"{len(await request.body())} bytes")

    limits = {"receive_timeout": 30, "receive_total": 30}
    async with serving(app(slow, **limits)) as server, client(server.port) as sender:
        await sender.send(POST.format(5) + "12345")
        gate.set()
        assert "200 OK" in await sender.until("5 bytes")


async def test_whole_bodies_and_none_pass(receiver):
    async with serving(app(receiver.receive)) as server, client(server.port) as sender:
        await sender.send(POST.format(3) + "abc")
        await sender.until("3 bytes")
        await sender.get("/")
        await sender.until("0 bytes")
        await sender.send(CHUNKED + "2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n")
        await sender.until("4 bytes")
    assert receiver.complete == 3


async def test_a_response_that_has_begun_is_not_changed(receiver):
    async def echo(request):
        async def parts():
            yield b"begun."
            async for chunk in request.stream():
                yield chunk

        return StreamingResponse(parts())

    async with serving(app(echo, receive_timeout=0.05)) as server, client(server.port) as slow:
        await slow.send(POST.format(100) + "abc")
        answer = await slow.rest()
    assert answer.startswith("HTTP/1.1 200")
    assert "408" not in answer


async def test_an_error_of_the_application_stays_its_own():
    async def broken(scope, receive, send):
        raise LookupError("a bug")

    scope = {"type": "http", "headers": [(b"content-length", b"1")]}
    with pytest.raises(LookupError):
        await BodyPace(broken, Settings())(scope, None, None)


async def name_it(request):
    assert request.state.request_id == request_id.get()
    return PlainTextResponse(request_id.get())


@pytest.mark.parametrize("given", ["abc-123", "00-4bf92f35-01", "a" * 128])
async def test_a_sane_request_id_is_kept(given):
    async with serving(app(name_it)) as server, client(server.port) as caller:
        await caller.get("/", x_request_id=given, connection="close")
        answer = await caller.rest()
    assert f"x-request-id: {given}\r\n" in answer.lower()
    assert answer.endswith(given)


@pytest.mark.parametrize("given", ["", "two words", "a" * 129, "<script>", "ä"])
async def test_any_other_is_replaced(given):
    async with serving(app(name_it)) as server, client(server.port) as caller:
        await caller.get("/", x_request_id=given, connection="close")
        answer = await caller.rest()
    made = answer.partition("\r\n\r\n")[2]
    assert re.fullmatch("[0-9a-f]{32}", made)
    assert f"x-request-id: {made}\r\n" in answer.lower()


async def test_log_records_name_the_request(caplog):
    async def talking(request):
        logging.getLogger("talking").warning("hello")
        return PlainTextResponse("")

    caplog.handler.addFilter(RequestIdFilter())
    async with serving(app(talking)) as server, client(server.port) as caller:
        await caller.get("/", x_request_id="me-1", connection="close")
        await caller.rest()
    logging.getLogger("talking").warning("outside")
    found = {one.message: one.request_id for one in caplog.records if one.name == "talking"}
    assert found == {"hello": "me-1", "outside": "-"}


async def test_other_scopes_pass():
    seen = []

    async def inner(scope, receive, send):
        seen.append(scope["type"])

    await RequestIds(BodyPace(inner, Settings()))({"type": "lifespan"}, None, None)
    assert seen == ["lifespan"]
