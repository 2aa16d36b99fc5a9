"""Statements about ranges."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from pydantic_core import from_json

from ..database.guard import Connection
from ..database.statements import statements
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
    deferred: tuple[int, ...] = ()  # items that were deferred in this pass, by earlier holders
    final_pass: bool = False
    blocked: frozenset[int] = (
        frozenset()
    )  # items that wait for earlier ones of their keys elsewhere


@dataclass(frozen=True, slots=True)
class KeyOrder:
    """What a claim has to know so that items of one key take effect in their order.

    Attributes:
        exempt: First items of the ranges in which the claimer itself keeps the order.
        kinds: What the keys of items are, as JSON; None: nothing orders them.
        among: First items of the ranges to choose from; None: all.
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
    """What the control statement writes about one held range."""

    claimed: ClaimedRange
    completed: int
    skipped: int
    failed: int
    groups: str  # JSON text
    deferred: str  # array text


@dataclass(frozen=True, slots=True)
class Renewal:
    """What the control statement says about one batch."""

    batch_id: UUID
    status: BatchStatus
    still_held: frozenset[int]


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is left of a batch.

    Attributes:
        unfinished: Ranges that are not done.
        deferred: Those of them that wait for the next pass.
        leased: Those of them that somebody holds, or held when they died.
        seconds: Until the first of them can be claimed, by the server's clock; None when there is
            one now or none at all.
        pass_number: Which pass this is, over what was deferred before.
    """

    unfinished: int
    deferred: int
    leased: int
    seconds: float | None
    pass_number: int

    @property
    def only_deferred(self) -> bool:
        """Whether all that is left waits for the next pass."""
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
    of_suspects: int,
    of_dead: int,
    order: KeyOrder = NO_ORDER,
) -> tuple[ClaimedRange, Counts] | None:
    """Lease a range for `lease` seconds, if one can be claimed; with what is settled in it.

    Args:
        held: First items of the ranges this worker holds; a range leased to it that is not among
            them was claimed by a statement whose answer was lost.
        wanted: Items at most; the rest of a longer range becomes a range of its own. 0: no range.
        of_suspects: The same for a range in which a worker has died.
        of_dead: The same for a range that is taken over from one.
        order: What is to be known about the order of items with keys.
    """
    row = await conn.fetchrow(
        _SQL["claim_range"],
        batch_id,
        worker_id,
        lease,
        held,
        wanted,
        of_suspects,
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
    """First items of some ready ranges that have items which wait for nobody."""
    rows = await conn.fetch(_SQL["runnable_ranges"], batch_id, exempt, kinds)
    return [row["first_item"] for row in rows]


async def count(conn: Connection, claimed: ClaimedRange) -> Counts:
    """Count a range's settled items."""
    row = await conn.fetchrow(
        _SQL["count_range"], claimed.batch_id, claimed.first_item, claimed.last_item
    )
    assert row is not None  # noqa: S101 - an aggregate always returns a row
    return Counts(row["completed"], row["skipped"], row["failed"], from_json(row["groups"]))


async def renew(
    conn: Connection, held: Sequence[RunningCounts], lease: float, batches: Sequence[UUID]
) -> list[Renewal]:
    """Renew leases, write running counts, and learn what became of the batches."""
    rows = await conn.fetch(
        _SQL["renew_leases"],
        [one.claimed.batch_id for one in held],
        [one.claimed.first_item for one in held],
        [one.claimed.epoch for one in held],
        [one.completed for one in held],
        [one.skipped for one in held],
        [one.failed for one in held],
        [one.groups for one in held],
        lease,
        batches,
        [one.deferred for one in held],
    )
    return [
        Renewal(row["id"], BatchStatus(row["status"]), frozenset(row["renewed"])) for row in rows
    ]


async def release(
    conn: Connection,
    claimed: ClaimedRange,
    deferred: Collection[int] = (),
    behind: Collection[int] = (),
) -> str | None:
    """Close a range, or hand it back; the new state, or None when it is somebody else's now.

    Args:
        deferred: Items that were deferred in this pass.
        behind: Items that wait for an earlier one of the range, which is due later.
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
    """What is left of a batch, and when it can be claimed."""
    row = await conn.fetchrow(_SQL["outlook"], batch_id, lease)
    assert row is not None  # noqa: S101 - an aggregate always returns a row
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
        number: Counted from 1, which is the first run of all items.
        deferred: Items that run again.
        final: Whether what would be deferred fails instead.
    """

    number: int
    deferred: int
    final: bool


async def reopen(conn: Connection, batch_id: UUID, pass_number: int) -> Pass | None:
    """Begin the pass after `pass_number`; None when somebody else has, or it is not time yet."""
    row = await conn.fetchrow(_SQL["reopen_deferred"], batch_id, pass_number)
    return None if row is None else Pass(row["pass_number"], row["deferred"], row["final_pass"])
