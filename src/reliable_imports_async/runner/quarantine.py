"""Suspect ranges: a worker died in one, so its items run one at a time, each marked before."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from ..execution.executor import Executor
from ..execution.session import Session
from ..failures import crash_failure
from ..models import ImportBatch, ImportBatchItem
from ..store import crash_marks, items
from . import unchanged
from .item_queue import QueuedItem
from .leases import BEAT_SECONDS, Control, HeldRange
from .slots import Slots

DEAD_SECONDS = 30.0
"""A worker is dead that has renewed nothing for so long, or for its lease where that is longer."""
DEATHS = 2
PAGE_ITEMS = 20
MOST_RANGES = 16
"""So many suspect ranges a process holds at most; what is beyond them is for others."""


class Quarantine:
    """Runs the items of ranges in which a worker has died.

    An item that kills its process was running, with others, when the range was claimed first; it
    kills two more who had marked it; whoever comes then fails it, and goes on.
    """

    def __init__(
        self,
        batch: ImportBatch,
        executor: Executor,
        control: Control,
        slots: Slots,
        limiter: anyio.CapacityLimiter,
    ) -> None:
        self._batch = batch
        self._executor = executor
        self._control = control
        self._slots = slots
        self._limiter = limiter
        self._dead_after = max(control.lease, DEAD_SECONDS)

    async def examine(self, held: HeldRange) -> None:
        """Run what is pending in a range; one range at a time in a process."""
        waiting = True
        while waiting:
            async with self._control.examining, self._marking():
                waiting = await self._run_through(held)
            if waiting:
                await anyio.sleep(BEAT_SECONDS)

    async def _run_through(self, held: HeldRange) -> bool:
        """Run one item after the other, all on one connection; whether some have to wait."""
        waiting = False
        behind = await self._undue_keys(held)
        if self._executor.skipping is not None and self._slots.running:
            await unchanged.skip(self._control, self._executor.skipping, held)
        async with self._slot() as session:
            async for item in self._pending(held):
                work = QueuedItem(item, held)
                work.keys, work.read = self._executor.ordering.keys(item)
                if not self._slots.may_start(work):
                    return False
                blocked = work.number in held.claimed.blocked
                if not blocked and behind.isdisjoint(work.keys):
                    waiting |= not await self._examine(work, session)
                elif not blocked:
                    held.behind.add(work.number)
                if not work.settled:
                    behind.update(work.keys)
        return waiting

    async def _undue_keys(self, held: HeldRange) -> set[str]:
        """The keys of items that are to be tried again, but not yet: later ones have to wait."""
        ordering, claimed = self._executor.ordering, held.claimed
        if not ordering.active:
            return set()
        undue = await self._control.insist(
            lambda conn: items.read_undue(
                conn,
                claimed.batch_id,
                self._batch.root_batch_id,
                claimed.first_item,
                claimed.last_item,
            )
        )
        return {key for item in undue for key in ordering.keys(item)[0]}

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[Session]:
        """A place among the slots, which make room for it soon; and the session of it."""
        self._control.examiner_waits = True
        try:
            await self._limiter.acquire()
        finally:
            self._control.examiner_waits = False
        try:
            async with self._executor.session(more=lambda: False) as session:
                yield session
        finally:
            self._limiter.release()

    async def _examine(self, work: QueuedItem, session: Session) -> bool:
        """Run one item, under a mark; or fail it, when it has killed enough.

        Returns:
            False where the last who marked it may be about to come back; only when it is dead is
            the item to blame.
        """
        number = work.item.item_number
        marks = await self._mark(number)
        if marks.dead + marks.living < DEATHS:
            await self._run(work, session)
            return True
        if marks.dead < DEATHS:
            return False
        work.doomed = crash_failure(DEATHS + 1)
        await self._run(work, session)
        await self._control.insist(
            lambda conn: crash_marks.unmark_item(conn, self._batch.id, number)
        )
        return True

    async def _run(self, work: QueuedItem, session: Session) -> None:
        work.held.unsettled += 1
        await self._slots.run_alone(work, session)

    async def _pending(self, held: HeldRange) -> AsyncIterator[ImportBatchItem[Any]]:
        claimed, first = held.claimed, held.claimed.first_item
        while first <= claimed.last_item:
            page = await self._control.insist(
                lambda conn, first=first: items.read_pending(  # type: ignore[misc]
                    conn,
                    claimed.batch_id,
                    self._batch.root_batch_id,
                    first,
                    claimed.last_item,
                    PAGE_ITEMS,
                )
            )
            for item in held.to_run(page):
                yield item
            if not page:
                return
            first = page[-1].item_number + 1

    @asynccontextmanager
    async def _marking(self) -> AsyncIterator[None]:
        """Keep this worker's mark young while it runs items; what happens to it tells who lives."""
        async with anyio.create_task_group() as keeping:
            keeping.start_soon(self._keep_marks)
            try:
                yield
            finally:
                with anyio.move_on_after(BEAT_SECONDS * 5, shield=True):
                    await self._control.insist(
                        lambda conn: crash_marks.unmark_batch(
                            conn, self._batch.id, self._control.worker_id
                        )
                    )
                keeping.cancel_scope.cancel()

    async def _mark(self, number: int) -> crash_marks.Marks:
        """Leave a mark on an item that is about to run, unless others have left too many."""
        worker_id, dead_after = self._control.worker_id, self._dead_after
        return await self._control.insist(
            lambda conn: crash_marks.mark(
                conn, self._batch.id, number, worker_id, dead_after=dead_after, most=DEATHS
            )
        )

    async def _keep_marks(self) -> None:
        """Say once a second that this worker lives."""
        while True:
            await anyio.sleep(BEAT_SECONDS)
            await self._control.insist(
                lambda conn: crash_marks.keep(conn, self._batch.id, self._control.worker_id)
            )
