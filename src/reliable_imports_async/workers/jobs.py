"""A job: one process's turn at draining a batch, dispatched by PgQueuer."""

import logging
from collections.abc import Awaitable, Callable, Sequence
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
from ..runner.process import Processing
from ..runner.slots import TimeSlice
from ..settings import Settings
from ..store import batches, enqueue
from ..store.enqueue import Place
from ..wording import counted

logger = logging.getLogger("reliable_imports_async")
steps = logging.getLogger("reliable_imports_async.worker")

R = TypeVar("R")

AT_ONCE = 2  # batches that a process drains; the least that PgQueuer allows
TURN_SECONDS = 5.0
ASK_SECONDS = 1.0
PATIENCE_SECONDS = 2.0
PUT_OFF_SECONDS = 5.0  # a job that is given back finds a new worker within this time
LONGEST_BACKOFF = 60.0
REPLACE_SECONDS = 10.0
MOST_TOLD = 1_000
SWEPT_AT_ONCE = 100


class BatchJobs:
    """Runs the jobs that this process takes.

    Args:
        batch_types: Those that this process handles.
        stopping: Says whether this process takes no further jobs and ends its turns.
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
        self._turns: dict[UUID, TimeSlice] = {}
        self._told: dict[UUID, str] = {}  # what was last logged about each batch
        self._scopes: set[anyio.CancelScope] = set()

    async def run(self, job: Job) -> None:
        """Drain the job's batch until it ends, or until the turn is over.

        Raises:
            RetryRequested: The batch is drained here already, or could not be drained.
        """
        place = Place.of(job)
        if self._stopping():
            raise RetryRequested
        if place.batch_id in self._turns:  # another process might help; one drain here is enough
            raise RetryRequested(timedelta(seconds=PUT_OFF_SECONDS))
        turn = self._turns[place.batch_id] = TimeSlice(patience=PATIENCE_SECONDS)
        try:
            await self._take_turn(job, place, turn)
        finally:
            del self._turns[place.batch_id]

    async def help(self) -> None:
        """Drain a batch in which a range waits, if there is one and no job to be taken."""
        if self._stopping() or len(self._turns) >= AT_ONCE:
            return
        batch_id = await self._helpable()
        if batch_id is None or batch_id in self._turns:
            return
        turn = self._turns[batch_id] = TimeSlice(patience=0.0)
        try:
            failed = await self._work(batch_id, turn)
        finally:
            del self._turns[batch_id]
        if failed is not None:
            logger.error("no help for batch %s: %s", batch_id, self._describe(failed))
            await anyio.sleep(PUT_OFF_SECONDS)

    async def sweep(self) -> None:
        """Enqueue batches again that nobody works on although somebody could."""
        async with self._database.connection() as conn:
            for batch_id in await batches.forsaken(conn, self._batch_types, SWEPT_AT_ONCE):
                async with conn.transaction():
                    await enqueue.enqueue(conn, batch_id)

    def end_turns(self) -> None:
        """Let running items settle and hand everything back."""
        for turn in self._turns.values():
            turn.over = True

    def cancel(self) -> None:
        """Roll back what runs and hand everything back."""
        for scope in self._scopes:
            scope.cancel()

    async def _take_turn(self, job: Job, place: Place, turn: TimeSlice) -> None:
        failed = await self._work(place.batch_id, turn)
        if failed is not None:
            self._put_off(job, place, failed)
        if not turn.gone:
            await self._go_on(job, place, turn)

    async def _work(self, batch_id: UUID, turn: TimeSlice) -> Exception | None:
        """Drain a batch for a turn; why it could not be."""
        failed: Exception | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch, turn)
            try:
                await self._tell_start(batch_id)
                await self._drain(batch_id, turn)
            except (BatchNotFound, StateError) as exc:
                turn.gone = True  # purged, paused or cancelled since it was enqueued
                self._tell(batch_id, f"left: {exc.message}")
            except Exception as exc:  # noqa: BLE001 - whatever it is, the batch must not wait for ever
                failed = exc
            group.cancel_scope.cancel()
        return failed

    async def _drain(self, batch_id: UUID, turn: TimeSlice) -> None:
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                self._tell_end(await self._processing.process(batch_id, turn), turn)
            finally:
                self._scopes.discard(scope)
        if scope.cancelled_caught:
            turn.over = True
            self._tell(batch_id, "handed back: running items were rolled back")

    async def _tell_start(self, batch_id: UUID) -> None:
        if batch_id in self._told:  # a further turn at it
            return
        async with self._database.connection() as conn:
            batch = await batches.get(conn, batch_id)
        if batch is not None:
            source = f" from {batch.source_name}" if batch.source_name else ""
            records = counted(batch.total_items, "item")
            self._tell(batch_id, f"taken: {batch.batch_type}, {records}{source}")

    def _tell_end(self, summary: BatchSummary, turn: TimeSlice) -> None:
        if summary.finished_at is not None:
            counts = (
                f"{summary.completed_items:,} completed, {summary.skipped_items:,} skipped, "
                f"{summary.failed_items:,} failed of {counted(summary.total_items, 'item')}"
            )
            self._tell(summary.batch_id, f"finished: {summary.status}, {counts}")
            del self._told[summary.batch_id]
        elif summary.status.settled:
            reason = summary.pause_reason or summary.error
            self._tell(summary.batch_id, f"left: {summary.status}, {reason}")
        elif turn.due_in is not None and summary.started_at is not None:
            waiting = counted(summary.pending_items, "pending item")
            self._tell(summary.batch_id, f"waits: {waiting}, due later")
        elif self._stopping():
            self._tell(summary.batch_id, "handed back to other workers")

    def _tell(self, batch_id: UUID, what: str) -> None:
        """Log what became of a batch, once for as long as it stays so."""
        if self._told.get(batch_id) == what:
            return
        if len(self._told) >= MOST_TOLD:
            self._told.clear()
        self._told[batch_id] = what
        steps.info("batch %s %s", batch_id, what)

    async def _watch(self, turn: TimeSlice) -> None:
        """End the turn when this process stops, or others have waited for long enough."""
        began = anyio.current_time()
        while not turn.over:
            await anyio.sleep(min(ASK_SECONDS, TURN_SECONDS / 4))
            if self._stopping():
                turn.over = True
            elif anyio.current_time() - began >= TURN_SECONDS:
                turn.over = await self._others_wait()

    async def _others_wait(self) -> bool:
        """Whether a job of ours waits that nobody has taken."""
        return await self._ask(self._job_waits) or False

    async def _helpable(self) -> UUID | None:
        """A batch in which a range waits, unless a job does."""

        async def find(conn: Connection) -> UUID | None:
            if await self._job_waits(conn):
                return None
            seconds = self._settings.lease_seconds
            return await batches.helpable(conn, self._batch_types, list(self._turns), seconds)

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

    async def _go_on(self, job: Job, place: Place, turn: TimeSlice) -> None:
        """Put another job in this one's place if the batch has not ended."""
        with anyio.move_on_after(REPLACE_SECONDS, shield=True) as scope:
            async for attempt in stamina.retry_context(
                on=is_outage, attempts=None, timeout=REPLACE_SECONDS, wait_initial=0.1, wait_max=1.0
            ):
                with attempt:
                    async with self._database.connection() as conn:
                        batch = await batches.get(conn, place.batch_id)
                        if batch is not None and _unfinished(batch):
                            seconds = 0.0 if turn.over else turn.due_in or ASK_SECONDS
                            await enqueue.replace(conn, job, batch.batch_type, seconds)
        if scope.cancelled_caught:
            logger.warning("batch %s is left to the sweep", place.batch_id)

    def _put_off(self, job: Job, place: Place, exc: Exception) -> None:
        """A job never fails for good: PgQueuer would delete it, and the batch would wait."""
        seconds = min(LONGEST_BACKOFF, 2.0 ** min(job.attempts, 8))
        logger.error(
            "batch %s could not be drained, again in %g s: %s",
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
