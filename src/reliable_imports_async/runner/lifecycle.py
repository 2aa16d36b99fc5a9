"""Starts and finishes a batch, with its hooks in the transactions that change its status."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from uuid import UUID

import anyio
import asyncpg
import stamina

from .. import exact_json
from ..cancellation import hook_seconds, must_propagate
from ..database.guard import Connection, GuardedConnection, drop, is_lost
from ..database.pool import RELEASE_SECONDS, Database
from ..errors import BatchNotFound, Rejected, TransactionEnded
from ..failures import classify, is_outage
from ..loading.options import unchecked_disagreements
from ..log_buffer import LogBuffer
from ..models import BatchStatus, BatchSummary, ImportBatch, LogLevel
from ..outcomes import Failed, Failure
from ..processors.context import ImportContext
from ..processors.keys import ItemKeys
from ..processors.processor import BaseProcessor
from ..sanitize import storable_json
from ..settings import Settings
from ..store import batches, logs, ranges, summaries
from . import exclusive
from .leases import LONGEST_WAIT
from .outbox import Outbox

logger = logging.getLogger("reliable_imports_async")

R = TypeVar("R")

LOCK_SECONDS = (
    2.0  # then it is tried again: the process that holds the lock may be frozen in a hook
)
SERVER_GRACE = 5.0  # the library decides before the server does, wherever it can
HOOK_TRIES = 10  # after a conflict, or an outage that does not break the connection

Hook = Callable[[ImportContext], Awaitable[None]]
MarkFailed = Callable[[Connection, UUID, str], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Start:
    """The result of trying to start a batch.

    Attributes:
        batch: The batch as it is now; started, unless one of the following is in its way.
        held: No item may run before its endpoint's after_create_batch has.
        running_id: Another batch of the type, of which only one may run.
    """

    batch: ImportBatch
    held: bool = False
    running_id: UUID | None = None


class Lifecycle:
    """Starts and finishes batches of one processor."""

    def __init__(self, database: Database, settings: Settings, outbox: Outbox) -> None:
        self._database = database
        self._settings = settings
        self._outbox = outbox

    async def start(self, batch_id: UUID, processor: BaseProcessor[Any]) -> Start:
        """Run on_batch_start once, in the transaction that starts the batch.

        A lost answer to COMMIT does no harm: the repetition waits for the row lock and looks.
        """

        async def failed(error: str) -> Start:
            return Start(await self._mark_failed(batch_id, error, batches.mark_start_failed))

        return await self._transact(
            processor, lambda tx: self._start(tx, batch_id, processor), failed
        )

    async def _start(
        self, tx: "_BatchTransaction", batch_id: UUID, processor: BaseProcessor[Any]
    ) -> Start:
        batch = await tx.lock(batch_id)
        if batch.started_at is None and await self._outbox.is_held(tx.conn, batch):
            return Start(batch, held=True)
        running_id = await exclusive.other(tx.conn, batch, processor)
        if running_id is not None:
            return Start(batch, running_id=running_id)
        if batch.started_at is not None:
            if await batches.mark_unfailed(tx.conn, batch_id):
                batch = replace(batch, status=BatchStatus.PROCESSING, error=None)
            return Start(batch)
        if batch.status not in (BatchStatus.PENDING, BatchStatus.FAILED):
            return Start(batch)
        keys = ItemKeys.of(processor)
        if keys is not None and batch.parent_batch_id is not None:
            await keys.renew(tx.conn, batch)
        changes = await self._hook(tx, batch, processor, "on_batch_start")
        started = await batches.mark_started(tx.conn, batch, changes)
        if started is None:
            raise _HookFailed("the batch changed its status while it was being started")
        return Start(started)

    async def finish(
        self, batch_id: UUID, processor: BaseProcessor[Any]
    ) -> tuple[ImportBatch, BatchSummary]:
        """Run on_batch_complete in the transaction that finishes the batch, by one winner.

        Called after the last range has committed; whether it was the last is checked here, under
        the batch's row lock. Inside the range's own transaction two workers would each see the
        other's range unfinished, and neither would finish the batch.

        Returns:
            The batch as it is now, finished or not, and its summary.
        """

        async def failed(error: str) -> tuple[ImportBatch, BatchSummary]:
            batch = await self._mark_failed(batch_id, error, batches.mark_finish_failed)
            async with self._database.connection() as conn:
                return batch, await _summary(conn, batch_id)

        return await self._transact(
            processor, lambda tx: self._finish(tx, batch_id, processor), failed
        )

    async def _finish(
        self, tx: "_BatchTransaction", batch_id: UUID, processor: BaseProcessor[Any]
    ) -> tuple[ImportBatch, BatchSummary]:
        conn = tx.conn
        batch = await tx.lock(batch_id)
        summary = await _summary(conn, batch_id)
        ending = batch.status in (BatchStatus.PROCESSING, BatchStatus.FAILED)
        if batch.finished_at is not None or batch.started_at is None or not ending:
            return batch, summary
        if await ranges.any_unfinished(conn, batch_id):
            return batch, summary
        summary = replace(
            summary, status=final_status(summary), finished_at=summary.read_at, error=None
        )
        wrong = await unchecked_disagreements(conn, batch)
        if wrong := wrong or await self._check(tx, batch, processor):
            summary = replace(summary, status=BatchStatus.FAILED, error=wrong)
            await logs.insert(conn, batch_id, LogLevel.ERROR, wrong, {})
        changes = await self._hook(tx, batch, processor, "on_batch_complete", summary)
        await self._outbox.add_finished(conn, batch)
        finished = await batches.mark_finished(conn, batch, summary, changes)
        if finished is None:
            raise _HookFailed("the batch changed its status while it was being finished")
        return finished, replace(summary, finished_at=finished.finished_at)

    async def _check(
        self, tx: "_BatchTransaction", batch: ImportBatch, processor: BaseProcessor[Any]
    ) -> str | None:
        """Why the processor's own check fails, if it does; then its effects are rolled back."""
        if not processor.overrides("check"):
            return None
        savepoint = tx.conn.transaction()
        await savepoint.start()
        try:
            await self._hook(tx, batch, processor, "check")
        except _HookFailed as exc:
            if exc.late or exc.again:
                raise
            await savepoint.rollback()
            return f"check failed: {exc}"
        await savepoint.commit()
        return None

    async def _hook(
        self,
        tx: "_BatchTransaction",
        batch: ImportBatch,
        processor: BaseProcessor[Any],
        name: str,
        *args: BatchSummary,
    ) -> str:
        """Run a hook inside the open transaction; return its metadata changes as JSON text."""
        if not processor.overrides(name):
            return "{}"
        await tx.bound(tx.seconds + SERVER_GRACE)
        log = LogBuffer(self._settings.log_level, self._database.redact)
        guard = GuardedConnection(tx.conn)
        ctx = ImportContext(batch, guard, log=log)
        tx.hooked = True
        try:
            with anyio.move_on_after(tx.seconds) as scope:
                hook = _hook_of(processor, name, args)
                changes = await self._called(tx.conn, guard, ctx, hook)
            if scope.cancel_called:
                reason = f"HookTimeout: {name} took longer than hook_timeout ({tx.seconds:g} s)"
                raise _HookFailed(reason, late=True)
        finally:
            guard.close()
            self._database.note_trace(tx.conn, guard.left_behind)
        await tx.bound(tx.seconds + SERVER_GRACE)
        await logs.insert_lines(tx.conn, batch.id, log.finished())
        return changes

    async def _called(
        self,
        conn: Connection,
        guard: GuardedConnection,
        ctx: ImportContext,
        hook: Hook,
    ) -> str:
        """Call a hook, and classify its exception."""
        try:
            await hook(ctx)
            if not conn.is_in_transaction():
                raise TransactionEnded
            self._database.refuse_trace(guard.trace)
            changes = exact_json.write(dict(ctx.changes), inf_nan_mode="strings")
            return storable_json(changes.decode())
        except BaseException as exc:
            if must_propagate(exc):
                raise
            own, lost = tuple(guard.errors), is_lost(conn)
            meaning = classify(exc, own=own, broken=lost, redact=self._database.redact)
            if not isinstance(meaning, Failed):
                raise _HookFailed(_reason(meaning.failure), again=True, lost=lost) from exc
            raise _HookFailed(_reason(meaning.failure)) from exc

    async def _transact(
        self,
        processor: BaseProcessor[Any],
        transaction: "Callable[[_BatchTransaction], Awaitable[R]]",
        failed: Callable[[str], Awaitable[R]],
    ) -> R:
        """Run one transaction about a batch, again after outages and conflicts.

        Args:
            failed: Stores the error of a hook that has failed for good.
        """
        seconds, tries = hook_seconds(processor, self._settings.item_timeout), 0
        async for attempt in stamina.retry_context(
            on=_repeatable, attempts=None, timeout=None, wait_initial=0.1, wait_max=LONGEST_WAIT
        ):
            with attempt:
                try:
                    return await self._once(transaction, seconds)
                except _HookFailed as exc:
                    tries += not exc.lost
                    if exc.again and tries < HOOK_TRIES:
                        raise
                    return await failed(str(exc))
        raise AssertionError  # pragma: no cover - the loop above never ends by itself

    async def _once(
        self, transaction: "Callable[[_BatchTransaction], Awaitable[R]]", seconds: float
    ) -> R:
        """Try it once. An error that a hook has caused is the hook's failure."""
        async with self._database.connection(seconds=None, shared=True) as conn:
            tx = _BatchTransaction(conn, seconds)
            own = conn.transaction()
            await own.start()
            try:
                await tx.bound(LOCK_SECONDS)
                result = await transaction(tx)
                await own.commit()
            except BaseException as exc:
                blamed = tx.blames_hook(exc)
                await self._roll_back(conn, own)
                if blamed:
                    failure = classify(exc, own=(exc,), redact=self._database.redact).failure
                    raise _HookFailed(_reason(failure)) from exc
                raise
            return result

    @staticmethod
    async def _roll_back(conn: Connection, own: "asyncpg.transaction.Transaction") -> None:
        """Roll back, or drop the connection if it does not answer."""
        with anyio.move_on_after(RELEASE_SECONDS, shield=True) as scope:
            try:
                await own.rollback()  # after a statement that is being cancelled
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                drop(conn)
        if scope.cancelled_caught:
            drop(conn)

    async def _mark_failed(
        self, batch_id: UUID, error: str, mark_failed: MarkFailed
    ) -> ImportBatch:
        """Mark the batch as failed, unless another process has started or finished it meanwhile.

        Returns:
            The batch as it is now.
        """
        logger.error("a hook of batch %s failed: %s", batch_id, error)
        async with self._database.connection() as conn:
            marked = await mark_failed(conn, batch_id, error)
            details = {"error": error, "kept": not marked}
            await logs.insert(conn, batch_id, LogLevel.ERROR, "batch hook failed", details)
            batch = await batches.get(conn, batch_id)
        if batch is None:
            raise BatchNotFound(batch_id)
        return batch


def final_status(summary: BatchSummary) -> BatchStatus:
    """The status of a batch that has no pending item left."""
    if not summary.failed_items:
        return BatchStatus.COMPLETED
    if summary.completed_items or summary.skipped_items:
        return BatchStatus.PARTIAL
    return BatchStatus.FAILED


def _hook_of(processor: BaseProcessor[Any], name: str, args: tuple[BatchSummary, ...]) -> Hook:
    """A hook of a processor, as a function of a context."""

    async def call(ctx: ImportContext) -> None:
        if await getattr(processor, name)(*args, ctx) is False and name == "check":
            raise Rejected("check returned False.")

    return call


def _reason(failure: Failure) -> str:
    """The error that a batch shows about a hook that failed."""
    return f"{failure.type}: {failure.message}"


async def _summary(conn: Connection, batch_id: UUID) -> BatchSummary:
    summary = await summaries.get(conn, batch_id)
    if summary is None:
        raise BatchNotFound(batch_id)
    return summary


class _BatchTransaction:
    """One transaction about a batch.

    Attributes:
        seconds: How long a hook may take.
        hooked: Whether a hook has run in it; the hook is to blame for later errors.
    """

    def __init__(self, conn: Connection, seconds: float) -> None:
        self.conn = conn
        self.seconds = seconds
        self.hooked = False

    async def lock(self, batch_id: UUID) -> ImportBatch:
        """The batch under its row lock."""
        batch = await batches.lock(self.conn, batch_id)
        if batch is None:
            raise BatchNotFound(batch_id)
        return batch

    async def bound(self, lock_seconds: float) -> None:
        """Bound the statements that follow, whatever limits a hook has set."""
        await batches.bound(
            self.conn, lock_seconds=lock_seconds, seconds=self.seconds + SERVER_GRACE
        )

    def blames_hook(self, exc: BaseException) -> bool:
        """Whether a hook has caused an error of our own statements, or of COMMIT.

        It has not caused a timeout of ours: the limits were set anew behind the hook.
        """
        if not self.hooked or not isinstance(exc, asyncpg.PostgresError) or is_lost(self.conn):
            return False
        spoiled = isinstance(
            exc, asyncpg.InFailedSQLTransactionError | asyncpg.ReadOnlySQLTransactionError
        )
        return spoiled or not (is_outage(exc) or isinstance(exc, asyncpg.QueryCanceledError))


class _HookFailed(Exception):
    """A batch hook raised, with the error that the batch will show.

    Attributes:
        late: Whether it took too long; then its connection may be in the middle of anything.
        again: Whether its transaction is to be repeated: after an outage or a conflict.
        lost: Whether its connection broke.
    """

    def __init__(
        self, reason: str, *, late: bool = False, again: bool = False, lost: bool = False
    ) -> None:
        super().__init__(reason)
        self.late = late
        self.again = again
        self.lost = lost


def _repeatable(exc: Exception) -> bool:
    """Whether nobody is to blame: an outage, a conflict, a timeout of our own statements."""
    if isinstance(exc, _HookFailed):
        return exc.again
    return isinstance(exc, asyncpg.QueryCanceledError) or is_outage(exc)
