"""The server: slow and many clients, shutdown, and whom it refuses to serve."""

import asyncio
import logging
import os
import resource
import signal
import socket
import subprocess
import sys

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from reliable_imports_async import Settings
from reliable_imports_async.errors import ConfigurationError

from .http_server import PATIENCE, client, serving, until
from .reach import MAX_HEADER_BYTES, BodyPace, is_loopback, refuse_open_door
from .reach import server as module

REQUEST = "GET / HTTP/1.1\r\nhost: test\r\n"
QUICK = Settings(header_timeout=0.1, send_timeout=0.1, receive_timeout=0.1)


async def hello(request):
    return PlainTextResponse("hello")


async def length(request):
    return PlainTextResponse(f"{len(await request.body())} bytes")


async def unread(request):
    return PlainTextResponse("not read")


async def much(request):
    return Response(b"x" * 50_000_000)


ROUTES = [
    Route("/", hello),
    Route("/length", length, methods=["POST"]),
    Route("/unread", unread, methods=["POST"]),
    Route("/much", much),
]


def app(settings=QUICK):
    return BodyPace(Starlette(routes=ROUTES), settings)


@pytest.mark.parametrize(
    ("partial", "answer"),
    [
        ("", ""),  # says nothing at all
        ("G", "HTTP/1.1 408"),
        (REQUEST, "HTTP/1.1 408"),
        (REQUEST + "x-header: a", "HTTP/1.1 408"),
        ("\r\n\r\n", "HTTP/1.1 408"),  # blank lines, which parsers skip
    ],
)
async def test_headers_have_to_come(partial, answer):
    async with serving(app(), QUICK) as server, client(server.port) as slow:
        await slow.send(partial)
        assert (await slow.rest()).startswith(answer)
        await until(lambda: not server.server.server_state.connections)


async def test_headers_that_come_byte_by_byte_are_given_up():
    async with serving(app(), QUICK) as server, client(server.port) as slow:
        await slow.send(REQUEST + "x-header: ")
        try:
            while server.server.server_state.connections:
                await slow.send("a")
                await asyncio.sleep(0.005)
        except ConnectionError:
            pass
        await until(lambda: not server.server.server_state.connections)


async def test_headers_without_end_are_refused():
    patient = Settings(header_timeout=600)
    async with serving(app(), patient) as server, client(server.port) as endless:
        await endless.send(REQUEST)
        try:
            for _ in range(MAX_HEADER_BYTES // 1000 + 10):
                await endless.send(f"x-header: {'a' * 1000}\r\n")
        except ConnectionError:
            pass
        await until(lambda: not server.server.server_state.connections)


async def test_the_second_request_of_a_connection_has_to_come_too():
    async with serving(app(), QUICK) as server, client(server.port) as slow:
        await slow.get("/")
        await slow.until("hello")
        await slow.send(REQUEST)
        assert (await slow.rest()).startswith("HTTP/1.1 408")


async def test_an_idle_connection_is_closed_without_a_word():
    async with serving(app(), QUICK, timeout_keep_alive=0) as server, client(server.port) as idle:
        await idle.get("/")
        assert (await idle.rest()).endswith("hello")


async def test_requests_in_a_row_and_in_one_packet_are_answered():
    async with serving(app(), QUICK) as server, client(server.port) as quick:
        for _ in range(3):
            await quick.get("/")
            await quick.until("hello")
        await quick.send((REQUEST + "\r\n") * 3)
        for _ in range(3):
            await quick.until("hello")


async def test_a_request_longer_than_the_header_timeout_is_answered():
    released = asyncio.Event()

    async def slow(request):
        await released.wait()
        return PlainTextResponse("at last")

    routes = [Route("/", slow)]
    async with serving(Starlette(routes=routes), QUICK) as server:
        async with client(server.port) as patient, client(server.port) as silent:
            await patient.send(REQUEST + "\r\n" + "GET /")  # and the begin of a second one
            assert await silent.rest() == ""  # so the timeout has passed
            released.set()
            await patient.until("at last")


async def test_a_body_that_was_answered_unread_does_not_go_on_for_ever():
    async with serving(app(), QUICK) as server, client(server.port) as slow:
        await slow.send("POST /unread HTTP/1.1\r\nhost: t\r\ncontent-length: 9999999\r\n\r\n")
        await slow.until("not read")
        try:
            while server.server.server_state.connections:
                await slow.send("a" * 10)
                await asyncio.sleep(0.005)
        except ConnectionError:
            pass
        await until(lambda: not server.server.server_state.connections)


async def test_a_body_that_was_answered_unread_and_ends_is_followed_by_the_next_request():
    async with serving(app(), Settings()) as server, client(server.port) as busy:
        await busy.send("POST /unread HTTP/1.1\r\nhost: t\r\ncontent-length: 200000\r\n\r\n")
        await busy.until("not read")
        await busy.send("a" * 200_000)
        await busy.get("/")
        await busy.until("hello")


async def test_a_response_that_nobody_takes_is_given_up():
    async with serving(app(), QUICK) as server, client(server.port) as deaf:
        deaf._writer.transport.pause_reading()
        await deaf.get("/much")
        await until(lambda: server.server.server_state.total_requests)
        await until(lambda: not server.server.server_state.connections)


async def test_500_slow_clients_do_not_stop_a_fast_one():
    settings = Settings(header_timeout=600, receive_timeout=600)
    openings = [
        "",
        "GET / HTT",
        REQUEST + "x: ",
        "POST /length HTTP/1.1\r\nhost: t\r\ncontent-length: 99\r\n\r\nabc",
        "POST /length HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
    ]
    async with serving(app(settings), settings, timeout_graceful_shutdown=0) as server:
        slow = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(500)]
        try:
            for number, (_, writer) in enumerate(slow):
                writer.write(openings[number % 5].encode())
                await writer.drain()
            state = server.server.server_state
            await until(lambda: len(state.connections) == 500 and len(state.tasks) == 200)
            async with client(server.port) as fast:
                for _ in range(20):
                    await fast.get("/")
                    await fast.until("hello")
        finally:
            for _, writer in slow:
                writer.close()
            await until(lambda: not state.tasks)  # each half body is known to be one


async def test_500_slow_clients_are_given_up():
    async with serving(app(), QUICK) as server:
        async with asyncio.TaskGroup() as group:
            ends = [group.create_task(_give_up(server.port, number)) for number in range(500)]
        # Whose bytes a busy machine reads too late seems idle, and is left without a word.
        assert {end.result() for end in ends} - {""} == {"HTTP/1.1 408"}
        await until(lambda: not server.server.server_state.connections)


async def _give_up(port: int, number: int) -> str:
    body = "POST /length HTTP/1.1\r\nhost: t\r\ncontent-length: 99\r\n\r\nabc"
    async with client(port) as slow:
        await slow.send(body if number % 2 else REQUEST)
        return (await slow.rest())[:12]


async def test_more_connections_than_allowed_are_answered_503():
    async with serving(app(), Settings(max_connections=10)) as server:
        held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(12)]
        await until(lambda: len(server.server.server_state.connections) == 12)
        async with client(server.port) as one_more:
            await one_more.get("/")
            assert "503" in await one_more.until("\r\n\r\n")
        for _, writer in held:
            writer.close()
        await until(lambda: not server.server.server_state.connections)
        async with client(server.port) as later:
            await later.get("/")
            await later.until("hello")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.9.9.9", "::ffff:127.0.0.1"])
def test_a_loopback_address_needs_no_authentication(host):
    assert is_loopback(host)
    refuse_open_door(host, authenticated=False, allow_anonymous=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "no such host"])
def test_any_other_does(host):
    with pytest.raises(ConfigurationError) as refusal:
        refuse_open_door(host, authenticated=False, allow_anonymous=False)
    assert "allow_anonymous=True" in refusal.value.hint
    assert "RELIABLE_IMPORTS_API_KEYS" in refusal.value.hint
    refuse_open_door(host, authenticated=True, allow_anonymous=False)
    refuse_open_door(host, authenticated=False, allow_anonymous=True)


def test_the_limit_of_open_files_is_raised_as_far_as_it_goes(monkeypatch):
    limits = [(100, 5000)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.append(new))
    assert module.connections(2000) == 2000
    assert limits[-1] == (2256, 5000)
    limits[:] = [(100, 1000)]
    assert module.connections(2000) == 1000 - 256
    assert limits[-1] == (1000, 1000)


SERVER = """
import sys
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from reliable_imports_async import Settings
from tests.web.reach import RequestIds, run

async def hello(request):
    return PlainTextResponse("hello")

app = RequestIds(Starlette(routes=[Route("/", hello)]))
run(app, Settings(), port=int(sys.argv[1]), end_streams=lambda: print("streams ended", flush=True))
print("after", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_and_lines_name_the_request(number, unused_port):
    command = [sys.executable, "-c", SERVER, str(unused_port)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = await asyncio.create_subprocess_exec(*command, **pipes, env=dict(os.environ))
    async with asyncio.timeout(PATIENCE):
        while b"running on" not in (line := await process.stdout.readline()):
            assert line, "it has ended"
        async with client(unused_port) as caller:
            await caller.get("/", x_request_id="who-asks")
            await caller.until("hello")
        process.send_signal(number)
        said = (await process.stdout.read()).decode()
        await process.wait()
    assert '"GET / HTTP/1.1" 200 OK who-asks' in said
    assert said.index("streams ended") < said.index("Finished server process")
    assert ("after" in said) == (number is signal.SIGINT)


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(autouse=True)
def quiet():
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("uvicorn.error").setLevel(logging.NOTSET)
