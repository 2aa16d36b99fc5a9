"""Creating, starting and waiting for batches, the same for the API and the dashboard.

Owns the order of the application's hooks around both, and the status code of the response.
"""

from typing import Any
from uuid import UUID

import anyio

from ...loading.create import Created, OnSameFile
from ...loading.sources import Source
from ...models import BatchSummary, ImportBatch
from ..endpoints import BaseEndpoint, answer
from .call import Call
from .payloads import CreateBatch, Process

WAIT_SECONDS = 30.0
FIRST_POLL_SECONDS = 0.02
LONGEST_POLL_SECONDS = 0.5


async def permitted_endpoint(call: Call, batch_type: str) -> BaseEndpoint:
    """Return the endpoint of a batch type if the caller may create batches of it.

    Raises:
        UnknownBatchType: No processor is registered for it.
        HTTPException: 403.
    """
    call.manager.registry.get(batch_type)
    await call.require(batch_type, "create")
    return call.endpoint(batch_type)


async def before_create(call: Call, data: CreateBatch) -> CreateBatch:
    """Let the application's hook check, change or refuse a new batch."""
    endpoint = call.endpoint(data.batch_type)
    async with call.hook():
        changed = await answer(endpoint.before_create_batch(data, call.ctx))
    return data if changed is None else changed


async def create(
    call: Call,
    endpoint: BaseEndpoint,
    data: CreateBatch,
    source: Source,
    *,
    enqueue: bool,
    on_same_file: OnSameFile = "refuse",
    idempotency_key: str | None = None,
    request_sha256: str | None = None,
) -> Created:
    """Store a new batch, and enqueue it if asked to."""
    return await call.manager.create_or_find_batch(
        data.batch_type,
        source,
        metadata=data.metadata,
        created_by=call.user_id,
        idempotency_key=idempotency_key,
        on_same_file=on_same_file,
        visible=await call.visible(),
        request_sha256=request_sha256,
        enqueue=enqueue,
        max_failures=data.max_failures,
        max_failure_rate=data.max_failure_rate,
        min_processed=data.min_processed,
        skip_unchanged=data.skip_unchanged,
        expect=None if data.expect is None else data.expect.model_dump(),
        allow_empty=data.allow_empty,
        after_create=_kept_for_hook(endpoint, data),
    )


def _kept_for_hook(endpoint: BaseEndpoint, data: CreateBatch) -> dict[str, Any] | None:
    """What is stored for after_create_batch, in case this process dies before it runs."""
    if not endpoint.overrides("after_create_batch"):
        return None
    names = [name for name in CreateBatch.model_fields if name != "items"]
    return {name: getattr(data, name, None) for name in names}


async def after_create(
    call: Call, endpoint: BaseEndpoint, batch_id: UUID, data: CreateBatch
) -> None:
    """Run after_create_batch unless it has run for this batch, and store its log lines."""

    async def hook() -> None:
        await answer(endpoint.after_create_batch(batch_id, data, call.ctx))

    async with call.hook():
        if endpoint.overrides("after_create_batch"):
            await call.manager.run_after_create(batch_id, hook)
    await call.store_log(batch_id)


async def before_process(call: Call, batch: ImportBatch) -> None:
    """Let the application's hook check or refuse that a batch is processed or reprocessed.

    Raises:
        UnknownBatchType: No processor is registered for the batch's type.
    """
    call.manager.registry.get(batch.batch_type)
    async with call.hook():
        await answer(call.endpoint(batch.batch_type).before_process(batch.id, call.ctx))
    await call.store_log(batch.id)


async def start(call: Call, batch_id: UUID, process: Process = "background") -> BatchSummary:
    """Enqueue a batch, and return its summary; see `summary_after`."""
    await call.manager.enqueue_batch(batch_id)
    return await summary_after(call, batch_id, process)


async def summary_after(call: Call, batch_id: UUID, process: Process) -> BatchSummary:
    """Return the summary of a batch: at once, or with "wait" when it has settled.

    It waits for 30 seconds at most. If the client disconnects, processing continues.
    """
    if process == "wait":
        pause = FIRST_POLL_SECONDS
        with anyio.move_on_after(WAIT_SECONDS):
            while not (await call.manager.get_batch(batch_id)).status.settled:
                await anyio.sleep(pause)
                pause = min(LONGEST_POLL_SECONDS, pause * 1.5)
    return await call.manager.get_batch_summary(batch_id)


def status_code(summary: BatchSummary, process: Process = "background", *, done: int = 200) -> int:
    """202 while a batch that is to be processed has not settled, otherwise `done`."""
    return 202 if process and not summary.status.settled else done
