"""Suspect ranges: a worker died in one, so its items run one at a time, each marked before."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from .control import BEAT_SECONDS, Control, HeldRange
from .execution import Executor
from .item_queue import Work
from .judgement import crash_failure
from .models import ImportBatch, ImportBatchItem
from .slots import Slots
from .store import crash_marks, items

DEAD_SECONDS = 30.0
"""A worker is dead that has renewed nothing for so long, or for its lease where that is longer."""
DEATHS = 2
PAGE_ITEMS = 20


class Suspects:
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
        async with self._control.examining, anyio.create_task_group() as keeping:
            keeping.start_soon(self._keep_marks)
            async for item in self._pending(held):
                work = Work(item, held)
                if not self._slots.may_start(work):
                    break
                await self._examine(work)
            keeping.cancel_scope.cancel()

    async def _examine(self, work: Work) -> None:
        """Run one item, under a mark; or fail it, when it has killed enough."""
        number = work.item.item_number
        while (marks := await self._marks(number)).dead < DEATHS:
            if marks.dead + marks.living < DEATHS:
                async with self._marked(work.item):
                    await self._run(work)
                return
            # The last one may be about to come back; only when it is dead is the item to blame.
            await anyio.sleep(BEAT_SECONDS)
            if not self._slots.may_start(work):
                return
        await self._run(Work(work.item, work.held, doomed=crash_failure(DEATHS + 1)))
        await self._unmark(number, settled=True)

    async def _run(self, work: Work) -> None:
        async with self._limiter:
            session = self._executor.session(more=lambda: False)
            work.held.unsettled += 1
            try:
                await self._slots.run_alone(work, session)
            finally:
                with anyio.CancelScope(shield=True):
                    await session.close()

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
    async def _marked(self, item: ImportBatchItem[Any]) -> AsyncIterator[None]:
        """Leave a mark while an item runs; what happens to the mark tells whether we survived."""
        worker_id, number = self._control.worker_id, item.item_number
        await self._control.insist(
            lambda conn: crash_marks.mark(conn, self._batch.id, number, worker_id)
        )
        try:
            yield
        finally:
            with anyio.move_on_after(BEAT_SECONDS * 5, shield=True):
                await self._unmark(number, settled=False)

    async def _unmark(self, number: int, *, settled: bool) -> None:
        worker_id = self._control.worker_id
        await self._control.insist(
            lambda conn: crash_marks.unmark(
                conn, self._batch.id, number, worker_id, settled=settled
            )
        )

    async def _marks(self, number: int) -> crash_marks.Marks:
        worker_id, dead_after = self._control.worker_id, self._dead_after
        return await self._control.insist(
            lambda conn: crash_marks.of_others(conn, self._batch.id, number, worker_id, dead_after)
        )

    async def _keep_marks(self) -> None:
        """Say once a second that this worker lives."""
        while True:
            await anyio.sleep(BEAT_SECONDS)
            await self._control.insist(
                lambda conn: crash_marks.keep(conn, self._batch.id, self._control.worker_id)
            )
