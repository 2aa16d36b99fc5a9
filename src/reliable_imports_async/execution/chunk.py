"""Runs many items in one transaction: savepoints between them, one settling statement, one COMMIT.

Items that have no outcome afterwards are left to be run one by one.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import asyncpg

from ..cancellation import must_propagate, undisturbed
from ..database.guard import Connection
from ..outcomes import (
    SUCCESSES,
    Conflict,
    Deferred,
    Failed,
    Failure,
    FailureKind,
    Outage,
    Outcome,
    Postponed,
    Rescheduled,
)
from ..processors.processor import is_set_wise
from ..store import catalog, settlements
from .chunk_modes import ItemWise, MayStart, Run, SetWise
from .chunk_progress import ChunkProgress, Done, SuspectKeys
from .executor import Executor
from .key_order import KeyLearnt
from .prepare import Prepared
from .savepoints import Distance, Savepoints
from .session import OURS, ROUND_TRIP_SECONDS, Session

_CANNOT_NAME = (
    asyncpg.UndefinedObjectError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.WrongObjectTypeError,
)


@dataclass(frozen=True, slots=True)
class Abandoned:
    """The transaction is rolled back, and each of its items runs alone.

    Attributes:
        ended: An item whose outcome is known nevertheless.
        changed: Whether items of this processor can never share a transaction.
        again: Whether the items run again later instead, after their ranges are claimed again.
    """

    ended: Done | None = None
    changed: bool = False
    again: bool = False


class ChunkExecutor:
    """Executes items in shared transactions; used by all slots of a drain.

    Args:
        size: How many items share a transaction at most.
        suspect_keys: The keys whose items run last.
    """

    def __init__(self, executor: Executor, size: int, suspect_keys: SuspectKeys) -> None:
        self._executor = executor
        self._limit = size
        self._size = size
        set_wise = is_set_wise(type(executor.processor))
        self._mode = SetWise(executor, size) if set_wise else ItemWise(executor)
        self._suspect_keys = suspect_keys
        self._deferred: list[str] | None = None  # the deferred constraints, once they are known
        self._distance = Distance(self._mode.first_distance, size, self._mode.growth)

    @property
    def size(self) -> int:
        """How many items to execute together now; fewer for a while after conflicts."""
        return self._size

    async def execute(
        self, prepared: Sequence[Prepared], session: Session, may_start: MayStart
    ) -> dict[int, Outcome]:
        """Take prepared items to their outcomes.

        Args:
            may_start: Returns whether a further item may start.

        Returns:
            The outcomes by item number. An item that is missing has none yet, and must run alone.

        Raises:
            Outage: The server failed; only the items' rows, read under their locks, have the
                outcomes.
        """
        decided: dict[int, Outcome] = {}
        waiting = list(prepared)
        while waiting and may_start(waiting[0]):
            ended = await self._transact(waiting, session, may_start)
            if isinstance(ended, Abandoned):
                if ended.again:
                    return decided
                self._size = 1 if ended.changed else max(2, self._size // 2)
                self._limit = 1 if ended.changed else self._limit
                return decided | await self._settle_alone(ended, session)
            if not ended:
                break
            decided |= ended
            waiting = _still_to_run(waiting, decided)
        self._size = min(self._limit, self._size + max(1, self._size // 8))
        return decided

    async def _transact(
        self, prepared: Sequence[Prepared], session: Session, may_start: MayStart
    ) -> dict[int, Outcome] | Abandoned:
        """Run one transaction, from BEGIN to COMMIT."""
        conn = await session.begin()
        executor, version = self._executor, self._executor.ordering.version
        try:
            await executor.database.configure_transaction(conn, executor.item_timeout)
            progress = await self._begin(conn, prepared)
            abandoned = await self._run_all(progress, session, may_start)
            if abandoned is None and executor.ordering.version != version:
                abandoned = Abandoned(again=True)
            result = abandoned or await self._store(progress, session)
        except BaseException as exc:
            await session.leave(plain=isinstance(exc, asyncpg.PostgresError))
            if must_propagate(exc) or not isinstance(exc, OURS):
                raise
            return Abandoned()
        if isinstance(result, Abandoned):
            await session.leave(plain=True)
        return result

    async def _begin(self, conn: Connection, prepared: Sequence[Prepared]) -> ChunkProgress:
        """Set the first savepoint, and divide the items into those that run and those refused."""
        if self._deferred is None:
            self._deferred = await catalog.deferred(conn)
        seconds = self._executor.item_timeout + ROUND_TRIP_SECONDS
        savepoints = self._new_savepoints(conn, seconds, self._deferred)
        await savepoints.set()
        waiting = deque(each for each in prepared if each.refused is None)
        progress = ChunkProgress(waiting, savepoints, keyed=any(each.keys for each in prepared))
        for each in prepared:
            if each.refused is not None:
                progress.done[each.item.item_number] = Done(each, each.refused, each.seconds)
        progress.set_apart(self._suspect_keys)
        return progress

    def _new_savepoints(
        self, conn: Connection, seconds: float, deferred: Sequence[str]
    ) -> Savepoints:
        """The savepoints of a transaction."""
        return Savepoints(conn, seconds, deferred)

    async def _run_all(
        self, progress: ChunkProgress, session: Session, may_start: MayStart
    ) -> Abandoned | None:
        """Run the items, some behind each savepoint, until all have outcomes."""
        savepoints = progress.savepoints
        while (first := progress.next) is not None and not savepoints.exhausted:
            if not may_start(first):
                return None
            alone = not progress.waiting
            items = progress.next_run(self._distance.items)
            run = await self._mode.run(items, session, savepoints, may_start)
            if run.changed:
                return Abandoned(changed=True)
            if run.raised is None:
                await self._keep(run, savepoints)
            if run.raised is not None:
                undone = await self._undo(run.raised, run, items, progress, session)
                if isinstance(undone, Abandoned):
                    return undone
                if undone and not alone:
                    self._distance.shrink()
                continue
            progress.succeeded(items, run.outcomes)
            progress.lines.extend(run.lines)
            if alone:
                self._suspect_keys.clear(items[0].item)
            elif len(run.outcomes) == self._distance.items:
                self._distance.grow()
        return None

    async def _keep(self, run: Run, savepoints: Savepoints) -> None:
        """Keep a run. An error here is caused by one of its items.

        An exception are constraints that cannot be named any more: then each item runs alone.
        """
        try:
            await savepoints.keep()
        except _CANNOT_NAME:
            self._deferred = None  # a constraint was dropped, or the right to its schema revoked
            raise
        except asyncpg.PostgresError as exc:
            run.raised, run.own = exc, (exc,)

    async def _undo(
        self,
        exc: BaseException,
        run: Run,
        items: Sequence[Prepared],
        progress: ChunkProgress,
        session: Session,
    ) -> Abandoned | bool:
        """Undo a run, and find the item that failed; True: shorter runs may help."""
        if must_propagate(exc):
            raise exc
        if isinstance(exc, KeyLearnt):
            return Abandoned(again=True)
        position = 0 if len(items) == 1 else run.position
        plain = undisturbed((*run.own, exc)) and not session.lost
        failed = items[position or 0]
        try:
            outcome = self._executor.outcome_of(exc, failed.item, own=run.own, broken=session.lost)
        except Outage:
            await session.discard()
            return Abandoned()
        if _was_aborted_before(outcome, items):
            position = None
        ended = None
        if position is not None and not isinstance(outcome, Conflict):
            ended = Done(failed, outcome, failed.seconds + run.seconds)
        if not plain:
            await session.discard()
        if not plain or isinstance(outcome, Conflict):
            return Abandoned(ended)
        await progress.savepoints.undo()
        if position is None or ended is None:
            progress.put_back(items)
        else:
            progress.failed(items, position, ended)
        return isinstance(outcome, Deferred) or self._learn(outcome.failure, progress, ended)

    def _learn(self, failure: Failure, progress: ChunkProgress, ended: Done | None) -> bool:
        """Let items with the key that a failure names run last; True: shorter runs may help."""
        learnt = self._suspect_keys.learn(failure)
        apart = len(progress.alone)
        if learnt or ended is None:
            progress.set_apart(self._suspect_keys)
        return not learnt or (ended is None and len(progress.alone) == apart)

    async def _store(
        self, progress: ChunkProgress, session: Session
    ) -> dict[int, Outcome] | Abandoned:
        """Settle the items whose outcomes are certain, and commit."""
        ended = progress.certain()
        stored = self._allowed_in_order(ended) if progress.keyed else self._allowed(ended)
        if stored is None:
            return Abandoned()
        committed = False
        try:
            if await self._settle(progress, stored):
                refused = await self._executor.commit(session, chain=session.more())
                committed = refused is None
        finally:
            if not committed:
                self._take_back(stored)
        if not committed:
            return Abandoned()
        pending = {
            number: _pending(ended[number].outcome) for number in ended.keys() - stored.keys()
        }
        return pending | {number: done.outcome for number, done in stored.items()}

    def _allowed(self, ended: Mapping[int, Done]) -> dict[int, Done]:
        """The items to settle: without deferred items, and those whose failures pause the batch."""
        limits, allowed, successes = self._executor.limits, dict(ended), 0
        for number, done in ended.items():
            outcome = done.outcome
            if isinstance(outcome, SUCCESSES):
                successes += 1
                continue
            limits.success(successes)
            successes = 0
            refused = isinstance(outcome, Failed) and limits.refuses(outcome.failure)
            if refused or isinstance(outcome, Deferred):
                del allowed[number]
        limits.success(successes)
        return allowed

    def _allowed_in_order(self, ended: Mapping[int, Done]) -> dict[int, Done] | None:
        """The same if items have keys; None: an item ran although an earlier one stays pending."""
        limits = self._executor.limits
        before = limits.copy()
        allowed = self._allowed(ended)
        if len(allowed) < len(ended) and _overtaken(ended, allowed):
            limits.restore(before)  # the items are counted again when they run alone
            return None
        return allowed

    def _take_back(self, stored: Mapping[int, Done]) -> None:
        """Correct the counts of failures after a rollback."""
        outcomes = [done.outcome for done in stored.values()]
        failed = sum(isinstance(outcome, Failed) for outcome in outcomes)
        later = sum(isinstance(outcome, Postponed) for outcome in outcomes)
        self._executor.limits.take_back(failed, len(outcomes) - later)

    async def _settle(self, progress: ChunkProgress, stored: Mapping[int, Done]) -> bool:
        """Send the last statement before COMMIT; False: the fence is lost for some item."""
        if not stored:
            return True
        settling = list(stored.values())
        settled = await settlements.settle(
            progress.savepoints.conn,
            self._executor.batch.id,
            settling,
            timeout=self._executor.settings.commit_timeout,
            lines=progress.lines,
            remembering=self._executor.remembering,
        )
        return settled == len(settling)

    async def _settle_alone(self, abandoned: Abandoned, session: Session) -> dict[int, Outcome]:
        """Settle the item whose outcome is known, although the transaction is rolled back."""
        match abandoned.ended:
            case Done(prepared, (Failed() | Postponed() | Deferred()) as outcome, seconds):
                item, log, settler = prepared.item, prepared.log, self._executor.settler
                with suppress(Outage):
                    settled = await settler.settle(item, outcome, log, session, seconds)
                    return {item.item_number: settled}
        return {}


def _was_aborted_before(outcome: Outcome | Conflict, items: Sequence[Prepared]) -> bool:
    """Whether an earlier item of the run may have swallowed an SQL error."""
    match outcome:
        case Failed(failure) | Postponed(failure=failure):
            return failure.kind is FailureKind.TRANSACTION and len(items) > 1
    return False


def _still_to_run(prepared: Sequence[Prepared], decided: Mapping[int, Outcome]) -> list[Prepared]:
    """The items without outcomes; but none that has the key of a postponed item."""
    if len(decided) == len(prepared):
        return []  # nearly always
    waiting: list[Prepared] = []
    later: set[str] = set()
    for each in prepared:
        outcome = decided.get(each.item.item_number)
        if isinstance(outcome, Postponed | Rescheduled) or not later.isdisjoint(each.keys):
            later.update(each.keys)
        elif outcome is None:
            waiting.append(each)
    return waiting


def _overtaken(ended: Mapping[int, Done], stored: Mapping[int, Done]) -> bool:
    """Whether an item is to be settled although an earlier one of its key stays pending."""
    refused: set[str] = set()
    for number in sorted(ended):
        done = ended[number]
        if number in stored:
            if not refused.isdisjoint(done.prepared.keys):
                return True
        elif not isinstance(done.outcome, Deferred):
            refused.update(done.prepared.keys)
    return False


def _pending(outcome: Outcome) -> Outcome:
    """The outcome of an item that is not settled."""
    return outcome if isinstance(outcome, Deferred) else Rescheduled()
