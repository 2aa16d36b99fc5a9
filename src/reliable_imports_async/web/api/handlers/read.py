"""Lists and single things."""

import inspect
from typing import Any

from starlette.responses import Response

from ....errors import ItemNotFound
from ...http.call import Call, large_reply, reply
from ...http.payloads import LARGEST_NUMBER, BatchQuery, ItemQuery, LogQuery
from ..answers import detailed, listed


async def list_batches(call: Call) -> Response:
    """List batches, newest first."""
    query = call.query(BatchQuery)
    size = call.page(query.limit)
    async with call.reading():
        found = [
            batch
            async for batch in call.manager.list_batches(
                batch_type=query.batch_type,
                status=query.status,
                root_batch_id=query.root,
                created_since=query.created_since,
                created_before=query.created_before,
                before=query.cursor,
                visible=await call.visible(),
                limit=size + 1,
            )
        ]
    more = len(found) > size
    page = [listed(call, batch) for batch in found[:size]]
    return reply({"batches": page, "next": page[-1]["batch_id"] if more else None})


async def get_batch(call: Call) -> Response:
    """Show where a batch stands: counts, failure groups, lineage."""
    async with call.reading():
        batch, lineage = await call.manager.get_batch_with_lineage(call.batch_id)
        await call.permit(batch, "view")
        settled = batch.status.settled  # while it runs, clients look every second
        reasons = await call.manager.skip_reasons(batch.id) if settled else ()
        return reply(detailed(call, batch, lineage, reasons))


async def list_items(call: Call) -> Response:
    """List the items of a batch, in the order of their numbers."""
    query = call.query(ItemQuery)
    size = call.page(query.limit)
    async with call.reading():
        await call.batch("view")
        found = [
            item
            async for item in call.manager.list_items(
                call.batch_id,
                status=query.status,
                group=query.group,
                after=query.cursor,
                limit=size + 1,
            )
        ]
    more = len(found) > size
    page = [item.as_dict() for item in found[:size]]
    await _hide_others(call, page)
    return await large_reply({"items": page, "next": page[-1]["item_number"] if more else None})


async def get_item(call: Call) -> Response:
    """Show one item with everything stored about it."""
    number = call.request.path_params["item_number"]
    async with call.reading():
        await call.batch("view")
        if not 0 < number <= LARGEST_NUMBER:
            raise ItemNotFound(call.batch_id, number)
        page = [(await call.manager.get_item(call.batch_id, number)).as_dict()]
        await _hide_others(call, page)
        return await large_reply(page[0])


async def _hide_others(call: Call, page: list[dict[str, Any]]) -> None:
    """Leave batches out that the caller may not see: a skipped item names who came before it."""
    reasons = await call.without_hidden([one["skip_reason"] for one in page])
    for one, reason in zip(page, reasons, strict=True):
        one["skip_reason"] = reason


async def list_logs(call: Call) -> Response:
    """List the log lines of a batch, oldest first."""
    query = call.query(LogQuery)
    size = call.page(query.limit)
    async with call.reading():
        await call.batch("view")
        found = [
            line
            async for line in call.manager.get_logs(
                call.batch_id,
                item_number=query.item_number,
                levels=None if query.level is None else [query.level],
                after=query.cursor,
                limit=size + 1,
            )
        ]
    more = len(found) > size
    page = [line.as_dict() for line in found[:size]]
    return await large_reply({"logs": page, "next": page[-1]["log_id"] if more else None})


async def list_batch_types(call: Call) -> Response:
    """List the batch types that you may see or create, with the schema of their records."""
    registry = call.manager.registry
    known = await call.known_types()
    types = [
        {
            "batch_type": name,
            "description": inspect.cleandoc(type(registry.get(name)).__doc__ or "") or None,
            "json_schema": _schema(registry.get(name)),
        }
        for name in known
    ]
    return reply({"batch_types": types})


def _schema(processor: Any) -> dict[str, Any] | None:
    adapter = processor.model()
    return None if adapter is None else adapter.json_schema()
