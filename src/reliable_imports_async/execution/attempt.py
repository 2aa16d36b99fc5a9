"""One call of a processor's code inside a transaction, and the outcome that its exception means.

An item, an item of a chunk, a set of items and an item of a dry run all run through an `Attempt`.
They differ in the statements before and after it.
"""

import math
import random
from collections.abc import Sequence
from decimal import Decimal
from types import TracebackType
from typing import Any

import asyncpg
from anyio import to_thread

from ..cancellation import ItemTimeout, TimeLimit, undisturbed
from ..database.guard import Connection, GuardedConnection
from ..database.pool import Database
from ..database.server_errors import annotate
from ..errors import ConfigurationError, ProcessorResultError, TransactionEnded
from ..failures import classify, describe, members, sound, unfold
from ..models import ImportBatchItem
from ..outcomes import (
    Completed,
    Conflict,
    Defer,
    Deferred,
    Failed,
    Failure,
    FailureKind,
    NotCommitted,
    Outage,
    Postponed,
    Retry,
    Skip,
)
from ..processors.context import ImportContext
from ..processors.processor import BaseProcessor, as_outcome, as_outcomes, is_declared, is_set_wise
from ..processors.upsert import Upsert, declared_upsert
from ..sanitize import Redact
from .session import Session

LONGEST_BACKOFF = 300.0
LONGEST_DELAY = 366 * 24 * 3600.0
FOREIGN_KEY = asyncpg.ForeignKeyViolationError.sqlstate


class Attempt:
    """One attempt to run code of a processor inside a transaction.

    Use it as ``with`` around the call and the statements that belong to the same attempt. An
    exception does not leave the block: it is kept in `raised`. Call `conclude` then, undo the
    attempt, and decide what the exception means. (Entering and leaving is not asynchronous, because
    it is done for every item.)

    Args:
        session: Notes what the code leaves behind on the connection; None: this is not noted.
        conn: The connection, inside the transaction.

    Attributes:
        connection: The same connection behind the guard: the code gets this.
        raised: The exception that ended the block; None: the block was completed.
        own: The errors that the connection itself raised, as opposed to the code.
    """

    __slots__ = ("_conn", "_session", "connection", "own", "raised")

    def __init__(self, session: Session | None, conn: Connection) -> None:
        self._session = session
        self._conn = conn
        self.connection = GuardedConnection(conn)
        self.raised: BaseException | None = None
        self.own: tuple[BaseException, ...] = ()

    def __enter__(self) -> GuardedConnection:
        return self.connection

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if exc is not None:
            self.raised = sound(exc)
        return True

    async def conclude(self, raised: BaseException) -> None:
        """After an exception: collect the connection's own errors, and detach the code from it."""
        self.own = await self.connection.own_errors(raised)
        self.connection.close()
        if self._session is not None and self.connection.trace:
            self._session.note(self.connection)

    def finish(self) -> None:
        """Detach the code from the connection, once it has returned, and check its traces there.

        Raises:
            TransactionEnded: The code has ended the transaction.
            PoolerUnsupported: The code has changed a session that a pooler lends to other clients.
        """
        guard = self.connection
        guard.close()
        if not self._conn.is_in_transaction():
            raise TransactionEnded
        if self._session is not None and (guard.trace or guard.calls):
            self._session.note(guard)
            self._session.refuse(guard.trace)

    @property
    def undisturbed(self) -> bool:
        """Whether the connection is known to be in order, so that a rollback suffices."""
        return self.raised is None or undisturbed((*self.own, self.raised))


class Invoker:
    """Calls a processor for items: its `process_item`, `process_items` or declared upsert.

    Args:
        item_timeout: Seconds that a call may take.

    Attributes:
        declared: Whether the processor declares an upsert instead of a method.
    """

    def __init__(self, processor: BaseProcessor[Any], item_timeout: float) -> None:
        self._processor = processor
        self._item_timeout = item_timeout
        self._set_wise = is_set_wise(type(processor))
        self.declared = is_declared(type(processor))
        self._upsert: Upsert | None = None

    async def check_declaration(self, database: Database) -> str | None:
        """The reason why the declared upsert cannot work; None: it can, or none is declared."""
        if self.declared:
            try:
                async with database.connection(shared=True) as conn:
                    if not database.pooled:  # it may set the search path or the role
                        await self._processor.on_connection(conn)
                    self._upsert = await declared_upsert(conn, self._processor)
            except ConfigurationError as exc:
                return str(exc)
        return None

    async def call(
        self, item: ImportBatchItem[Any], ctx: ImportContext, limit: TimeLimit
    ) -> Completed | Skip:
        """Process one item.

        Raises:
            ItemTimeout: It took too long.
        """
        if self._set_wise:
            return (await self.call_for_set([item], ctx, limit))[0]
        result = await limit.run(self._processor.process_item(item, ctx), self._item_timeout)
        if item.is_large:  # so its result may be, too
            return await to_thread.run_sync(as_outcome, result)
        return as_outcome(result)

    async def call_for_set(
        self, items: Sequence[ImportBatchItem[Any]], ctx: ImportContext, limit: TimeLimit
    ) -> Sequence[Completed | Skip]:
        """Process a set of items in one call.

        Raises:
            ItemTimeout: They took too long together.
        """
        if not self.declared:
            write = self._processor.process_items
            return as_outcomes(await limit.run(write(items, ctx), self._item_timeout), len(items))
        upsert = await self._declared_upsert(ctx)
        return await limit.run(upsert.write(items, ctx), self._item_timeout)

    async def upsert_data(
        self, data: Sequence[Any], ctx: ImportContext, limit: TimeLimit
    ) -> tuple[str, list[str | None]]:
        """Upsert records as declared; returns the table, and the keys to report.

        Raises:
            ItemTimeout: It took too long.
        """
        upsert = await self._declared_upsert(ctx)
        written = await limit.run(upsert.write_data(data, ctx), self._item_timeout)
        return upsert.table, written

    async def _declared_upsert(self, ctx: ImportContext) -> Upsert:
        if self._upsert is None:
            conn = ctx.connection._open()  # noqa: SLF001
            self._upsert = await declared_upsert(conn, self._processor)
        return self._upsert


def outcome_of(
    exc: BaseException,
    item: ImportBatchItem[Any],
    processor: BaseProcessor[Any],
    *,
    own: tuple[BaseException, ...],
    broken: bool,
    redact: Redact,
    default: FailureKind = FailureKind.EXCEPTION,
) -> NotCommitted | Conflict:
    """The outcome that an exception means for its item, whose effects are rolled back.

    Args:
        own: The errors that the item's own connection raised.
        broken: Whether that connection is unusable now.
        redact: Masks secrets in texts that will be stored.
        default: The kind of a failure that no SQLSTATE and no type of exception decides.

    Raises:
        Outage: The server failed, and not the item.
    """
    if isinstance(exc, ItemTimeout):
        default, broken = FailureKind.TIMEOUT, False
    if not broken and _defers(processor, item, exc):
        return Deferred()  # undescribed, as this may happen to most items of a batch
    annotate(exc)
    meaning = classify(exc, own=own, broken=broken, default=default, redact=redact)
    if isinstance(meaning, Outage):
        raise meaning from exc
    if isinstance(meaning, Conflict):
        return meaning
    return failed_or_postponed(exc, item, processor, meaning.failure)


def failed_or_postponed(
    exc: BaseException,
    item: ImportBatchItem[Any],
    processor: BaseProcessor[Any],
    failure: Failure,
) -> Failed | Postponed:
    """A retry, if the exception asks for one and attempts remain; otherwise the failure."""
    wanted: tuple[type[BaseException], ...] = (Retry, *processor.retry_on)
    signal = next((member for member in members(exc) if isinstance(member, wanted)), None)
    if signal is None or item.attempt >= processor.max_attempts:
        return Failed(failure)
    try:
        return Postponed(_delay(signal, item), failure)
    except Exception as odd:  # noqa: BLE001 - a signal's attributes may be the user's code
        return Failed(describe(odd, kind=failure.kind))


def _defers(processor: BaseProcessor[Any], item: ImportBatchItem[Any], exc: BaseException) -> bool:
    """Whether the item needs another item, which may be there in a later pass."""
    if item.final_pass:
        return False
    if any(isinstance(member, Defer) for member in members(exc)):
        return True
    return processor.defer_on == "foreign_key" and any(
        getattr(cause, "sqlstate", None) == FOREIGN_KEY for cause in unfold(exc)
    )


def _delay(signal: BaseException, item: ImportBatchItem[Any]) -> float:
    """Seconds until the next attempt, between 0 and LONGEST_DELAY.

    Raises:
        ProcessorResultError: The signal's `after` is not a number of seconds.
    """
    after: object = signal.after if isinstance(signal, Retry) else None
    if after is None:
        return min(2.0**item.attempts, LONGEST_BACKOFF) * random.uniform(0.5, 1.0)  # noqa: S311
    broken = isinstance(after, float | Decimal) and math.isnan(after)
    if broken or isinstance(after, bool) or not isinstance(after, int | float | Decimal):
        raise ProcessorResultError(
            f"Retry(after={after!r:.100}) is not a number of seconds.",
            hint="`after` of a Retry has to be a number of seconds, or left out.",
        )
    return float(min(max(0, after), LONGEST_DELAY))
