"""The servers of `benchmarks.api` and `benchmarks.big_dashboard`, each in a process of its own.

`python -m benchmarks.servers ours|bare|many_types DSN PORT`
"""

import json
import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from uuid_utils.compat import uuid7

from reliable_imports_async import BaseProcessor, BatchManager, ImportBatchItem, ImportContext
from reliable_imports_async.database.statements import statements
from reliable_imports_async.loading.create import range_size
from reliable_imports_async.settings import Settings
from reliable_imports_async.web.server import run

TYPES = ("flight", "customer", "invoice", "airport", "price", "stock")
CONNECTIONS = 13  # what a manager takes by default

USED = {
    "store/batches": ("insert_batch", "complete_creation", "lineage"),
    "store/ranges": ("insert_ranges",),
    "store/logs": ("insert_log",),
    "store/summaries": ("summary", "groups"),
}
SQL = {name: statements(file)[name] for file, names in USED.items() for name in names}


class CustomerProcessor(BaseProcessor):
    """Batch type ``customer``; refuses every hundredth."""

    async def process_item(self, item: ImportBatchItem, ctx: ImportContext) -> None:
        if item.source_data["n"] % 100 == 0:
            raise ValueError("every hundredth is refused")


def ours(dsn: str) -> Starlette:
    """The REST API."""
    from reliable_imports_async import APIManager  # noqa: PLC0415 - the other server has none

    manager = BatchManager(dsn)
    manager.registry.register(CustomerProcessor)
    return APIManager(manager, allow_anonymous=True).app


def many_types(dsn: str) -> Starlette:
    """The dashboard over batches of several types, without a worker."""
    from reliable_imports_async import APIManager  # noqa: PLC0415 - the bare server has none

    logging.disable(logging.ERROR)  # the database is restarted under it, again and again
    manager = BatchManager(dsn)
    for name in TYPES:
        given = {"batch_type": name, "__module__": __name__}
        manager.registry.register(type(f"{name.title()}Processor", (CustomerProcessor,), given))
    return APIManager(manager, worker=False, allow_anonymous=True).app


def bare(dsn: str) -> Starlette:
    """What a developer would write by hand, with the same statements; it checks nothing."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with asyncpg.create_pool(dsn, min_size=1, max_size=CONNECTIONS) as pool:
            app.state.pool = pool
            yield

    routes = [
        Route("/api/batches", create, methods=["POST"]),
        Route("/api/batches/{batch_id:uuid}", show),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


async def create(request: Request) -> JSONResponse:
    """The batch with its items, ranges and log line, in one transaction; then where it stands."""
    body = await request.json()
    items, batch_id = body["items"], uuid7()
    rows = "".join(
        f"{batch_id}\t{number}\tpending\t{_copy_text(json.dumps(item))}\n"
        for number, item in enumerate(items, 1)
    ).encode()
    new = [batch_id, body["batch_type"], None, batch_id, False, *[None] * 7, "{}", "{}"]
    async with request.app.state.pool.acquire() as conn:
        async with conn.transaction():
            await conn.fetchval(SQL["insert_batch"], *new)
            await conn.copy_to_table(
                "import_batch_items",
                schema_name="reliable_imports",
                columns=["batch_id", "item_number", "status", "source_data"],
                source=_once(rows),
                format="text",
            )
            await conn.execute(SQL["complete_creation"], batch_id, len(items), None, None, [])
            cut = [batch_id, len(items), range_size(len(items)), False]
            await conn.execute(SQL["insert_ranges"], *cut)
            await conn.execute(SQL["insert_log"], batch_id, "info", "batch created", "{}")
        row = await conn.fetchrow(SQL["summary"], [batch_id])
    return JSONResponse(_plain(row), 201)


async def show(request: Request) -> JSONResponse:
    """A batch, its lineage, its counts and its failure groups."""
    batch_id = request.path_params["batch_id"]
    async with request.app.state.pool.acquire() as conn:
        family = await conn.fetch(SQL["lineage"], batch_id)
        (batch,) = [one for one in family if one["id"] == batch_id]
        sums = await conn.fetch(SQL["summary"], [one["id"] for one in family])
        groups = await conn.fetch(SQL["groups"], [batch_id], 50)
    return JSONResponse(
        {
            **_plain(batch),
            "lineage": [_plain(one) for one in sums],
            "groups": [_plain(one) for one in groups],
        }
    )


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _copy_text(text: str) -> str:
    return text.replace("\\", "\\\\")


def _plain(row: Any) -> dict[str, Any]:
    return {
        name: value.isoformat() if hasattr(value, "isoformat") else _text(value)
        for name, value in row.items()
    }


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, UUID) else value


SERVERS: dict[str, Callable[[str], Starlette]] = {
    "ours": ours,
    "bare": bare,
    "many_types": many_types,
}

if __name__ == "__main__":
    name, dsn, port = sys.argv[1:]
    run(SERVERS[name](dsn), Settings(), port=int(port), access_log=False, log_level="warning")
