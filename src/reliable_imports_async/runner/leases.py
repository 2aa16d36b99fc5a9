"""The control statement: once a second it renews leases, writes counts and learns statuses."""

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

from ..database.guard import Connection, PooledConnection
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

BEAT_SECONDS = 1.0
LONGEST_WAIT = 2.0


@dataclass(slots=True, eq=False)
class HeldRange:
    """A range this process works on, with what has been settled in it."""

    claimed: ClaimedRange
    counts: Counts
    valid_until: float  # by the local monotonic clock; no item starts later
    unsettled: int = 0  # items read and not yet settled
    lost: bool = False  # somebody else has claimed it
    deferred: set[int] = field(default_factory=set)  # items that wait for the next pass
    progressed: anyio.Event = field(default_factory=anyio.Event)
    ordered: int = 0  # the version of the keys by which it was claimed
    seen: int = 0  # what was closed by then, see `lanes.Lanes`
    incomplete: bool = False  # items of it are left to whoever claims it next
    behind: set[int] = field(default_factory=set)  # items behind one that is due later

    @property
    def open(self) -> bool:
        """Whether a further item may start."""
        return not self.lost and monotonic() < self.valid_until

    @property
    def suspect(self) -> bool:
        """Whether a worker has died in it."""
        return self.claimed.crashes > 0

    def to_run(self, page: Sequence[ImportBatchItem[Any]]) -> list[ImportBatchItem[Any]]:
        """The items of a page that run now: not those that were deferred in this pass."""
        left = [item for item in page if item.item_number not in self.deferred]
        if self.claimed.final_pass:
            return [replace(item, final_pass=True) for item in left]
        return left

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

    def finish_item(self) -> None:
        """An item that was read is settled, stored for later, or given up."""
        self.unsettled -= 1
        if self.unsettled == 0:
            self.progressed.set()

    def running_counts(self) -> RunningCounts:
        """What the control statement writes."""
        groups = to_json(self.counts.groups).decode()
        counts = self.counts
        deferred = f"{{{','.join(map(str, sorted(self.deferred)))}}}"
        return RunningCounts(
            self.claimed, counts.completed, counts.skipped, counts.failed, groups, deferred
        )


class Control:
    """What one process knows about the ranges it holds and the batches it drains.

    Attributes:
        worker_id: Names this process in the ranges it leases.
        claiming: Held from a claim until its range is registered; else another drain of this
            process would take it for a claim whose answer was lost, and claim it once more.
        examining: Held while a suspect range is run: one at a time in a process.
        examiner_waits: Whether that waits for a slot; others make room for it soon.
    """

    def __init__(self, database: Database, settings: Settings, worker_id: UUID) -> None:
        self._database = database
        self._settings = settings
        self._held: dict[tuple[UUID, int], HeldRange] = {}
        self._watched: dict[UUID, int] = {}
        self._stopped: set[UUID] = set()  # of the watched ones
        self._turn = anyio.Lock()
        self._kept: PooledConnection | None = None
        self._kept_lock = anyio.Lock()
        self.claiming = anyio.Lock()
        self.examining = anyio.Lock()
        self.examiner_waits = False
        self.worker_id = worker_id

    @property
    def lease(self) -> float:
        """Seconds a lease lasts by the server's clock."""
        return self._settings.lease_seconds

    def hold(self, claimed: ClaimedRange, counts: Counts) -> HeldRange:
        """Register a claimed range, so that its lease is renewed."""
        held = HeldRange(claimed, counts, self._valid_until(), deferred=set(claimed.deferred))
        self._held[claimed.batch_id, claimed.first_item] = held
        return held

    def let_go(self, held: HeldRange) -> None:
        """Stop renewing a range."""
        key = (held.claimed.batch_id, held.claimed.first_item)
        if self._held.get(key) is held:
            del self._held[key]

    def held_firsts(self, batch_id: UUID) -> list[int]:
        """The first items of the ranges held of a batch."""
        return [first for (batch, first) in self._held if batch == batch_id]

    @property
    def suspects(self) -> int:
        """How many ranges are held in which a worker has died."""
        return sum(held.suspect for held in self._held.values())

    def is_stopped(self, batch_id: UUID) -> bool:
        """Whether a watched batch is being processed no more, as known about a second ago."""
        return bool(self._stopped) and batch_id in self._stopped

    def note_status(self, batch_id: UUID, status: BatchStatus) -> None:
        """Learn a status from another statement."""
        if batch_id in self._watched:
            if status is BatchStatus.PROCESSING:
                self._stopped.discard(batch_id)
            else:
                self._stopped.add(batch_id)

    async def beat(self, batch_id: UUID) -> None:
        """Watch a batch until cancelled. Of all drains of a process, one beats for all."""
        self._watched[batch_id] = self._watched.get(batch_id, 0) + 1
        try:
            async with self._turn:
                with block_watch.watching(_report_block):
                    while True:
                        await anyio.sleep(BEAT_SECONDS)
                        await self._beat_once()
        finally:
            self._watched[batch_id] -= 1
            if not self._watched[batch_id]:
                del self._watched[batch_id]
                self._stopped.discard(batch_id)
            if not self._watched:
                with anyio.CancelScope(shield=True):
                    async with self._kept_lock:
                        await self._release_kept()

    async def insist(
        self, statement: Callable[[Connection], Awaitable[R]], *, apart: bool = False
    ) -> R:
        """Run a control statement, again after each outage until it is answered.

        Only for statements that may be repeated when their answer was lost.

        Args:
            apart: Use a connection of its own: the statement may have to wait for a lock.
        """
        try:
            return await self._once(statement, apart=apart)
        except Exception as exc:
            if not is_outage(exc):
                raise
        async for attempt in stamina.retry_context(
            on=is_outage, attempts=None, timeout=None, wait_initial=0.1, wait_max=LONGEST_WAIT
        ):
            with attempt:
                return await self._once(statement, apart=apart)
        raise AssertionError  # pragma: no cover - the loop above never ends by itself

    async def _once(self, statement: Callable[[Connection], Awaitable[R]], *, apart: bool) -> R:
        """Run a control statement on the connection that is kept while batches are drained."""
        if apart or not self._watched:
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
        conn, self._kept = self._kept, None
        if conn is not None:
            conn.terminate()
            await self._database.give_back(conn)

    async def _release_kept(self) -> None:
        """Return the kept connection, once nothing is drained any more."""
        conn, self._kept = self._kept, None
        if conn is not None:
            await self._database.give_back(conn)

    async def probe(self) -> bool:
        """Whether the server answers on a new connection right now, and takes writes."""
        try:
            async with self._database.connection(seconds=self._settings.connect_timeout) as conn:
                return bool(await conn.fetchval(ranges.WRITABLE))
        except Exception as exc:
            if is_outage(exc):
                return False
            raise

    async def _beat_once(self) -> None:
        held = list(self._held.values())
        began = monotonic()
        try:
            async with self._database.connection(seconds=self._settings.connect_timeout) as conn:
                renewals = await ranges.renew(
                    conn, [one.running_counts() for one in held], self.lease, list(self._watched)
                )
        except Exception as exc:
            if not is_outage(exc):
                raise
            logger.warning("leases could not be renewed: %s", self._database.redact(str(exc)))
            return
        self._learn(held, renewals, began)

    def _learn(self, held: list[HeldRange], renewals: list[ranges.Renewal], began: float) -> None:
        still_held = {(one.batch_id, first) for one in renewals for first in one.still_held}
        for renewal in renewals:
            self.note_status(renewal.batch_id, renewal.status)
        for one in held:
            if (one.claimed.batch_id, one.claimed.first_item) in still_held:
                one.valid_until = self._valid_until(began)
            else:
                one.lost = True

    def _valid_until(self, began: float | None = None) -> float:
        """When a lease claimed or renewed at `began` has certainly not run out yet.

        At least a second, so that a worker with leases shorter than its beat still gets on; the
        fence, not the lease, keeps that correct.
        """
        return (monotonic() if began is None else began) + max(self.lease, BEAT_SECONDS * 1.5)


def _report_block(place: str, seconds: float) -> None:
    logger.warning(
        "the event loop was blocked for more than %.1f s at %s: other items wait, and leases are "
        "renewed late. Use `await asyncio.to_thread(…)` there, or an async client.",
        seconds,
        place,
    )
