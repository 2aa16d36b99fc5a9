"""Actions on a batch: process, reprocess, pause, resume, cancel."""

from typing import Any
from uuid import UUID

from starlette.responses import Response

from ....models import BatchSummary
from ....repair.reprocess import nothing_to_reprocess
from ...http import batch_actions
from ...http.bodies import json_body
from ...http.call import Call, reply
from ...http.payloads import ProcessBatch, Reason, ReprocessBatch
from ..answers import path_of, summarised


async def process_batch(call: Call) -> Response:
    """Process a batch that was only created, or continue an interrupted one.

    With `dry_run`, every item of a pending batch is tried and rolled back before the response.
    """
    body = await json_body(call.request, ProcessBatch)
    batch = await call.batch("process")
    await batch_actions.before_process(call, batch)
    if body.dry_run:
        return reply((await call.manager.process_batch(batch.id, dry_run=True)).as_dict())
    await call.manager.set_thresholds(
        batch.id,
        max_failures=body.max_failures,
        max_failure_rate=body.max_failure_rate,
        min_processed=body.min_processed,
    )
    return started(call, await batch_actions.start(call, batch.id, body.process))


async def reprocess_batch(call: Call) -> Response:
    """Rerun failed items in a new batch of the same lineage; successful items never run again.

    With `canary`, the response is about the canary's batch. Once enough of it has succeeded, the
    process that finishes it continues with the remaining items, in another batch of the lineage.
    """
    body = await json_body(call.request, ReprocessBatch)
    batch = await call.batch("reprocess")
    await batch_actions.before_process(call, batch)
    reprocessing = await call.manager.start_reprocessing(
        batch.id,
        body.failed_items_only,
        group=body.group,
        item_numbers=body.item_numbers,
        canary=body.canary,
        min_success=body.min_success,
        continues=True,
        actor=call.user_id,
    )
    child_id = reprocessing.batch_id
    if not reprocessing.is_new:
        summary = await call.manager.get_batch_summary(child_id)
        content = summarised(call, summary) | {"created": False, "message": _nothing(summary)}
        return reply(content, 200, Location=path_of(call, child_id))
    summary = await batch_actions.start(call, child_id, body.process)
    return started(call, summary, created=True, message=None)


def _nothing(summary: BatchSummary) -> str:
    """Why no batch was created."""
    if not summary.status.settled:
        return f"Nothing new to reprocess: batch {summary.batch_id} is in progress."
    return nothing_to_reprocess(summary)


def started(call: Call, summary: BatchSummary, **more: Any) -> Response:
    """Answer with the state of a batch that was started: 202 until it has settled."""
    return reply(
        summarised(call, summary) | more,
        batch_actions.status_code(summary),
        Location=path_of(call, summary.batch_id),
    )


async def pause_batch(call: Call) -> Response:
    """Pause a batch: running items finish, and no further item starts."""
    body = await json_body(call.request, Reason)
    batch = await call.batch("pause")
    reason = {} if body.reason is None else {"reason": body.reason}
    await call.manager.pause_batch(batch.id, actor=call.user_id, **reason)
    return await _summary(call, batch.id)


async def resume_batch(call: Call) -> Response:
    """Resume a paused batch."""
    body = await json_body(call.request, Reason)
    batch = await call.batch("resume")
    await call.manager.resume_batch(batch.id, reason=body.reason, actor=call.user_id)
    return reply(summarised(call, await batch_actions.start(call, batch.id)))


async def cancel_batch(call: Call) -> Response:
    """Cancel a batch for good. Items that have not started stay pending and can be reprocessed."""
    body = await json_body(call.request, Reason)
    batch = await call.batch("cancel")
    await call.manager.cancel_batch(batch.id, reason=body.reason, actor=call.user_id)
    return await _summary(call, batch.id)


async def _summary(call: Call, batch_id: UUID) -> Response:
    return reply(summarised(call, await call.manager.get_batch_summary(batch_id)))
