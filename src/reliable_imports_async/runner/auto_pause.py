"""Pauses a batch whose failures exceed its limits, counted over all processes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from ..database.guard import Connection
from ..models import BatchStatus, LogLevel
from ..store import batches, logs, summaries
from .batch_run import BatchRun

LOOK_SECONDS = 1.0


@asynccontextmanager
async def auto_pause(batch_run: BatchRun) -> AsyncIterator[None]:
    """While a batch is drained, count the failures of all processes; pause it at its limits."""
    if not batch_run.limits.thresholds.options():
        yield
        return
    await _count(batch_run)
    async with anyio.create_task_group() as group:
        group.start_soon(_keep_counting, batch_run)
        yield
        group.cancel_scope.cancel()
    if batch_run.limits.reason is not None:
        await pause(batch_run, batch_run.limits.reason)


async def pause(batch_run: BatchRun, reason: str) -> None:
    """Pause a batch, unless it is paused already."""
    batch_id, leases = batch_run.batch.id, batch_run.leases

    async def statement(conn: Connection) -> None:
        if await batches.pause(conn, batch_id, reason):
            details = {"actor": "reliable_imports_async", "reason": reason}
            await logs.insert(conn, batch_id, LogLevel.ERROR, "batch paused", details)

    await leases.retry_until_answered(statement)
    leases.note_status(batch_id, BatchStatus.PAUSED)


async def _keep_counting(batch_run: BatchRun) -> None:
    while batch_run.limits.reason is None:
        await anyio.sleep(LOOK_SECONDS)
        await _count(batch_run)


async def _count(batch_run: BatchRun) -> None:
    batch, limits = batch_run.batch, batch_run.limits
    failed, settled = await batch_run.leases.retry_until_answered(
        lambda conn: summaries.totals(conn, batch.id)
    )
    forgiven = batch.options.get("forgiven", {})  # failures from before the batch was resumed
    limits.learn(failed - forgiven.get("failed", 0), settled - forgiven.get("settled", 0))
