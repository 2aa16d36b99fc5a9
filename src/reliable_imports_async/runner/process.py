"""From a batch to its end: start it, drain it here, finish it, tell the hooks."""

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from uuid import UUID, uuid4

import anyio

from ..cancellation import in_child_task
from ..database.guard import ReadingConnection
from ..database.pool import Database
from ..errors import AnotherBatchRuns, BatchCancelled, BatchNotFound, BatchPaused, StateError
from ..execution.chunk import ChunkExecutor
from ..execution.executor import Executor
from ..models import BatchStatus, BatchSummary, ImportBatch
from ..processors.context import ImportContext
from ..processors.processor import BaseProcessor, interval_of
from ..processors.registry import Registry
from ..processors.thresholds import FailureLimits, Thresholds
from ..settings import Settings
from ..store import batches, exclusive, summaries
from ..store.exclusive import Holder
from .auto_pause import pause, watched
from .drain import Drain
from .dry_run import TrialRun
from .dry_run_report import DryRun
from .item_queue import Queue
from .leases import Control
from .lifecycle import BatchHeld, Lifecycle
from .outbox import Outbox
from .quarantine import Quarantine
from .slots import Slots, TimeSlice

steps = logging.getLogger("reliable_imports_async.worker")

ASK_SECONDS = 1.0
HELD_SECONDS = 0.2


class Processing:
    """Processes batches in this process; one limiter bounds the items of all of them."""

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
        self._control = Control(database, settings, uuid4())
        self._limiter = anyio.CapacityLimiter(database.concurrency)
        self._awaited: dict[UUID, UUID] = {}  # batches that wait, and for which one: logged once

    async def process(
        self, batch_id: UUID, turn: TimeSlice | None = None, *, commit_interval: int | None = None
    ) -> BatchSummary:
        """Drain a batch, beside others who drain it, until it has come to an end.

        Args:
            commit_interval: Items that share a transaction, instead of what the processor says.
            turn: Ends it earlier; without one it goes on for as long as it takes, and after a
                canary that passes with the rest.

        Raises:
            BatchNotFound, BatchPaused, BatchCancelled, UnknownBatchType.
            DatabaseReadOnly: The server takes no writes.
            AnotherBatchRuns: Another of its type does, and its processor says "refuse".
        """
        here = turn or TimeSlice()
        summary: BatchSummary = await in_child_task(
            lambda: self._process(batch_id, here, commit_interval, waits=turn is not None)
        )
        if here.rest is not None and turn is None:
            with suppress(StateError):  # somebody has paused or cancelled the rest meanwhile
                await self.process(here.rest, commit_interval=commit_interval)
        return summary

    async def rehearse(self, batch_id: UUID) -> DryRun:
        """Try a pending batch without storing anything.

        Raises:
            BatchNotFound, WrongBatchStatus, UnknownBatchType, DatabaseUnavailable.
        """
        batch = await self._batch(batch_id)
        processor = self._registry.get(batch.batch_type)
        rehearsal = TrialRun(batch, processor, self._database, self._settings)
        report: DryRun = await in_child_task(rehearsal.run)
        return report

    async def _process(
        self, batch_id: UUID, turn: TimeSlice, commit_interval: int | None, *, waits: bool = True
    ) -> BatchSummary:
        """The same.

        Args:
            waits: Whether to wait for a server that takes no writes, as workers do in a failover.
        """
        batch = await self._batch(batch_id)
        processor = self._registry.get(batch.batch_type)
        refuse_stopped(batch)
        if batch.finished_at is None:
            if not waits:
                await self._database.require_writable()
            started = await self._started(batch, processor, turn)
            if started is None:
                return await self._summary(batch_id)
            batch = started
            if batch.started_at is not None and batch.status is BatchStatus.PROCESSING:
                await self._drain(batch, processor, turn, commit_interval)
            await self._lifecycle.finish(batch_id, processor)
            batch = await self._batch(batch_id)
        summary = await self._summary(batch_id)
        if batch.finished_at is not None:
            turn.rest = await self._rest_of(batch)
            await self._outbox.deliver(batch, wait=turn.patience is None)
        if turn.patience is None:  # a worker sweeps by itself; here nobody else may
            await self._outbox.sweep_if_possible()
        return summary

    async def _started(
        self, batch: ImportBatch, processor: BaseProcessor, turn: TimeSlice
    ) -> ImportBatch | None:
        """Start or join a batch as soon as it is its turn; None: its job has to come back.

        A batch that a killed process has left is brought to its end first, or all would wait.
        """
        waited = False
        while True:
            goes_on: bool | None
            try:
                started = await self._lifecycle.start(batch.id, processor)
            except BatchHeld:
                goes_on = await self._wait_for_hook(batch, turn)
            except AnotherBatchRuns as exc:
                self._tell_waiting(batch.id, exc.running_id)
                goes_on = await self._wait_for_turn(batch, processor, turn)
                if goes_on is None:
                    raise
            else:
                self._awaited.pop(batch.id, None)
                if waited:
                    refuse_stopped(started)
                return started
            if not goes_on:
                return None
            waited = True
            refuse_stopped(await self._batch(batch.id))

    async def _wait_for_hook(self, batch: ImportBatch, turn: TimeSlice) -> bool:
        """Wait for after_create_batch, or run it for a process that died; False: come back."""
        await self._outbox.deliver(batch, wait=False)
        if turn.over or turn.patience is not None:
            turn.due_in = ASK_SECONDS
            return False
        await anyio.sleep(HELD_SECONDS)
        return True

    def _tell_waiting(self, batch_id: UUID, running_id: UUID) -> None:
        """Log once which batch another one waits for."""
        if self._awaited.get(batch_id) != running_id:
            self._awaited[batch_id] = running_id
            steps.info("batch %s waits for batch %s to end", batch_id, running_id)

    async def _wait_for_turn(
        self, batch: ImportBatch, processor: BaseProcessor, turn: TimeSlice
    ) -> bool | None:
        """Wait for the batch that runs; False: come back, None: it is refused."""
        if turn.over:
            return False
        forsaken = await self._forsaken(batch.batch_type)
        if forsaken is not None:
            with suppress(BatchNotFound, StateError):
                await self._process(forsaken, turn, None)
        elif turn.patience is not None:
            turn.due_in = ASK_SECONDS
            return False
        elif processor.only_one == "refuse" and await self._holder(batch.batch_type):
            return None
        else:
            await anyio.sleep(ASK_SECONDS)
        return True

    async def _forsaken(self, batch_type: str) -> UUID | None:
        """The batch whose turn it is, when nobody works on it, now and a moment later."""
        holder = await self._holder(batch_type)
        if holder is None or not holder.forsaken:
            return None
        await anyio.sleep(ASK_SECONDS)  # between two ranges nobody holds a lease either
        return holder.batch_id if holder == await self._holder(batch_type) else None

    async def _holder(self, batch_type: str) -> Holder | None:
        return await self._control.insist(lambda conn: exclusive.holder(conn, batch_type))

    async def _drain(
        self,
        batch: ImportBatch,
        processor: BaseProcessor,
        turn: TimeSlice,
        commit_interval: int | None,
    ) -> None:
        """Run what there is to run, with the processor's resources around it."""
        streak = FailureLimits(self._pause_after(processor), Thresholds.of(batch.options))
        reader = ReadingConnection(self._database.reading)
        async with processor.resources(ImportContext(batch, reader)) as shared:
            executor = Executor(
                batch, processor, self._database, self._settings, shared=shared, limits=streak
            )
            executor.ordering.begin()
            if (reason := await executor.invoker.check_declaration(self._database)) is not None:
                await pause(batch, self._control, reason)
                return
            concurrency = min(
                processor.concurrency or self._database.concurrency, self._database.concurrency
            )
            queue = Queue(concurrency, apart=executor.waits, ordered=True)
            size = commit_interval or interval_of(processor)
            slots = Slots(
                batch,
                executor,
                self._control,
                limiter=self._limiter,
                streak=streak,
                turn=turn,
                queue=queue,
                interval=ChunkExecutor(executor, size) if size > 1 else None,
                concurrency=concurrency,
            )
            drain = Drain(
                batch,
                executor,
                self._control,
                slots=slots,
                queue=queue,
                suspects=Quarantine(batch, executor, self._control, slots, self._limiter),
                concurrency=concurrency,
                turn=turn,
            )
            async with watched(batch, self._control, streak):
                await drain.run()

    def _pause_after(self, processor: BaseProcessor) -> int | None:
        own = processor.pause_after
        return own if own is None or isinstance(own, int) else self._settings.pause_after

    async def _batch(self, batch_id: UUID) -> ImportBatch:
        batch = await self._control.insist(lambda conn: batches.get(conn, batch_id))
        if batch is None:
            raise BatchNotFound(batch_id)
        return batch

    async def _summary(self, batch_id: UUID) -> BatchSummary:
        summary = await self._control.insist(lambda conn: summaries.get(conn, batch_id))
        if summary is None:
            raise BatchNotFound(batch_id)
        return summary


def refuse_stopped(batch: ImportBatch) -> None:
    """Raise BatchPaused or BatchCancelled for a batch that is so."""
    if batch.status is BatchStatus.PAUSED:
        raise BatchPaused(batch.id, batch.pause_reason)
    if batch.status is BatchStatus.CANCELLED:
        raise BatchCancelled(batch.id)
