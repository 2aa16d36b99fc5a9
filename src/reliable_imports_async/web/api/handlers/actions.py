"""What changes a batch: process, reprocess, pause, resume, cancel."""

from typing import Any
from uuid import UUID

from starlette.responses import Response

from ....models import BatchSummary
from ....repair.reprocess import nothing_to_reprocess
from ...endpoints import answer
from ...http.batch_actions import settled
from ...http.bodies import json_body
from ...http.call import Call, reply
from ...http.payloads import ProcessBatch, Reason, ReprocessBatch
from ..answers import path_of, summarised


async def process_batch(call: Call) -> Response:
    """Process a batch that was only created, or go on with an interrupted one.

    With `dry_run` every item of a pending batch is tried and rolled back while you wait.
    """
    body = await json_body(call.request, ProcessBatch)
    batch = await call.batch("process")
    call.manager.registry.get(batch.batch_type)
    await _before(call, batch.batch_type, batch.id)
    if body.dry_run:
        return reply((await call.manager.process_batch(batch.id, dry_run=True)).as_dict())
    await call.manager.set_thresholds(
        batch.id,
        max_failures=body.max_failures,
        max_failure_rate=body.max_failure_rate,
        min_processed=body.min_processed,
    )
    return await _run(call, batch.id, body.process)


async def reprocess_batch(call: Call) -> Response:
    """Run failures again, in a new batch of the same lineage; what succeeded never runs again.

    With `canary` the answer is about the canary's batch; once enough of it has succeeded, whoever
    finishes it goes on with the rest, in another batch of the lineage.
    """
    body = await json_body(call.request, ReprocessBatch)
    batch = await call.batch("reprocess")
    call.manager.registry.get(batch.batch_type)
    await _before(call, batch.batch_type, batch.id)
    started = await call.manager.start_reprocessing(
        batch.id,
        body.failed_items_only,
        group=body.group,
        item_numbers=body.item_numbers,
        canary=body.canary,
        min_success=body.min_success,
        continues=True,
        actor=call.user_id,
    )
    child_id = started.batch_id
    if not started.is_new:
        summary = await call.manager.get_batch_summary(child_id)
        content = summarised(call, summary) | {"created": False, "message": _nothing(summary)}
        return reply(content, 200, Location=path_of(call, child_id))
    return await _run(call, child_id, body.process, created=True, message=None)


async def pause_batch(call: Call) -> Response:
    """Start no further item; running ones settle."""
    body = await json_body(call.request, Reason)
    batch = await call.batch("pause")
    given = {} if body.reason is None else {"reason": body.reason}
    await call.manager.pause_batch(batch.id, actor=call.user_id, **given)
    return await _summary(call, batch.id)


async def resume_batch(call: Call) -> Response:
    """Undo a pause and go on."""
    body = await json_body(call.request, Reason)
    batch = await call.batch("resume")
    await call.manager.resume_batch(batch.id, reason=body.reason, actor=call.user_id)
    await call.manager.enqueue_batch(batch.id)
    return await _summary(call, batch.id)


async def cancel_batch(call: Call) -> Response:
    """End a batch for good; what has not started stays pending, for reprocess."""
    body = await json_body(call.request, Reason)
    batch = await call.batch("cancel")
    await call.manager.cancel_batch(batch.id, reason=body.reason, actor=call.user_id)
    return await _summary(call, batch.id)


async def _before(call: Call, batch_type: str, batch_id: UUID) -> None:
    async with call.hook():
        await answer(call.endpoint(batch_type).before_process(batch_id, call.ctx))
    await call.store_log(batch_id)


def _nothing(summary: BatchSummary) -> str:
    """Why no batch was created."""
    if not summary.status.settled:
        return f"Nothing new to reprocess: batch {summary.batch_id} is in progress."
    return nothing_to_reprocess(summary)


async def _run(call: Call, batch_id: UUID, process: str, **more: Any) -> Response:
    await call.manager.enqueue_batch(batch_id)
    if process == "wait":
        summary = await settled(call, batch_id)
    else:
        summary = await call.manager.get_batch_summary(batch_id)
    status = 200 if summary.status.settled else 202
    return reply(summarised(call, summary) | more, status, Location=path_of(call, batch_id))


async def _summary(call: Call, batch_id: UUID) -> Response:
    return reply(summarised(call, await call.manager.get_batch_summary(batch_id)))
