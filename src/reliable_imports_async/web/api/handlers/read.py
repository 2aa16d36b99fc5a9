"""Reading: lists of batches, items, log lines and batch types, and single ones."""

import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from starlette.responses import Response

from ...http.call import Call, large_reply, reply
from ...http.conditional import reply_unless_known
from ...http.payloads import BatchQuery, ItemQuery, LogQuery
from ..answers import detailed, listed

Row = TypeVar("Row")

CLOCK = ("duration", "items_per_second")  # of a batch that has not ended


async def list_batches(call: Call) -> Response:
    """List batches, newest first."""
    query = call.query(BatchQuery)
    size = call.page(query.limit)
    async with call.reading():
        batches = call.manager.list_batches(
            batch_type=query.batch_type,
            status=query.status,
            root_batch_id=query.root,
            created_since=query.created_since,
            created_before=query.created_before,
            before=query.cursor,
            visible=await call.visible(),
            limit=size + 1,
        )
        page = [listed(call, batch) async for batch in batches]
    following = page[size - 1]["batch_id"] if len(page) > size else None
    return reply_unless_known(call.request, {"batches": page[:size], "next": following})


async def get_batch(call: Call) -> Response:
    """Show the state of a batch: counts, failure groups, lineage."""
    async with call.reading():
        batch, lineage = await call.manager.get_batch_with_lineage(call.batch_id)
        await call.permit(batch, "view")
        settled = batch.status.settled  # running batches are polled, and this query is slow
        skipped = settled and any(
            member.skipped_items for member in lineage if member.batch_id == batch.id
        )
        reasons = await call.manager.skip_reasons(batch.id) if skipped else ()
        body = detailed(call, batch, lineage, reasons)
    return reply_unless_known(call.request, body, clock=() if settled else CLOCK)


async def list_items(call: Call) -> Response:
    """List the items of a batch, ordered by number."""
    query = call.query(ItemQuery)
    filters = {"status": query.status, "group": query.group, "after": query.cursor}
    rows, more = await _page(call, query.limit, call.manager.list_items, filters)
    page = [item.as_dict() for item in rows]
    await _hide_other_batches(call, page)
    return await large_reply({"items": page, "next": page[-1]["item_number"] if more else None})


async def _page(
    call: Call, limit: int, listing: Callable[..., AsyncIterator[Row]], filters: dict[str, Any]
) -> tuple[list[Row], bool]:
    """The rows of a page about the batch in the path, and whether there is a next page."""
    size = call.page(limit)
    async with call.reading():
        await call.batch("view")
        rows = [row async for row in listing(call.batch_id, limit=size + 1, **filters)]
    return rows[:size], len(rows) > size


async def get_item(call: Call) -> Response:
    """Show one item with all stored data."""
    async with call.reading():
        await call.batch("view")
        item = (await call.manager.get_item(call.batch_id, call.item_number)).as_dict()
        await _hide_other_batches(call, [item])
        return await large_reply(item)


async def _hide_other_batches(call: Call, page: list[dict[str, Any]]) -> None:
    """Hide batches that the caller may not see; a skip reason may name an earlier batch."""
    reasons = await call.without_hidden([item["skip_reason"] for item in page])
    for item, reason in zip(page, reasons, strict=True):
        item["skip_reason"] = reason


async def list_logs(call: Call) -> Response:
    """List the log lines of a batch, oldest first."""
    query = call.query(LogQuery)
    levels = None if query.level is None else [query.level]
    filters = {"item_number": query.item_number, "levels": levels, "after": query.cursor}
    rows, more = await _page(call, query.limit, call.manager.get_logs, filters)
    page = [line.as_dict() for line in rows]
    return await large_reply({"logs": page, "next": page[-1]["log_id"] if more else None})


async def list_batch_types(call: Call) -> Response:
    """List the batch types that you may see or create, with the schema of their records."""
    registry = call.manager.registry
    types = [
        {
            "batch_type": name,
            "description": inspect.cleandoc(type(registry.get(name)).__doc__ or "") or None,
            "json_schema": _schema(registry.get(name)),
        }
        for name in await call.known_types()
    ]
    return reply({"batch_types": types})


def _schema(processor: Any) -> dict[str, Any] | None:
    adapter = processor.model()
    return None if adapter is None else adapter.json_schema()
