"""Through a real PgBouncer in transaction mode; skipped where it is not installed."""

import asyncio
import getpass
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import anyio
import asyncpg
import pytest
import pytest_asyncio

from reliable_imports_async import BatchManager, Settings
from reliable_imports_async.errors import PoolerUnsupported

from ..support.trying import LEDGER, PATIENCE, insert, processor, records, written
from ..support.workers import finished, worker
from .reach import database_of

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/sbin")
pytestmark = pytest.mark.skipif(
    PGBOUNCER is None, reason="pgbouncer is not installed: apt-get install pgbouncer"
)
CONFIGURATION = """
[databases]
{database} = host={host} port={port} dbname={database} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 8
max_client_conn = 200
ignore_startup_parameters = extra_float_digits
logfile = {directory}/pgbouncer.log
pidfile = {directory}/pgbouncer.pid
"""


@pytest_asyncio.fixture(loop_scope="session")
async def pooled_dsn(dsn: str, tmp_path: Path) -> AsyncIterator[str]:
    """The URL of the test's database through PgBouncer."""
    parts = urlsplit(dsn)
    query = parse_qs(parts.query)
    host = query.get("host", [parts.hostname])[0]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        listen = probe.getsockname()[1]
    directory = tmp_path / "pgbouncer"
    directory.mkdir()
    for folder in (directory, *directory.parents):
        if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(0o755)
    directory.chmod(0o777)
    (directory / "pgbouncer.ini").write_text(
        CONFIGURATION.format(
            database=parts.path.lstrip("/"),
            host=host,
            port=query.get("port", [parts.port or 5432])[0],
            user=parts.username or getpass.getuser(),
            listen=listen,
            directory=directory,
        )
    )
    command = [PGBOUNCER, "--quiet", str(directory / "pgbouncer.ini")]
    if os.geteuid() == 0:  # it refuses to run as root; the server's own user reaches the socket
        owner = Path(host).stat().st_uid if host.startswith("/") else pwd.getpwnam("nobody").pw_uid
        command[1:1] = ["--user", pwd.getpwuid(owner).pw_name]
    process = subprocess.Popen(command)  # noqa: ASYNC220 - it returns at once
    url = f"postgresql://{parts.username}@127.0.0.1:{listen}{parts.path}?sslmode=disable"
    try:
        with anyio.fail_after(PATIENCE):
            while not await _answers(url):
                await anyio.sleep(0.05)
        yield url
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)


async def _answers(url: str) -> bool:
    try:
        conn = await asyncpg.connect(url, statement_cache_size=0)
    except (OSError, asyncpg.PostgresError):
        return False
    await conn.close()
    return True


async def test_a_worker_behind_pgbouncer(pooled_dsn, conn):
    await conn.execute(LEDGER)
    pool = await asyncpg.create_pool(pooled_dsn, min_size=0, max_size=8, statement_cache_size=0)
    async with BatchManager(pool=pool) as manager:
        assert database_of(manager).pooled
        manager.registry.register(processor(insert))
        async with worker(manager):  # nobody can LISTEN here: it looks once a second
            batch_id = await manager.create_batch("tried", records(500), enqueue=True)
            assert (await finished(manager, batch_id)).ok
    await pool.close()
    assert await written(conn) == list(range(1, 501))


async def test_a_url_that_leads_to_a_pooler_needs_no_pool_of_ones_own(pooled_dsn, dsn, conn):
    await conn.execute(LEDGER)
    settings = Settings(database_url=pooled_dsn, direct_url=dsn, statement_cache=False)
    async with BatchManager(settings=settings) as manager:
        manager.registry.register(processor(insert))
        listening = await database_of(manager).listening()
        assert listening.get_server_pid() == await listening.fetchval("SELECT pg_backend_pid()")
        await listening.close()
        async with worker(manager):
            batch_id = await manager.create_batch("tried", records(200), enqueue=True)
            assert (await finished(manager, batch_id)).ok
    assert await written(conn) == list(range(1, 201))


async def test_a_statement_cache_behind_a_pooler_is_refused_with_what_to_do(pooled_dsn):
    with pytest.raises(PoolerUnsupported, match="cache") as caught:
        await BatchManager(pooled_dsn).open()
    assert "RELIABLE_IMPORTS_STATEMENT_CACHE=false" in caught.value.hint


async def test_what_would_stay_in_a_session_of_the_pooler_is_refused(pooled_dsn, conn):
    """It is lent to others next, and nobody resets it."""
    await conn.execute(LEDGER)
    statements = [
        "SET search_path = elsewhere",
        "SELECT set_config('search_path', 'elsewhere', false)",
        "LISTEN kept",
        "SET LOCAL search_path = public",
        "SELECT set_config('work_mem', '5MB', true)",
    ]

    async def process_item(item, ctx):
        await ctx.execute(statements[item.item_number - 1])

    settings = Settings(statement_cache=False)
    async with BatchManager(pooled_dsn, settings=settings, concurrency=1) as manager:
        manager.registry.register(processor(process_item, pause_after=None))
        batch_id = await manager.create_batch("tried", records(len(statements)))
        summary = await manager.process_batch(batch_id)
        assert (summary.completed_items, summary.failed_items) == (2, 3)
        assert {group.type for group in summary.groups} == {"PoolerUnsupported"}
    other = await asyncpg.connect(pooled_dsn, statement_cache_size=0)
    assert "elsewhere" not in await other.fetchval("SHOW search_path")
    await other.close()


async def _answers(pooled_dsn: str) -> bool:
    try:
        other = await asyncpg.connect(pooled_dsn, statement_cache_size=0)
        await other.close()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    return True


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
async def test_other_defaults_through_a_pooler(pooled_dsn, conn, isolation):
    await conn.execute(LEDGER)
    name = await conn.fetchval("SELECT quote_ident(current_database())")
    await conn.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = '{isolation}'")
    await conn.execute(  # what the pooler has opened before; waits until they have ended
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    async with asyncio.timeout(PATIENCE):
        while not await _answers(pooled_dsn):
            await asyncio.sleep(0.01)
    seen = set()

    async def process_item(item, ctx):
        seen.add(await ctx.fetchval("SHOW transaction_isolation"))
        await insert(item, ctx)

    settings = Settings(statement_cache=False)
    async with BatchManager(pooled_dsn, settings=settings) as manager:
        manager.registry.register(processor(process_item))
        ids = await asyncio.gather(
            *(manager.create_batch("tried", records(50), idempotency_key="k") for _ in range(6))
        )
        assert len(set(ids)) == 1
        assert (await manager.process_batch(ids[0])).ok
    assert seen == {isolation}
    assert await written(conn) == list(range(1, 51))
