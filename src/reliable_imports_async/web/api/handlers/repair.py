"""What repairs failures: causes, edits, corrected files."""

from collections.abc import Iterable
from typing import Any

from anyio import to_thread
from starlette.responses import Response

from .... import exact_json
from ....errors import ItemNotFound
from ....loading.sources import read_file
from ....models import FailureGroup
from ...endpoints import answer
from ...http.batch_actions import settled
from ...http.bodies import json_body
from ...http.call import Call, large_reply, reply
from ...http.payloads import LARGEST_NUMBER, CorrectionQuery, EditItem, FailuresQuery
from ...http.uploads import received
from ..answers import path_of, summarised


async def list_failures(call: Call) -> Response:
    """List the failures by cause: how many, which values, since when, seen before or not."""
    query = call.query(FailuresQuery)
    async with call.reading():
        batch = await call.batch("view")
        visible = await call.visible()
        groups = await call.manager.failure_groups(batch.id, values=query.values, visible=visible)
        left = await call.manager.outstanding_failures(
            batch.id, values=query.values, visible=visible
        )
        unreadable = await call.manager.unreadable_items(batch.id)
        progress = await call.manager.batch_progress([batch.id])
    return reply(
        {
            "groups": _shown(groups, query.group),
            "root_batch_id": str(batch.root_batch_id),
            "outstanding_items": progress[batch.id].outstanding_items if progress else 0,
            "outstanding": _shown(left, query.group),
            "unreadable_items": unreadable,
        }
    )


def _shown(groups: Iterable[FailureGroup], wanted: str | None) -> list[dict[str, Any]]:
    return [one.as_dict() for one in groups if wanted in {None, one.group}]


async def edit_item(call: Call) -> Response:
    """Replace the record of a failed item; the old one stays in its history.

    The item stays failed until it is reprocessed. An unknown field, or a changed value that the
    model refuses, is 422 unless `force` is set. A number that came back as a float, with no more
    digits than a float has, leaves the stored one as it is where the two are the same float.
    """
    body = await json_body(call.request, EditItem)
    batch = await call.batch("edit")
    number = _number(call)
    stored = (await call.manager.get_item(batch.id, number)).source_data
    record = await to_thread.run_sync(exact_json.with_digits_of, body.source_data, stored)
    await call.manager.update_item_source(
        batch.id, number, record, reason=body.reason, actor=call.user_id, force=body.force
    )
    return await large_reply((await call.manager.get_item(batch.id, number)).as_dict())


async def list_edits(call: Call) -> Response:
    """List who has changed the record of an item, what and when; oldest first."""
    async with call.reading():
        batch = await call.batch("view")
        number = _number(call)
        await call.manager.get_item(batch.id, number)
        history = await call.manager.item_history(batch.id, number)
    return await large_reply({"edits": [edit.as_dict() for edit in history]})


async def reprocess_file(call: Call) -> Response:
    """Take a corrected file of failures back: exactly its rows run again, in a new batch.

    Send what `failures.csv` or `failures.jsonl` gave, corrected; rows are matched by batch and item
    number. Those that name nothing outstanding are refused and reported.
    """
    query = call.query(CorrectionQuery)
    batch = await call.batch("reprocess")
    await call.permit(batch, "edit")  # the file replaces records
    call.manager.registry.get(batch.batch_type)
    async with call.hook():
        await answer(call.endpoint(batch.batch_type).before_process(batch.id, call.ctx))
    await call.store_log(batch.id)
    async with received(call.request) as (file, name):
        source = read_file(
            file,
            name=query.name or name,
            format=query.format,
            delimiter=query.delimiter,
            encoding=query.encoding,
            max_ratio=call.service.settings.max_upload_ratio,
        )
        corrected = await call.manager.create_corrected_batch(batch.id, source, actor=call.user_id)
    await call.manager.enqueue_batch(corrected.batch_id)
    if query.process == "wait":
        summary = await settled(call, corrected.batch_id)
    else:
        summary = await call.manager.get_batch_summary(corrected.batch_id)
    report = corrected.as_dict()
    del report["batch_id"]
    status = 200 if summary.status.settled else 202
    where = path_of(call, corrected.batch_id)
    return reply(summarised(call, summary) | report, status, Location=where)


def _number(call: Call) -> int:
    number: int = call.request.path_params["item_number"]
    if not 0 < number <= LARGEST_NUMBER:
        raise ItemNotFound(call.batch_id, number)
    return number
