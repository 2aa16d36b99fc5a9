"""How a batch starts and ends: its hooks, in the transactions that change its status."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import anyio
import asyncpg
import stamina
from pydantic_core import to_json

from . import only_one
from .context import ImportContext, LogBuffer
from .control import LONGEST_WAIT
from .database import Database
from .errors import AnotherBatchRuns, BatchNotFound, Rejected, TransactionEnded
from .guarded import Connection, GuardedConnection, ReadingConnection, is_lost
from .interruptions import must_propagate
from .item_keys import ItemKeys
from .judgement import Action, describe, is_outage, judge
from .models import BatchStatus, BatchSummary, ImportBatch, LogLevel
from .outcomes import Failure, FailureKind
from .processors import BaseProcessor
from .safe_text import storable_json
from .settings import Settings
from .store import batches, logs, ranges, summaries
from .totals import disagreements

logger = logging.getLogger("reliable_imports_async")

NOTIFICATION_SECONDS = 60.0

Hook = Callable[[ImportContext], Awaitable[None]]


class _HookFailed(Exception):
    """A batch hook raised; carries what the batch will say."""


class _Again(Exception):
    """The transaction of a hook must be repeated: an outage or a conflict."""


class Lifecycle:
    """Starts and finishes batches of one processor."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings

    async def start(self, batch_id: UUID, processor: BaseProcessor[Any]) -> ImportBatch:
        """Run on_batch_start once, in the transaction that starts the batch; return the batch.

        A lost answer to COMMIT is no harm: the repetition waits for the row lock and looks.

        Raises:
            AnotherBatchRuns: Only one of its type may run, and it is another's turn.
        """
        other: UUID | None = None

        async def transaction(conn: Connection) -> ImportBatch:
            nonlocal other
            batch = await self._lock(conn, batch_id)
            other = await only_one.other(conn, batch, processor)
            if other is not None:
                return batch
            waiting = batch.status in (BatchStatus.PENDING, BatchStatus.FAILED)
            if batch.started_at is not None or not waiting:
                return batch
            keys = ItemKeys.of(processor)
            if keys is not None and batch.parent_batch_id is not None:
                await keys.renew(conn, batch)
            changes = await self._hook(conn, batch, processor.on_batch_start)
            if not await batches.mark_started(conn, batch_id, changes):
                raise _HookFailed("the batch changed its status while it was being started")
            return await self._lock(conn, batch_id)

        batch = await self._transact(batch_id, transaction)
        if other is not None:
            raise AnotherBatchRuns(batch.batch_type, other)
        return batch

    async def finish(self, batch_id: UUID, processor: BaseProcessor[Any]) -> None:
        """Run on_batch_complete in the transaction that finishes the batch, by one winner.

        Called after the last range has committed; whether it was the last is asked here, under
        the batch's row lock. Inside the range's own transaction two workers would each see the
        other's range unfinished, and nobody would finish the batch.
        """

        async def transaction(conn: Connection) -> ImportBatch:
            batch = await self._lock(conn, batch_id)
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
            wrong = await disagreements(conn, batch_id, batch.options, summary)
            if wrong := wrong or await self._check(conn, batch, processor):
                summary = replace(summary, status=BatchStatus.FAILED, error=wrong)
                await logs.insert(conn, batch_id, LogLevel.ERROR, wrong, {})
            changes = await self._hook(
                conn, batch, lambda ctx: processor.on_batch_complete(summary, ctx)
            )
            notify = processor.overrides("after_batch_complete")
            await batches.mark_finished(conn, summary, summary.status, changes, notify=notify)
            return batch

        await self._transact(batch_id, transaction)

    async def notify(
        self, batch: ImportBatch, summary: BatchSummary, processor: BaseProcessor[Any]
    ) -> None:
        """Run after_batch_complete, unless somebody else does or has. An error in it is logged."""
        if not processor.overrides("after_batch_complete"):
            return
        async with self._database.connection() as conn:
            if not await batches.claim_notification(conn, batch.id, NOTIFICATION_SECONDS):
                return
        log = LogBuffer(self._settings.log_level, self._database.redact)
        ctx = ImportContext(batch, ReadingConnection(self._database.reading), log=log)
        try:
            await processor.after_batch_complete(summary, ctx)
        except BaseException as exc:  # the batch is finished, whatever this hook does
            if must_propagate(exc):
                raise
            failure = describe(exc, kind=FailureKind.EXCEPTION, redact=self._database.redact)
            log.add(LogLevel.ERROR, f"after_batch_complete failed: {failure.message}", {})
            logger.error(  # noqa: TRY400 - a traceback could hold what is masked here
                "after_batch_complete of batch %s failed: %s", batch.id, failure.message
            )
        async with self._database.connection() as conn:
            await logs.insert_lines(conn, batch.id, log.finished())
            await batches.mark_notified(conn, batch.id)

    async def _check(
        self, conn: Connection, batch: ImportBatch, processor: BaseProcessor[Any]
    ) -> str | None:
        """What the processor's own check says against the batch; its effects go, if it objects."""
        if not processor.overrides("check"):
            return None

        async def check(ctx: ImportContext) -> None:
            if await processor.check(ctx) is False:
                raise Rejected("check returned False.")

        savepoint = conn.transaction()
        await savepoint.start()
        try:
            await self._hook(conn, batch, check)
        except _HookFailed as exc:
            await savepoint.rollback()
            return f"check failed: {exc}"
        await savepoint.commit()
        return None

    async def _lock(self, conn: Connection, batch_id: UUID) -> ImportBatch:
        batch = await batches.lock(conn, batch_id)
        if batch is None:
            raise BatchNotFound(batch_id)
        return batch

    async def _hook(self, conn: Connection, batch: ImportBatch, hook: Hook) -> str:
        """Run a hook inside the open transaction; its metadata changes as JSON text."""
        guarded = GuardedConnection(conn)
        log = LogBuffer(self._settings.log_level, self._database.redact)
        ctx = ImportContext(batch, guarded, log=log)
        try:
            await hook(ctx)
            if not conn.is_in_transaction():
                raise TransactionEnded
            self._database.refuse_trace(guarded.trace)
            changes = storable_json(to_json(dict(ctx.changes), inf_nan_mode="strings").decode())
        except BaseException as exc:
            if must_propagate(exc):
                raise
            own = tuple(guarded.errors)
            verdict = judge(exc, own=own, broken=is_lost(conn), redact=self._database.redact)
            if verdict.action is not Action.FAIL:
                raise _Again from exc
            raise _HookFailed(_reason(verdict.failure)) from exc
        finally:
            guarded.close()
            self._database.note_trace(conn, guarded.left_behind)
        await logs.insert_lines(conn, batch.id, log.finished())
        return changes

    async def _transact(
        self, batch_id: UUID, transaction: Callable[[Connection], Awaitable[ImportBatch]]
    ) -> ImportBatch:
        """Run one transaction about a batch, again after outages and conflicts."""
        async for attempt in stamina.retry_context(
            on=_repeatable, attempts=None, timeout=None, wait_initial=0.1, wait_max=LONGEST_WAIT
        ):
            with attempt:
                try:
                    async with self._database.connection(seconds=None) as conn, conn.transaction():
                        return await transaction(conn)
                except _HookFailed as exc:
                    return await self._hook_failed(batch_id, str(exc))
                except asyncpg.PostgresError as exc:  # swallowed before, or deferred to COMMIT
                    if is_outage(exc):
                        raise
                    failure = judge(exc, own=(exc,), redact=self._database.redact).failure
                    return await self._hook_failed(batch_id, _reason(failure))
        raise AssertionError  # pragma: no cover - the loop above never ends by itself

    async def _hook_failed(self, batch_id: UUID, error: str) -> ImportBatch:
        logger.error("a hook of batch %s failed: %s", batch_id, error)
        async with self._database.connection() as conn:
            await batches.mark_hook_failed(conn, batch_id, error)
            await logs.insert(conn, batch_id, LogLevel.ERROR, "batch hook failed", {"error": error})
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


def _reason(failure: Failure) -> str:
    """What a batch says about a hook that failed."""
    return f"{failure.type}: {failure.message}"


def _repeatable(exc: Exception) -> bool:
    return isinstance(exc, _Again) or is_outage(exc)


async def in_child_task(function: Callable[[], Awaitable[Any]]) -> Any:
    """Run something in a child task of its own, and return what it returns.

    A native cancellation of the caller, such as asyncio.wait_for's, pierces shielded scopes in
    the caller's own task; a child only ever meets the cancellation of its scope.
    """
    results: list[Any] = []
    errors: list[Exception] = []

    async def child() -> None:
        try:
            results.append(await function())
        except Exception as exc:  # noqa: BLE001 - raised again below, outside of the group
            errors.append(exc)

    async with anyio.create_task_group() as group:
        group.start_soon(child)
    if errors:
        raise _only(errors[0])
    return results[0]


def _only(exc: Exception) -> Exception:
    """The exception inside groups of one."""
    while isinstance(exc, ExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc
