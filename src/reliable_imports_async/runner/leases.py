"""The ranges that one process holds: their leases, counts, and the status of their batches.

Once a second, one statement renews all leases, writes the counts and reads the statuses.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any, TypeVar
from uuid import UUID

import anyio
import asyncpg
import stamina
from pydantic_core import to_json

from ..database.guard import Connection, PooledConnection, drop
from ..database.pool import STATEMENT_SECONDS, Database
from ..database.server_errors import explained
from ..failures import is_outage
from ..models import BatchStatus, ImportBatchItem, ItemStatus
from ..settings import Settings
from ..store import ranges
from ..store.ranges import ClaimedRange, Counts, RunningCounts
from . import block_watch

logger = logging.getLogger("reliable_imports_async")

R = TypeVar("R")

HEARTBEAT_SECONDS = 1.0
LONGEST_WAIT = 2.0


@dataclass(slots=True, eq=False)
class HeldRange:
    """A range that this process works on, with the items settled in it.

    Attributes:
        valid_until: When the lease ends, by the local monotonic clock; no item starts later.
        unsettled: Items that were read and have no outcome yet.
        lost: Whether another process has claimed the range.
        deferred: Items that wait for the next pass.
        progressed: Set when no item is unsettled any more.
        keys_version: The version of the keys by which the range was claimed.
        lanes_clock: Which keys were closed when it was claimed; see `item_queue.Lanes`.
        incomplete: Whether some of its items are left to the next process that claims it.
        behind: Items that wait behind an earlier item of their key that is due later.
    """

    claimed: ClaimedRange
    counts: Counts
    valid_until: float
    unsettled: int = 0
    lost: bool = False
    deferred: set[int] = field(default_factory=set)
    progressed: anyio.Event = field(default_factory=anyio.Event)
    keys_version: int = 0
    lanes_clock: int = 0
    incomplete: bool = False
    behind: set[int] = field(default_factory=set)

    @property
    def open(self) -> bool:
        """Whether a further item may start."""
        return not self.lost and monotonic() < self.valid_until

    @property
    def quarantined(self) -> bool:
        """Whether a worker has died in the range."""
        return self.claimed.crashes > 0

    def to_run(self, page: Sequence[ImportBatchItem[Any]]) -> list[ImportBatchItem[Any]]:
        """The items of a page that run now; items deferred in this pass do not."""
        runnable = [item for item in page if item.item_number not in self.deferred]
        if self.claimed.final_pass:
            return [replace(item, final_pass=True) for item in runnable]
        return runnable

    def count(self, status: ItemStatus, group: str | None) -> None:
        """Add a settled item."""
        match status:
            case ItemStatus.COMPLETED:
                self.counts.completed += 1
            case ItemStatus.SKIPPED:
                self.counts.skipped += 1
            case ItemStatus.FAILED:
                self.counts.failed += 1
                if group is not None:
                    self.counts.groups[group] = self.counts.groups.get(group, 0) + 1
            case ItemStatus.PENDING:
                pass

    def finish_items(self, count: int = 1) -> None:
        """Note that items that were read are settled, stored for later, or given up."""
        self.unsettled -= count
        if self.unsettled == 0:
            self.progressed.set()

    async def wait_until_settled(self) -> None:
        """Wait until no item that was read is unsettled."""
        while self.unsettled:
            self.progressed = anyio.Event()
            await self.progressed.wait()

    def running_counts(self) -> RunningCounts:
        """The counts that a heartbeat writes."""
        groups = to_json(self.counts.groups).decode()
        counts = self.counts
        deferred = f"{{{','.join(map(str, sorted(self.deferred)))}}}"
        return RunningCounts(
            self.claimed, counts.completed, counts.skipped, counts.failed, groups, deferred
        )


class Leases:
    """The ranges that this process holds, and the batches that it drains.

    Attributes:
        worker_id: Names this process in the ranges it leases.
        claiming: Held from a claim until its range is registered. Otherwise another drain of this
            process would take the range for a claim whose answer was lost, and claim it again.
        examining: Held while a quarantined range runs: one at a time in a process.
        quarantine_waits: Whether a quarantined range waits for a slot; the slots make room for it.
    """

    def __init__(self, database: Database, settings: Settings, worker_id: UUID) -> None:
        self._database = database
        self._settings = settings
        self._held: dict[tuple[UUID, int], HeldRange] = {}
        self._drains: dict[UUID, int] = {}  # how many there are of each batch
        self._stopped: set[UUID] = set()  # of the batches that are drained
        self._workers: dict[UUID, int] = {}  # processes that hold ranges, by drained batch
        self._beating = anyio.Lock()
        self._kept: PooledConnection | None = None
        self._kept_lock = anyio.Lock()
        self.claiming = anyio.Lock()
        self.examining = anyio.Lock()
        self.quarantine_waits = False
        self.worker_id = worker_id

    @property
    def seconds(self) -> float:
        """How long a lease lasts, by the server's clock."""
        return self._settings.lease_seconds

    def register(self, claimed: ClaimedRange, counts: Counts) -> HeldRange:
        """Take charge of a claimed range, so that heartbeats renew its lease."""
        held = HeldRange(claimed, counts, self._valid_until(), deferred=set(claimed.deferred))
        self._held[claimed.batch_id, claimed.first_item] = held
        return held

    async def release(self, held: HeldRange) -> None:
        """Hand back a range, with the items that are still pending in it."""
        try:
            await self.retry_until_answered(
                lambda conn: ranges.release(conn, held.claimed, held.deferred, held.behind)
            )
        finally:
            self.unregister(held)

    def unregister(self, held: HeldRange) -> None:
        """Stop renewing the lease of a range."""
        key = (held.claimed.batch_id, held.claimed.first_item)
        if self._held.get(key) is held:
            del self._held[key]

    def first_items(self, batch_id: UUID) -> list[int]:
        """The first items of the ranges held of a batch."""
        return [first for (batch, first) in self._held if batch == batch_id]

    @property
    def quarantined(self) -> int:
        """How many ranges are held in which a worker has died."""
        return sum(held.quarantined for held in self._held.values())

    def is_stopped(self, batch_id: UUID) -> bool:
        """Whether a drained batch is not in status processing, as known about a second ago."""
        return bool(self._stopped) and batch_id in self._stopped

    def workers(self, batch_id: UUID) -> int:
        """How many processes hold ranges of a drained batch, as known about a second ago."""
        return max(1, self._workers.get(batch_id, 1))

    def note_status(self, batch_id: UUID, status: BatchStatus) -> None:
        """Take in a status that another statement has read or written."""
        if batch_id in self._drains:
            if status is BatchStatus.PROCESSING:
                self._stopped.discard(batch_id)
            else:
                self._stopped.add(batch_id)

    async def heartbeat(self, batch_id: UUID) -> None:
        """Keep the leases of a batch until cancelled; one drain of a process does so for all."""
        self._drains[batch_id] = self._drains.get(batch_id, 0) + 1
        try:
            async with self._beating:
                with block_watch.watching(_report_block):
                    while True:
                        await anyio.sleep(HEARTBEAT_SECONDS)
                        await self._renew()
        finally:
            self._drains[batch_id] -= 1
            if not self._drains[batch_id]:
                del self._drains[batch_id]
                self._stopped.discard(batch_id)
                self._workers.pop(batch_id, None)
            if not self._drains:
                with anyio.CancelScope(shield=True):
                    async with self._kept_lock:
                        await self._return_kept()

    async def _renew(self) -> None:
        held = list(self._held.values())
        began = monotonic()
        try:
            async with self._database.connection(seconds=self._settings.connect_timeout) as conn:
                counts = [each.running_counts() for each in held]
                renewals = await ranges.renew(conn, counts, self.seconds, list(self._drains))
        except Exception as exc:
            if not is_outage(exc):
                raise
            logger.warning("leases could not be renewed: %s", self._database.redact(str(exc)))
            return
        self._learn(held, renewals, began)

    def _learn(self, held: list[HeldRange], renewals: list[ranges.Renewal], began: float) -> None:
        renewed = {(each.batch_id, first) for each in renewals for first in each.still_held}
        for renewal in renewals:
            self.note_status(renewal.batch_id, renewal.status)
            self._workers[renewal.batch_id] = renewal.workers
        for each in held:
            if (each.claimed.batch_id, each.claimed.first_item) in renewed:
                each.valid_until = self._valid_until(began)
            else:
                each.lost = True

    def _valid_until(self, began: float | None = None) -> float:
        """When a lease claimed or renewed at `began` has certainly not run out yet.

        At least a second, so that a worker with leases shorter than a heartbeat still makes
        progress; the fence, not the lease, keeps that correct.
        """
        start = monotonic() if began is None else began
        return start + max(self.seconds, HEARTBEAT_SECONDS * 1.5)

    async def retry_until_answered(
        self, statement: Callable[[Connection], Awaitable[R]], *, dedicated: bool = False
    ) -> R:
        """Run a statement, again after each outage until the server answers.

        Only for statements that may be repeated when their answer was lost.

        Args:
            dedicated: Use a connection of its own: the statement may wait for a lock.
        """
        try:
            return await self._run(statement, dedicated=dedicated)
        except Exception as exc:
            if not is_outage(exc):
                raise
        async for attempt in stamina.retry_context(
            on=is_outage, attempts=None, timeout=None, wait_initial=0.1, wait_max=LONGEST_WAIT
        ):
            with attempt:
                return await self._run(statement, dedicated=dedicated)
        raise AssertionError  # pragma: no cover - the loop above never ends by itself

    async def _run(self, statement: Callable[[Connection], Awaitable[R]], *, dedicated: bool) -> R:
        """Run a statement on the connection that is kept while batches are drained."""
        if dedicated or not self._drains:
            async with self._database.connection() as conn:
                return await statement(conn)
        async with self._kept_lock:
            with anyio.fail_after(STATEMENT_SECONDS):
                conn = self._kept = self._kept or await self._database.take_ours()
                try:
                    return await statement(conn)
                except asyncpg.PostgresError as exc:
                    if conn.is_closed():
                        await self._drop_kept()
                    raise explained(exc) or exc from None
                except BaseException:
                    await self._drop_kept()
                    raise

    async def _drop_kept(self) -> None:
        """Terminate the kept connection: something interrupted it."""
        if self._kept is not None:
            drop(self._kept)
        await self._return_kept()

    async def _return_kept(self) -> None:
        """Return the kept connection to the pool."""
        conn, self._kept = self._kept, None
        if conn is not None:
            await self._database.give_back(conn)

    async def takes_writes(self) -> bool:
        """Whether the server answers on a new connection right now, and takes writes."""
        try:
            async with self._database.connection(seconds=self._settings.connect_timeout) as conn:
                return bool(await conn.fetchval(ranges.WRITABLE))
        except Exception as exc:
            if is_outage(exc):
                return False
            raise


def _report_block(place: str, seconds: float) -> None:
    logger.warning(
        "the event loop was blocked for more than %.1f s at %s: other items wait, and leases are "
        "renewed late. Use `await asyncio.to_thread(…)` there, or an async client.",
        seconds,
        place,
    )
