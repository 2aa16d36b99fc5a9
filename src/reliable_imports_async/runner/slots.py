"""The slots of a drain: each takes queued items and runs them until they have outcomes.

A slot keeps its connection while there are items, and gives its place away when other batches of
this process wait for one.
"""

import logging
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from itertools import groupby
from time import perf_counter
from typing import Any, cast

import anyio
import anyio.lowlevel

from ..execution.chunk import ChunkExecutor
from ..execution.chunk_progress import SuspectKeys
from ..execution.prepare import Prepared
from ..execution.session import Session
from ..execution.whole_set import WholeSets
from ..failures import is_server_state
from ..models import ImportBatchItem, ItemStatus
from ..outcomes import (
    SUCCESSES,
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
from ..store import settlements
from ..wording import counted
from .adaptive_limit import AdaptiveLimit
from .auto_pause import pause
from .batch_run import BatchRun
from .item_queue import HANDED_BACK, Queue, Queued, QueuedItem, QueuedSet
from .leases import HeldRange

logger = logging.getLogger("reliable_imports_async")

IDLE_SECONDS = 0.05
GATHER_SECONDS = 0.005
PREPARING_SECONDS = 0.01  # of reading items into their model, before other tasks run
QUANTUM_ITEMS = 50
LOSSES = 5  # three occur by chance where sessions are cut off all the time
REFUSALS = 5
STATE_REFUSALS = 10
STUCK_REFUSALS = 20
LONGEST_BACKOFF = 10.0
LONGEST_GIVING_WAY = 5.0
SETTLED = (*SUCCESSES, Failed, Deferred)


class Slots:
    """What the slots of one drain share; each of them is a call of `run`.

    Attributes:
        sets: Reads and runs records that need no object for each.
        adaptive_limit: Decides how many slots work at the same time.
    """

    def __init__(self, batch_run: BatchRun, queue: Queue) -> None:
        self._batch_run = batch_run
        self._executor = executor = batch_run.executor
        self._leases = batch_run.leases
        self._limiter = batch_run.limiter
        self._limits = batch_run.limits
        self._queue = queue
        suspect_keys = SuspectKeys()
        self.sets = WholeSets(executor, batch_run.chunk_size, suspect_keys)
        self._chunks: ChunkExecutor | None = None  # each item has a transaction of its own
        if batch_run.chunk_size > 1:
            self._chunks = ChunkExecutor(executor, batch_run.chunk_size, suspect_keys)
        self.adaptive_limit = AdaptiveLimit(
            batch_run.concurrency, lambda: batch_run.leases.workers(batch_run.batch.id)
        )
        executor.contention = self
        self._taking = anyio.Lock()
        self._succeeded = 0  # items that completed or were skipped here
        self._gate = Gate()

    @property
    def portion(self) -> int:
        """How many items a slot takes at once."""
        return 1 if self._chunks is None else self._queue.portion(self._chunks.size)

    async def prepare_ahead(self) -> None:
        """Prepare queued items before they need a slot and its connection."""
        async with anyio.create_task_group() as preparers:
            for _ in range(self._executor.preparers):
                preparers.start_soon(self._preparer)
        self._queue.ready.end()

    async def _preparer(self) -> None:
        while entry := await self._queue.take_unprepared():
            if entry.place is HANDED_BACK or not self._batch_run.may_start(entry.held):
                self._queue.give_up(entry)
                continue
            with suppress(Outage):  # the slot waits for the server, and prepares the item again
                entry.prepared = await self._executor.prepare(entry.item, read=entry.read)
            await self._queue.put_prepared(entry)

    async def run(self) -> None:
        """Run queued items until there are none, one by one or a chunk at a time."""
        more = True
        while more:
            async with self.adaptive_limit.place():
                entries = await self._take(None)
                more = bool(entries)
                if entries:
                    session = self._executor.session(more=self._has_more)
                    async with self._limiter, session:
                        await self._run_on(session, entries)

    def conflict(self) -> None:
        """Note that an attempt conflicted with another transaction."""
        self.adaptive_limit.conflict()

    async def give_way(self) -> None:
        """Before an attempt is repeated: wait for a while as long as more slots run than should.

        The slot keeps its place, so slots that end an item meanwhile leave.
        """
        if self._gate.running:  # otherwise it runs alone
            with anyio.move_on_after(LONGEST_GIVING_WAY):
                await self._gate.give_way(lambda: self.adaptive_limit.limit)

    def _has_more(self) -> bool:
        """Whether an item waits for a slot."""
        return bool(self._queue.ready) and self._batch_run.running

    async def _run_on(self, session: Session, entries: list[Queued]) -> None:
        """Run items while there are any and no other batch waits for this slot."""
        count = 0
        while entries:
            if items := [entry for entry in entries if isinstance(entry, QueuedItem)]:
                await self._run_items(items, session, {})
            if len(items) < len(entries):  # the last is a set
                await self._run_set(cast("QueuedSet", entries[-1]), session)
            self._queue.release(entries)
            size = sum(entry.size for entry in entries)
            count += size
            if count >= QUANTUM_ITEMS or self._leases.quarantine_waits:
                count = 0
                if self._limiter.statistics().tasks_waiting:
                    return
            self.adaptive_limit.finished(size)
            if self.adaptive_limit.exceeded:
                return
            entries = await self._take(IDLE_SECONDS)

    async def _run_items(
        self, entries: list[QueuedItem], session: Session, unsettled: dict[str, HeldRange]
    ) -> None:
        """Run items, beside other slots or without them; see `_run_together` for `unsettled`."""
        if self._executor.conflicted:
            await self._run_conflicted(entries, session, unsettled)
            return
        self._gate.running += 1
        try:
            await self._run_together(entries, session, unsettled)
        finally:
            self._gate.leave()

    async def _run_set(self, queued: QueuedSet, session: Session) -> None:
        """Run a set in one transaction, or each of its records as an item."""
        held, in_doubt = queued.held, False
        if self._batch_run.may_start(held) and self.sets.is_next():
            self._gate.running += 1
            try:
                outcomes = await self.sets.execute(queued.records, session)
            except Outage as outage:
                await self._note_outage(outage, queued.size)
                outcomes, in_doubt = None, True
            finally:
                self._gate.leave()
            if outcomes is not None:
                await self._settled(queued, outcomes)
                return
        entries, unsettled = queued.as_items(), dict[str, HeldRange]()
        waiting = await self._without_outcomes(entries, unsettled) if in_doubt else entries
        await self._run_items(waiting, session, unsettled)
        queued.unsettled = [entry for entry in entries if not entry.settled]
        queued.settled = not queued.unsettled

    async def _settled(self, queued: QueuedSet, outcomes: Sequence[Completed | Skip]) -> None:
        """Count the outcomes of a set that has committed."""
        completed = sum(type(outcome) is Completed for outcome in outcomes)
        queued.held.counts.completed += completed
        queued.held.counts.skipped += len(outcomes) - completed
        queued.held.finish_items(len(outcomes))
        queued.settled = True
        self._succeeded += len(outcomes)
        self._limits.success(len(outcomes))
        if self._limits.reason is not None:
            await pause(self._batch_run, self._limits.reason)

    async def _without_outcomes(
        self, entries: Sequence[QueuedItem], unsettled: dict[str, HeldRange]
    ) -> list[QueuedItem]:
        """The items that have no outcome although their COMMIT was sent; count the others."""
        stored = await self._stored_outcomes([entry.item for entry in entries])
        for entry in entries:
            if (outcome := stored.get(entry.number)) is not None:
                self._count_stored(entry, outcome, unsettled)
        return [entry for entry in entries if entry.number not in stored]

    def _count_stored(
        self, entry: QueuedItem, outcome: Outcome, unsettled: dict[str, HeldRange]
    ) -> None:
        """Count an outcome that another statement than the item's own has shown."""
        _count(entry, outcome)
        entry.held.finish_items()
        self._succeeded += _succeeded(outcome)
        if not entry.settled:
            unsettled |= dict.fromkeys(entry.keys, entry.held)

    async def _take(self, max_wait: float | None) -> list[Queued]:
        """The next items to run together; an empty list when none arrive within `max_wait` seconds.

        A set is the last of them. One slot at a time collects them; otherwise each waiting slot
        would get a single item.
        """
        owner = object()
        if self._chunks is None:
            return await self._queue.take(1, max_wait, owner)
        with anyio.move_on_after(max_wait) as waiting:
            await self._taking.acquire()
        if waiting.cancelled_caught:
            return []
        try:
            entries = await self._queue.take(self.portion, max_wait, owner)
            while (
                entries
                and isinstance(entries[-1], QueuedItem)
                and (missing := self.portion - len(entries)) > 0
            ):
                more = await self._queue.take(missing, GATHER_SECONDS, owner)
                if not more:
                    break
                entries += more
        finally:
            self._taking.release()
        if self._executor.ordering.active:
            entries.sort(key=lambda entry: (isinstance(entry, QueuedSet), entry.number))
        return entries

    async def _run_conflicted(
        self, entries: list[QueuedItem], session: Session, unsettled: dict[str, HeldRange]
    ) -> None:
        """Run items in order; those that met conflicts again and again run without any other."""
        for alone, part in self._parts(entries):
            if alone:
                async with self._gate.alone():
                    await self._run_together(part, session, unsettled)
                continue
            await self._gate.enter()
            try:
                await self._run_together(part, session, unsettled)
            finally:
                self._gate.leave()

    def _parts(self, entries: list[QueuedItem]) -> Iterable[tuple[bool, list[QueuedItem]]]:
        """Items that run together, and between them each item that runs alone."""
        conflicted = self._executor.conflicted
        for alone, group in groupby(entries, lambda entry: entry.number in conflicted):
            part = list(group)
            yield from ((True, [entry]) for entry in part) if alone else [(False, part)]

    async def _run_together(
        self, entries: list[QueuedItem], session: Session, unsettled: dict[str, HeldRange]
    ) -> None:
        """Run items in one transaction, and each that has no outcome then in its own.

        Args:
            unsettled: The keys of items that were not settled here, with their ranges; later items
                of these keys stay behind them. Added to.
        """
        outcomes: dict[int, Outcome] = {}
        if unsettled:
            entries = [entry for entry in entries if not _stays_behind(entry, unsettled)]
        if len(entries) > 1 and self._chunks is not None:
            await self._prepare(entries)
            outcomes = await self._run_chunk(self._chunks, entries, session)
        for entry in entries:
            outcome = outcomes.get(entry.item.item_number)
            if outcome is not None:
                _count(entry, outcome)
                entry.held.finish_items()
            elif not _stays_behind(entry, unsettled):
                await self._run_item(entry, session)
            if not entry.settled:
                unsettled |= dict.fromkeys(entry.keys, entry.held)
        if outcomes:
            self._succeeded += sum(map(_succeeded, outcomes.values()))
        if self._limits.reason is not None:
            await pause(self._batch_run, self._limits.reason)

    async def _prepare(self, entries: Sequence[QueuedItem]) -> None:
        """Validate and prepare items, except those during which the server fails."""
        executor, until = self._executor, perf_counter() + PREPARING_SECONDS
        for entry in entries:
            if executor.is_ready(read=entry.read):
                entry.prepared = entry.prepared or executor.as_it_is(entry.item)
            elif entry.prepared is None and self._batch_run.running:
                with suppress(Outage):
                    entry.prepared = await executor.prepare(entry.item, read=entry.read)
                if perf_counter() > until:
                    await anyio.lowlevel.checkpoint()
                    until = perf_counter() + PREPARING_SECONDS

    async def _run_chunk(
        self, chunks: ChunkExecutor, entries: Sequence[QueuedItem], session: Session
    ) -> dict[int, Outcome]:
        """Run items in one transaction; return the outcomes that are known afterwards."""
        prepared = _in_order(entries)
        try:
            return await chunks.execute(prepared, session, Starts(self._batch_run, entries))
        except Outage as outage:
            await self._note_outage(outage, len(entries))
        return await self._stored_outcomes([each.item for each in prepared])

    async def _note_outage(self, outage: Outage, count: int) -> None:
        """Note an outage under some items, and give a server that refuses statements time."""
        message = outage.failure.message
        logger.warning("%s will be retried after an outage: %s", counted(count, "item"), message)
        if not outage.lost:
            await anyio.sleep(_backoff(1))

    async def run_item(self, entry: QueuedItem, session: Session) -> None:
        """Run an item apart from the queue."""
        await self._gate.enter()
        try:
            await self._run_item(entry, session)
        finally:
            self._gate.leave()

    async def _run_item(self, entry: QueuedItem, session: Session) -> None:
        """Run an item in its own transaction, unless its range or the batch was given up."""
        try:
            if self._batch_run.may_start(entry.held):
                outcome = await self._outcome(entry, session)
                _count(entry, outcome)
                if _succeeded(outcome):
                    self._limits.success()
                    self._succeeded += 1
                if self._limits.reason is not None:
                    await pause(self._batch_run, self._limits.reason)
        finally:
            entry.held.finish_items()

    async def _outcome(self, entry: QueuedItem, session: Session) -> Outcome:
        """Execute an item until its outcome is known, through all outages of the server."""
        item, prepared, poison = entry.item, entry.prepared, entry.poison
        outages: Outages | None = None
        while True:
            try:
                if poison is not None:
                    return await self._executor.give_up(item, poison, session)
                prepared = prepared or await self._executor.prepare(item, read=entry.read)
                entry.read = False  # the processor may have changed it
                prepared.ordered = entry.held.keys_version
                return await self._executor.execute(prepared, session)
            except Outage as outage:
                outages = outages or Outages(poison, lambda: self._succeeded)
                await self._wait_out(outages, outage, item)
                poison = outages.poison
            if stored := await self._stored_outcomes([item]):
                return stored[item.item_number]
            if not self._batch_run.running:
                return Rescheduled()

    async def _wait_out(
        self, outages: "Outages", outage: Outage, item: ImportBatchItem[Any]
    ) -> None:
        """Note an outage under an item, and give a server that refuses statements time."""
        message = outage.failure.message
        logger.warning("item %s will be retried after an outage: %s", item.item_number, message)
        outages.add(outage, healthy=await self._leases.takes_writes())
        if outages.stuck:
            self._limits.halt(f"the server refuses all statements at the moment: {message[:300]}")
        if not outage.lost:
            await anyio.sleep(_backoff(outages.delays))

    async def _stored_outcomes(
        self, in_doubt: Sequence[ImportBatchItem[Any]]
    ) -> dict[int, Outcome]:
        """The outcomes in the items' rows, read under their locks; pending items have none."""
        return await self._leases.retry_until_answered(
            lambda conn: settlements.read_outcomes(conn, self._batch_run.batch.id, in_doubt),
            dedicated=True,
        )


class Gate:
    """Lets the slots of one drain run items together, or one slot an item alone.

    Attributes:
        running: How many slots run items together.
    """

    def __init__(self) -> None:
        self.running = 0
        self._lock = anyio.Lock()
        self._left: anyio.Event | None = None  # set when a slot has ended its items
        self._opened: anyio.Event | None = None  # set when the item that runs alone has ended
        self._quiet: anyio.Event | None = None  # set when nothing runs beside it any more

    async def enter(self) -> None:
        """Begin to run items together, once no item has to run alone."""
        while self._opened is not None:
            await self._opened.wait()
        self.running += 1

    def leave(self) -> None:
        """Take note that these items have ended."""
        self.running -= 1
        if self._left is not None:
            self._left.set()
            self._left = None
        if not self.running and self._quiet is not None:
            self._quiet.set()

    async def give_way(self, most: Callable[[], int]) -> None:
        """Do not count as running until fewer than `most` slots run, and none of them alone."""
        self.leave()
        try:
            while self.running >= most() or self._opened is not None:
                left = self._left = self._left or anyio.Event()
                await (left if self._opened is None else self._opened).wait()
        finally:
            self.running += 1

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Keep other items from starting, and wait until those that run have ended."""
        async with self._lock:
            opened = self._opened = anyio.Event()
            try:
                while self.running:
                    self._quiet = anyio.Event()
                    await self._quiet.wait()
                yield
            finally:
                self._opened = self._quiet = None
                opened.set()


class Starts:
    """Tells which items of a chunk may start: all items of one range, or none of them."""

    def __init__(self, batch_run: BatchRun, entries: Sequence[QueuedItem]) -> None:
        self._may_start = batch_run.may_start
        self._ranges = {entry.item.item_number: entry.held for entry in entries}
        self._held = set(self._ranges.values())

    def __call__(self, prepared: Prepared) -> bool:
        """Whether an item may start."""
        return self._may_start(self._ranges[prepared.item.item_number])

    def count(self, items: Sequence[Prepared]) -> int:
        """How many of these items may start: those before the first that may not."""
        if all(map(self._may_start, self._held)):
            return len(items)
        return next((at for at, each in enumerate(items) if not self(each)), len(items))


class Outages:
    """The outages under one item, and whether the item itself causes them.

    It does when its connection breaks again and again while the server is well, or when only its
    own statements meet an error again and again. A state of the whole server, such as a full disk,
    counts only if other items succeed meanwhile. Each of the three is counted by itself: an item
    that waited for a full disk, and is then cut off once, is to blame for neither.

    Args:
        poison: Why the item is failed without being run.
        succeeded: Returns how many items have succeeded here so far.

    Attributes:
        poison: Why the item fails now; None: it runs once more.
        stuck: Whether nothing at all succeeds although the server answers.
        delays: Refusals, after each of which the server gets more time.
    """

    def __init__(self, poison: Failure | None, succeeded: Callable[[], int]) -> None:
        self.poison = poison
        self.stuck = False
        self.delays = 0
        self._succeeded = succeeded
        self._succeeded_before = succeeded()
        self._losses = 0
        self._refusals = 0
        self._state_refusals = 0

    def add(self, outage: Outage, *, healthy: bool) -> None:
        """Count an outage.

        Args:
            healthy: Whether the server takes writes now, on another connection.
        """
        self.delays += not outage.lost
        if healthy:
            self.poison = self._blamed(outage) or self.poison
        refusals = self._refusals + self._state_refusals
        self.stuck = self.poison is None and refusals >= STUCK_REFUSALS

    def _blamed(self, outage: Outage) -> Failure | None:
        """Count an outage of this item alone; return why the item fails, if it is to blame."""
        failure = outage.failure
        if outage.lost or failure.sqlstate == "25006":
            self._losses += 1
            return failure if self._losses >= LOSSES else None
        if not outage.by_item:
            return None
        if is_server_state(failure):
            self._state_refusals += 1
            progress = self._succeeded() > self._succeeded_before
            to_blame = progress and self._state_refusals >= STATE_REFUSALS
        else:
            self._refusals += 1
            to_blame = self._refusals >= REFUSALS
        return replace(failure, kind=FailureKind.EXCEPTION) if to_blame else None


def _stays_behind(entry: QueuedItem, unsettled: Mapping[str, HeldRange]) -> bool:
    """Leave an item behind an earlier item of one of its keys that was not settled here."""
    if not unsettled or not any(key in unsettled for key in entry.keys):
        return False
    if entry.held in [unsettled.get(key) for key in entry.keys]:
        entry.held.behind.add(entry.number)
    entry.held.finish_items()
    return True


def _succeeded(outcome: Outcome) -> bool:
    return isinstance(outcome, SUCCESSES)


def _count(entry: QueuedItem, outcome: Outcome) -> None:
    """Add a settled item to its range's counts; or note that it waits for the next pass."""
    entry.settled = isinstance(outcome, SETTLED)
    match outcome:
        case Completed():
            entry.held.counts.completed += 1  # nearly always
        case Skip():
            entry.held.count(ItemStatus.SKIPPED, None)
        case Failed(failure):
            entry.held.count(ItemStatus.FAILED, failure.group)
        case Deferred():
            entry.held.deferred.add(entry.item.item_number)
        case Postponed() | Rescheduled() | FenceLost():
            pass


def _in_order(entries: Sequence[QueuedItem]) -> list[Prepared]:
    """The prepared items, without those that share a key with an earlier unprepared item."""
    prepared: list[Prepared] = []
    unprepared: set[str] = set()
    for entry in entries:
        if entry.prepared is None or not unprepared.isdisjoint(entry.keys):
            unprepared.update(entry.keys)
        else:
            entry.prepared.keys = entry.keys
            prepared.append(entry.prepared)
    return prepared


def _backoff(count: int) -> float:
    """Seconds to wait before a further statement after so many refusals."""
    return random.uniform(0, min(LONGEST_BACKOFF, 0.1 * 2.0**count))  # noqa: S311 - jitter
