"""What many tests need: a processor made from a function, run over a few records."""

import inspect
from collections.abc import Container, Iterable, Sequence
from typing import Any

import anyio
import asyncpg
import pytest

from reliable_imports_async import BaseProcessor, BatchManager, BatchSummary, ImportBatchItem

LEDGER = "CREATE TABLE ledger (n integer, note text)"
INSERT = "INSERT INTO ledger (n) VALUES ($1)"
MODES = {"item": {}, "interval": {"commit_interval": 7}, "set": {"commit_interval": 8}}
DEFAULTS: dict[str, Any] = {}  # attributes of every processor made here; a test may set them
PATIENCE = 60.0  # seconds until what has to come is given up; a busy machine is slow
PER_ITEM = "SELECT n, count(*)::integer AS times FROM ledger GROUP BY n ORDER BY n"


def some_long(cases: Iterable[Any], quick: Container[Any]) -> list[Any]:
    """Cases of which only a few are quick enough for `make test`."""
    return [case if case in quick else pytest.param(case, marks=pytest.mark.long) for case in cases]


async def appears(conn: "asyncpg.Connection[Any]", query: str, *args: object) -> None:
    """Wait until a query has a row."""
    with anyio.fail_after(PATIENCE):
        while not await conn.fetch(query, *args):
            await anyio.sleep(0.01)


def processor(process_item: Any, **attributes: Any) -> type[BaseProcessor[Any]]:
    """A processor for batch type ``tried``; functions take (item, ctx), without self."""
    members = {"process_item": process_item, **DEFAULTS, **attributes}
    if DEFAULTS is MODES["set"]:
        members["process_items"] = _one_by_one(members.pop("process_item"))
    plain = {
        name: staticmethod(member) if inspect.isfunction(member) else member
        for name, member in members.items()
    }
    return type("TriedProcessor", (BaseProcessor,), plain)


def _one_by_one(process_item: Any) -> Any:
    """A set-based processor that knows nothing better."""

    async def process_items(items, ctx):
        return [await process_item(item, ctx) for item in items]

    return process_items


def records(count: int) -> list[dict[str, int]]:
    """``{"n": 1}`` and so on."""
    return [{"n": number} for number in range(1, count + 1)]


async def run(
    manager: BatchManager, process_item: Any, items: int | Sequence[Any] = 1, **attributes: Any
) -> BatchSummary:
    """Create and process a batch with a new processor of type ``tried``."""
    manager.registry.__init__()
    manager.registry.register(processor(process_item, **attributes))
    given = records(items) if isinstance(items, int) else items
    return await manager.process_batch(await manager.create_batch("tried", given))


async def only_item(manager: BatchManager, summary: BatchSummary) -> ImportBatchItem[Any]:
    """The item of a batch of one."""
    return await manager.get_item(summary.batch_id, 1)


async def insert(item: ImportBatchItem[Any], ctx: Any) -> None:
    """The plainest process_item: a row in the ledger."""
    await ctx.execute(INSERT, item.source_data["n"])


async def written(conn: "asyncpg.Connection[Any]") -> list[int]:
    """The numbers in the ledger, each as often as it was committed."""
    return [row["n"] for row in await conn.fetch("SELECT n FROM ledger ORDER BY n")]
