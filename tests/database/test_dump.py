"""A database that an earlier version has left is migrated, and everything in it goes on working."""

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from reliable_imports_async import BatchManager, BatchStatus, BatchSummary, read_file
from reliable_imports_async.errors import SameFile

from ..support.trying import PATIENCE
from ..web.reach import BrowserSessions
from .data import make_dump, shop

DUMPS = sorted((Path(__file__).parent / "data").glob("schema-*.sql"))
FIGURES = {  # status; items, and of them completed, skipped, failed; outstanding in the lineage
    "crashed": ("processing", 20, 0, 0, 0, 0),
    "known": ("completed", 5, 5, 0, 0, 0),
    "spring": ("partial", 10, 4, 1, 5, 3),
    "rerun": ("completed", 3, 3, 0, 0, 3),
    "waiting": ("processing", 3, 2, 0, 0, 0),
    "paused": ("paused", 22, 10, 0, 5, 5),
    "notifying": ("completed", 2, 2, 0, 0, 0),
    "wrong": ("failed", 2, 2, 0, 0, 0),
    "unfinished": ("failed", 1, 1, 0, 0, 0),
    "cancelled": ("cancelled", 4, 0, 0, 0, 4),
    "canary": ("failed", 6, 0, 0, 6, 6),
    "queued": ("pending", 8, 0, 0, 0, 0),
    "held": ("pending", 3, 0, 0, 0, 0),
}
COLUMNS = """
SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns
 WHERE table_schema = 'reliable_imports' ORDER BY 1, 2
"""
MIGRATIONS = "SELECT name, sha256 FROM reliable_imports.schema_migrations ORDER BY 1"


@dataclass
class Restored:
    """A migrated database, and what was known about it when it was dumped."""

    manager: BatchManager
    conn: "asyncpg.Connection[asyncpg.Record]"
    seen: dict[str, Any]

    def id(self, name: str) -> UUID:
        return UUID(self.seen["names"][name])

    async def summary(self, name: str) -> BatchSummary:
        return await self.manager.get_batch_summary(self.id(name))


@pytest.fixture(params=DUMPS, ids=lambda path: path.stem)
async def old(empty_dsn: str, request: pytest.FixtureRequest) -> AsyncIterator[Restored]:
    path: Path = request.param
    restoring = await asyncpg.connect(empty_dsn)
    await restoring.execute(path.read_text(encoding="utf-8"))
    await restoring.close()
    await BatchManager(empty_dsn).migrate()
    conn = await asyncpg.connect(empty_dsn)
    async with BatchManager(empty_dsn) as manager:
        shop.register(manager)
        seen = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        yield Restored(manager, conn, seen)
    await conn.close()


def figures(summary: BatchSummary) -> tuple[str | int, ...]:
    settled = (summary.completed_items, summary.skipped_items, summary.failed_items)
    return (summary.status, summary.total_items, *settled, summary.outstanding_items)


async def test_everything_is_as_it_was(old):
    assert {name: figures(await old.summary(name)) for name in old.seen["names"]} == FIGURES
    assert await shop.look(old.manager) == old.seen["batches"]
    exported = [chunk async for chunk in old.manager.export_failures(old.id("spring"))]
    assert b"".join(exported).decode() == old.seen["exported"]


async def test_the_tables_are_those_of_a_new_database(old, conn):
    for query in (COLUMNS, MIGRATIONS):
        assert await old.conn.fetch(query) == await conn.fetch(query)


async def test_a_paused_batch_is_resumed_and_its_failures_run_again(old):
    await old.conn.execute(shop.TRANSLATIONS)
    await old.manager.resume_batch(old.id("paused"))
    summary = await old.manager.process_batch(old.id("paused"))
    assert figures(summary) == ("partial", 22, 17, 0, 5, 5)
    again = await old.manager.reprocess_batch(old.id("paused"))
    assert figures(again) == ("completed", 5, 5, 0, 0, 0)
    assert await old.conn.fetchval("SELECT count(*) FROM categories") == 22


async def test_whoever_stopped_is_succeeded(old):
    summary = await old.manager.process_batch(old.id("waiting"))
    assert figures(summary) == ("completed", 3, 3, 0, 0, 0)
    assert (await old.manager.get_item(summary.batch_id, 2)).attempts == 2
    assert not (await old.manager.process_batch(old.id("unfinished"))).ok
    await old.conn.execute(shop.LEDGER)
    assert (await old.manager.process_batch(old.id("unfinished"))).ok
    rest = await old.manager.reprocess_batch(old.id("cancelled"))
    assert figures(rest) == ("completed", 4, 4, 0, 0, 0)


async def test_a_file_of_failures_comes_back(old):
    rows = list(csv.DictReader(io.StringIO(old.seen["exported"])))
    corrections = {"5": {"number": "5", "customer": "Eve", "total": "8.00"}, "8": {"total": "2.00"}}
    rows = [row | corrections[row["_item"]] for row in rows if row["_item"] in corrections]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    file = io.BytesIO(text.getvalue().encode())
    summary = await old.manager.reprocess_from_file(old.id("spring"), file)
    assert figures(summary) == ("completed", 2, 2, 0, 0, 1)
    gus = {"number": "9", "customer": "Gus", "total": "1.00"}
    await old.manager.update_item_source(old.id("spring"), 9, gus)
    again = await old.manager.reprocess_batch(old.id("spring"))
    assert figures(again) == ("completed", 1, 1, 0, 0, 0)
    assert len(await old.manager.lineage(old.id("spring"))) == 5


async def test_what_was_imported_is_known(old):
    records = [{"number": n, "customer": "Ida", "total": n} for n in range(20, 25)]
    key = {"created_by": "ann", "idempotency_key": "monday", "metadata": {"from": "crm"}}
    assert await old.manager.create_batch("order", records, **key) == old.id("known")
    changed = [*records[:4], {**records[4], "total": 1}, {**records[4], "number": 25}]
    batch_id = await old.manager.create_batch("order", changed)
    assert figures(await old.manager.process_batch(batch_id)) == ("completed", 6, 2, 4, 0, 0)
    file = io.BytesIO(make_dump.SPRING.encode("cp1252"))
    with pytest.raises(SameFile):
        await old.manager.create_batch("order", read_file(file, encoding="cp1252"))


@pytest.mark.long
async def test_workers_go_on(old):
    """The queued job, the one of a dead worker, a canary with its rest, and what a hook held."""
    worker = asyncio.create_task(old.manager.run_worker())
    for name in ("queued", "crashed", "held"):
        summary = await old.manager.wait_for_batch(old.id(name), timeout=PATIENCE)
        assert summary.status is BatchStatus.COMPLETED
    async with asyncio.timeout(PATIENCE):
        while (await old.summary("canary")).outstanding_items:
            await asyncio.sleep(0.1)
        while await old.conn.fetchval("SELECT count(*) FROM reliable_imports.import_outbox"):
            await asyncio.sleep(0.1)
    worker.cancel()
    await asyncio.wait([worker])
    assert await old.conn.fetchval("SELECT count(*) FROM pgqueuer") == 0
    assert [one.total_items for one in await old.manager.lineage(old.id("canary"))] == [6, 2, 4]
    ends = {"the accountant was told", "the website was told"}
    for name, lines in {"notifying": ends, "held": ends | {"the accountant may begin"}}.items():
        assert lines <= {line.message async for line in old.manager.get_logs(old.id(name))}


async def test_a_browser_stays_signed_in(old):
    session = await BrowserSessions(old.manager.database).find(old.seen["session"])
    assert (session.user_id, session.key) == ("ann", b"a key of the API")


async def test_old_batches_are_purged(old):
    assert await old.manager.purge(old.id("spring")) == 3
    assert await old.manager.purge(older_than=timedelta()) > 0
    left = {batch.id async for batch in old.manager.list_batches()}
    kept = {"crashed", "waiting", "paused", "unfinished", "canary", "queued", "held"}
    assert left >= {old.id(name) for name in kept}
    assert not left & {old.id(name) for name in old.seen["names"].keys() - kept}
    for table in ("import_batch_items", "import_batch_ranges", "import_logs", "import_item_edits"):
        rows = await old.conn.fetch(f"SELECT DISTINCT batch_id FROM reliable_imports.{table}")
        assert {row["batch_id"] for row in rows} <= left
