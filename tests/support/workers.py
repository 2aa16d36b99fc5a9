"""A worker that runs meanwhile, and waiting for what it does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from reliable_imports_async import BatchManager

from .trying import PATIENCE


@asynccontextmanager
async def worker(manager: BatchManager) -> AsyncIterator[asyncio.Task]:
    """A worker that runs meanwhile."""
    task = asyncio.ensure_future(manager.run_worker())
    try:
        yield task
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def finished(manager: BatchManager, batch_id, seconds: float = PATIENCE):
    """The summary of a batch, once it has ended."""
    with anyio.fail_after(seconds):
        while (summary := await manager.get_batch_summary(batch_id)).finished_at is None:
            await anyio.sleep(0.05)
    return summary


async def until(check, *args, seconds: float = PATIENCE):
    """Wait until something holds."""
    with anyio.fail_after(seconds):
        while not await check(*args):
            await anyio.sleep(0.05)
