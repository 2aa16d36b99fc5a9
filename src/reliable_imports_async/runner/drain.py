"""Draining: claim ranges, run their items concurrently, close them, until none is left."""

import logging
from contextlib import suppress
from time import monotonic
from typing import Any
from uuid import UUID

import anyio
import anyio.lowlevel

from ..database.guard import Connection
from ..execution.executor import Executor
from ..models import ImportBatch, LogLevel
from ..outcomes import Outage
from ..store import items, logs, ranges
from ..store.item_keys import Remembering
from ..store.ranges import KeyOrder
from ..wording import counted
from . import unchanged
from .item_queue import LEFT, PAGE_ITEMS, Queue, QueuedItem
from .leases import BEAT_SECONDS, Control, HeldRange
from .quarantine import MOST_RANGES, Quarantine
from .slots import Slots, TimeSlice


async def next_pass(conn: Connection, batch_id: UUID, pass_number: int) -> bool:
    """Begin the pass after `pass_number`, unless it is not time, or somebody else has."""
    begun = await ranges.reopen(conn, batch_id, pass_number)
    if begun is None:
        return False
    items = counted(begun.deferred, "deferred item")
    message = f"pass {begun.number}: {items} again"
    if begun.final:
        message = f"final pass: {items} again, and what still waits fails"
    details = {"pass": begun.number, "deferred": begun.deferred, "final": begun.final}
    await logs.insert(conn, batch_id, LogLevel.INFO, message, details)
    return True


steps = logging.getLogger("reliable_imports_async.worker")

RANGE_SECONDS = 5.0
LEAST_ITEMS = 20
CLAIM_SECONDS = 10.0
HAND_BACK_SECONDS = 10.0
KEYED_AT_ONCE = 50
LOOK_SECONDS = 0.5  # between looks behind ranges in which everything waits
SATED_SECONDS = 0.25  # what is left may be suspect ranges, of which this process has enough
LOST_PASS_SECONDS = 0.05  # somebody else has reopened the deferred ranges; or the batch is stopped


class Drain:
    """One process's part in draining one batch.

    Args:
        queue: Between what is read here and the slots.
        suspects: Runs ranges in which a worker has died.
        concurrency: How many slots there are.
        turn: When to leave the rest to others.
    """

    def __init__(
        self,
        batch: ImportBatch,
        executor: Executor,
        control: Control,
        *,
        slots: Slots,
        queue: Queue,
        suspects: Quarantine,
        concurrency: int,
        turn: TimeSlice,
    ) -> None:
        self._suspects = suspects
        self._batch = batch
        self._turn = turn
        self._executor = executor
        self._control = control
        self._slots = slots
        self._queue = queue
        self._concurrency = concurrency
        self._held: set[HeldRange] = set()
        self._began = monotonic()
        self._read_items = 0
        self._mostly_unchanged = False
        self._took_over = False
        self._released = anyio.Event()
        self._ordering = executor.ordering
        self._look_further_at = 0.0

    async def run(self) -> None:
        """Work until every range is done, the batch is paused or cancelled, or the turn is over.

        When it is cancelled itself, running items settle or roll back, and every range is handed
        back. Must run in a child task: only there does nothing pierce the shields.
        """
        try:
            async with anyio.create_task_group() as beating:
                beating.start_soon(self._control.beat, self._batch.id)
                async with anyio.create_task_group() as closing, anyio.create_task_group() as slots:
                    for _ in range(self._concurrency):
                        slots.start_soon(self._slots.run)
                    if self._queue.apart:
                        slots.start_soon(self._prepare_apart)
                    await self._feed(closing)
                    self._queue.read.end()
                beating.cancel_scope.cancel()
        finally:
            await self._hand_back()

    async def _feed(self, closing: anyio.abc.TaskGroup) -> None:
        """Claim ranges and queue their items, as fast as the slots take them."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._keep_taking_over, closing)
            while self._slots.running:
                held = await self._claim(self._wanted())
                if held is None:
                    if await self._nothing_left():
                        break
                elif held.suspect:
                    closing.start_soon(self._examine, held)
                else:
                    await self._read(held)
                    closing.start_soon(self._close, held)
            group.cancel_scope.cancel()

    async def _keep_taking_over(self, closing: anyio.abc.TaskGroup) -> None:
        """Claim what dead workers held, although the queue may be full for long."""
        while self._slots.running:
            await anyio.sleep(BEAT_SECONDS)
            while (held := await self._claim(0)) is not None:
                closing.start_soon(self._examine, held)

    def _wanted(self) -> int:
        """The items of a range that takes about five seconds here; the rest is for others.

        So progress shows, and little is done again by whoever takes a range over.
        """
        if self._mostly_unchanged:
            return PAGE_ITEMS
        seconds = monotonic() - self._began
        done = self._read_items - sum(held.unsettled for held in self._held)
        least = max(LEAST_ITEMS, 2 * self._concurrency, 4 * self._slots.portion)
        if done < self._concurrency:
            return least
        return max(self._concurrency, self._slots.portion, int(RANGE_SECONDS * done / seconds))

    async def _claim(self, wanted: int) -> HeldRange | None:
        held = await self._claim_among(wanted, None)
        kinds, now = self._ordering.kinds, monotonic()
        if held is None and wanted and kinds is not None and now > self._look_further_at:
            self._look_further_at = now + LOOK_SECONDS
            found = await self._control.insist(
                lambda conn: ranges.runnable(conn, self._batch.id, self._in_order(), kinds)
            )
            held = await self._claim_among(wanted, found) if found else None
        return held

    async def _claim_among(self, wanted: int, among: list[int] | None) -> HeldRange | None:
        batch_id, control, ordering = self._batch.id, self._control, self._ordering

        async def statement(conn: Any) -> HeldRange | None:
            # Shielded: a claim whose answer is not awaited would be leased and never handed back.
            async with control.claiming:
                with anyio.fail_after(CLAIM_SECONDS, shield=True):
                    known = control.held_firsts(batch_id)
                    version, seen = ordering.version, self._queue.lanes.clock
                    claimed = await ranges.claim(
                        conn,
                        batch_id,
                        control.worker_id,
                        control.lease,
                        known,
                        wanted=wanted,
                        of_suspects=LEAST_ITEMS if control.suspects < MOST_RANGES else 0,
                        of_dead=LEAST_ITEMS,
                        order=KeyOrder(self._in_order(), ordering.kinds, among),
                    )
                    if claimed is None:
                        return None
                    held = control.hold(*claimed)
                    held.ordered, held.seen = version, seen
                    held.incomplete = bool(held.claimed.blocked)
                    self._held.add(held)
                    self._tell_taken_over(held)
                    return held

        return await control.insist(statement)

    def _in_order(self) -> list[int]:
        """The ranges whose items are all in the queue or behind it, where they keep their order."""
        return [
            held.claimed.first_item
            for held in self._held
            if held.open
            and held.ordered == self._ordering.version
            and not (held.incomplete or held.suspect)
        ]

    def _tell_taken_over(self, held: HeldRange) -> None:
        """Log once that work of a worker that died is done here."""
        if held.suspect and not self._took_over:
            self._took_over = True
            first, last = held.claimed.first_item, held.claimed.last_item
            steps.info(
                "batch %s: taking over from a worker that died, items %d to %d first",
                self._batch.id,
                first,
                last,
            )

    async def _read(self, held: HeldRange) -> None:
        """Queue a range's items page by page."""
        if self._ordering.active and held.claimed.epoch > 1:
            await self._close_undue(held)
        if not await self._read_pages(held):
            held.incomplete = True

    async def _close_undue(self, held: HeldRange) -> None:
        """Later items have to wait for those of their keys that are due later."""
        undue = await self._control.insist(
            lambda conn: items.read_undue(
                conn,
                held.claimed.batch_id,
                self._batch.root_batch_id,
                held.claimed.first_item,
                held.claimed.last_item,
            )
        )
        for work in await self._keyed([QueuedItem(item, held) for item in undue]):
            self._queue.lanes.close(work)

    async def _keyed(self, works: list[QueuedItem]) -> list[QueuedItem]:
        """The same with their keys."""
        if self._ordering.active:
            for count, work in enumerate(works, 1):
                work.keys, work.read = self._ordering.keys(work.item)
                if count % KEYED_AT_ONCE == 0:
                    await anyio.lowlevel.checkpoint()
        return works

    async def _read_pages(self, held: HeldRange) -> bool:
        """Queue them; whether all of them were."""
        claimed = held.claimed
        first, skipping = claimed.first_item, self._executor.skipping
        if skipping is not None and self._slots.running and not await self._left(held, skipping):
            return True
        while first <= claimed.last_item and held.open and self._slots.running:
            page = await self._control.insist(
                lambda conn, first=first: items.read_pending(  # type: ignore[misc]
                    conn,
                    claimed.batch_id,
                    self._batch.root_batch_id,
                    first,
                    claimed.last_item,
                    self._queue.page_items,
                )
            )
            if not page:
                return True
            first = page[-1].item_number + 1
            works = await self._keyed([QueuedItem(item, held) for item in held.to_run(page)])
            if not works:
                continue
            held.unsettled += len(works)
            self._read_items += len(works)
            self._queue.put(works, self._slots.portion)
            while self._queue.full and self._slots.running:
                await self._queue.wait_for_room(1.0)  # to see a pause
        return first > claimed.last_item

    async def _left(self, held: HeldRange, skipping: Remembering) -> int:
        """Skip what has not changed in a range; how many items are left at most."""
        began, size = monotonic(), held.claimed.last_item - held.claimed.first_item + 1
        skipped = await unchanged.skip(self._control, skipping, held)
        self._began += monotonic() - began  # which says nothing about how long items take
        self._mostly_unchanged = 2 * skipped > size
        return size - skipped

    async def _examine(self, held: HeldRange) -> None:
        await self._suspects.examine(held)
        await self._close(held)

    async def _close(self, held: HeldRange) -> None:
        """Release a range once all its items have their verdicts."""
        while held.unsettled:
            held.progressed = anyio.Event()
            await held.progressed.wait()
        await self._control.insist(
            lambda conn: ranges.release(conn, held.claimed, held.deferred, held.behind)
        )
        self._control.let_go(held)
        self._held.discard(held)
        self._released.set()

    async def _nothing_left(self) -> bool:
        """Whether the batch is drained; otherwise returns once something may have changed."""
        self._released = anyio.Event()
        batch_id, control = self._batch.id, self._control
        outlook = await control.insist(lambda conn: ranges.outlook(conn, batch_id, control.lease))
        if not outlook.unfinished:
            return True
        if outlook.only_deferred:
            if await self._control.insist(
                lambda conn: next_pass(conn, self._batch.id, outlook.pass_number)
            ):
                return False
            seconds = LOST_PASS_SECONDS
        elif not outlook.leased and self._turn.leaves(outlook.seconds or 0.0):
            return True
        else:
            least = 0.01 if control.suspects < MOST_RANGES else SATED_SECONDS
            seconds = 1.0 if outlook.seconds is None else min(1.0, max(least, outlook.seconds))
        with anyio.move_on_after(seconds):
            await self._released.wait()
        return False

    async def _prepare_apart(self) -> None:
        """Prepare queued items, before a slot and its connection are needed."""
        async with anyio.create_task_group() as preparers:
            for _ in range(self._executor.preparers):
                preparers.start_soon(self._preparer)
        self._queue.ready.end()

    async def _preparer(self) -> None:
        """Validate and prepare one queued item after the other."""
        while work := await self._queue.take_unprepared():
            if work.place is LEFT or not self._slots.may_start(work):
                self._queue.give_up(work)
                continue
            with suppress(Outage):  # the slot waits for the server, and prepares it again
                work.prepared = await self._executor.prepare(work.item, work.read)
            await self._queue.put_prepared(work)

    async def _hand_back(self) -> None:
        """Release what is still held; what is pending in it stays pending, for whoever comes."""
        with anyio.CancelScope(shield=True), anyio.move_on_after(HAND_BACK_SECONDS):
            for held in self._held:
                self._control.let_go(held)
                await self._control.insist(
                    lambda conn, held=held: ranges.release(  # type: ignore[misc]
                        conn, held.claimed, held.deferred, held.behind
                    )
                )
