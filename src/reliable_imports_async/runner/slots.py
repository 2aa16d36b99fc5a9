"""Slots: each takes queued items and runs them on one kept connection until they have outcomes."""

import logging
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from typing import Any
from uuid import UUID

import anyio

from ..execution.chunk import ChunkExecutor
from ..execution.executor import Executor
from ..execution.prepare import Prepared
from ..execution.session import Session
from ..failures import is_server_state
from ..models import ImportBatch, ImportBatchItem, ItemStatus
from ..outcomes import (
    Completed,
    Deferred,
    Failed,
    Failure,
    FailureKind,
    FenceLost,
    Outage,
    Outcome,
    Postponed,
    Rescheduled,
    Skip,
)
from ..processors.thresholds import FailureLimits
from ..store import items, settlements
from ..wording import counted
from .adaptive_limit import AdaptiveLimit
from .auto_pause import pause
from .item_queue import Queue, QueuedItem
from .leases import Control, HeldRange


@dataclass(slots=True)
class TimeSlice:
    """In the foreground without an end; a background job ends it when others wait.

    Attributes:
        patience: Seconds to wait for a retry that is due later; None: however long it takes.
        over: Whether to stop: no further item starts, and the ranges are handed back.
        gone: Nothing is left to do: the batch was deleted, paused or cancelled.
        rest: The batch of what a canary has held back, once that has passed.
        due_in: When it was left early because nothing is due: seconds until something is.
    """

    patience: float | None = None
    over: bool = False
    gone: bool = False
    due_in: float | None = None
    rest: UUID | None = None

    def leaves(self, due_in: float) -> bool:
        """Whether to leave a batch in which nothing can be done for so many seconds."""
        if self.patience is None or due_in <= self.patience:
            return False
        self.due_in = due_in
        return True


class Gate:
    """Lets the slots of one drain run items together, or one slot an item alone.

    Attributes:
        running: How many slots run items together.
    """

    def __init__(self) -> None:
        self.running = 0
        self._turn = anyio.Lock()
        self._opened: anyio.Event | None = None  # set when the item that runs alone has ended
        self._quiet: anyio.Event | None = None  # set when nothing runs beside it any more

    async def enter(self) -> None:
        """Begin to run items beside those of others, once nobody wants to be alone."""
        while self._opened is not None:
            await self._opened.wait()
        self.running += 1

    def leave(self) -> None:
        """These items have ended."""
        self.running -= 1
        if not self.running and self._quiet is not None:
            self._quiet.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Keep others from beginning, and wait until those that run have ended."""
        async with self._turn:
            opened = self._opened = anyio.Event()
            try:
                while self.running:
                    self._quiet = anyio.Event()
                    await self._quiet.wait()
                yield
            finally:
                self._opened = self._quiet = None
                opened.set()


logger = logging.getLogger("reliable_imports_async")

IDLE_SECONDS = 0.05
GATHER_SECONDS = 0.005
QUANTUM_ITEMS = 50
LOSSES = 3
REFUSALS = 5
STATE_REFUSALS = 10
STUCK_REFUSALS = 20
LONGEST_BACKOFF = 10.0


class Slots:
    """What the slots of one drain share; each of them is a call of `run`.

    Args:
        interval: Executes several items in one transaction; None: each has its own.
        concurrency: How many slots there are; how many of them may work at once, where items
            share transactions, is found by trying.
    """

    def __init__(
        self,
        batch: ImportBatch,
        executor: Executor,
        control: Control,
        *,
        limiter: anyio.CapacityLimiter,
        streak: FailureLimits,
        turn: TimeSlice,
        queue: Queue,
        interval: ChunkExecutor | None,
        concurrency: int,
    ) -> None:
        self._batch = batch
        self._executor = executor
        self._control = control
        self._limiter = limiter
        self._streak = streak
        self._turn = turn
        self._queue = queue
        self._interval = interval
        self._adaptive = None if interval is None else AdaptiveLimit(concurrency)
        self._taking = anyio.Lock()
        self._settled = 0  # items that completed or were skipped here
        self._gate = Gate()

    @property
    def running(self) -> bool:
        """Whether items of the batch may start."""
        return (
            self._streak.reason is None
            and not self._turn.over
            and not self._control.is_stopped(self._batch.id)
        )

    def may_start(self, work: QueuedItem) -> bool:
        """Whether an item may start now: its range is ours, and the batch is being processed.

        And all keys are still known that were when the range was claimed.
        """
        held = work.held
        return held.open and held.ordered == self._executor.ordering.version and self.running

    @property
    def portion(self) -> int:
        """How many items a slot takes at once."""
        return 1 if self._interval is None else self._queue.portion(self._interval.size)

    def _has_more(self) -> bool:
        """Whether an item waits for a slot."""
        return bool(self._queue.ready) and self.running

    async def run(self) -> None:
        """Run queued items on one kept connection, one at a time or an interval at a time."""
        more = True
        while more:
            async with self._place():
                works = await self._take(None)
                more = bool(works)
                if works:
                    session = self._executor.session(more=self._has_more)
                    async with self._limiter, session:
                        await self._burst(works, session)

    def _place(self) -> AbstractAsyncContextManager[None]:
        """What a slot holds while it works."""
        return nullcontext() if self._adaptive is None else self._adaptive.places

    async def _burst(self, first: list[QueuedItem], session: Session) -> None:
        """Run items while there are any and no other batch waits for this slot."""
        works = first
        count = 0
        while works:
            if self._executor.conflicted:
                await self._run_beside(works, session)
            else:
                self._gate.running += 1
                try:
                    await self._run_together(works, session, {})
                finally:
                    self._gate.leave()
            self._queue.release(works)
            count += len(works)
            if count >= QUANTUM_ITEMS or self._control.examiner_waits:
                count = 0
                if self._limiter.statistics().tasks_waiting:
                    return
            if self._adaptive is not None:
                self._adaptive.finished(len(works))
                if self._adaptive.too_many:
                    return
            works = await self._take(IDLE_SECONDS)

    async def _take(self, patience: float | None) -> list[QueuedItem]:
        """The next items to run together; none when there are none within `patience` seconds.

        One slot at a time collects, or each of those that wait would get a single item.
        """
        owner = object()
        if self._interval is None:
            return await self._queue.take(1, patience, owner)
        with anyio.move_on_after(patience) as waiting:
            await self._taking.acquire()
        if waiting.cancelled_caught:
            return []
        try:
            works = await self._queue.take(self.portion, patience, owner)
            while works and (missing := self.portion - len(works)) > 0:
                more = await self._queue.take(missing, GATHER_SECONDS, owner)
                if not more:
                    break
                works += more
        finally:
            self._taking.release()
        if self._executor.ordering.active:
            works.sort(key=attrgetter("number"))
        return works

    async def _run_beside(self, works: list[QueuedItem], session: Session) -> None:
        """Run items in order, beside those of other slots; alone those that met conflicts again."""
        unsettled: dict[str, HeldRange] = {}
        for alone, part in self._parts(works):
            if alone:
                async with self._gate.alone():
                    await self._run_together(part, session, unsettled)
                continue
            await self._gate.enter()
            try:
                await self._run_together(part, session, unsettled)
            finally:
                self._gate.leave()

    def _parts(self, works: list[QueuedItem]) -> Iterable[tuple[bool, list[QueuedItem]]]:
        """Items that run together, and between them each that runs while no other does."""
        conflicted = self._executor.conflicted
        for alone, group in groupby(works, lambda work: work.item.item_number in conflicted):
            part = list(group)
            yield from ((True, [work]) for work in part) if alone else [(False, part)]

    async def _run_together(
        self, works: list[QueuedItem], session: Session, unsettled: dict[str, HeldRange]
    ) -> None:
        """Run items in one transaction; what that leaves undecided runs alone.

        Args:
            unsettled: The keys of items that have not had their end here, with their ranges; later
                items of these keys stay behind them. Added to.
        """
        outcomes: dict[int, Outcome] = {}
        if unsettled:
            works = [work for work in works if not _stays_behind(work, unsettled)]
        if len(works) > 1 and self._interval is not None:
            await self._make_ready(works)
            outcomes = await self._outcomes(self._interval, works, session)
        for work in works:
            outcome = outcomes.get(work.item.item_number)
            if outcome is not None:
                _count(work, outcome)
                work.held.finish_item()
            elif not _stays_behind(work, unsettled):
                await self.run_alone(work, session)
            if not work.settled:
                unsettled |= dict.fromkeys(work.keys, work.held)
        if outcomes:
            self._settled += sum(map(_succeeded, outcomes.values()))
        if self._streak.reason is not None:
            await pause(self._batch, self._control, self._streak.reason)

    async def _make_ready(self, works: Sequence[QueuedItem]) -> None:
        """Validate and prepare items, as far as the server does not fail meanwhile."""
        if self._executor.always_ready:
            for work in works:
                work.prepared = self._executor.as_it_is(work.item)
            return
        for work in works:
            if work.prepared is None and self.running:
                with suppress(Outage):
                    work.prepared = await self._executor.prepare(work.item, work.read)

    async def _outcomes(
        self, interval: ChunkExecutor, works: Sequence[QueuedItem], session: Session
    ) -> dict[int, Outcome]:
        """Execute items in one transaction until their outcomes are known, as far as it gets."""
        prepared = _in_order(works)
        by_number = {work.number: work for work in works}
        try:
            return await interval.execute(
                prepared, session, lambda one: self.may_start(by_number[one.item.item_number])
            )
        except Outage as outage:
            logger.warning("%s must wait: %s", counted(len(works), "item"), outage.failure.message)
            if not outage.lost:
                await anyio.sleep(_backoff(1))
        return await self._control.insist(
            lambda conn: settlements.ask(conn, self._batch.id, [one.item for one in prepared]),
            apart=True,
        )

    async def run_alone(self, work: QueuedItem, session: Session) -> None:
        """Run one item, unless its range or the batch was given up meanwhile."""
        held = work.held
        try:
            if self.may_start(work):
                outcome = await self._outcome(work, session)
                _count(work, outcome)
                if _succeeded(outcome):
                    self._streak.success()
                    self._settled += 1
                if self._streak.reason is not None:
                    await pause(self._batch, self._control, self._streak.reason)
        finally:
            held.finish_item()

    async def _outcome(self, work: QueuedItem, session: Session) -> Outcome:
        """Execute an item until its outcome is known, whatever happens to the server."""
        item, prepared = work.item, work.prepared
        outages: Outages | None = None
        hopeless = work.doomed
        while True:
            try:
                if hopeless is not None:
                    return await self._executor.give_up(item, hopeless, session)
                prepared = prepared or await self._executor.prepare(item, work.read)
                work.read = None  # whatever the processor did to it
                prepared.ordered = work.held.ordered
                return await self._executor.execute(prepared, session)
            except Outage as outage:
                message = outage.failure.message
                logger.warning("item %s waits: %s", item.item_number, message)
                outages = outages or Outages(hopeless, lambda: self._settled)
                outages.add(outage, healthy=await self._control.probe())
                hopeless = outages.hopeless
                if outages.stuck:
                    self._streak.halt(f"the server refuses everything, for now: {message[:300]}")
                if not outage.lost:
                    await anyio.sleep(_backoff(outages.delays))
            if (outcome := await self._ask(item)) is not None:
                return outcome
            if not self.running:
                return Rescheduled()

    async def _ask(self, item: ImportBatchItem[Any]) -> Outcome | None:
        """What the item's row says under its lock; None: it is pending, and ours to try again."""
        return await self._control.insist(lambda conn: items.ask(conn, item), apart=True)


class Outages:
    """The outages under one item, and whether it is to blame for them itself.

    A connection that breaks three times under it while the server is well is its doing; so is an
    error that only its own statements meet, again and again. A state of the whole server, such as
    a full disk, is held against it only where other items succeed meanwhile.

    Args:
        doomed: Why the item fails without being run.
        settled: How many items have succeeded here so far.

    Attributes:
        hopeless: Why the item fails now; None: it runs once more.
        stuck: Whether nothing at all succeeds although the server answers.
        delays: Refusals after which the server is left alone for a while.
    """

    def __init__(self, doomed: Failure | None, settled: Callable[[], int]) -> None:
        self.hopeless = doomed
        self.stuck = False
        self.delays = 0
        self._settled = settled
        self._settled_before = settled()
        self._losses = 0
        self._refusals = 0

    def add(self, outage: Outage, *, healthy: bool) -> None:
        """One more.

        Args:
            healthy: Whether the server takes writes now, on another connection.
        """
        failure = outage.failure
        self.delays += not outage.lost
        self._losses += healthy and (outage.lost or failure.sqlstate == "25006")
        self._refusals += healthy and outage.by_item and not outage.lost
        others = self._settled() > self._settled_before
        state = is_server_state(failure)
        if self._losses >= LOSSES:
            self.hopeless = failure
        elif self._refusals >= (STATE_REFUSALS if state else REFUSALS) and (others or not state):
            self.hopeless = replace(failure, kind=FailureKind.EXCEPTION)
        self.stuck = self.hopeless is None and self._refusals >= STUCK_REFUSALS


def _stays_behind(work: QueuedItem, unsettled: Mapping[str, HeldRange]) -> bool:
    """Leave an item whose predecessor, by one of its keys, has not had its end here."""
    if not unsettled or not any(key in unsettled for key in work.keys):
        return False
    if work.held in [unsettled.get(key) for key in work.keys]:
        work.held.behind.add(work.number)
    work.held.finish_item()
    return True


def _succeeded(outcome: Outcome) -> bool:
    return isinstance(outcome, Completed | Skip)


def _count(work: QueuedItem, outcome: Outcome) -> None:
    """Add a settled item to its range's counts; or note that it waits for the next pass."""
    work.settled = isinstance(outcome, Completed | Skip | Failed | Deferred)
    match outcome:
        case Completed():
            work.held.count(ItemStatus.COMPLETED, None)
        case Skip():
            work.held.count(ItemStatus.SKIPPED, None)
        case Failed(failure):
            work.held.count(ItemStatus.FAILED, failure.group)
        case Deferred():
            work.held.deferred.add(work.item.item_number)
        case Postponed() | Rescheduled() | FenceLost():
            pass


def _in_order(works: Sequence[QueuedItem]) -> list[Prepared]:
    """What is prepared of these, but nothing that shares a key with an earlier one that is not."""
    prepared: list[Prepared] = []
    unprepared: set[str] = set()
    for work in works:
        if work.prepared is None or not unprepared.isdisjoint(work.keys):
            unprepared.update(work.keys)
        else:
            work.prepared.keys = work.keys
            prepared.append(work.prepared)
    return prepared


def _backoff(count: int) -> float:
    """Seconds to wait before asking a server again that refused politely."""
    return random.uniform(0, min(LONGEST_BACKOFF, 0.1 * 2.0**count))  # noqa: S311 - jitter
