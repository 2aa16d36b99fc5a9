"""Pauses a batch whose failures exceed its thresholds, counted over all processes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from ..database.guard import Connection
from ..models import BatchStatus, ImportBatch, LogLevel
from ..processors.thresholds import FailureLimits
from ..store import batches, logs, summaries
from .leases import Leases

LOOK_SECONDS = 1.0


@asynccontextmanager
async def auto_pause(
    batch: ImportBatch, leases: Leases, limits: FailureLimits
) -> AsyncIterator[None]:
    """While a batch is drained, count the failures of all processes; pause it at its limits."""
    if not limits.thresholds.options():
        yield
        return
    await _count(batch, leases, limits)
    async with anyio.create_task_group() as group:
        group.start_soon(_keep_counting, batch, leases, limits)
        yield
        group.cancel_scope.cancel()
    if limits.reason is not None:
        await pause(batch, leases, limits.reason)


async def pause(batch: ImportBatch, leases: Leases, reason: str) -> None:
    """Pause a batch, unless it is paused already."""

    async def statement(conn: Connection) -> None:
        if await batches.pause(conn, batch.id, reason):
            details = {"actor": "reliable_imports_async", "reason": reason}
            await logs.insert(conn, batch.id, LogLevel.ERROR, "batch paused", details)

    await leases.retry_until_answered(statement)
    leases.note_status(batch.id, BatchStatus.PAUSED)


async def _keep_counting(batch: ImportBatch, leases: Leases, limits: FailureLimits) -> None:
    while limits.reason is None:
        await anyio.sleep(LOOK_SECONDS)
        await _count(batch, leases, limits)


async def _count(batch: ImportBatch, leases: Leases, limits: FailureLimits) -> None:
    failed, settled = await leases.retry_until_answered(
        lambda conn: summaries.totals(conn, batch.id)
    )
    forgiven = batch.options.get("forgiven", {})  # failures from before the batch was resumed
    limits.learn(failed - forgiven.get("failed", 0), settled - forgiven.get("settled", 0))
