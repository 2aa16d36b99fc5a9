"""A pytest plugin: `import_manager` and `import_database_url`, on a disposable database.

The server is that of RELIABLE_IMPORTS_TEST_DATABASE_URL or TEST_DSN, or else an embedded server.
Fixtures of the session are plain functions with their own event loop, so that they work with any
loop that tests run on. Heavy modules are only imported when a fixture is used.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from ..manager import BatchManager

try:
    import pytest_asyncio
except ImportError:  # pragma: no cover - the fixture below reports it
    _async_fixture: Any = pytest.fixture
else:
    _async_fixture = pytest_asyncio.fixture

_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@pytest.fixture(scope="session")
def import_server() -> Iterator[Callable[[str], str]]:
    """Returns the URL of a database by its name."""
    given = os.environ.get("RELIABLE_IMPORTS_TEST_DATABASE_URL") or os.environ.get("TEST_DSN")
    if given:
        yield lambda name: _other_database(given, name)
        return
    from ..database.embedded import EmbeddedServer  # noqa: PLC0415 - only when it is used

    directory = Path(tempfile.gettempdir()) / f"reliable-imports-test-{uuid4().hex[:12]}"
    server = EmbeddedServer(directory, settings=_FAST)
    _run(server.start())
    yield server.url
    _run(server.stop())
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def import_template(import_server: Callable[[str], str]) -> Iterator[str]:
    """The name of a migrated database that tests copy."""
    from ..manager import BatchManager  # noqa: PLC0415 - only when it is used

    name = f"template_{uuid4().hex[:12]}"
    _run(_execute(import_server("postgres"), f'CREATE DATABASE "{name}"'))
    _run(BatchManager(import_server(name)).migrate())
    yield name
    _run(_execute(import_server("postgres"), f'DROP DATABASE "{name}" WITH (FORCE)'))


@pytest.fixture
def import_database_url(import_server: Callable[[str], str], import_template: str) -> Iterator[str]:
    """The URL of a migrated database of the test's own, dropped afterwards."""
    name = f"test_{uuid4().hex[:12]}"
    copy = f'CREATE DATABASE "{name}" TEMPLATE "{import_template}"'
    _run(_execute(import_server("postgres"), copy))
    yield import_server(name)
    _run(_execute(import_server("postgres"), f'DROP DATABASE "{name}" WITH (FORCE)'))


@pytest.fixture
def import_loop(request: pytest.FixtureRequest) -> None:
    """Fails with a hint if no plugin runs the async fixture below."""
    asynchronous = request.config.pluginmanager.hasplugin("asyncio")
    if not asynchronous and "anyio_backend" not in request.fixturenames:
        pytest.fail(
            "import_manager needs pytest-asyncio: pip install pytest-asyncio", pytrace=False
        )


@_async_fixture  # type: ignore[untyped-decorator]  # pytest-asyncio may be missing
async def import_manager(
    import_loop: None, import_database_url: str
) -> AsyncIterator["BatchManager"]:
    """An open BatchManager on a disposable database. Needs pytest-asyncio."""
    from ..manager import BatchManager  # noqa: PLC0415 - only when it is used

    async with BatchManager(import_database_url, concurrency=4) as manager:
        yield manager


def _other_database(url: str, name: str) -> str:
    """The URL of another database of the same server; the given URL may name no database."""
    head, mark, query = url.partition("?")
    scheme, _, rest = head.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}/{name}{mark}{query}"


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in a thread, where no other event loop is running."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(asyncio.run, work).result()


async def _execute(url: str, sql: str) -> None:
    import asyncpg  # noqa: PLC0415 - only when it is used

    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()
