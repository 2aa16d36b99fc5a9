"""Processes a batch: starts it, drains it here, finishes it, and runs its hooks."""

import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from typing import Any
from uuid import UUID, uuid4

import anyio

from ..cancellation import run_in_child_task
from ..database.pool import Database
from ..errors import AnotherBatchRuns, BatchCancelled, BatchNotFound, BatchPaused, StateError
from ..models import BatchStatus, BatchSummary, ImportBatch
from ..processors.processor import BaseProcessor
from ..processors.registry import Registry
from ..settings import Settings
from ..store import batches, exclusive, summaries
from ..store.exclusive import Holder
from .batch_run import TimeSlice
from .drain import Drainer
from .dry_run import TrialRun
from .dry_run_report import DryRun
from .leases import Leases
from .lifecycle import Lifecycle
from .outbox import Outbox

steps = logging.getLogger("reliable_imports_async.worker")

ASK_SECONDS = 1.0
Beside = Callable[[UUID], AbstractAsyncContextManager[None]]


def no_others(_: UUID) -> AbstractAsyncContextManager[None]:
    """Let this process work alone."""
    return nullcontext()


HELD_SECONDS = 0.2


class Processing:
    """Processes batches in this process; one limiter bounds the items of all of them.

    Args:
        rest_of: Returns the batch with the records that a canary has held back, if there is one.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        registry: Registry,
        outbox: Outbox,
        rest_of: Callable[[ImportBatch], Awaitable[UUID | None]],
    ) -> None:
        self._rest_of = rest_of
        self._outbox = outbox
        self._database = database
        self._settings = settings
        self._registry = registry
        self._lifecycle = Lifecycle(database, settings, outbox)
        self._leases = Leases(database, settings, uuid4())
        limiter = anyio.CapacityLimiter(database.concurrency)
        self._drainer = Drainer(database, settings, self._leases, limiter)
        self._waiting: dict[UUID, UUID] = {}  # batches that wait for another one, logged once

    async def process(
        self,
        batch_id: UUID,
        time_slice: TimeSlice | None = None,
        *,
        commit_interval: int | None = None,
        beside: Beside = no_others,
    ) -> BatchSummary:
        """Process a batch, beside other processes, until it has ended.

        Args:
            time_slice: Ends the work earlier. Without one it takes any time, and after a canary
                that passes goes on with the rest of the records.
            commit_interval: Items that share a transaction, instead of what the processor says.
            beside: Keeps other processes working on the batch while this one does.

        Raises:
            BatchNotFound, BatchPaused, BatchCancelled, UnknownBatchType.
            DatabaseReadOnly: The server takes no writes.
            AnotherBatchRuns: Another of its type does, and its processor says "refuse".
        """
        here = time_slice or TimeSlice()
        summary: BatchSummary = await run_in_child_task(
            lambda: self._process(
                batch_id, here, commit_interval, waits=time_slice is not None, beside=beside
            )
        )
        if here.rest is not None and time_slice is None:
            with suppress(StateError):  # the rest was paused or cancelled meanwhile
                await self.process(here.rest, commit_interval=commit_interval, beside=beside)
        return summary

    async def drain(self, batch_id: UUID, *, commit_interval: int | None = None) -> None:
        """Work on a batch that another process has started, and finishes.

        Raises:
            BatchNotFound, UnknownBatchType.
        """
        batch = await self._batch(batch_id)
        processor = self._registry.get(batch.batch_type)
        if batch.status is BatchStatus.PROCESSING:
            await run_in_child_task(
                lambda: self._drainer.drain(batch, processor, TimeSlice(), commit_interval)
            )

    async def dry_run(self, batch_id: UUID, *, commit_interval: int | None = None) -> DryRun:
        """Try a pending batch without storing anything.

        Raises:
            BatchNotFound, WrongBatchStatus, UnknownBatchType, DatabaseUnavailable.
        """
        batch = await self._batch(batch_id)
        processor = self._registry.get(batch.batch_type)
        trial = TrialRun(batch, processor, self._database, self._settings, commit_interval)
        report: DryRun = await run_in_child_task(trial.run)
        return report

    async def _process(
        self,
        batch_id: UUID,
        time_slice: TimeSlice,
        commit_interval: int | None,
        *,
        waits: bool = True,
        beside: Beside = no_others,
    ) -> BatchSummary:
        """Start, drain and finish a batch, as far as the time slice allows.

        Args:
            waits: Whether to wait for a server that takes no writes, as workers do in a failover.
        """
        batch = await self._batch(batch_id)
        if time_slice.on_taken is not None:
            time_slice.on_taken(batch)
        processor = self._registry.get(batch.batch_type)
        refuse_stopped(batch)
        if batch.finished_at is not None:
            summary = await self._summary(batch_id)
        else:
            if not waits:
                await self._database.require_writable()
            started = await self._start(batch, processor, time_slice)
            if started is None:
                return await self._summary(batch_id)
            if started.started_at is not None and started.status is BatchStatus.PROCESSING:
                async with beside(started.id):
                    await self._drainer.drain(started, processor, time_slice, commit_interval)
            batch, summary = await self._lifecycle.finish(batch_id, processor)
        if batch.finished_at is not None:
            time_slice.rest = await self._rest_of(batch)
            await self._outbox.deliver(batch, wait=time_slice.max_idle is None)
        if time_slice.max_idle is None:  # a worker sweeps anyway; here no other task may
            await self._outbox.sweep_if_possible()
        return summary

    async def _start(
        self, batch: ImportBatch, processor: BaseProcessor[Any], time_slice: TimeSlice
    ) -> ImportBatch | None:
        """Start or join a batch once nothing is in its way; None: its job has to come back.

        A batch that a killed process has left is finished first; otherwise all would wait for it.
        """
        waited = False
        while True:
            start = await self._lifecycle.start(batch.id, processor)
            if start.held:
                goes_on = await self._wait_for_hook(batch, time_slice)
            elif start.running_id is not None:
                goes_on = await self._wait_for_turn(batch, processor, start.running_id, time_slice)
            else:
                self._waiting.pop(batch.id, None)
                if waited:
                    refuse_stopped(start.batch)
                return start.batch
            if not goes_on:
                return None
            waited = True
            refuse_stopped(await self._batch(batch.id))

    async def _wait_for_hook(self, batch: ImportBatch, time_slice: TimeSlice) -> bool:
        """Wait for after_create_batch, or run it for a process that died; False: come back."""
        await self._outbox.deliver(batch, wait=False)
        if time_slice.over or time_slice.max_idle is not None:
            time_slice.due_in = ASK_SECONDS
            return False
        await anyio.sleep(HELD_SECONDS)
        return True

    async def _wait_for_turn(
        self,
        batch: ImportBatch,
        processor: BaseProcessor[Any],
        running_id: UUID,
        time_slice: TimeSlice,
    ) -> bool:
        """Wait for the batch that runs, or finish it for a process that died; False: come back.

        Raises:
            AnotherBatchRuns: The processor says "refuse".
        """
        if self._waiting.get(batch.id) != running_id:
            self._waiting[batch.id] = running_id
            steps.info("batch %s waits for batch %s to end", batch.id, running_id)
        if time_slice.over:
            return False
        abandoned = await self._abandoned(batch.batch_type)
        if abandoned is not None:
            with suppress(BatchNotFound, StateError):
                await self._process(abandoned, time_slice, None)
        elif time_slice.max_idle is not None:
            time_slice.due_in = ASK_SECONDS
            return False
        elif processor.only_one == "refuse" and await self._holder(batch.batch_type):
            raise AnotherBatchRuns(batch.batch_type, running_id)
        else:
            await anyio.sleep(ASK_SECONDS)
        return True

    async def _abandoned(self, batch_type: str) -> UUID | None:
        """The batch that runs, when no process works on it, now and a moment later."""
        holder = await self._holder(batch_type)
        if holder is None or not holder.abandoned:
            return None
        await anyio.sleep(ASK_SECONDS)  # between two ranges no process holds a lease either
        return holder.batch_id if holder == await self._holder(batch_type) else None

    async def _holder(self, batch_type: str) -> Holder | None:
        return await self._leases.retry_until_answered(
            lambda conn: exclusive.holder(conn, batch_type)
        )

    async def _batch(self, batch_id: UUID) -> ImportBatch:
        batch = await self._leases.retry_until_answered(lambda conn: batches.get(conn, batch_id))
        if batch is None:
            raise BatchNotFound(batch_id)
        return batch

    async def _summary(self, batch_id: UUID) -> BatchSummary:
        summary = await self._leases.retry_until_answered(
            lambda conn: summaries.get(conn, batch_id)
        )
        if summary is None:
            raise BatchNotFound(batch_id)
        return summary


def refuse_stopped(batch: ImportBatch) -> None:
    """Raise BatchPaused or BatchCancelled for a batch with that status."""
    if batch.status is BatchStatus.PAUSED:
        raise BatchPaused(batch.id, batch.pause_reason)
    if batch.status is BatchStatus.CANCELLED:
        raise BatchCancelled(batch.id)
