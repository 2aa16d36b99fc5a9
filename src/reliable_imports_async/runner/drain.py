"""Drains a batch: claims ranges, has the slots run their items, and releases the ranges.

Several processes may drain one batch at the same time. Items that wait for other items are deferred
to a further pass, which begins when everything else is done.
"""

import logging
from time import monotonic
from typing import Any
from uuid import UUID

import anyio
import anyio.lowlevel

from ..database.guard import Connection, ReadingConnection
from ..database.pool import Database
from ..execution.executor import Executor
from ..execution.whole_set import Records
from ..models import ImportBatch, LogLevel
from ..processors.context import ImportContext
from ..processors.processor import BaseProcessor, interval_of
from ..processors.thresholds import FailureLimits, Thresholds
from ..settings import Settings
from ..store import catalog, logs, ranges
from ..store.item_keys import Remembering
from ..store.ranges import KeyOrder
from ..wording import counted
from . import unchanged
from .auto_pause import auto_pause, pause
from .batch_run import BatchRun, TimeSlice
from .item_queue import PAGE_ITEMS, Queue, Queued, QueuedItem, QueuedSet, queued
from .leases import HEARTBEAT_SECONDS, HeldRange, Leases
from .quarantine import MAX_RANGES, Quarantine
from .range_items import PendingItems, read_undue
from .slots import Slots

steps = logging.getLogger("reliable_imports_async.worker")

RANGE_SECONDS = 5.0
LEAST_ITEMS = 20
CLAIM_SECONDS = 10.0
HAND_BACK_SECONDS = 10.0
KEYING_SECONDS = 0.01  # of finding out keys, before other tasks run
LOOK_SECONDS = 0.5  # between looks behind ranges in which everything waits
SATED_SECONDS = 0.25  # only quarantined ranges may be left, of which this process holds enough
LOST_PASS_SECONDS = 0.05  # another process began the next pass; or the batch was stopped


class Drainer:
    """Drains batches in this process.

    Args:
        limiter: Limits the slots of all batches.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        leases: Leases,
        limiter: anyio.CapacityLimiter,
    ) -> None:
        self._database = database
        self._settings = settings
        self._leases = leases
        self._limiter = limiter

    async def drain(
        self,
        batch: ImportBatch,
        processor: BaseProcessor[Any],
        time_slice: TimeSlice,
        commit_interval: int | None,
    ) -> None:
        """Run the items of a batch, with the processor's resources around them.

        Args:
            time_slice: When to leave the rest to other processes.
            commit_interval: Items that share a transaction; by default as the processor says.
        """
        limits = FailureLimits(self._pause_after(processor), Thresholds.of(batch.options))
        reader = ReadingConnection(self._database.reading)
        async with processor.resources(ImportContext(batch, reader)) as shared:
            executor = Executor(
                batch, processor, self._database, self._settings, shared=shared, limits=limits
            )
            executor.ordering.begin()
            concurrency = self._database.concurrency
            batch_run = BatchRun(
                batch=batch,
                executor=executor,
                leases=self._leases,
                limiter=self._limiter,
                limits=limits,
                time_slice=time_slice,
                chunk_size=commit_interval or interval_of(processor),
                concurrency=min(processor.concurrency or concurrency, concurrency),
            )
            if (reason := await executor.invoker.check_declaration(self._database)) is not None:
                await pause(batch_run, reason)
                return
            async with auto_pause(batch_run):
                await Drain(batch_run).run()

    def _pause_after(self, processor: BaseProcessor[Any]) -> int | None:
        own = processor.pause_after
        return own if own is None or isinstance(own, int) else self._settings.pause_after


class Drain:
    """This process's part in draining one batch."""

    def __init__(self, batch_run: BatchRun) -> None:
        self._batch_run = batch_run
        self._batch = batch_run.batch
        self._ordering = batch_run.executor.ordering
        self._leases = batch_run.leases
        self._queue = Queue(
            batch_run.concurrency, prepared_ahead=batch_run.executor.waits, ordered=True
        )
        self._slots = Slots(batch_run, self._queue)
        self._quarantine = Quarantine(batch_run, self._slots)
        self._held: set[HeldRange] = set()
        self._released = anyio.Event()
        self._began = monotonic()
        self._read_items = 0
        self._mostly_unchanged = False
        self._told_takeover = False
        self._look_further_at = 0.0

    async def run(self) -> None:
        """Work until all ranges are done, the batch is stopped, or the time slice is over.

        When the drain is cancelled, running items settle or roll back, and all ranges are handed
        back. Must run in a child task: only there can nothing break the shields.
        """
        try:
            async with anyio.create_task_group() as heart:
                heart.start_soon(self._leases.heartbeat, self._batch.id)
                heart.start_soon(self._slots.adaptive_limit.start, self._waits_for_locks)
                async with anyio.create_task_group() as closing, anyio.create_task_group() as slots:
                    for _ in range(self._batch_run.concurrency):
                        slots.start_soon(self._slots.run)
                    if self._queue.prepared_ahead:
                        slots.start_soon(self._slots.prepare_ahead)
                    await self._feed(closing)
                    self._queue.read.end()
                heart.cancel_scope.cancel()
        finally:
            await self._hand_back()

    async def _waits_for_locks(self) -> bool:
        """Whether a session of this role waits for another's lock."""
        return await self._leases.retry_until_answered(catalog.waits_for_locks)

    async def _feed(self, closing: anyio.abc.TaskGroup) -> None:
        """Claim ranges and queue their items, as fast as the slots take them."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._keep_taking_over, closing)
            while self._batch_run.running:
                held = await self._claim(self._wanted())
                if held is None:
                    if await self._is_drained():
                        break
                elif held.quarantined:
                    closing.start_soon(self._run_quarantined, held)
                else:
                    await self._read(held)
                    closing.start_soon(self._close, held)
            group.cancel_scope.cancel()

    async def _keep_taking_over(self, closing: anyio.abc.TaskGroup) -> None:
        """Claim the ranges of dead workers, even while the queue stays full."""
        while self._batch_run.running:
            await anyio.sleep(HEARTBEAT_SECONDS)
            while (held := await self._claim(0)) is not None:
                closing.start_soon(self._run_quarantined, held)

    def _wanted(self) -> int:
        """The items of a range that takes about five seconds here; the rest is for other processes.

        So progress is visible, and little runs again when another process takes the range over.
        """
        if self._mostly_unchanged:
            return PAGE_ITEMS
        seconds = monotonic() - self._began
        done = self._read_items - sum(held.unsettled for held in self._held)
        least = max(LEAST_ITEMS, 2 * self._batch_run.concurrency, 4 * self._slots.portion)
        if done < self._batch_run.concurrency:
            return least
        return max(
            self._batch_run.concurrency, self._slots.portion, int(RANGE_SECONDS * done / seconds)
        )

    async def _claim(self, wanted: int) -> HeldRange | None:
        """Lease a range of so many items, or a quarantined one; None: there is none to lease."""
        held = await self._claim_among(wanted, None)
        kinds, now = self._ordering.kinds, monotonic()
        if held is None and wanted and kinds is not None and now > self._look_further_at:
            self._look_further_at = now + LOOK_SECONDS
            runnable = await self._leases.retry_until_answered(
                lambda conn: ranges.runnable(conn, self._batch.id, self._in_order(), kinds)
            )
            held = await self._claim_among(wanted, runnable) if runnable else None
        return held

    async def _claim_among(self, wanted: int, among: list[int] | None) -> HeldRange | None:
        batch_id, leases, ordering = self._batch.id, self._leases, self._ordering

        async def statement(conn: Any) -> HeldRange | None:
            # Shielded: a claim whose answer is not awaited would be leased and never handed back.
            async with leases.claiming:
                with anyio.fail_after(CLAIM_SECONDS, shield=True):
                    known = leases.first_items(batch_id)
                    version, clock = ordering.version, self._queue.lanes.clock
                    claimed = await ranges.claim(
                        conn,
                        batch_id,
                        leases.worker_id,
                        leases.seconds,
                        known,
                        wanted=wanted,
                        of_quarantined=LEAST_ITEMS if leases.quarantined < MAX_RANGES else 0,
                        of_dead=LEAST_ITEMS,
                        order=KeyOrder(self._in_order(), ordering.kinds, among),
                    )
                    if claimed is None:
                        return None
                    held = leases.register(*claimed)
                    held.keys_version, held.lanes_clock = version, clock
                    held.incomplete = bool(held.claimed.blocked)
                    self._held.add(held)
                    self._tell_takeover(held)
                    return held

        return await leases.retry_until_answered(statement)

    def _in_order(self) -> list[int]:
        """The ranges whose items are all in the queue or behind it, where they keep their order."""
        return [
            held.claimed.first_item
            for held in self._held
            if held.open
            and held.keys_version == self._ordering.version
            and not (held.incomplete or held.quarantined)
        ]

    def _tell_takeover(self, held: HeldRange) -> None:
        """Log once that this process does the work of a worker that died."""
        if held.quarantined and not self._told_takeover:
            self._told_takeover = True
            first, last = held.claimed.first_item, held.claimed.last_item
            steps.info(
                "batch %s: taking over from a worker that died, items %d to %d first",
                self._batch.id,
                first,
                last,
            )

    async def _read(self, held: HeldRange) -> None:
        """Queue the items of a range, page by page."""
        if self._ordering.active and held.claimed.epoch > 1:
            undue = await read_undue(self._leases, self._batch, held)
            for entry in await self._keyed([QueuedItem(item, held) for item in undue]):
                self._queue.lanes.close(entry)
        if not await self._read_pages(held):
            held.incomplete = True

    async def _keyed(self, entries: list[QueuedItem]) -> list[QueuedItem]:
        """Give items their keys."""
        if self._ordering.active:
            until = monotonic() + KEYING_SECONDS
            for entry in entries:
                entry.keys, entry.read = self._ordering.keys(entry.item)
                if monotonic() > until:
                    await anyio.lowlevel.checkpoint()
                    until = monotonic() + KEYING_SECONDS
        return entries

    async def _read_pages(self, held: HeldRange) -> bool:
        """Queue what is to be run of a range; return whether all of it was queued."""
        skipping = self._batch_run.executor.skipping
        unchanged_only = (
            skipping is not None
            and self._batch_run.running
            and not await self._skip_unchanged(held, skipping)
        )
        if unchanged_only:
            return True
        pending = PendingItems(self._leases, self._batch, held)
        async with anyio.create_task_group() as ahead:
            while not pending.ended and held.open and self._batch_run.running:
                entries = await self._next_entries(pending, held, ahead)
                if not entries:
                    continue
                size = sum(entry.size for entry in entries)
                held.unsettled += size
                self._read_items += size
                self._queue.put(entries, self._slots.portion)
                while self._queue.full and self._batch_run.running:
                    await self._queue.wait_for_room(1.0)  # to notice a pause
            ahead.cancel_scope.cancel()
        return pending.ended

    async def _next_entries(
        self, pending: PendingItems, held: HeldRange, ahead: anyio.abc.TaskGroup
    ) -> list[Queued]:
        """The next page of a range: as sets, if its records need no object for each.

        Args:
            ahead: Fetches the page after it meanwhile, unless the records are large.
        """
        sets = self._slots.sets
        as_sets = sets.usable and not (held.deferred or held.claimed.final_pass)
        size = self._slots.portion if as_sets else self._queue.page_items
        rows = await pending.rows(size)
        if self._queue.small_records and not pending.ended:
            ahead.start_soon(pending.fetch_ahead, size)
            await anyio.lowlevel.checkpoint()
        if not as_sets:
            page = await pending.to_run(rows)
            return [*await self._keyed([QueuedItem(item, held) for item in page])]
        entries: list[Queued] = []
        for part in await sets.read(rows):
            if not isinstance(part, Records):
                entries += queued([part], held, self._ordering)
            elif len(part.rows) == 1:
                entries += queued(part.new_items(), held, self._ordering)
            else:
                keys = self._ordering.keys_of(part.data)
                entries.append(QueuedSet(part, held, self._ordering, keys))
        return entries

    async def _skip_unchanged(self, held: HeldRange, skipping: Remembering) -> int:
        """Skip the unchanged items of a range; return how many items may be left to run."""
        began, size = monotonic(), held.claimed.last_item - held.claimed.first_item + 1
        skipped = await unchanged.skip(self._leases, skipping, held)
        self._began += monotonic() - began  # this time says nothing about how long items take
        self._mostly_unchanged = 2 * skipped > size
        return size - skipped

    async def _run_quarantined(self, held: HeldRange) -> None:
        await self._quarantine.run(held)
        await self._close(held)

    async def _close(self, held: HeldRange) -> None:
        """Release a range once all its items have ended."""
        await held.wait_until_settled()
        await self._leases.release(held)
        self._held.discard(held)
        self._released.set()

    async def _is_drained(self) -> bool:
        """Whether nothing is left to do here; otherwise wait until something may have changed."""
        self._released = anyio.Event()
        batch_id, leases = self._batch.id, self._leases
        outlook = await leases.retry_until_answered(
            lambda conn: ranges.outlook(conn, batch_id, leases.seconds)
        )
        if not outlook.unfinished:
            return True
        if outlook.only_deferred:
            if await leases.retry_until_answered(
                lambda conn: _begin_next_pass(conn, batch_id, outlook.pass_number)
            ):
                return False
            seconds = LOST_PASS_SECONDS
        elif not outlook.leased and self._batch_run.time_slice.leaves(outlook.seconds or 0.0):
            return True
        else:
            least = 0.01 if leases.quarantined < MAX_RANGES else SATED_SECONDS
            seconds = 1.0 if outlook.seconds is None else min(1.0, max(least, outlook.seconds))
        with anyio.move_on_after(seconds):
            await self._released.wait()
        return False

    async def _hand_back(self) -> None:
        """Release all ranges; their pending items stay pending, for any process."""
        with anyio.CancelScope(shield=True), anyio.move_on_after(HAND_BACK_SECONDS):
            for held in self._held:
                self._leases.unregister(held)
            for held in self._held:
                await self._leases.release(held)


async def _begin_next_pass(conn: Connection, batch_id: UUID, pass_number: int) -> bool:
    """Begin the pass after `pass_number`, unless it is too early, or another process has."""
    begun = await ranges.reopen(conn, batch_id, pass_number)
    if begun is None:
        return False
    items = counted(begun.deferred, "deferred item")
    message = f"pass {begun.number}: {items} run again"
    if begun.final:
        message = f"final pass: {items} run again; items that still wait will fail"
    details = {"pass": begun.number, "deferred": begun.deferred, "final": begun.final}
    await logs.insert(conn, batch_id, LogLevel.INFO, message, details)
    return True
