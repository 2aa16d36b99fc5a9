"""Draining: claim ranges, run their items concurrently, close them, until none is left."""

import logging
import random
from dataclasses import dataclass, replace
from typing import Any

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from .control import Control, HeldRange
from .execution import Executor, Prepared
from .models import BatchStatus, ImportBatch, ImportBatchItem, ItemStatus, LogLevel
from .outcomes import Failure
from .session import Outage, Session
from .settling import Later, Settled, Superseded, Verdict
from .stopping import Streak
from .store import batches, items, logs, ranges
from .turn import Turn

logger = logging.getLogger("reliable_imports_async")

PAGE_ITEMS = 500
FIRST_PAGE_ITEMS = 50
PAGE_BYTES = 8 * 1024 * 1024
IDLE_SECONDS = 0.05
QUANTUM_ITEMS = 50
LOSSES = 3
CLAIM_SECONDS = 10.0
HAND_BACK_SECONDS = 10.0
LONGEST_BACKOFF = 10.0


@dataclass(frozen=True, slots=True)
class Work:
    """An item waiting for a slot, and the range it counts for."""

    item: ImportBatchItem[Any]
    held: HeldRange
    prepared: Prepared | None = None


class Drain:
    """One process's part in draining one batch."""

    def __init__(
        self,
        batch: ImportBatch,
        executor: Executor,
        control: Control,
        limiter: anyio.CapacityLimiter,
        streak: Streak,
        concurrency: int,
        *,
        turn: Turn,
    ) -> None:
        self._batch = batch
        self._turn = turn
        self._executor = executor
        self._control = control
        self._limiter = limiter
        self._streak = streak
        self._concurrency = concurrency
        self._send: MemoryObjectSendStream[Work]
        self._receive: MemoryObjectReceiveStream[Work]
        self._send, self._receive = anyio.create_memory_object_stream[Work](float("inf"))
        self._ready_send, self._ready = self._send, self._receive
        if executor.waits:  # prepared apart from the slots, a few ahead of them
            self._ready_send, self._ready = anyio.create_memory_object_stream[Work](concurrency)
        self._held: set[HeldRange] = set()
        self._queued = 0
        self._page_items = FIRST_PAGE_ITEMS
        self._room = anyio.Event()
        self._released = anyio.Event()

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
                        slots.start_soon(self._slot)
                    for _ in range(self._executor.preparers):
                        slots.start_soon(self._preparer, self._ready_send.clone())
                    if self._ready_send is not self._send:
                        self._ready_send.close()  # the preparers hold clones
                    await self._feed(closing)
                    self._send.close()
                beating.cancel_scope.cancel()
        finally:
            for stream in (self._send, self._receive, self._ready_send, self._ready):
                stream.close()
            await self._hand_back()

    @property
    def _running(self) -> bool:
        return (
            self._streak.reason is None
            and not self._turn.over
            and self._control.status(self._batch.id) is BatchStatus.PROCESSING
        )

    def _has_more(self) -> bool:
        """Whether an item waits for a slot."""
        return self._ready.statistics().current_buffer_used > 0 and self._running

    async def _feed(self, closing: anyio.abc.TaskGroup) -> None:
        """Claim ranges and queue their items, as fast as the slots take them."""
        while self._running:
            held = await self._claim()
            if held is not None:
                await self._read(held)
                closing.start_soon(self._close, held)
            elif await self._nothing_left():
                return

    async def _claim(self) -> HeldRange | None:
        batch_id, control = self._batch.id, self._control

        async def statement(conn: Any) -> HeldRange | None:
            # Shielded: a claim whose answer is not awaited would be leased and never handed back.
            async with control.claiming:
                with anyio.fail_after(CLAIM_SECONDS, shield=True):
                    known = control.held_firsts(batch_id)
                    claimed = await ranges.claim(
                        conn, batch_id, control.worker_id, control.lease, known
                    )
                    if claimed is None:
                        return None
                    held = control.hold(*claimed)
                    self._held.add(held)
                    return held

        return await control.insist(statement)

    async def _read(self, held: HeldRange) -> None:
        """Queue a range's items page by page."""
        claimed = held.claimed
        first = claimed.first_item
        while first <= claimed.last_item and held.open and self._running:
            page = await self._control.insist(
                lambda conn, first=first: items.read_pending(  # type: ignore[misc]
                    conn,
                    claimed.batch_id,
                    self._batch.root_batch_id,
                    first,
                    claimed.last_item,
                    self._page_items,
                )
            )
            if not page:
                return
            held.unsettled += len(page)
            self._queued += len(page)
            for item in page:
                self._send.send_nowait(Work(item, held))
            first = page[-1].item_number + 1
            self._page_items = _page_items(page)
            await self._wait_for_room()

    async def _wait_for_room(self) -> None:
        while self._queued > 2 * self._concurrency and self._running:
            self._room = anyio.Event()
            with anyio.move_on_after(1.0):  # to see a pause
                await self._room.wait()

    async def _close(self, held: HeldRange) -> None:
        """Release a range once all its items have their verdicts."""
        while held.unsettled:
            held.progressed = anyio.Event()
            await held.progressed.wait()
        await self._control.insist(lambda conn: ranges.release(conn, held.claimed))
        self._control.let_go(held)
        self._held.discard(held)
        self._released.set()

    async def _nothing_left(self) -> bool:
        """Whether the batch is drained; otherwise returns once something may have changed."""
        self._released = anyio.Event()
        outlook = await self._control.insist(lambda conn: ranges.outlook(conn, self._batch.id))
        if not outlook.unfinished:
            return True
        if not outlook.leased and self._turn.leaves(outlook.seconds or 0.0):
            return True
        seconds = 1.0 if outlook.seconds is None else min(1.0, max(0.01, outlook.seconds))
        with anyio.move_on_after(seconds):
            await self._released.wait()
        return False

    async def _preparer(self, send: MemoryObjectSendStream[Work]) -> None:
        """Validate and prepare queued items, before a slot and its connection are needed."""
        async with send, self._receive.clone() as receive:
            async for work in receive:
                self._make_room()
                if not (work.held.open and self._running):
                    work.held.finish_item()
                    continue
                try:
                    prepared = await self._executor.prepare(work.item)
                except Outage:
                    prepared = None  # the slot waits for the server, and prepares it again
                await send.send(replace(work, prepared=prepared))

    def _make_room(self) -> None:
        """An item was taken from the queue: tell the feeder when it runs low."""
        self._queued -= 1
        if self._queued <= 2 * self._concurrency:
            self._room.set()

    async def _slot(self) -> None:
        """Run queued items, one at a time, on one kept connection."""
        async with self._ready.clone() as receive:
            async for work in receive:
                async with self._limiter:
                    session = self._executor.session(more=self._has_more)
                    try:
                        await self._burst(work, receive, session)
                    finally:
                        with anyio.CancelScope(shield=True):
                            await session.close()

    async def _burst(
        self, first: Work, receive: MemoryObjectReceiveStream[Work], session: Session
    ) -> None:
        """Run items while there are any and no other batch waits for this slot."""
        work: Work | None = first
        count = 0
        while work is not None:
            await self._run(work, session)
            count += 1
            if count % QUANTUM_ITEMS == 0 and self._limiter.statistics().tasks_waiting:
                return
            work = await self._next(receive)

    async def _next(self, receive: MemoryObjectReceiveStream[Work]) -> Work | None:
        """The next item, if there is one soon."""
        try:
            return receive.receive_nowait()
        except anyio.EndOfStream:
            return None
        except anyio.WouldBlock:
            with anyio.move_on_after(IDLE_SECONDS):
                try:
                    return await receive.receive()
                except anyio.EndOfStream:
                    return None
        return None

    async def _run(self, work: Work, session: Session) -> None:
        """Run one item, unless its range or the batch was given up meanwhile."""
        if self._ready is self._receive:
            self._make_room()
        held = work.held
        try:
            if held.open and self._running:
                self._take_note(held, await self._verdict(work, session))
                if self._streak.reason is not None:
                    await self._pause(self._streak.reason)
        finally:
            held.finish_item()

    def _take_note(self, held: HeldRange, verdict: Verdict) -> None:
        match verdict:
            case Settled(status, group):
                held.count(status, group)
                if status is not ItemStatus.FAILED:
                    self._streak.success()
            case Later() | Superseded():
                pass

    async def _verdict(self, work: Work, session: Session) -> Verdict:
        """Execute an item until its outcome is known, whatever happens to the server."""
        item, prepared = work.item, work.prepared
        failure: Failure | None = None
        losses = delays = 0
        while True:
            try:
                if failure is not None and losses >= LOSSES:
                    return await self._executor.give_up(item, failure, session)
                prepared = prepared or await self._executor.prepare(item)
                return await self._executor.execute(prepared, session)
            except Outage as outage:
                failure = outage.failure
                logger.warning("item %s waits: %s", item.item_number, failure.message)
                healthy = await self._control.probe()
                if healthy and (outage.lost or failure.sqlstate == "25006"):
                    losses += 1
                if not outage.lost:
                    delays += 1
                    await anyio.sleep(_backoff(delays))
            if (verdict := await self._ask(item)) is not None:
                return verdict
            if not self._running:
                return Later()

    async def _ask(self, item: ImportBatchItem[Any]) -> Verdict | None:
        """What the item's row says under its lock; None: it is pending, and ours to try again."""
        stored = await self._control.insist(
            lambda conn: items.ask(conn, item.batch_id, item.item_number), apart=True
        )
        if stored.status is not ItemStatus.PENDING:
            return Settled(stored.status, stored.error_group)
        return None if stored.attempts == item.attempts else Later()

    async def _pause(self, reason: str) -> None:
        batch_id = self._batch.id

        async def statement(conn: Any) -> None:
            if await batches.pause(conn, batch_id, reason):
                details = {"actor": "reliable_imports_async", "reason": reason}
                await logs.insert(conn, batch_id, LogLevel.ERROR, "batch paused", details)

        await self._control.insist(statement)
        self._control.note_status(batch_id, BatchStatus.PAUSED)

    async def _hand_back(self) -> None:
        """Release what is still held; what is pending in it stays pending, for whoever comes."""
        with anyio.CancelScope(shield=True), anyio.move_on_after(HAND_BACK_SECONDS):
            for held in self._held:
                self._control.let_go(held)
                await self._control.insist(
                    lambda conn, held=held: ranges.release(conn, held.claimed)  # type: ignore[misc]
                )


def _page_items(page: list[ImportBatchItem[Any]]) -> int:
    """How many items to read next, so that a page of large records fits in memory."""
    sample = page[-1].source_data
    size = sum(len(value) for value in sample.values() if isinstance(value, str)) + 64
    return max(1, min(PAGE_ITEMS, PAGE_BYTES // size))


def _backoff(count: int) -> float:
    """Seconds to wait before asking a server again that refused politely."""
    return random.uniform(0, min(LONGEST_BACKOFF, 0.1 * 2.0**count))  # noqa: S311 - jitter
