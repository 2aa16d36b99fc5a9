"""Runs the jobs that PgQueuer dispatches: each gives a batch a time slice in this process."""

import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

import anyio
import stamina
from pgqueuer.errors import RetryRequested
from pgqueuer.models import Job
from pgqueuer.types import QueueEntrypoint

from ..database import pgqueuer_tables
from ..database.guard import Connection
from ..database.pool import Database
from ..errors import BatchNotFound, StateError
from ..failures import is_outage
from ..models import BatchStatus, BatchSummary, ImportBatch
from ..runner.batch_run import TimeSlice
from ..runner.process import Processing
from ..settings import Settings
from ..store import batches, enqueue
from ..store.enqueue import Place
from ..wording import counted

logger = logging.getLogger("reliable_imports_async")
steps = logging.getLogger("reliable_imports_async.worker")

R = TypeVar("R")

AT_ONCE = 2  # batches that a process drains; the least that PgQueuer allows
SLICE_SECONDS = 5.0
ASK_SECONDS = 1.0
MAX_IDLE_SECONDS = 2.0
PUT_OFF_SECONDS = 5.0  # a job that is given back finds a new worker within this time
LONGEST_BACKOFF = 60.0
REPLACE_SECONDS = 10.0
MOST_TOLD = 1_000
SWEPT_AT_ONCE = 100


class BatchJobs:
    """Runs the jobs that this process takes.

    Args:
        batch_types: The types that this process handles.
        stopping: Returns whether this process takes no further jobs and ends its time slices.
    """

    def __init__(
        self,
        database: Database,
        processing: Processing,
        settings: Settings,
        batch_types: Sequence[str],
        stopping: Callable[[], bool],
    ) -> None:
        self._database = database
        self._processing = processing
        self._settings = settings
        self._batch_types = batch_types
        self._entrypoints = [QueueEntrypoint(enqueue.entrypoint(name)) for name in batch_types]
        self._stopping = stopping
        self._slices: dict[UUID, TimeSlice] = {}
        self._told: dict[UUID, str] = {}  # the last state logged of each batch
        self._scopes: set[anyio.CancelScope] = set()

    async def run(self, job: Job) -> None:
        """Process the job's batch until it ends, or until the time slice is over.

        Raises:
            RetryRequested: The batch is processed here already, or could not be processed.
        """
        place = Place.of(job)
        if self._stopping():
            raise RetryRequested
        if place.batch_id in self._slices:  # another process may help; here it is drained already
            raise RetryRequested(timedelta(seconds=PUT_OFF_SECONDS))
        with self._time_slice(place.batch_id, MAX_IDLE_SECONDS) as time_slice:
            failure = await self._work(place.batch_id, time_slice)
            if failure is not None:
                self._put_off(job, place, failure)
            if not time_slice.gone:
                await self._go_on(job, place, time_slice)

    async def help(self) -> None:
        """Process a batch with a range that waits, if there is one and no job waits."""
        if self._stopping() or len(self._slices) >= AT_ONCE:
            return
        batch_id = await self._helpable()
        if batch_id is None or batch_id in self._slices:
            return
        with self._time_slice(batch_id, 0.0) as time_slice:
            failure = await self._work(batch_id, time_slice)
        if failure is not None:
            logger.error("could not help with batch %s: %s", batch_id, self._describe(failure))
            await anyio.sleep(PUT_OFF_SECONDS)

    async def sweep(self) -> None:
        """Enqueue again the batches that could be processed but that no process works on."""
        async with self._database.connection() as conn:
            for batch_id in await batches.abandoned(conn, self._batch_types, SWEPT_AT_ONCE):
                async with conn.transaction():
                    await enqueue.enqueue(conn, batch_id)

    def end_slices(self) -> None:
        """Let running items settle, and hand all ranges back."""
        for time_slice in self._slices.values():
            time_slice.over = True

    def cancel(self) -> None:
        """Roll back running items, and hand all ranges back."""
        for scope in self._scopes:
            scope.cancel()

    @contextmanager
    def _time_slice(self, batch_id: UUID, max_idle: float) -> Iterator[TimeSlice]:
        time_slice = TimeSlice(max_idle=max_idle, on_taken=self._tell_start)
        self._slices[batch_id] = time_slice
        try:
            yield time_slice
        finally:
            del self._slices[batch_id]

    async def _work(self, batch_id: UUID, time_slice: TimeSlice) -> Exception | None:
        """Process a batch for a time slice; return the exception if that is impossible."""
        failure: Exception | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch, time_slice)
            try:
                await self._drain(batch_id, time_slice)
            except (BatchNotFound, StateError) as exc:
                time_slice.gone = True  # purged, paused or cancelled since it was enqueued
                self._tell(batch_id, f"stopped: {exc.message}")
            except Exception as exc:  # noqa: BLE001 - the batch must not wait for ever
                failure = exc
            group.cancel_scope.cancel()
        return failure

    async def _drain(self, batch_id: UUID, time_slice: TimeSlice) -> None:
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                self._tell_end(await self._processing.process(batch_id, time_slice), time_slice)
            finally:
                self._scopes.discard(scope)
        if scope.cancelled_caught:
            time_slice.over = True
            self._tell(batch_id, "handed back: running items were rolled back")

    def _tell_start(self, batch: ImportBatch) -> None:
        if batch.id in self._told:  # a further time slice
            return
        source = f" from {batch.source_name}" if batch.source_name else ""
        records = counted(batch.total_items, "item")
        self._tell(batch.id, f"taken: {batch.batch_type}, {records}{source}")

    def _tell_end(self, summary: BatchSummary, time_slice: TimeSlice) -> None:
        if summary.finished_at is not None:
            counts = (
                f"{summary.completed_items:,} completed, {summary.skipped_items:,} skipped, "
                f"{summary.failed_items:,} failed of {counted(summary.total_items, 'item')}"
            )
            self._tell(summary.batch_id, f"finished: {summary.status}, {counts}")
            del self._told[summary.batch_id]
        elif summary.status.settled:
            reason = summary.pause_reason or summary.error
            self._tell(summary.batch_id, f"stopped: {summary.status}, {reason}")
        elif time_slice.due_in is not None and summary.started_at is not None:
            waiting = counted(summary.pending_items, "pending item")
            self._tell(summary.batch_id, f"waits: {waiting}, due later")
        elif self._stopping():
            self._tell(summary.batch_id, "handed back to other workers")

    def _tell(self, batch_id: UUID, state: str) -> None:
        """Log the state of a batch, once for as long as it does not change."""
        if self._told.get(batch_id) == state:
            return
        if len(self._told) >= MOST_TOLD:
            self._told.clear()
        self._told[batch_id] = state
        steps.info("batch %s %s", batch_id, state)

    async def _watch(self, time_slice: TimeSlice) -> None:
        """End a time slice when this process stops, or at its end when another job waits."""
        began = anyio.current_time()
        while not time_slice.over:
            await anyio.sleep(min(ASK_SECONDS, SLICE_SECONDS / 4))
            if self._stopping():
                time_slice.over = True
            elif anyio.current_time() - began >= SLICE_SECONDS:
                time_slice.over = await self._another_waits()

    async def _another_waits(self) -> bool:
        """Whether a job for this process waits."""
        return await self._ask(self._job_waits) or False

    async def _helpable(self) -> UUID | None:
        """A batch with a range that waits, unless a job waits."""

        async def find(conn: Connection) -> UUID | None:
            if await self._job_waits(conn):
                return None
            seconds = self._settings.lease_seconds
            return await batches.with_free_range(
                conn, self._batch_types, list(self._slices), seconds
            )

        return await self._ask(find)

    async def _job_waits(self, conn: Connection) -> bool:
        on_connection = await pgqueuer_tables.queries(conn)
        return await on_connection.eligible_queued_work(self._entrypoints) > 0

    async def _ask(self, question: Callable[[Connection], Awaitable[R]]) -> R | None:
        """The answer to a question; None during an outage."""
        try:
            async with self._database.connection(seconds=ASK_SECONDS * 5) as conn:
                return await question(conn)
        except Exception as exc:
            if is_outage(exc):
                return None
            raise

    async def _go_on(self, job: Job, place: Place, time_slice: TimeSlice) -> None:
        """Replace the job by another one if the batch has not ended."""
        with anyio.move_on_after(REPLACE_SECONDS, shield=True) as scope:
            async for attempt in stamina.retry_context(
                on=is_outage, attempts=None, timeout=REPLACE_SECONDS, wait_initial=0.1, wait_max=1.0
            ):
                with attempt:
                    async with self._database.connection() as conn:
                        batch = await batches.get(conn, place.batch_id)
                        if batch is not None and _unfinished(batch):
                            seconds = 0.0 if time_slice.over else time_slice.due_in or ASK_SECONDS
                            await enqueue.replace(conn, job, batch.batch_type, seconds)
        if scope.cancelled_caught:
            logger.warning(
                "batch %s has no new job yet; a sweep will enqueue it again", place.batch_id
            )

    def _put_off(self, job: Job, place: Place, exc: Exception) -> None:
        """Have a job retried: if it failed for good, the batch would wait for ever."""
        seconds = min(LONGEST_BACKOFF, 2.0 ** min(job.attempts, 8))
        logger.error(
            "batch %s could not be processed, next try in %g s: %s",
            place.batch_id,
            seconds,
            self._describe(exc),
        )
        raise RetryRequested(timedelta(seconds=seconds), type(exc).__name__)

    def _describe(self, exc: Exception) -> str:
        return f"{type(exc).__name__}: {self._database.redact(str(exc))}"


def _unfinished(batch: ImportBatch) -> bool:
    return batch.finished_at is None and batch.status in (
        BatchStatus.PENDING,
        BatchStatus.PROCESSING,
    )
