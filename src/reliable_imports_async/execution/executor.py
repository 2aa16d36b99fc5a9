"""Runs an item in its own transaction: prepare, begin, attempt, settle, commit.

If that fails, the transaction is rolled back, and the settler stores the failure or the retry.
"""

import inspect
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any, Protocol

import anyio
import asyncpg

from ..cancellation import must_propagate
from ..database.guard import Connection, GuardedConnection, ReadingConnection
from ..database.pool import Database
from ..errors import TransactionEnded
from ..failures import classify, outage
from ..log_buffer import LogBuffer, LogLine
from ..models import ImportBatch, ImportBatchItem
from ..outcomes import (
    Completed,
    Conflict,
    Deferred,
    Failed,
    Failure,
    FenceLost,
    NotCommitted,
    Outage,
    Outcome,
    Postponed,
    Rescheduled,
    Skip,
)
from ..processors.context import ImportContext
from ..processors.keys import remembering, skips_unchanged
from ..processors.processor import BaseProcessor
from ..processors.thresholds import FailureLimits
from ..settings import Settings
from ..store import settlements
from ..store.catalog import Catalog
from .attempt import Attempt, Invoker, outcome_of
from .key_order import KeyLearnt, Ordering
from .prepare import Prepared, make_ready, read_into_model
from .session import Session
from .settler import Settler, is_fence_lost

REPEATS = 5
CONNECTION_HINT = (
    "the server, or something in between, ended the session each time this item ran: a limit such "
    "as idle_in_transaction_session_timeout or transaction_timeout that its code sets, a crash, or "
    "pg_terminate_backend. The server's log names the reason."
)
CONFLICT_RETRIES = 5
LONGEST_CONFLICT_WAIT = 5.0


class Contention(Protocol):
    """Learns of conflicts, and adapts how many transactions run at the same time."""

    def conflict(self) -> None:
        """Note that an attempt conflicted with another transaction."""

    async def give_way(self) -> None:
        """Wait, before an attempt is repeated, while more transactions run than should."""


class Executor:
    """Executes items of one batch; shared by all slots of a drain.

    Args:
        shared: What the processor's `resources` yielded.
        limits: Count the failures, and decide when the batch pauses.

    Attributes:
        batch, processor, database, settings, limits: As given.
        invoker: Calls the processor's code for items.
        settler: Stores outcomes that do not commit with the item's own transaction.
        item_timeout: Seconds for validating and preparing an item, and again for processing it.
        dry_run: The value of `ctx.dry_run`.
        ordering: The keys by which items are kept in order.
        remembering: Where contents are remembered by their keys; None: nowhere.
        conflicted: The numbers of items that other transactions keep from committing.
        contention: Learns of conflicts; None: the items run one by one.
        skipping: Where to look for items that have not changed; None: all items are processed.
    """

    def __init__(
        self,
        batch: ImportBatch,
        processor: BaseProcessor[Any],
        database: Database,
        settings: Settings,
        *,
        shared: Any,
        limits: FailureLimits,
    ) -> None:
        self.settler = Settler(database, settings, limits)
        self.limits = limits
        self.batch = batch
        self.processor = processor
        self.database = database
        self.settings = settings
        self._shared = shared
        self._catalog = Catalog()  # shared by all items
        self.dry_run = False
        self.conflicted: set[int] = set()
        self.contention: Contention | None = None
        self.item_timeout = processor.item_timeout or settings.item_timeout
        self.remembering = remembering(processor, batch.batch_type)
        self.skipping = self.remembering if skips_unchanged(batch.options) else None
        self.ordering = Ordering(processor, batch)
        self.invoker = Invoker(processor, self.item_timeout)
        self._new_context = self._context  # bound once, not for each item
        hooks = processor.overrides("validate_item") or processor.overrides("prepare_item")
        self._always_ready = processor.model() is None and not hooks
        self._only_reads = processor.model() is not None and not hooks

    @property
    def waits(self) -> bool:
        """Whether validating or preparing may wait, so that it happens apart from the slots."""
        return any(
            self.processor.overrides(hook)
            and inspect.iscoroutinefunction(getattr(self.processor, hook))
            for hook in ("validate_item", "prepare_item")
        )

    @property
    def preparers(self) -> int:
        """How many items are prepared at once, apart from the slots."""
        if not self.waits:
            return 0
        if self.processor.overrides("prepare_item"):
            return self.processor.prepare_concurrency
        return self.database.concurrency

    def session(self, more: Callable[[], bool]) -> Session:
        """A new session for a slot.

        Args:
            more: Returns whether a further item is waiting for the slot.
        """
        timeout = self.settings.commit_timeout
        return Session(self.database, self.processor, self.item_timeout, more, timeout)

    async def prepare(self, item: ImportBatchItem[Any], *, read: bool = False) -> Prepared:
        """Validate and prepare an item, with no connection held.

        Args:
            read: Whether its model has read it already.

        Raises:
            Outage: The server failed under a query of validate_item or prepare_item.
        """
        prepared = self.as_it_is(item)
        if self.is_ready(read=read):
            return prepared
        if self._only_reads and not item.is_large:
            read_into_model(prepared, self.processor, redact=self.database.redact)
        else:
            await make_ready(
                prepared,
                self.processor,
                ReadingConnection(self.database.reading),
                read=read,
                seconds=self.item_timeout,
                redact=self.database.redact,
            )
        return prepared

    def is_ready(self, *, read: bool) -> bool:
        """Whether an item needs no work before its transaction, once its model has read it."""
        return self._always_ready or (read and self._only_reads)

    def as_it_is(self, item: ImportBatchItem[Any]) -> Prepared:
        """An item that needs no work before its transaction."""
        return Prepared(item, self._new_context)

    async def execute(self, prepared: Prepared, session: Session) -> Outcome:
        """Take a prepared item to its outcome.

        Raises:
            Outage: The server failed; only the item's row, read under its lock, has the outcome.
        """
        started = perf_counter() - prepared.seconds
        try:
            outcome = prepared.refused or await self._processed(prepared, session)
        finally:
            prepared.leave()
        if isinstance(outcome, Failed | Postponed | Deferred):
            item, seconds = prepared.item, perf_counter() - started
            return await self.settler.settle(item, outcome, prepared.log, session, seconds)
        return outcome

    async def give_up(
        self, item: ImportBatchItem[Any], failure: Failure, session: Session
    ) -> Outcome:
        """Fail an item whose connections keep breaking while the server is well."""
        failure = replace(failure, hint=failure.hint or CONNECTION_HINT)
        return await self.settler.settle(item, Failed(failure), self.new_log(), session, 0.0)

    async def _processed(self, prepared: Prepared, session: Session) -> Outcome:
        """Run the item's transaction, again at once after conflicts."""
        outcome = await repeated(
            lambda: self._transact(prepared, session), lambda: self._give_way(session)
        )
        if isinstance(outcome, Conflict):
            return self.after_conflicts(prepared.item, outcome.failure)
        return outcome

    async def _give_way(self, session: Session) -> None:
        """Hold no transaction while other slots go first."""
        if self.contention is not None:
            await session.leave(plain=True)
            await self.contention.give_way()

    def after_conflicts(self, item: ImportBatchItem[Any], failure: Failure) -> NotCommitted:
        """A stored retry, beside which no other item will run; a failure after too many of them."""
        if item.attempts >= CONFLICT_RETRIES and item.item_number in self.conflicted:
            return Failed(failure)
        self.conflicted.add(item.item_number)
        longest = min(LONGEST_CONFLICT_WAIT, 0.25 * 2.0**item.attempts)
        return Postponed(random.uniform(longest / 2, longest), failure)  # noqa: S311 - jitter

    async def _transact(self, prepared: Prepared, session: Session) -> Outcome | Conflict:
        """The item's transaction, from BEGIN to COMMIT."""
        prepared.rewind()
        conn = await session.begin()
        item, ctx = prepared.item, prepared.ctx
        chain, fenced, at_once = False, True, None
        attempt = Attempt(session, conn)
        with attempt as guard:
            ctx._enter(guard, item)  # noqa: SLF001
            if self.database.pooled:
                await self.database.configure_transaction(conn, self.item_timeout)
            outcome = await self.invoker.call(item, ctx, session.limit)
            attempt.finish()
            if self.ordering.version != prepared.ordered:
                raise KeyLearnt
            chain = not (guard.changed_transaction or guard.trace) and session.more()
            if chain:
                at_once = settlements.settling_text(
                    item, outcome, prepared.lines, remembering=self.remembering
                )
            else:
                fenced = await self._settle(conn, item, outcome, prepared.lines)
        if attempt.raised is not None:
            await attempt.conclude(attempt.raised)
            return await self._undo(attempt.raised, attempt, prepared, session)
        if not fenced:
            await self._roll_back(attempt, session)
            return FenceLost()
        refused = await self.commit(session, chain=chain, first=at_once)
        if refused is None:
            return outcome
        if is_fence_lost(refused):
            return FenceLost()
        return self.outcome_of(refused, item, own=(refused,))

    async def _settle(
        self,
        conn: Connection,
        item: ImportBatchItem[Any],
        outcome: Completed | Skip,
        lines: Sequence[LogLine],
    ) -> bool:
        """Send the last statement before COMMIT; False: the fence is lost.

        Raises:
            Outage: The answer did not come in time.
        """
        timeout = self.settings.commit_timeout
        try:
            return await settlements.settle_item(
                conn, item, outcome, lines, remembering=self.remembering, timeout=timeout
            )
        except TimeoutError as exc:
            raise outage(exc, lost=True, redact=self.database.redact) from exc

    async def commit(
        self, session: Session, *, chain: bool, first: str | None = None
    ) -> BaseException | None:
        """Commit, shielded from cancellation and within `commit_timeout`.

        Args:
            chain: Whether to begin the next transaction in the same message.
            first: A settling statement that is sent in the same message.

        Returns:
            None if the transaction is committed. Otherwise the exception by which PostgreSQL
            refused that, for example because of a deferred constraint; all is rolled back.

        Raises:
            Outage: The answer did not come: the outcome is in doubt.
        """
        try:
            await session.limit.shielded(session.commit(chain=chain, first=first))
        except BaseException as exc:
            refused = isinstance(exc, asyncpg.PostgresError | TransactionEnded) and not session.lost
            if refused and not isinstance(classify(exc, own=(exc,)), Outage):
                if not await session.rollback():
                    await session.discard()
                return exc
            await session.discard()
            if not isinstance(exc, Exception):
                raise
            raise outage(exc, lost=True, redact=self.database.redact) from exc
        return None

    async def _undo(
        self, exc: BaseException, attempt: Attempt, prepared: Prepared, session: Session
    ) -> Outcome | Conflict:
        """Roll back, and return the outcome that the exception means."""
        lost = await self._roll_back(attempt, session)
        if must_propagate(exc):
            raise exc
        if self.ordering.version != prepared.ordered:
            return Rescheduled()
        if isinstance(exc, Outage):
            raise exc
        try:
            return self.outcome_of(exc, prepared.item, own=attempt.own, broken=lost)
        except Outage:
            await session.discard()
            raise

    async def _roll_back(self, attempt: Attempt, session: Session) -> bool:
        """Roll back an attempt; return whether the connection is lost."""
        plain = attempt.undisturbed
        undo = session.rollback if attempt.connection.changed_transaction else session.undo
        lost = session.lost or (plain and not await undo())
        if lost or not plain:
            await session.discard()
        return lost

    def outcome_of(
        self,
        exc: BaseException,
        item: ImportBatchItem[Any],
        *,
        own: tuple[BaseException, ...],
        broken: bool = False,
    ) -> NotCommitted | Conflict:
        """The outcome that an exception means for an item, see `attempt.outcome_of`.

        Raises:
            Outage: The server failed, and not the item.
        """
        redact = self.database.redact
        outcome = outcome_of(exc, item, self.processor, own=own, broken=broken, redact=redact)
        if isinstance(outcome, Conflict) and self.contention is not None:
            self.contention.conflict()
        return outcome

    def new_log(self) -> LogBuffer:
        """An empty log buffer."""
        return LogBuffer(self.settings.log_level, self.database.redact)

    def set_context(
        self, items: Sequence[ImportBatchItem[Any]], guard: GuardedConnection, log: LogBuffer
    ) -> ImportContext:
        """The context of a set of items."""
        ctx = ImportContext(
            self.batch,
            guard,
            shared=self._shared,
            log=log,
            of_items=True,
            catalog=self._catalog,
        )
        ordering = self.ordering
        ctx._upserting = lambda _, key, values: ordering.upserting(items, key, values)  # noqa: SLF001
        return ctx

    def _context(self, item: ImportBatchItem[Any]) -> ImportContext:
        """The context of an item, before its transaction and in it."""
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


async def repeated(
    transact: Callable[[], Awaitable[Outcome | Conflict]],
    give_way: Callable[[], Awaitable[None]] | None = None,
) -> Outcome | Conflict:
    """Run a transaction, up to REPEATS times more while it conflicts with others.

    Args:
        give_way: Lets other transactions go first, before each repetition.
    """
    for _ in range(REPEATS):
        outcome = await transact()
        if not isinstance(outcome, Conflict):
            return outcome
        if give_way is not None:
            await give_way()
        await anyio.sleep(random.uniform(0, 0.05))  # noqa: S311 - jitter
    return await transact()
