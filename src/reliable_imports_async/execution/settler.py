"""Stores the failure or the retry of an item whose transaction was rolled back, with the fence."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import anyio
import asyncpg
from pydantic_core import PydanticSerializationError

from ..database.pool import Database
from ..failures import outage
from ..log_buffer import LogBuffer, LogLine
from ..models import ImportBatchItem, LogLevel
from ..outcomes import (
    Deferred,
    Failed,
    Failure,
    FenceLost,
    Outage,
    Outcome,
    Postponed,
    Rescheduled,
)
from ..processors.thresholds import FailureLimits
from ..settings import Settings
from ..store import settlements
from .session import Session

_UNSTORABLE = (asyncpg.DataError, asyncpg.ProgramLimitExceededError, PydanticSerializationError)


def is_fence_lost(exc: BaseException) -> bool:
    """Whether a settling statement found no row that is pending in this attempt."""
    return getattr(exc, "sqlstate", None) == settlements.FENCE_LOST


def lines_of(log: LogBuffer, item: ImportBatchItem[Any], outcome: Outcome) -> list[LogLine]:
    """The log lines to store with an outcome; a retry adds a line about its time."""
    if isinstance(outcome, Postponed):
        mark = len(log.lines)
        again = f"try {item.attempt} failed, the next is due in {outcome.after:.1f} s"
        log.add(LogLevel.WARNING, again, {"reason": outcome.failure.message})
        lines = list(log.finished())
        log.truncate(mark)
        return lines
    return log.finished()


class Settler:
    """Stores failures and retries, each in a transaction of its own.

    Args:
        limits: Count the failures, and decide which is not stored because the batch pauses.
    """

    def __init__(self, database: Database, settings: Settings, limits: FailureLimits) -> None:
        self._database = database
        self._settings = settings
        self._limits = limits

    async def settle(
        self,
        item: ImportBatchItem[Any],
        outcome: Failed | Postponed | Deferred,
        log: LogBuffer,
        session: Session,
        seconds: float,
    ) -> Outcome:
        """Store an outcome and the log lines, after the rollback.

        Args:
            seconds: How long the attempt took.

        Returns:
            The same outcome if it is stored; otherwise the reason why it is not.

        Raises:
            Outage: The answer did not come: the outcome is in doubt.
        """
        if isinstance(outcome, Deferred):
            await session.rollback()
            return outcome  # nothing is stored: the item's range notes it
        if isinstance(outcome, Failed) and self._limits.refuses(outcome.failure):
            await session.rollback()
            return Rescheduled()
        try:
            stored = await self._store(session, item, outcome, log, seconds)
        except Outage:
            raise
        except BaseException as exc:
            await session.discard()
            if not isinstance(exc, Exception):
                raise
            raise outage(exc, lost=True, redact=self._database.redact) from exc
        return outcome if stored else FenceLost()

    async def _store(
        self,
        session: Session,
        item: ImportBatchItem[Any],
        outcome: Failed | Postponed,
        log: LogBuffer,
        seconds: float,
    ) -> bool:
        """Store an outcome; with constant texts if the real texts cannot be stored."""
        try:
            return await self._store_texts(
                session, item, outcome, lines_of(log, item, outcome), seconds
            )
        except _UNSTORABLE:
            bare = replace(outcome, failure=_bare(outcome.failure))
            return await self._store_texts(session, item, bare, [], seconds)

    async def _store_texts(
        self,
        session: Session,
        item: ImportBatchItem[Any],
        outcome: Failed | Postponed,
        lines: Sequence[LogLine],
        seconds: float,
    ) -> bool:
        """Store an outcome, in one message with the rollback if an item follows at once."""
        if session.more():
            text = settlements.settling_text(item, outcome, lines, seconds=seconds)
            try:
                await session.limit.shielded(session.replace(text))
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
            async with self._database.settling(conn):
                return await settlements.settle_item(conn, item, outcome, lines, seconds=seconds)


def _bare(failure: Failure) -> Failure:
    """The failure with texts that can certainly be stored."""
    return Failure(
        kind=failure.kind,
        type="Unstorable",
        message="the error could not be stored as it was",
        group=failure.group,
    )
