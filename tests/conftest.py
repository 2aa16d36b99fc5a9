"""One PostgreSQL for the session, one disposable database for each test that asks for one."""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Generator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from reliable_imports_async import BatchManager
from reliable_imports_async.embedded import EmbeddedServer

FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server() -> AsyncIterator[Callable[[str], str]]:
    """Gives the URL of a database by its name, on TEST_DSN or on an embedded server of our own."""
    given = os.environ.get("TEST_DSN")
    if given:
        head, _, query = given.partition("?")
        base = head.rsplit("/", 1)[0]
        yield lambda name: f"{base}/{name}" + (f"?{query}" if query else "")
        return
    directory = Path(tempfile.gettempdir()) / f"ri-tests-{uuid4().hex[:12]}"
    async with EmbeddedServer(directory, settings=FAST) as embedded:
        yield embedded.url
    shutil.rmtree(directory, ignore_errors=True)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def template(server: Callable[[str], str]) -> AsyncIterator[str]:
    """The name of a migrated database that tests copy."""
    name = f"template_{uuid4().hex[:12]}"
    await _execute(server("postgres"), f'CREATE DATABASE "{name}"')
    await BatchManager(server(name)).migrate()
    yield name
    await _execute(server("postgres"), f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest_asyncio.fixture(loop_scope="session")
async def dsn(server: Callable[[str], str], template: str) -> AsyncIterator[str]:
    """The URL of a migrated database of the test's own."""
    name = f"test_{uuid4().hex[:12]}"
    await _execute(server("postgres"), f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    yield server(name)
    await _execute(server("postgres"), f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest_asyncio.fixture(loop_scope="session")
async def empty_dsn(server: Callable[[str], str]) -> AsyncIterator[str]:
    """The URL of an empty database of the test's own."""
    name = f"empty_{uuid4().hex[:12]}"
    await _execute(server("postgres"), f'CREATE DATABASE "{name}"')
    yield server(name)
    await _execute(server("postgres"), f'DROP DATABASE "{name}" WITH (FORCE)')


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
def anyio_backend() -> str:
    return "asyncio"


async def _execute(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Half a character in a log line must not end a worker process that sends its report."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report
