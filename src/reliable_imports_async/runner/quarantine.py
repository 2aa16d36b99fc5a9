"""Runs ranges in which a worker has died: one item at a time, each marked before it runs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from ..execution.session import Session
from ..failures import crash_failure
from ..store import crash_marks
from . import unchanged
from .batch_run import BatchRun
from .item_queue import QueuedItem
from .leases import HEARTBEAT_SECONDS, HeldRange
from .range_items import PendingItems, read_undue
from .slots import Slots

DEAD_SECONDS = 30.0
"""A worker is dead that has renewed nothing for so long, or for its lease where that is longer."""
DEATHS = 2
PAGE_ITEMS = 20
MAX_RANGES = 16
"""How many quarantined ranges a process holds at most; further ones are for other processes."""


class Quarantine:
    """Runs the items of ranges in which a worker has died, to find the poison among them.

    An item that kills its process was running, beside others, when the range was claimed first. It
    kills two more workers that have marked it; the next one fails the item, and goes on.
    """

    def __init__(self, batch_run: BatchRun, slots: Slots) -> None:
        self._batch_run = batch_run
        self._batch = batch_run.batch
        self._executor = batch_run.executor
        self._leases = batch_run.leases
        self._slots = slots
        self._dead_after = max(self._leases.seconds, DEAD_SECONDS)

    async def run(self, held: HeldRange) -> None:
        """Run the pending items of a range; one range at a time in a process."""
        waiting = True
        while waiting:
            async with self._leases.examining, self._marking():
                waiting = await self._run_items(held)
            if waiting:
                await anyio.sleep(HEARTBEAT_SECONDS)

    async def _run_items(self, held: HeldRange) -> bool:
        """Run one item after the other on one connection; return whether some have to wait."""
        waiting = False
        behind = await self._undue_keys(held)
        if self._executor.skipping is not None and self._batch_run.running:
            await unchanged.skip(self._leases, self._executor.skipping, held)
        pending = PendingItems(self._leases, self._batch, held)
        async with self._slot() as session:
            while not pending.ended:
                for item in await pending.page(PAGE_ITEMS):
                    entry = QueuedItem(item, held)
                    entry.keys, entry.read = self._executor.ordering.keys(item)
                    if not self._batch_run.may_start(held):
                        return False
                    waiting |= await self._run_in_order(entry, behind, session)
        return waiting

    async def _undue_keys(self, held: HeldRange) -> set[str]:
        """The keys of items that are to be retried, but not yet."""
        ordering = self._executor.ordering
        if not ordering.active:
            return set()
        undue = await read_undue(self._leases, self._batch, held)
        return {key for item in undue for key in ordering.keys(item)[0]}

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[Session]:
        """A place among the slots, which make room for it soon; and a session for it."""
        self._leases.quarantine_waits = True
        try:
            await self._batch_run.limiter.acquire()
        finally:
            self._leases.quarantine_waits = False
        try:
            async with self._executor.session(more=lambda: False) as session:
                yield session
        finally:
            self._batch_run.limiter.release()

    async def _run_in_order(self, entry: QueuedItem, behind: set[str], session: Session) -> bool:
        """Run an item unless it must stay behind an earlier one; return whether it has to wait.

        Args:
            behind: The keys of earlier items that are not settled. Added to.
        """
        waits = False
        blocked = entry.number in entry.held.claimed.blocked
        if not blocked and behind.isdisjoint(entry.keys):
            waits = not await self._run_marked(entry, session)
        elif not blocked:
            entry.held.behind.add(entry.number)
        if not entry.settled:
            behind.update(entry.keys)
        return waits

    async def _run_marked(self, entry: QueuedItem, session: Session) -> bool:
        """Run an item under a mark; or fail it, when enough workers have died in it.

        Returns:
            False where the last worker that marked it may be about to come back; the item is to
            blame only when that worker is dead.
        """
        marks = await self._mark(entry.number)
        if marks.dead + marks.living >= DEATHS:
            if marks.dead < DEATHS:
                return False
            entry.poison = crash_failure(DEATHS + 1)
        entry.held.unsettled += 1
        await self._slots.run_item(entry, session)
        if entry.poison is not None:
            await self._leases.retry_until_answered(
                lambda conn: crash_marks.unmark_item(conn, self._batch.id, entry.number)
            )
        return True

    async def _mark(self, number: int) -> crash_marks.Marks:
        """Leave a mark on an item that is about to run, unless it has too many already."""
        worker_id, dead_after = self._leases.worker_id, self._dead_after
        return await self._leases.retry_until_answered(
            lambda conn: crash_marks.mark(
                conn, self._batch.id, number, worker_id, dead_after=dead_after, most=DEATHS
            )
        )

    @asynccontextmanager
    async def _marking(self) -> AsyncIterator[None]:
        """Renew this worker's mark while it runs items: a mark that grows old means a death."""
        async with anyio.create_task_group() as keeping:
            keeping.start_soon(self._keep_marks)
            try:
                yield
            finally:
                with anyio.move_on_after(HEARTBEAT_SECONDS * 5, shield=True):
                    await self._leases.retry_until_answered(
                        lambda conn: crash_marks.unmark_batch(
                            conn, self._batch.id, self._leases.worker_id
                        )
                    )
                keeping.cancel_scope.cancel()

    async def _keep_marks(self) -> None:
        while True:
            await anyio.sleep(HEARTBEAT_SECONDS)
            await self._leases.retry_until_answered(
                lambda conn: crash_marks.keep(conn, self._batch.id, self._leases.worker_id)
            )
