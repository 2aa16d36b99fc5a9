"""What is stored about an item that did not commit: its failure or its retry, fenced too."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import anyio
import asyncpg
from pydantic_core import PydanticSerializationError

from ..database.guard import Connection
from ..database.pool import Database
from ..errors import ProcessorResultError
from ..failures import describe, members, unfold
from ..log_buffer import LogBuffer, LogLine
from ..models import ImportBatchItem, ItemStatus, LogLevel
from ..outcomes import (
    Defer,
    Deferred,
    Failed,
    Failure,
    FailureKind,
    NotCommitted,
    Outcome,
    Postponed,
    Retry,
)
from ..processors.processor import BaseProcessor
from ..processors.thresholds import FailureLimits
from ..settings import Settings
from ..store import settlements
from .session import Outage, Session

LONGEST_BACKOFF = 300.0
LONGEST_DELAY = 366 * 24 * 3600.0
FOREIGN_KEY = asyncpg.ForeignKeyViolationError.sqlstate
_UNSTORABLE = (asyncpg.DataError, asyncpg.ProgramLimitExceededError, PydanticSerializationError)


@dataclass(frozen=True, slots=True)
class Settled:
    """The item's outcome is committed; `group` is the failure group, when it failed."""

    status: ItemStatus
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Rescheduled:
    """The item stays pending: a retry is stored, or the batch is about to pause."""


@dataclass(frozen=True, slots=True)
class FenceLost:
    """Somebody else settled the item first, or it was taken over; this try is rolled back."""


Verdict = Settled | Rescheduled | FenceLost | Deferred


def undone(
    processor: BaseProcessor[Any],
    item: ImportBatchItem[Any],
    exc: BaseException,
    failure: Failure,
) -> NotCommitted:
    """Deferred, if a later pass may help; a retry, if asked for with tries left; or failed."""
    if defers(processor, item, exc):
        return Deferred()
    wanted: tuple[type[BaseException], ...] = (Retry, *processor.retry_on)
    signal = next((one for one in members(exc) if isinstance(one, wanted)), None)
    if signal is None or item.attempt >= processor.max_attempts:
        return Failed(failure)
    try:
        after = _delay(signal, item)
    except Exception as odd:  # noqa: BLE001 - a signal's attributes may be the user's code
        return Failed(describe(odd, kind=failure.kind))
    return Postponed(after, failure)


def _delay(signal: BaseException, item: ImportBatchItem[Any]) -> float:
    """Seconds until the next try, between 0 and LONGEST_DELAY.

    Raises:
        ProcessorResultError: The signal names something that is not a number of seconds.
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


def is_fence_lost(exc: BaseException) -> bool:
    """Whether a settling statement met no pending row of this try."""
    return getattr(exc, "sqlstate", None) == settlements.FENCE_LOST


def defers(processor: BaseProcessor[Any], item: ImportBatchItem[Any], exc: BaseException) -> bool:
    """Whether the item is deferred: it needs another one, and a later pass may bring it."""
    if item.final_pass:
        return False
    if any(isinstance(one, Defer) for one in members(exc)):
        return True
    return processor.defer_on == "foreign_key" and any(
        getattr(one, "sqlstate", None) == FOREIGN_KEY for one in unfold(exc)
    )


def lines_of(log: LogBuffer, item: ImportBatchItem[Any], outcome: Outcome) -> list[LogLine]:
    """The log lines to store with an outcome; a retry adds one that says when."""
    if isinstance(outcome, Postponed):
        mark = len(log.lines)
        again = f"try {item.attempt} failed, the next is due in {outcome.after:.1f} s"
        log.add(LogLevel.WARNING, again, {"reason": outcome.failure.message})
        lines = list(log.finished())
        log.truncate(mark)
        return lines
    return log.finished()


class Settler:
    """Stores failures and retries, each in one statement that commits by itself."""

    def __init__(self, database: Database, settings: Settings, streak: FailureLimits) -> None:
        self._database = database
        self._settings = settings
        self._streak = streak

    async def settle(
        self,
        item: ImportBatchItem[Any],
        outcome: NotCommitted,
        log: LogBuffer,
        session: Session,
        seconds: float,
    ) -> Verdict:
        """Store the outcome and the log lines, after the rollback.

        Args:
            seconds: How long the try took.

        Raises:
            Outage: There was no answer: whether it is stored is unknown.
        """
        if isinstance(outcome, Deferred):
            await session.rollback()
            return outcome  # pending as it was: its range remembers it
        if isinstance(outcome, Failed) and self._streak.refuses(outcome.failure):
            await session.rollback()
            return Rescheduled()
        try:
            match outcome:
                case Failed(failure):
                    stored = await self._store_failure(session, item, failure, log, seconds)
                    verdict: Verdict = Settled(ItemStatus.FAILED, failure.group)
                case Postponed():
                    conn = await session.idle()
                    with anyio.fail_after(self._settings.commit_timeout, shield=True):
                        lines = lines_of(log, item, outcome)
                        async with self._database.settling(conn):
                            stored = await settlements.settle_item(conn, item, outcome, lines)
                    verdict = Rescheduled()
        except Outage:
            raise
        except BaseException as exc:
            await session.discard()
            if not isinstance(exc, Exception):
                raise
            kind = FailureKind.CONNECTION_LOST
            seen = describe(exc, kind=kind, redact=self._database.redact)
            raise Outage(seen, lost=True) from exc
        return verdict if stored else FenceLost()

    async def _store_failure(
        self,
        session: Session,
        item: ImportBatchItem[Any],
        failure: Failure,
        log: LogBuffer,
        seconds: float,
    ) -> bool:
        """Store a failure: in one message with the rollback where that can be."""
        lines = log.finished()
        if not lines and session.more():
            try:
                settling = settlements.settling_text(item, Failed(failure), seconds=seconds)
                await session.limit.shielded(session.replace(settling))
            except PydanticSerializationError:
                pass  # half a character: it is stored as a constant text below
            except asyncpg.PostgresError as exc:
                if is_fence_lost(exc):
                    await session.rollback()
                    return False
                if session.lost:
                    raise
            else:
                return True
        conn = await session.idle()
        with anyio.fail_after(self._settings.commit_timeout, shield=True):
            return await self._store_apart(conn, item, failure, lines, seconds)

    async def _store_apart(
        self,
        conn: Connection,
        item: ImportBatchItem[Any],
        failure: Failure,
        lines: Sequence[LogLine],
        seconds: float,
    ) -> bool:
        """The same in a statement of its own; with constant texts if the real ones are refused."""
        try:
            async with self._database.settling(conn):
                return await settlements.settle_item(
                    conn, item, Failed(failure), lines, seconds=seconds
                )
        except _UNSTORABLE:
            bare = Failure(
                kind=failure.kind,
                type="Unstorable",
                message="the error could not be stored as it was",
                group=failure.group,
            )
            async with self._database.settling(conn):
                return await settlements.settle_item(conn, item, Failed(bare), seconds=seconds)
