"""Statements about ranges."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from pydantic_core import from_json

from ..database.guard import Connection
from ..database.statements import only_row, statements
from ..models import BatchStatus

_SQL = statements("store/ranges")
WRITABLE = _SQL["writable"]


@dataclass(frozen=True, slots=True)
class ClaimedRange:
    """A leased run of item numbers; the epoch fences every statement about it."""

    batch_id: UUID
    first_item: int
    last_item: int
    epoch: int
    crashes: int
    deferred: tuple[int, ...] = ()  # items that earlier holders deferred in this pass
    final_pass: bool = False
    blocked: frozenset[int] = (
        frozenset()
    )  # items that wait for earlier items with their keys in other ranges


@dataclass(frozen=True, slots=True)
class KeyOrder:
    """What a claim must know so that items with the same key take effect in order.

    Attributes:
        exempt: First items of the ranges in which the claimer itself keeps the order.
        kinds: What the keys of items are, as JSON; None if items have no order.
        among: First items of the ranges to choose from; None for all.
    """

    exempt: Sequence[int] = ()
    kinds: str | None = None
    among: Sequence[int] | None = None


NO_ORDER = KeyOrder()


@dataclass(slots=True)
class Counts:
    """Settled items of a range, by outcome and failure group."""

    completed: int
    skipped: int
    failed: int
    groups: dict[str, int]


@dataclass(frozen=True, slots=True)
class RunningCounts:
    """What the heartbeat stores about one held range."""

    claimed: ClaimedRange
    completed: int
    skipped: int
    failed: int
    groups: str  # JSON text
    deferred: str  # array text


@dataclass(frozen=True, slots=True)
class Renewal:
    """What the heartbeat returns about one batch.

    Attributes:
        still_held: The first items of the ranges whose leases were renewed.
        workers: How many processes hold ranges.
    """

    batch_id: UUID
    status: BatchStatus
    still_held: frozenset[int]
    workers: int


@dataclass(frozen=True, slots=True)
class Outlook:
    """The unfinished ranges of a batch.

    Attributes:
        unfinished: The number of ranges that are not done.
        deferred: How many of them wait for the next pass.
        leased: How many of them a worker holds, or held when it died.
        seconds: Seconds until the first of them can be claimed, by the server's clock; None if one
            can be claimed now, or there is none.
        pass_number: The number of the current pass.
    """

    unfinished: int
    deferred: int
    leased: int
    seconds: float | None
    pass_number: int

    @property
    def only_deferred(self) -> bool:
        """Whether all unfinished ranges wait for the next pass."""
        return self.deferred == self.unfinished


async def insert(
    conn: Connection, batch_id: UUID, total: int, size: int, *, with_failures: bool
) -> None:
    """Cut a new batch of `total` items into ranges of `size`."""
    await conn.execute(_SQL["insert_ranges"], batch_id, total, size, with_failures)


async def claim(
    conn: Connection,
    batch_id: UUID,
    worker_id: UUID,
    lease: float,
    held: Sequence[int],
    *,
    wanted: int,
    of_quarantined: int,
    of_dead: int,
    order: KeyOrder = NO_ORDER,
) -> tuple[ClaimedRange, Counts] | None:
    """Lease a range for `lease` seconds, if one can be claimed; the range and its counts.

    Args:
        held: First items of the ranges this worker holds. Another range that is leased to it was
            claimed by a statement whose answer was lost.
        wanted: The maximum of items; the rest of a longer range becomes a new range. 0: no range.
        of_quarantined: The same for a range in which a worker has crashed.
        of_dead: The same for a range whose holder has just crashed.
        order: The order of items with keys.
    """
    row = await conn.fetchrow(
        _SQL["claim_range"],
        batch_id,
        worker_id,
        lease,
        held,
        wanted,
        of_quarantined,
        of_dead,
        order.exempt,
        order.kinds,
        order.among,
    )
    if row is None:
        return None
    *values, deferred, final, blocked = row
    first, last, epoch, crashes, recount, completed, skipped, failed, groups = values
    claimed = ClaimedRange(
        batch_id, first, last, epoch, crashes, tuple(deferred), final, frozenset(blocked)
    )
    if recount:
        return claimed, await count(conn, claimed)
    return claimed, Counts(completed, skipped, failed, from_json(groups))


async def runnable(
    conn: Connection, batch_id: UUID, exempt: Sequence[int], kinds: str
) -> list[int]:
    """First items of some ready ranges with items that do not wait for others."""
    rows = await conn.fetch(_SQL["runnable_ranges"], batch_id, exempt, kinds)
    return [row["first_item"] for row in rows]


async def count(conn: Connection, claimed: ClaimedRange) -> Counts:
    """Count a range's settled items."""
    row = await only_row(
        conn, _SQL["count_range"], claimed.batch_id, claimed.first_item, claimed.last_item
    )
    return Counts(row["completed"], row["skipped"], row["failed"], from_json(row["groups"]))


async def renew(
    conn: Connection, held: Sequence[RunningCounts], lease: float, batches: Sequence[UUID]
) -> list[Renewal]:
    """Renew leases, store running counts, and return the status of the batches."""
    rows = await conn.fetch(
        _SQL["renew_leases"],
        [each.claimed.batch_id for each in held],
        [each.claimed.first_item for each in held],
        [each.claimed.epoch for each in held],
        [each.completed for each in held],
        [each.skipped for each in held],
        [each.failed for each in held],
        [each.groups for each in held],
        lease,
        batches,
        [each.deferred for each in held],
    )
    return [
        Renewal(row["id"], BatchStatus(row["status"]), frozenset(row["renewed"]), row["workers"])
        for row in rows
    ]


async def release(
    conn: Connection,
    claimed: ClaimedRange,
    deferred: Collection[int] = (),
    behind: Collection[int] = (),
) -> str | None:
    """Complete a range, or return it; the new state, or None if another worker has it now.

    Args:
        deferred: Items that were deferred in this pass.
        behind: Items that wait for an earlier item of the range, whose retry is not due yet.
    """
    state: str | None = await conn.fetchval(
        _SQL["release_range"],
        claimed.batch_id,
        claimed.first_item,
        claimed.last_item,
        claimed.epoch,
        list(deferred),
        list(behind),
    )
    return state


async def outlook(conn: Connection, batch_id: UUID, lease: float) -> Outlook:
    """The unfinished ranges of a batch, and when the first of them can be claimed."""
    row = await only_row(conn, _SQL["outlook"], batch_id, lease)
    return Outlook(**dict(row))


async def any_unfinished(conn: Connection, batch_id: UUID) -> bool:
    """Whether a range of the batch is not done."""
    return bool(await conn.fetchval(_SQL["unfinished"], batch_id))


async def delete(conn: Connection, batch_ids: Sequence[UUID]) -> None:
    """Delete all ranges of some batches."""
    await conn.execute(_SQL["delete_ranges"], batch_ids)


@dataclass(frozen=True, slots=True)
class Pass:
    """A further pass over a batch.

    Attributes:
        number: Counted from 1; pass 1 is the first run of all items.
        deferred: The number of items that run again.
        final: Whether items fail that would be deferred.
    """

    number: int
    deferred: int
    final: bool


async def reopen(conn: Connection, batch_id: UUID, pass_number: int) -> Pass | None:
    """Begin the pass after `pass_number`; None if it has begun, or this pass has not ended."""
    row = await conn.fetchrow(_SQL["reopen_deferred"], batch_id, pass_number)
    return None if row is None else Pass(row["pass_number"], row["deferred"], row["final_pass"])
