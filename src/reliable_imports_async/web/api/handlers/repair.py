"""Repairing failures: causes, edits, corrected files."""

from collections.abc import Iterable
from typing import Any

from anyio import to_thread
from starlette.responses import Response

from .... import exact_json
from ....models import FailureGroup
from ...http import batch_actions
from ...http.bodies import json_body
from ...http.call import Call, large_reply, reply
from ...http.payloads import CorrectionQuery, EditItem, FailuresQuery
from ...http.uploads import uploaded_source
from .actions import started


async def list_failures(call: Call) -> Response:
    """List the failures by cause, with counts, values, times, and earlier occurrences."""
    query = call.query(FailuresQuery)
    async with call.reading():
        batch = await call.batch("view")
        visible = await call.visible()
        groups = await call.manager.failure_groups(batch.id, values=query.values, visible=visible)
        outstanding = await call.manager.outstanding_failures(
            batch.id, values=query.values, visible=visible
        )
        unreadable = await call.manager.unreadable_items(batch.id)
        progress = await call.manager.batch_progress([batch.id])
    return reply(
        {
            "groups": _shown(groups, query.group),
            "root_batch_id": str(batch.root_batch_id),
            "outstanding_items": progress[batch.id].outstanding_items if progress else 0,
            "outstanding": _shown(outstanding, query.group),
            "unreadable_items": unreadable,
        }
    )


def _shown(groups: Iterable[FailureGroup], wanted: str | None) -> list[dict[str, Any]]:
    return [group.as_dict() for group in groups if wanted in {None, group.group}]


async def edit_item(call: Call) -> Response:
    """Replace the record of a failed item; the old record stays in the item's history.

    The item stays failed until it is reprocessed. An unknown field, or a changed value that the
    model refuses, is answered with 422 unless `force` is set. If a number is sent as a float that
    equals the stored number as a float, the stored number is kept with all its digits.
    """
    body = await json_body(call.request, EditItem)
    batch = await call.batch("edit")
    number = call.item_number
    stored = (await call.manager.get_item(batch.id, number)).source_data
    record = await to_thread.run_sync(exact_json.with_digits_of, body.source_data, stored)
    await call.manager.update_item_source(
        batch.id, number, record, reason=body.reason, actor=call.user_id, force=body.force
    )
    return await large_reply((await call.manager.get_item(batch.id, number)).as_dict())


async def list_edits(call: Call) -> Response:
    """List the edits of an item's record: who changed what, and when; oldest first."""
    async with call.reading():
        batch = await call.batch("view")
        number = call.item_number
        await call.manager.get_item(batch.id, number)
        history = await call.manager.item_history(batch.id, number)
    return await large_reply({"edits": [edit.as_dict() for edit in history]})


async def reprocess_file(call: Call) -> Response:
    """Upload a corrected file of failures, and rerun exactly its rows in a new batch.

    Send the corrected content of `failures.csv` or `failures.jsonl`. Rows are matched by batch and
    item number. Rows that match no outstanding item are refused and reported.
    """
    query = call.query(CorrectionQuery)
    batch = await call.batch("reprocess")
    await call.permit(batch, "edit")  # the file replaces records
    await batch_actions.before_process(call, batch)
    async with uploaded_source(call, query) as source:
        corrected = await call.manager.create_corrected_batch(batch.id, source, actor=call.user_id)
    summary = await batch_actions.start(call, corrected.batch_id, query.process)
    report = corrected.as_dict()
    del report["batch_id"]
    return started(call, summary, **report)
