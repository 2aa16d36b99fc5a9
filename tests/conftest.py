"""One PostgreSQL for each process of the suite, one disposable database for each test that asks."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from uuid import uuid4

import anyio
import asyncpg
import pytest
import pytest_asyncio

from reliable_imports_async import BatchManager
from reliable_imports_async.errors import EmbeddedServerError

from .cli.reach import main
from .database.reach import EmbeddedServer
from .support.command import Command, Result

FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
MEMORY = Path("/dev/shm")
ROOM = 3 * 2**30  # bytes; far more than the servers of several runs take
LONG_AGO = 3_600.0  # seconds; no run takes so long
ENDING = 0.1  # seconds; what is connected for longer was left by the test, and is ended
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1"
MANY = 8  # processes; more would wait for each other's databases


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server() -> AsyncIterator[Callable[[str], str]]:
    """Gives the URL of a database by its name, on TEST_DSN or on an embedded server of our own."""
    given = os.environ.get("TEST_DSN")
    if given:
        head, _, query = given.partition("?")
        base = head.rsplit("/", 1)[0]
        yield lambda name: f"{base}/{name}" + (f"?{query}" if query else "")
        return
    place = _place()
    if os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0":
        await _sweep(place)
    directory = place / f"ri-tests-{uuid4().hex[:12]}"
    async with EmbeddedServer(directory, settings=FAST) as embedded:
        yield embedded.url
    shutil.rmtree(directory, ignore_errors=True)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def admin(server: Callable[[str], str]) -> AsyncIterator["asyncpg.Connection"]:
    """The connection that creates and drops the databases of the tests."""
    connection = await asyncpg.connect(server("postgres"))
    yield connection
    await connection.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def template(server: Callable[[str], str], admin: "asyncpg.Connection") -> AsyncIterator[str]:
    """The name of a migrated database that tests copy."""
    name = f"template_{uuid4().hex[:12]}"
    await admin.execute(f'CREATE DATABASE "{name}"')
    await BatchManager(server(name)).migrate()
    yield name
    await drop(admin, name)


@pytest_asyncio.fixture(loop_scope="session")
async def dsn(
    server: Callable[[str], str], admin: "asyncpg.Connection", template: str
) -> AsyncIterator[str]:
    """The URL of a migrated database of the test's own."""
    name = f"test_{uuid4().hex[:12]}"
    await admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" {_strategy()}')
    yield server(name)
    await drop(admin, name)


@pytest_asyncio.fixture(loop_scope="session")
async def empty_dsn(
    server: Callable[[str], str], admin: "asyncpg.Connection"
) -> AsyncIterator[str]:
    """The URL of an empty database of the test's own."""
    name = f"empty_{uuid4().hex[:12]}"
    await admin.execute(f'CREATE DATABASE "{name}" {_strategy()}')
    yield server(name)
    await drop(admin, name)


@pytest_asyncio.fixture(loop_scope="session")
async def manager(dsn: str) -> AsyncIterator[BatchManager]:
    """An open manager on the test's own database, with room for four items at once."""
    async with BatchManager(dsn, concurrency=4) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def conn(dsn: str) -> AsyncIterator["asyncpg.Connection"]:
    """A plain connection to the test's own database, to look from outside."""
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


@pytest.fixture
def bare(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command in this process, which knows nothing of the environment's settings."""
    for name in [name for name in os.environ if name.startswith("RELIABLE_IMPORTS_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("COLUMNS", raising=False)  # readline puts it into the environment

    async def call(*arguments: object) -> Result:
        code = await anyio.to_thread.run_sync(main, [str(each) for each in arguments])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def drop(admin: "asyncpg.Connection", name: str) -> None:
    """Drop a database. DROP sleeps for a tenth of a second where a session is only just ending."""
    with anyio.move_on_after(ENDING):
        while await admin.fetchval(SESSIONS, name):
            await anyio.sleep(0.002)
    await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def _place() -> Path:
    """Where the server's files are: in memory if that has room, or else among temporary files.

    For root the server's programs lie beside the data, so they must be allowed to run from there.
    """
    if MEMORY.is_dir() and os.access(MEMORY, os.W_OK | os.X_OK):
        found = os.statvfs(MEMORY)
        if found.f_bavail * found.f_frsize > ROOM and not found.f_flag & os.ST_NOEXEC:
            return MEMORY
    return Path(tempfile.gettempdir())


def _strategy() -> str:
    """Copying files is faster where nothing is ever flushed, and elsewhere slower."""
    return "" if os.environ.get("TEST_DSN") else "STRATEGY file_copy"


async def _sweep(place: Path) -> None:
    """Stop and remove the servers that killed runs have left."""
    for directory in filter(_is_abandoned, place.glob("ri-tests-*")):
        with suppress(EmbeddedServerError):
            async with EmbeddedServer(directory):  # the last one to leave stops it
                pass
        shutil.rmtree(directory, ignore_errors=True)


def _is_abandoned(directory: Path) -> bool:
    try:
        if directory.stat().st_mtime > time.time() - LONG_AGO:
            return False
        with (directory / "clients.lock").open() as clients:
            fcntl.flock(clients, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # it is in use, another user's, or gone
        return False
    return True


@pytest.hookimpl(optionalhook=True)
def pytest_sessionstart() -> None:
    """Import now what schemathesis imports when a session ends.

    pytest parses it, and CPython 3.11 may refuse that when garbage is collected meanwhile that
    parses something itself (python/cpython#106905); at the end there is such garbage.
    """
    with suppress(ImportError):
        import_module("schemathesis.reporting.html.writer")


def pytest_xdist_auto_num_workers() -> int:
    """For `-n auto`: one more than there are processors, for tests wait a lot."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min((usable or 1) + 1, MANY)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests come first, so that at the end no process waits for another."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Half a character in a log line must not end a worker process that sends its report."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report
