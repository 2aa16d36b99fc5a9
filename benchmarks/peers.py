"""Others who keep a durable status for each item, with the same business SQL.

Each is configured as its own documentation advises; what its pages leave open was tried, and the
fastest that we found was kept. docs/performance.md says what that is.
"""

import json
import logging
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

import anyio
import asyncpg
import procrastinate
import psycopg
from pgqueuer import AsyncpgDriver, Job, PgQueuer, Queries
from pgqueuer.types import QueueExecutionMode

from .contenders import Contender
from .ground import Ground
from .modes import CONNECTIONS
from .spent import Spent
from .workloads import Workload

CHUNK = 1_000
QUEUED_AT_ONCE = 1000
SLOW = 0.2


async def pgqueuer(ground: Ground, workload: Workload) -> Spent:
    """A job for each record, done one by one; its log holds every job's outcome."""
    logging.getLogger("pgqueuer").setLevel(logging.CRITICAL)  # tracebacks on the terminal
    conn = await asyncpg.connect(ground.dsn)
    queries = Queries(AsyncpgDriver(conn))
    await queries.install()
    await queries.optimize_autovacuum()
    payloads: list[bytes | None] = [json.dumps(record).encode() for record in workload.records]
    for start in range(0, len(payloads), CHUNK):
        some = payloads[start : start + CHUNK]
        await queries.enqueue(["record"] * len(some), some, [0] * len(some))
    async with asyncpg.create_pool(ground.dsn, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:
        jobs = PgQueuer(AsyncpgDriver(conn))

        @jobs.entrypoint("record")
        async def record(job: Job) -> None:
            async with pool.acquire() as connection, connection.transaction():
                await workload.write(json.loads(job.payload or b""), connection)

        await ground.settle()
        with ground.spending() as spent:
            await jobs.run(
                batch_size=QUEUED_AT_ONCE,
                mode=QueueExecutionMode.drain,
                dequeue_timeout=timedelta(seconds=1),
            )
    ends = await conn.fetch("SELECT status::text, count(*) FROM pgqueuer_log GROUP BY 1")
    await conn.close()
    counts = {row["status"]: row["count"] for row in ends}
    workload.require(counts.get("successful", 0), counts.get("exception", 0))
    return spent


async def procrastinate_(ground: Ground, workload: Workload) -> Spent:
    """A job for each record; its table of jobs keeps them with their status."""
    logging.getLogger("procrastinate").setLevel(logging.CRITICAL)
    connector = procrastinate.PsycopgConnector(
        conninfo=ground.dsn, min_size=CONNECTIONS, max_size=CONNECTIONS
    )
    application = procrastinate.App(connector=connector)
    async with (
        application.open_async(),
        asyncpg.create_pool(ground.dsn, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool,
    ):
        await application.schema_manager.apply_schema_async()

        @application.task(name="record")
        async def record(**fields: Any) -> None:
            async with pool.acquire() as connection, connection.transaction():
                await workload.write(fields, connection)

        for start in range(0, len(workload.records), CHUNK):
            await record.batch_defer_async(*workload.records[start : start + CHUNK])
        await ground.settle()
        with ground.spending() as spent:
            await application.run_worker_async(
                concurrency=CONNECTIONS, wait=False, install_signal_handlers=False
            )
        ends = await pool.fetch("SELECT status::text, count(*) FROM procrastinate_jobs GROUP BY 1")
    counts = {row["status"]: row["count"] for row in ends}
    workload.require(counts.get("succeeded", 0), counts.get("failed", 0))
    return spent


TRACKED = """
CREATE TABLE import_items (
    n integer PRIMARY KEY, source jsonb NOT NULL, status text NOT NULL DEFAULT 'pending',
    error text, finished_at timestamptz);
CREATE TABLE import_log (
    id bigserial PRIMARY KEY, n integer NOT NULL, message text NOT NULL,
    at timestamptz NOT NULL DEFAULT now());
"""
DONE = "UPDATE import_items SET status = $2, error = $3, finished_at = now() WHERE n = $1"
LOG = "INSERT INTO import_log (n, message) VALUES ($1, $2)"


async def psycopg_loop(ground: Ground, workload: Workload) -> Spent:
    """One record after the other, with a status and a log row: the usual script, and synchronous.

    Each record's writes, status and log row share a transaction; psycopg prepares by itself.
    """
    await ground.execute(TRACKED)
    with psycopg.connect(ground.dsn, cursor_factory=psycopg.RawCursor) as conn:
        rows = enumerate(map(json.dumps, workload.records))
        with conn.cursor() as cursor:
            cursor.executemany("INSERT INTO import_items (n, source) VALUES ($1, $2)", rows)
        conn.commit()
        await ground.settle()
        with ground.spending() as spent:
            await anyio.to_thread.run_sync(_loop, conn, workload)
        sql = "SELECT count(*) FILTER (WHERE status = 'completed'), count(error) FROM import_items"
        completed, failed = conn.execute(sql).fetchone() or (0, 0)
    workload.require(completed, failed)
    return spent


def _loop(conn: psycopg.Connection[Any], workload: Workload) -> None:
    db = _Synchronous(conn)
    for n, record in enumerate(workload.records):
        try:
            with conn.transaction():
                _finish(workload.write(record, db))
                conn.execute(DONE, (n, "completed", None))
                conn.execute(LOG, (n, "imported"))
        except psycopg.Error as error:
            with conn.transaction():
                conn.execute(DONE, (n, "failed", str(error)))
                conn.execute(LOG, (n, "failed"))


class _Synchronous:
    """What the business SQL asks for, on a synchronous connection: none of it ever waits."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self._conn = conn

    async def execute(self, sql: str, *args: Any) -> str:
        return self._conn.execute(sql, args).statusmessage or ""

    async def fetchval(self, sql: str, *args: Any) -> Any:
        row = self._conn.execute(sql, args).fetchone()
        return row and row[0]

    async def fetchrow(self, sql: str, *args: Any) -> Any:
        cursor = self._conn.execute(sql, args)
        row = cursor.fetchone()
        names = [column.name for column in cursor.description or ()]
        return None if row is None else dict(zip(names, row, strict=True))


def _finish(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run what never waits, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise RuntimeError("it waited")


PEERS = {
    "PgQueuer": Contender(pgqueuer),
    "Procrastinate": Contender(procrastinate_, SLOW),
    "psycopg loop": Contender(psycopg_loop, SLOW),
}
