"""A batch's failures against its thresholds, counted over all who work on it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from ..database.guard import Connection
from ..models import BatchStatus, ImportBatch, LogLevel
from ..processors.thresholds import FailureLimits
from ..store import batches, logs, summaries
from .leases import Control

LOOK_SECONDS = 1.0


@asynccontextmanager
async def watched(
    batch: ImportBatch, control: Control, streak: FailureLimits
) -> AsyncIterator[None]:
    """While a batch is drained, tell its streak what others have counted; pause it if need be."""
    if not streak.thresholds.options():
        yield
        return
    await _look(batch, control, streak)
    async with anyio.create_task_group() as group:
        group.start_soon(_keep_looking, batch, control, streak)
        yield
        group.cancel_scope.cancel()
    if streak.reason is not None:
        await pause(batch, control, streak.reason)


async def pause(batch: ImportBatch, control: Control, reason: str) -> None:
    """Pause a batch, unless it is paused already."""

    async def statement(conn: Connection) -> None:
        if await batches.pause(conn, batch.id, reason):
            details = {"actor": "reliable_imports_async", "reason": reason}
            await logs.insert(conn, batch.id, LogLevel.ERROR, "batch paused", details)

    await control.insist(statement)
    control.note_status(batch.id, BatchStatus.PAUSED)


async def _keep_looking(batch: ImportBatch, control: Control, streak: FailureLimits) -> None:
    while streak.reason is None:
        await anyio.sleep(LOOK_SECONDS)
        await _look(batch, control, streak)


async def _look(batch: ImportBatch, control: Control, streak: FailureLimits) -> None:
    failed, settled = await control.insist(lambda conn: summaries.totals(conn, batch.id))
    forgiven = batch.options.get("forgiven", {})  # what had failed before the batch was resumed
    streak.learn(failed - forgiven.get("failed", 0), settled - forgiven.get("settled", 0))
