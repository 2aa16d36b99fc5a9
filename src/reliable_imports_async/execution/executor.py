"""One item in one transaction: ready, begin, process, settle, commit; or undo and fail."""

import inspect
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import anyio
import asyncpg
from anyio import to_thread

from ..cancellation import ItemTimeout, TimeLimit, must_propagate, undisturbed
from ..database.guard import Connection, GuardedConnection, ReadingConnection
from ..database.pool import Database
from ..database.server_errors import annotate
from ..errors import ConfigurationError, TransactionEnded
from ..failures import Action, Judgement, describe, judge, sound
from ..log_buffer import LogBuffer, LogLine
from ..models import ImportBatch, ImportBatchItem, ItemStatus
from ..outcomes import (
    Completed,
    Deferred,
    Failed,
    Failure,
    FailureKind,
    NotCommitted,
    Outcome,
    Postponed,
    Skip,
)
from ..processors.context import ImportContext
from ..processors.keys import remembering, skips_unchanged
from ..processors.processor import BaseProcessor, as_outcome, as_outcomes, is_declared, is_set_wise
from ..processors.thresholds import FailureLimits
from ..processors.upsert import Upsert, declared_upsert
from ..settings import Settings
from ..store import settlements
from ..store.catalog import Catalog
from .key_order import KeyLearnt, Ordering
from .prepare import NotReady, Prepared, make_ready
from .session import Outage, Session
from .settler import (
    FenceLost,
    Rescheduled,
    Settled,
    Settler,
    Verdict,
    defers,
    is_fence_lost,
    undone,
)


class Invoker:
    """Calls what a processor has for its items: `process_item`, `process_items` or its declaration.

    Args:
        item_timeout: Seconds that a call may take.
    """

    def __init__(self, processor: BaseProcessor[Any], item_timeout: float) -> None:
        self._processor = processor
        self._item_timeout = item_timeout
        self._set_wise = is_set_wise(type(processor))
        self._declared = is_declared(type(processor))
        self._upsert: Upsert | None = None

    async def check_declaration(self, database: Database) -> str | None:
        """Why items cannot be upserted as the processor declares; None: they can, or need not."""
        if self._declared:
            try:
                async with database.connection(shared=True) as conn:
                    if not database.pooled:  # it may say where the table is, or who we are
                        await self._processor.on_connection(conn)
                    self._upsert = await declared_upsert(conn, self._processor)
            except ConfigurationError as exc:
                return str(exc)
        return None

    async def one(
        self, item: ImportBatchItem[Any], ctx: ImportContext, limit: TimeLimit
    ) -> Completed | Skip:
        """Process one item.

        Raises:
            ItemTimeout: It took too long.
        """
        if self._set_wise:
            return (await self.several([item], ctx, limit))[0]
        work = self._processor.process_item(item, ctx)
        result = await limit.run(work, self._item_timeout)
        if item.is_large:  # what it returns may be as large
            return await to_thread.run_sync(as_outcome, result)
        return as_outcome(result)

    async def several(
        self, items: Sequence[ImportBatchItem[Any]], ctx: ImportContext, limit: TimeLimit
    ) -> list[Completed | Skip]:
        """Process many items at once.

        Raises:
            ItemTimeout: They took too long together.
        """
        write = self._processor.process_items
        if self._declared:
            if self._upsert is None:
                conn = ctx.connection._open()  # noqa: SLF001
                self._upsert = await declared_upsert(conn, self._processor)
            write = self._upsert.write
        results = await limit.run(write(items, ctx), self._item_timeout)
        return as_outcomes(results, len(items))


REPEATS = 5
CONNECTION_HINT = (
    "the server, or something in between, ended the session each time this item ran: a limit such "
    "as idle_in_transaction_session_timeout or transaction_timeout that its code sets, a crash, or "
    "pg_terminate_backend. The server's log names the reason."
)
CONFLICT_RETRIES = 5
LONGEST_CONFLICT_WAIT = 5.0


@dataclass(frozen=True, slots=True)
class Refused:
    """PostgreSQL refused a COMMIT, such as for a deferred constraint: all of it is rolled back."""

    cause: BaseException
    judgement: Judgement


class _FenceLost(Exception):
    """The settle statement met no pending row of this try."""


class _Conflict(Exception):
    """Another transaction got in the way; the same item again."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Executor:
    """Executes items of one batch; shared by all its slots.

    Attributes:
        batch, processor, database, settings: What it was made with.
        calls: Calls the processor's code for items.
        streak: Counts the failures in a row.
        settler: Stores what does not commit with the item's own transaction.
        item_timeout: Seconds for validating and preparing, and again for processing, an item.
        dry_run: What contexts say about it.
        ordering: Which keys items have, that orders them.
        remembering: Where contents are remembered by their keys; None: nowhere.
        conflicted: The numbers of items that others have kept from committing, again and again.
        skipping: Where to look for what has not changed; None: everything is processed.
    """

    def __init__(
        self,
        batch: ImportBatch,
        processor: BaseProcessor[Any],
        database: Database,
        settings: Settings,
        *,
        shared: Any,
        streak: FailureLimits,
    ) -> None:
        self.settler = Settler(database, settings, streak)
        self.streak = streak
        self.batch = batch
        self.processor = processor
        self.database = database
        self.settings = settings
        self._shared = shared
        self._catalog = Catalog()  # one for all items
        self.dry_run = False
        self.conflicted: set[int] = set()
        self.item_timeout = processor.item_timeout or settings.item_timeout
        self.remembering = remembering(processor, batch.batch_type)
        self.skipping = self.remembering if skips_unchanged(batch.options) else None
        self.ordering = Ordering(processor, batch)
        self.calls = Invoker(processor, self.item_timeout)
        self.always_ready = processor.model() is None and not (
            processor.overrides("validate_item") or processor.overrides("prepare_item")
        )

    @property
    def waits(self) -> bool:
        """Whether an item may have to wait before its transaction, so that it is prepared apart."""
        return any(
            self.processor.overrides(hook)
            and inspect.iscoroutinefunction(getattr(self.processor, hook))
            for hook in ("validate_item", "prepare_item")
        )

    @property
    def preparers(self) -> int:
        """How many items to prepare at once, apart from the slots."""
        if not self.waits:
            return 0
        if self.processor.overrides("prepare_item"):
            return self.processor.prepare_concurrency
        return self.database.concurrency

    def session(self, more: Callable[[], bool]) -> Session:
        """A new session for a slot; `more` says whether a further item is waiting for it."""
        timeout = self.settings.commit_timeout
        return Session(self.database, self.processor, self.item_timeout, more, timeout)

    async def prepare(
        self, item: ImportBatchItem[Any], read: ImportBatchItem[Any] | None = None
    ) -> Prepared:
        """Validate and prepare an item, with no connection held.

        Args:
            read: The item with its data, where somebody has needed that before.

        Raises:
            Outage: The server failed under a query of validate_item or prepare_item.
        """
        prepared = self.as_it_is(item)
        if not self.always_ready:
            started = perf_counter()
            ready = await self._ready(item, prepared.ctx, read)
            prepared.is_ready(ready, perf_counter() - started)
        return prepared

    def as_it_is(self, item: ImportBatchItem[Any]) -> Prepared:
        """An item for which there is nothing to do before its transaction."""
        return Prepared(item, self._context)

    def _context(self, item: ImportBatchItem[Any]) -> ImportContext:
        ctx = ImportContext(
            self.batch,
            None,
            item=item,
            shared=self._shared,
            new_log=self.new_log,
            catalog=self._catalog,
        )
        ctx.dry_run = self.dry_run
        ctx._upserting = self.ordering.upserting_one  # noqa: SLF001
        return ctx

    def new_log(self) -> LogBuffer:
        """An empty log buffer."""
        return LogBuffer(self.settings.log_level, self.database.redact)

    async def execute(self, prepared: Prepared, session: Session) -> Verdict:
        """Take a prepared item to its outcome.

        Raises:
            Outage: The server failed; the outcome is unknown until somebody asks under the lock.
        """
        started = perf_counter() - prepared.seconds
        try:
            outcome = await self._outcome(prepared, session)
        except _FenceLost:
            return FenceLost()
        except KeyLearnt:
            return Rescheduled()
        finally:
            prepared.leave()
        match outcome:
            case Completed():
                return Settled(ItemStatus.COMPLETED)
            case Skip():
                return Settled(ItemStatus.SKIPPED)
            case _:
                seconds = perf_counter() - started
                item, log = prepared.item, prepared.log
                return await self.settler.settle(item, outcome, log, session, seconds)

    async def give_up(
        self, item: ImportBatchItem[Any], failure: Failure, session: Session
    ) -> Verdict:
        """Fail an item under which connections keep breaking while the server is well."""
        failure = replace(failure, hint=failure.hint or CONNECTION_HINT)
        return await self.settler.settle(item, Failed(failure), self.new_log(), session, 0.0)

    async def _outcome(self, prepared: Prepared, session: Session) -> Outcome:
        """Transact; repeated in place while other transactions are in the way."""
        ready = prepared.ready
        if not isinstance(ready, ImportBatchItem):
            return ready
        repeats = 0
        while True:
            prepared.rewind()
            try:
                return await self._transact(ready, prepared, session)
            except _Conflict as conflict:
                if repeats == REPEATS:
                    return self._after_conflicts(ready, conflict.failure)
            repeats += 1
            await anyio.sleep(random.uniform(0, 0.05))  # noqa: S311 - jitter

    def _after_conflicts(self, item: ImportBatchItem[Any], failure: Failure) -> NotCommitted:
        """A stored retry, for which no other item runs here; failed after too many of them."""
        if item.attempts >= CONFLICT_RETRIES and item.item_number in self.conflicted:
            return Failed(failure)
        self.conflicted.add(item.item_number)
        longest = min(LONGEST_CONFLICT_WAIT, 0.25 * 2.0**item.attempts)
        return Postponed(random.uniform(longest / 2, longest), failure)  # noqa: S311 - jitter

    async def _ready(
        self,
        item: ImportBatchItem[Any],
        ctx: ImportContext,
        read: ImportBatchItem[Any] | None,
    ) -> ImportBatchItem[Any] | NotCommitted:
        """The item with its data and what was prepared, or why it has none."""
        reader = ReadingConnection(self.database.reading)
        ctx._enter(reader, item)  # noqa: SLF001
        try:
            with anyio.move_on_after(self.item_timeout):
                return await make_ready(self.processor, item, ctx, read)
            raise NotReady(ItemTimeout(self.item_timeout), FailureKind.TIMEOUT)
        except BaseException as exc:  # noqa: BLE001 - judged; what is not ours is raised again
            return self._not_ready(exc, item, reader)
        finally:
            reader.close()

    def _not_ready(
        self, exc: BaseException, item: ImportBatchItem[Any], reader: ReadingConnection
    ) -> NotCommitted:
        """What an exception before the transaction means."""
        cause, kind = (
            (exc.cause, exc.kind) if isinstance(exc, NotReady) else (exc, FailureKind.EXCEPTION)
        )
        cause = sound(cause)
        if must_propagate(cause):
            raise exc
        own = tuple(reader.errors)
        judgement = self.judge(cause, own=own, broken=reader.lost, default=kind)
        if judgement.action is Action.WAIT:
            raise Outage(judgement.failure, lost=reader.lost, by_item=True) from cause
        return undone(self.processor, item, cause, judgement.failure)

    async def _transact(
        self, item: ImportBatchItem[Any], prepared: Prepared, session: Session
    ) -> Outcome:
        """The item's transaction, from BEGIN to COMMIT."""
        conn = await session.begin()
        guarded, ctx = GuardedConnection(conn), prepared.ctx
        ctx._enter(guarded, item)  # noqa: SLF001
        try:
            if self.database.pooled:
                await self.database.configure_transaction(conn, self.item_timeout)
            outcome = await self.calls.one(item, ctx, session.limit)
            guarded.close()
            if guarded.trace or guarded.calls:
                session.note(guarded)
            if not conn.is_in_transaction():
                raise TransactionEnded
            if self.ordering.version != prepared.ordered:
                raise KeyLearnt
            plain = not (guarded.changed_transaction or guarded.trace)
            chain = plain and session.more()
            at_once = None
            keyed = self.remembering is not None and item.item_key is not None
            if chain and not keyed and not prepared.lines:
                at_once = settlements.settling_text(item, outcome)
            else:
                await self._settle(conn, item, outcome, prepared.lines)
        except BaseException as raised:  # noqa: BLE001 - judged; what is not ours is raised again
            exc = sound(raised)
            own = await guarded.own_errors(exc)
            guarded.close()
            self.database.note_trace(conn, guarded.trace)
            if self.ordering.version != prepared.ordered and not must_propagate(exc):
                exc = KeyLearnt()
            return await self._undo(exc, item, own, session, changed=guarded.changed_transaction)
        return await self._commit(item, outcome, session, at_once, chain=chain)

    def set_context(
        self, items: Sequence[ImportBatchItem[Any]], guarded: GuardedConnection, log: LogBuffer
    ) -> ImportContext:
        """The context of a set of items."""
        ctx = ImportContext(
            self.batch,
            guarded,
            shared=self._shared,
            log=log,
            of_items=True,
            catalog=self._catalog,
        )
        ordering = self.ordering
        ctx._upserting = lambda _, key, values: ordering.upserting(items, key, values)  # noqa: SLF001
        return ctx

    async def _settle(
        self,
        conn: Connection,
        item: ImportBatchItem[Any],
        outcome: Completed | Skip,
        lines: Sequence[LogLine],
    ) -> None:
        """The last statement before COMMIT, fenced: exactly one row, or the try is rolled back."""
        timeout = self.settings.commit_timeout
        try:
            settled = await settlements.settle_item(
                conn, item, outcome, lines, remembering=self.remembering, timeout=timeout
            )
        except TimeoutError as exc:
            raise self._outage(exc) from exc
        if not settled:
            raise _FenceLost

    async def _undo(
        self,
        exc: BaseException,
        item: ImportBatchItem[Any],
        own: tuple[BaseException, ...],
        session: Session,
        *,
        changed: bool,
    ) -> NotCommitted:
        """Roll back, and decide what the exception means."""
        plain = undisturbed((*own, exc))
        undo = session.rollback if changed else session.undo
        lost = session.lost or (plain and not await undo())
        if lost or not plain:
            await session.discard()
        if must_propagate(exc) or isinstance(exc, _FenceLost | KeyLearnt | Outage):
            raise exc
        if not lost and defers(self.processor, item, exc):
            return Deferred()  # at once: it may happen to most items, and nothing is stored
        judgement = self.judge(exc, own=own, broken=lost)
        if judgement.action is Action.WAIT:
            await session.discard()
            raise Outage(judgement.failure, lost=lost, by_item=True) from exc
        if judgement.action is Action.REPEAT:
            raise _Conflict(judgement.failure) from exc
        return undone(self.processor, item, exc, judgement.failure)

    async def _commit(
        self,
        item: ImportBatchItem[Any],
        outcome: Completed | Skip,
        session: Session,
        at_once: str | None,
        *,
        chain: bool,
    ) -> Outcome:
        """COMMIT; a refusal is the item's failure, or a conflict."""
        refused = await self.commit(session, chain=chain, first=at_once)
        if refused is None:
            return outcome
        judgement = refused.judgement
        if judgement.action is Action.REPEAT:
            raise _Conflict(judgement.failure) from refused.cause
        return undone(self.processor, item, refused.cause, judgement.failure)

    async def commit(
        self, session: Session, *, chain: bool, first: str | None = None
    ) -> Refused | None:
        """COMMIT, shielded and bounded; None when it is committed.

        Args:
            first: A settling statement that is sent in the same message.

        Raises:
            Outage: There was no answer: the outcome is in doubt.
        """
        try:
            await session.limit.shielded(session.commit(chain=chain, first=first))
        except BaseException as exc:
            judgement = self.judge(exc, own=(exc,), broken=session.lost)
            refused = isinstance(exc, asyncpg.PostgresError | TransactionEnded) and not session.lost
            if refused and judgement.action is not Action.WAIT:
                if not await session.rollback():
                    await session.discard()
                if is_fence_lost(exc):
                    raise _FenceLost from exc
                return Refused(exc, judgement)
            await session.discard()
            if not isinstance(exc, Exception):
                raise
            raise self._outage(exc) from exc
        return None

    def judge(
        self,
        exc: BaseException,
        *,
        own: tuple[BaseException, ...] = (),
        broken: bool = False,
        default: FailureKind = FailureKind.EXCEPTION,
    ) -> Judgement:
        """What an exception means, see `judgement.judge`."""
        if isinstance(exc, ItemTimeout):
            default = FailureKind.TIMEOUT
            broken = False
        annotate(exc)
        return judge(exc, own=own, broken=broken, default=default, redact=self.database.redact)

    def _outage(self, exc: Exception) -> Outage:
        """One of our own statements was not answered."""
        kind = FailureKind.CONNECTION_LOST
        return Outage(describe(exc, kind=kind, redact=self.database.redact), lost=True)
