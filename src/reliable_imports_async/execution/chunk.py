"""Many items in one transaction: savepoints between them, one settle statement, one COMMIT."""

from collections import deque
from collections.abc import Mapping, Sequence

import asyncpg

from ..cancellation import must_propagate, undisturbed
from ..database.guard import Connection
from ..failures import Action
from ..models import ImportBatchItem, ItemStatus
from ..outcomes import (
    Completed,
    Deferred,
    Failed,
    FailureKind,
    NotCommitted,
    Outcome,
    Postponed,
    Skip,
)
from ..processors.processor import is_set_wise
from ..store import catalog, settlements
from .chunk_modes import ItemWise, MayStart, RunFailed, SetWise, TransactionChanged
from .chunk_progress import Done, Round, Screening
from .executor import Executor
from .key_order import KeyLearnt
from .prepare import Prepared
from .savepoints import Distance, Savepoints
from .session import ROUND_TRIP_SECONDS, Outage, Session
from .settler import Rescheduled, Settled, Verdict, defers, undone

_OURS = (
    OSError,  # TimeoutError is one
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


_CANNOT_NAME = (
    asyncpg.UndefinedObjectError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.WrongObjectTypeError,
)


class _Abandoned(Exception):
    """The transaction is rolled back, and each of its items runs alone.

    Attributes:
        culprit: The item whose outcome is known all the same, with that outcome.
        changed: Whether items of this processor can never share a transaction.
        again: Whether its items are to run again later, once their ranges are claimed again.
    """

    def __init__(
        self,
        culprit: Done | None = None,
        *,
        changed: bool = False,
        again: bool = False,
    ) -> None:
        super().__init__()
        self.culprit = culprit
        self.changed = changed
        self.again = again


class ChunkExecutor:
    """Executes up to `size` items in a transaction; shared by all slots of a drain."""

    def __init__(self, executor: Executor, size: int) -> None:
        self._executor = executor
        self._limit = size
        self._size = size
        set_wise = is_set_wise(type(executor.processor))
        self._way = SetWise(executor, size) if set_wise else ItemWise(executor)
        self._screening = Screening()
        self._deferred: list[str] | None = None  # not known yet
        self._distance = Distance(self._way.first_distance, size, self._way.growth)

    @property
    def size(self) -> int:
        """How many items to execute together now; after conflicts fewer, for a while."""
        return self._size

    async def execute(
        self, prepared: Sequence[Prepared], session: Session, may_start: MayStart
    ) -> dict[int, Verdict]:
        """Take prepared items to their outcomes, by item number.

        An item that is missing in the result has none yet, and must run alone.

        Args:
            may_start: Whether a further item may start.

        Raises:
            Outage: The outcomes are unknown until somebody asks under the locks.
        """
        decided: dict[int, Verdict] = {}
        waiting = list(prepared)
        while waiting and may_start(waiting[0]):
            try:
                ended = await self._transaction(waiting, session, may_start)
            except _Abandoned as abandoned:
                if abandoned.again:
                    return decided
                self._size = 1 if abandoned.changed else max(2, self._size // 2)
                self._limit = 1 if abandoned.changed else self._limit
                return decided | await self._alone(abandoned, session)
            if not ended:
                break
            decided |= ended
            waiting = _still_to_run(waiting, decided)
        self._size = min(self._limit, self._size + max(1, self._size // 8))
        return decided

    async def _transaction(
        self, prepared: Sequence[Prepared], session: Session, may_start: MayStart
    ) -> dict[int, Verdict]:
        """One transaction, from BEGIN to COMMIT."""
        conn = await session.begin()
        stored: dict[int, Done] = {}
        version = self._executor.ordering.version
        try:
            await self._executor.database.configure_transaction(conn, self._executor.item_timeout)
            round_ = await self._begin(conn, prepared)
            await self._runs(round_, session, may_start)
            if self._executor.ordering.version != version:
                raise _Abandoned(again=True)
            ended = round_.certain()
            stored = self._in_order(ended) if round_.keyed else self._allowed(ended)
            await self._settle(round_, stored)
            if await self._executor.commit(session, chain=session.more()) is not None:
                raise _Abandoned
        except BaseException as exc:
            outcomes = [one.outcome for one in stored.values()]
            failed = sum(isinstance(outcome, Failed) for outcome in outcomes)
            later = sum(isinstance(outcome, Postponed) for outcome in outcomes)
            self._executor.streak.take_back(failed, len(outcomes) - later)
            await self._give_up(exc, session)
            raise
        left = {number: _unstored(ended[number].outcome) for number in ended.keys() - stored.keys()}
        return left | {number: _verdict(one.outcome) for number, one in stored.items()}

    async def _begin(self, conn: Connection, prepared: Sequence[Prepared]) -> Round:
        """The first savepoint, and what is to run behind it."""
        if self._deferred is None:
            self._deferred = await catalog.deferred(conn)
        seconds = self._executor.item_timeout + ROUND_TRIP_SECONDS
        savepoints = Savepoints(conn, seconds, self._deferred)
        await savepoints.set()
        round_ = Round(deque(), savepoints, keyed=any(one.keys for one in prepared))
        for one in prepared:
            if isinstance(one.ready, ImportBatchItem):
                round_.waiting.append(one)
            else:
                round_.done[one.item.item_number] = Done(one, one.ready, one.seconds)
        round_.screen(self._suspects)
        return round_

    async def _runs(self, round_: Round, session: Session, may_start: MayStart) -> None:
        """Run after run, each behind a savepoint, until all have their outcomes."""
        while (first := round_.next) is not None and not round_.savepoints.exhausted:
            if not may_start(first):
                return
            alone = not round_.waiting
            run = round_.next_run(self._distance.items)
            try:
                attempt = await self._way.attempt(run, round_.savepoints, may_start, session.limit)
                await self._keep(round_.savepoints)
            except RunFailed as failed:
                surprising = await self._undo(failed, run, round_, session)
                if surprising and not alone:
                    self._distance.shrink()
                continue
            round_.succeeded(run, attempt.outcomes)
            round_.lines.extend(attempt.lines)
            if alone:
                self._screening.acquit(run[0].item)
            elif len(attempt.outcomes) == self._distance.items:
                self._distance.grow()

    def _suspects(self, prepared: Prepared) -> bool:
        ready = prepared.ready
        return isinstance(ready, ImportBatchItem) and self._screening.suspects(ready)

    async def _keep(self, savepoints: Savepoints) -> None:
        """Keep a run; an error here is one of its items' fault.

        Unless constraints cannot be named any more: then each item runs alone until COMMIT.
        """
        try:
            await savepoints.keep()
        except _CANNOT_NAME:
            self._deferred = None  # a constraint, or the right to its schema, is gone
            raise
        except asyncpg.PostgresError as exc:
            raise RunFailed(exc, (exc,), None) from exc

    async def _undo(
        self, failed: RunFailed, run: Sequence[Prepared], round_: Round, session: Session
    ) -> bool:
        """Undo a run, and find out whose fault it was; whether shorter runs may help."""
        exc, own = failed.cause, failed.own
        if must_propagate(exc):
            raise exc
        if isinstance(exc, KeyLearnt):
            raise _Abandoned(again=True) from exc
        plain = undisturbed((*own, exc)) and not session.lost
        if plain and defers(self._executor.processor, run[0].item, exc):
            return await self._defer(failed, run, round_)
        judgement = self._executor.judge(exc, own=own, broken=session.lost)
        culprit = 0 if len(run) == 1 else failed.culprit
        if judgement.failure.kind is FailureKind.TRANSACTION and len(run) > 1:
            culprit = None  # the transaction was aborted before: somebody swallowed an error
        ended = None
        if culprit is not None and judgement.action is Action.FAIL:
            item = run[culprit].item
            outcome = undone(self._executor.processor, item, exc, judgement.failure)
            ended = Done(run[culprit], outcome, run[culprit].seconds + failed.seconds)
        if not plain or judgement.action is Action.WAIT:
            await session.discard()
            raise _Abandoned(ended) from exc
        if judgement.action is Action.REPEAT:
            raise _Abandoned from exc
        await round_.savepoints.undo()
        if culprit is None or ended is None:
            round_.put_back(run)
        else:
            round_.failed(run, culprit, ended)
        learnt = self._screening.learn(judgement.failure)
        apart = len(round_.suspects)
        if learnt or culprit is None:
            round_.screen(self._suspects)
        return not learnt or (culprit is None and len(round_.suspects) == apart)

    async def _defer(self, failed: RunFailed, run: Sequence[Prepared], round_: Round) -> bool:
        """Undo a run of which an item waits for another; what it waits for may come any time."""
        await round_.savepoints.undo()
        culprit = 0 if len(run) == 1 else failed.culprit
        if culprit is None:
            round_.put_back(run)
        else:
            round_.failed(run, culprit, Done(run[culprit], Deferred()))
        return True

    def _allowed(self, ended: Mapping[int, Done]) -> dict[int, Done]:
        """The items to store; not the deferred, nor those whose failures pause the batch."""
        streak, allowed = self._executor.streak, dict(ended)
        for number, one in ended.items():
            match one.outcome:
                case Completed() | Skip():
                    streak.success()
                case Failed(failure) if streak.refuses(failure):
                    del allowed[number]
                case Deferred():
                    del allowed[number]
                case Failed() | Postponed():
                    pass
        return allowed

    def _in_order(self, ended: Mapping[int, Done]) -> dict[int, Done]:
        """The same where items have keys.

        Raises:
            _Abandoned: An item has run behind one of its key that stays pending after all.
        """
        streak = self._executor.streak
        before = streak.copy()
        allowed = self._allowed(ended)
        if _overtaken(ended, allowed):
            streak.restore(before)  # one after the other they come to it again
            raise _Abandoned
        return allowed

    async def _settle(self, round_: Round, stored: Mapping[int, Done]) -> None:
        """The last statement before COMMIT, fenced: exactly these rows, or all is rolled back."""
        if not stored:
            return
        settling = list(stored.values())
        timeout = self._executor.settings.commit_timeout
        settled = await settlements.settle(
            round_.savepoints.conn,
            self._executor.batch.id,
            settling,
            timeout=timeout,
            lines=round_.lines,
            remembering=self._executor.remembering,
        )
        if settled != len(settling):
            raise _Abandoned

    async def _give_up(self, exc: BaseException, session: Session) -> None:
        """Leave nothing behind of a transaction that will not commit."""
        plain = isinstance(exc, asyncpg.PostgresError | _Abandoned | TransactionChanged)
        if not plain or session.lost or not await session.rollback():
            await session.discard()
        if isinstance(exc, TransactionChanged):
            raise _Abandoned(changed=True) from exc
        if isinstance(exc, _OURS) and not must_propagate(exc):
            raise _Abandoned from exc

    async def _alone(self, abandoned: _Abandoned, session: Session) -> dict[int, Verdict]:
        """Settle the item whose outcome is known, though its transaction is gone."""
        if abandoned.culprit is None:
            return {}
        one = abandoned.culprit
        item, log = one.prepared.item, one.prepared.log
        assert isinstance(one.outcome, NotCommitted)  # noqa: S101 - it was raised
        try:
            settler = self._executor.settler
            verdict = await settler.settle(item, one.outcome, log, session, one.seconds)
        except Outage:
            return {}
        return {item.item_number: verdict}


_COMPLETED = Settled(ItemStatus.COMPLETED)


def _still_to_run(prepared: Sequence[Prepared], decided: Mapping[int, Verdict]) -> list[Prepared]:
    """Those without an outcome; but none behind one of its key that is tried again later."""
    left: list[Prepared] = []
    later: set[str] = set()
    for one in prepared:
        verdict = decided.get(one.item.item_number)
        if isinstance(verdict, Rescheduled) or not later.isdisjoint(one.keys):
            later.update(one.keys)
        elif verdict is None:
            left.append(one)
    return left


def _overtaken(ended: Mapping[int, Done], stored: Mapping[int, Done]) -> bool:
    """Whether an item has run whose key an earlier one has that stays pending after all."""
    refused: set[str] = set()
    for number in sorted(ended):
        one = ended[number]
        if number in stored:
            if not refused.isdisjoint(one.prepared.keys):
                return True
        elif not isinstance(one.outcome, Deferred):
            refused.update(one.prepared.keys)
    return False


def _verdict(outcome: Outcome) -> Verdict:
    match outcome:
        case Completed():
            return _COMPLETED
        case Skip():
            return Settled(ItemStatus.SKIPPED)
        case Failed(failure):
            return Settled(ItemStatus.FAILED, failure.group)
        case Postponed():
            return Rescheduled()
        case Deferred():
            return outcome


def _unstored(outcome: Outcome) -> Verdict:
    """What an item meets that stays pending as it is."""
    return outcome if isinstance(outcome, Deferred) else Rescheduled()
