"""How a batch starts and ends: its hooks, in the transactions that change its status."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import anyio
import asyncpg
import stamina

from .. import exact_json
from ..cancellation import hook_seconds, must_propagate
from ..database.guard import Connection, GuardedConnection, drop, is_lost
from ..database.pool import RELEASE_SECONDS, Database
from ..errors import AnotherBatchRuns, BatchNotFound, Rejected, TransactionEnded
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

LOCK_SECONDS = 2.0  # then it is tried again: whoever holds the batch may be frozen in a hook
SERVER_GRACE = 5.0  # the library decides before the server does, wherever it can
HOOK_TRIES = 10  # a conflict or an outage that its own connection does not share

Hook = Callable[[ImportContext], Awaitable[None]]
MarkFailed = Callable[[Connection, UUID, str], Awaitable[bool]]


class _HookFailed(Exception):
    """A batch hook raised; carries what the batch will say.

    Attributes:
        late: Whether it took too long; what its connection is in the middle of, nobody knows.
    """

    def __init__(self, reason: str, *, late: bool = False) -> None:
        super().__init__(reason)
        self.late = late


class BatchHeld(Exception):
    """No item of the batch may run before its endpoint's after_create_batch has."""


class _Again(Exception):
    """The transaction of a hook must be repeated: an outage or a conflict.

    Attributes:
        lost: Whether its connection broke.
    """

    def __init__(self, reason: str, *, lost: bool) -> None:
        super().__init__(reason)
        self.lost = lost


class _Work:
    """One transaction about a batch.

    Attributes:
        hooked: Whether code of the user's has run in it: what fails afterwards is its doing.
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
        """Bound what follows, whatever a hook has set."""
        await batches.bound(
            self.conn, lock_seconds=lock_seconds, seconds=self.seconds + SERVER_GRACE
        )

    def blames_hook(self, exc: BaseException) -> bool:
        """Whether an error of our own statements, or of COMMIT, comes of what a hook has done.

        A timeout of ours does not: the limits were set anew behind the hook.
        """
        if not self.hooked or not isinstance(exc, asyncpg.PostgresError) or is_lost(self.conn):
            return False
        spoiled = isinstance(
            exc, asyncpg.InFailedSQLTransactionError | asyncpg.ReadOnlySQLTransactionError
        )
        return spoiled or not (is_outage(exc) or isinstance(exc, asyncpg.QueryCanceledError))


class Lifecycle:
    """Starts and finishes batches of one processor."""

    def __init__(self, database: Database, settings: Settings, outbox: Outbox) -> None:
        self._database = database
        self._settings = settings
        self._outbox = outbox

    async def start(self, batch_id: UUID, processor: BaseProcessor[Any]) -> ImportBatch:
        """Run on_batch_start once, in the transaction that starts the batch; return the batch.

        A lost answer to COMMIT is no harm: the repetition waits for the row lock and looks.

        Raises:
            AnotherBatchRuns: Only one of its type may run, and it is another's turn.
            BatchHeld: Its endpoint's after_create_batch has not run yet.
        """
        other: UUID | None = None
        held = False

        async def transaction(work: _Work) -> ImportBatch:
            nonlocal other, held
            conn = work.conn
            batch = await work.lock(batch_id)
            held = batch.started_at is None and await self._outbox.is_held(conn, batch)
            if held:
                return batch
            other = await exclusive.other(conn, batch, processor)
            if other is not None:
                return batch
            if batch.started_at is not None:
                joined = await batches.mark_unfailed(conn, batch_id)
                return await work.lock(batch_id) if joined else batch
            if batch.status not in (BatchStatus.PENDING, BatchStatus.FAILED):
                return batch
            keys = ItemKeys.of(processor)
            if keys is not None and batch.parent_batch_id is not None:
                await keys.renew(conn, batch)
            changes = await self._hook(work, batch, processor, "on_batch_start")
            if not await batches.mark_started(conn, batch_id, changes):
                raise _HookFailed("the batch changed its status while it was being started")
            return await work.lock(batch_id)

        batch = await self._transact(batch_id, processor, transaction, batches.mark_start_failed)
        if held:
            raise BatchHeld
        if other is not None:
            raise AnotherBatchRuns(batch.batch_type, other)
        return batch

    async def finish(self, batch_id: UUID, processor: BaseProcessor[Any]) -> None:
        """Run on_batch_complete in the transaction that finishes the batch, by one winner.

        Called after the last range has committed; whether it was the last is asked here, under
        the batch's row lock. Inside the range's own transaction two workers would each see the
        other's range unfinished, and nobody would finish the batch.
        """

        async def transaction(work: _Work) -> ImportBatch:
            conn = work.conn
            batch = await work.lock(batch_id)
            ending = batch.status in (BatchStatus.PROCESSING, BatchStatus.FAILED)
            if batch.finished_at is not None or batch.started_at is None or not ending:
                return batch
            if await ranges.any_unfinished(conn, batch_id):
                return batch
            summary = await summaries.get(conn, batch_id)
            assert summary is not None  # noqa: S101 - its row is locked
            summary = replace(
                summary, status=final_status(summary), finished_at=summary.read_at, error=None
            )
            wrong = await unchecked_disagreements(conn, batch)
            if wrong := wrong or await self._check(work, batch, processor):
                summary = replace(summary, status=BatchStatus.FAILED, error=wrong)
                await logs.insert(conn, batch_id, LogLevel.ERROR, wrong, {})
            changes = await self._hook(work, batch, processor, "on_batch_complete", summary)
            await self._outbox.add_finished(conn, batch)
            if not await batches.mark_finished(conn, summary, summary.status, changes):
                raise _HookFailed("the batch changed its status while it was being finished")
            return batch

        await self._transact(batch_id, processor, transaction, batches.mark_finish_failed)

    async def _check(
        self, work: _Work, batch: ImportBatch, processor: BaseProcessor[Any]
    ) -> str | None:
        """What the processor's own check says against the batch; its effects go, if it objects."""
        if not processor.overrides("check"):
            return None
        savepoint = work.conn.transaction()
        await savepoint.start()
        try:
            await self._hook(work, batch, processor, "check")
        except _HookFailed as exc:
            if exc.late:
                raise
            await savepoint.rollback()
            return f"check failed: {exc}"
        await savepoint.commit()
        return None

    async def _hook(
        self,
        work: _Work,
        batch: ImportBatch,
        processor: BaseProcessor[Any],
        name: str,
        *args: BatchSummary,
    ) -> str:
        """Run a hook inside the open transaction; its metadata changes as JSON text."""
        if not processor.overrides(name):
            return "{}"
        await work.bound(work.seconds + SERVER_GRACE)
        log = LogBuffer(self._settings.log_level, self._database.redact)
        guarded = GuardedConnection(work.conn)
        ctx = ImportContext(batch, guarded, log=log)
        work.hooked = True
        try:
            with anyio.move_on_after(work.seconds) as scope:
                hook = _hook_of(processor, name, args)
                changes = await self._called(work.conn, guarded, ctx, hook)
            if scope.cancel_called:
                reason = f"HookTimeout: {name} took longer than hook_timeout ({work.seconds:g} s)"
                raise _HookFailed(reason, late=True)
        finally:
            guarded.close()
            self._database.note_trace(work.conn, guarded.left_behind)
        await work.bound(work.seconds + SERVER_GRACE)
        await logs.insert_lines(work.conn, batch.id, log.finished())
        return changes

    async def _called(
        self,
        conn: Connection,
        guarded: GuardedConnection,
        ctx: ImportContext,
        hook: Hook,
    ) -> str:
        """Call a hook, and say what its exception means."""
        try:
            await hook(ctx)
            if not conn.is_in_transaction():
                raise TransactionEnded
            self._database.refuse_trace(guarded.trace)
            changes = exact_json.write(dict(ctx.changes), inf_nan_mode="strings")
            return storable_json(changes.decode())
        except BaseException as exc:
            if must_propagate(exc):
                raise
            own, lost = tuple(guarded.errors), is_lost(conn)
            meaning = classify(exc, own=own, broken=lost, redact=self._database.redact)
            if not isinstance(meaning, Failed):
                raise _Again(_reason(meaning.failure), lost=lost) from exc
            raise _HookFailed(_reason(meaning.failure)) from exc

    async def _transact(
        self,
        batch_id: UUID,
        processor: BaseProcessor[Any],
        transaction: Callable[[_Work], Awaitable[ImportBatch]],
        mark_failed: MarkFailed,
    ) -> ImportBatch:
        """Run one transaction about a batch, again after outages and conflicts.

        Args:
            mark_failed: Says that the hook failed, if the batch is still as it was.
        """
        seconds, tries = hook_seconds(processor, self._settings.item_timeout), 0
        async for attempt in stamina.retry_context(
            on=_repeatable, attempts=None, timeout=None, wait_initial=0.1, wait_max=LONGEST_WAIT
        ):
            with attempt:
                try:
                    return await self._once(transaction, seconds)
                except _HookFailed as exc:
                    return await self._hook_failed(batch_id, str(exc), mark_failed)
                except _Again as exc:
                    tries += not exc.lost
                    if tries < HOOK_TRIES:
                        raise
                    return await self._hook_failed(batch_id, str(exc), mark_failed)
        raise AssertionError  # pragma: no cover - the loop above never ends by itself

    async def _once(
        self, transaction: Callable[[_Work], Awaitable[ImportBatch]], seconds: float
    ) -> ImportBatch:
        """One try at it. An error that comes of what a hook did is the hook's failure."""
        async with self._database.connection(seconds=None, shared=True) as conn:
            work = _Work(conn, seconds)
            own = conn.transaction()
            await own.start()
            try:
                await work.bound(LOCK_SECONDS)
                batch = await transaction(work)
                await own.commit()
            except BaseException as exc:
                blamed = work.blames_hook(exc)
                await self._roll_back(conn, own)
                if blamed:
                    failure = classify(exc, own=(exc,), redact=self._database.redact).failure
                    raise _HookFailed(_reason(failure)) from exc
                raise
            return batch

    @staticmethod
    async def _roll_back(conn: Connection, own: "asyncpg.transaction.Transaction") -> None:
        """Roll back, or drop a connection that does not answer."""
        with anyio.move_on_after(RELEASE_SECONDS, shield=True) as scope:
            try:
                await own.rollback()  # after a statement that is being cancelled
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                drop(conn)
        if scope.cancelled_caught:
            drop(conn)

    async def _hook_failed(
        self, batch_id: UUID, error: str, mark_failed: MarkFailed
    ) -> ImportBatch:
        """Say so, unless somebody else has brought the batch further; the batch as it is."""
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
    """A hook of a processor, as something that takes a context."""

    async def call(ctx: ImportContext) -> None:
        if await getattr(processor, name)(*args, ctx) is False and name == "check":
            raise Rejected("check returned False.")

    return call


def _reason(failure: Failure) -> str:
    """What a batch says about a hook that failed."""
    return f"{failure.type}: {failure.message}"


def _repeatable(exc: Exception) -> bool:
    """What is nobody's fault: an outage, a conflict, a timeout of one of our own statements."""
    return isinstance(exc, _Again | asyncpg.QueryCanceledError) or is_outage(exc)
