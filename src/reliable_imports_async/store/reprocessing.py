"""Statements about reprocessing, for a transaction that has locked the root batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import asyncpg

from ..database.guard import Connection
from ..database.statements import only_row, statements
from ..errors import BatchNotFound, EditRefused, ReprocessRefused
from ..wording import counted

_SQL = statements("store/reprocessing")

Change = Literal["replace", "record", "merge"]
"""What a text says about an item's record: all of it, all of it under a name, or some values."""


@dataclass(frozen=True, slots=True)
class EligibleItem:
    """An item that may run again; `text` is its record, or None if it is unreadable."""

    batch_id: UUID
    item_number: int
    root_number: int
    text: str | None
    raw: bytes | None


@dataclass(frozen=True, slots=True)
class OpenTries:
    """A batch in which records are still pending.

    Attributes:
        same: Whether it runs every item of the given batch again.
        items: The number of these records.
    """

    batch_id: UUID
    same: bool
    items: int


async def lock_root(conn: Connection, root_batch_id: UUID) -> None:
    """Let one reprocessing or purge of a lineage run at a time.

    Raises:
        BatchNotFound: It has been purged, or is being purged.
    """
    if await conn.fetchval(_SQL["lock_root"], root_batch_id) is None:
        raise BatchNotFound(root_batch_id)


async def share_root(conn: Connection, batch_id: UUID, seconds: float) -> bool:
    """Make reprocessings of a batch's lineage wait until the transaction ends.

    Returns:
        False if the batch does not exist, or is being purged.

    Raises:
        EditRefused: One of them takes longer than `seconds`.
    """
    await conn.execute(_SQL["wait_at_most"], f"{int(seconds * 1000)}ms")
    try:
        return await conn.fetchval(_SQL["share_root"], batch_id) is not None
    except asyncpg.LockNotAvailableError:
        raise EditRefused(
            "A reprocessing is taking over records of this import right now.",
            hint="try again in a moment; records that it has taken over are edited in its batch.",
        ) from None


async def root_numbers(
    conn: Connection, batch_id: UUID, item_numbers: Sequence[int]
) -> dict[int, int]:
    """The numbers in the root batch of some items, by their numbers here."""
    rows = await conn.fetch(_SQL["root_numbers"], batch_id, item_numbers)
    return {row["item_number"]: row["root_number"] for row in rows}


async def eligible(
    conn: Connection,
    root_batch_id: UUID,
    *,
    group: str | None,
    numbers: Sequence[int] | None,
    unreadable: bool,
    after: int = 0,
    limit: int = 500,
) -> list[EligibleItem]:
    """A page of the items of a lineage that may run again, above the root number `after`.

    Args:
        unreadable: Whether to include unreadable records.
    """
    rows = await conn.fetch(
        _SQL["eligible"], root_batch_id, group, numbers, unreadable, after, limit
    )
    return [EligibleItem(*row) for row in rows]


async def sample(
    conn: Connection,
    root_batch_id: UUID,
    *,
    group: str | None,
    numbers: Sequence[int] | None,
    unreadable: bool,
    count: int,
) -> list[int]:
    """The root numbers of `count` items that may run again, scattered over all of them."""
    rows = await conn.fetch(
        _SQL["sample_eligible"], root_batch_id, group, numbers, unreadable, count
    )
    return [row["root_number"] for row in rows]


async def unreadable(conn: Connection, root_batch_id: UUID) -> int:
    """The number of unreadable outstanding records in a lineage."""
    return int(await conn.fetchval(_SQL["count_unreadable"], root_batch_id))


async def take_over(
    conn: Connection,
    root_batch_id: UUID,
    child_id: UUID,
    *,
    group: str | None,
    numbers: Sequence[int] | None,
) -> int:
    """Mark the items that may run again and write them into the child; how many."""
    return await _write(conn, _SQL["take_over"], root_batch_id, child_id, 0, group, numbers)


async def take_over_edited(
    conn: Connection,
    root_batch_id: UUID,
    child_id: UUID,
    items: Sequence[EligibleItem],
    texts: Sequence[str],
    *,
    change: Change,
    offset: int,
) -> int:
    """Mark a page of items and write them into the child with changed records; how many.

    Args:
        texts: JSON in the order of the items; `change` says what of.
        change: "replace": new records; "record": objects whose ``record`` is one; "merge": objects
            with only the values that change.
        offset: The last number that the child has so far.
    """
    return await _write(
        conn,
        _SQL["take_over_edited"],
        root_batch_id,
        child_id,
        offset,
        [item.batch_id for item in items],
        [item.item_number for item in items],
        texts,
        change,
    )


async def find_items(
    conn: Connection, root_batch_id: UUID, batch_ids: Sequence[UUID], numbers: Sequence[int]
) -> dict[int, int]:
    """The root numbers of items of a lineage, by position in the arguments, from 0."""
    rows = await conn.fetch(_SQL["find_lineage_items"], root_batch_id, batch_ids, numbers)
    return {row["n"] - 1: row["root_number"] for row in rows}


async def open_tries(conn: Connection, batch_id: UUID, root_id: UUID) -> list[OpenTries]:
    """The batches in which records of a batch are still pending, newest first."""
    rows = await conn.fetch(_SQL["open_tries"], batch_id, root_id)
    return [OpenTries(*row) for row in rows]


async def take_all(conn: Connection, batch_id: UUID, child_id: UUID, root_id: UUID) -> int:
    """Write every item of a batch into the child, whatever its outcome; how many."""
    return await _write(conn, _SQL["take_all"], root_id, child_id, 0, batch_id)


async def begin_purge(
    conn: Connection, root_batch_id: UUID, finished_before: datetime | None = None
) -> list[UUID]:
    """Let no further batch join a lineage; the lineage's batches.

    Empty if one of them is not finished, or finished after a time.
    """
    rows = await conn.fetch(_SQL["begin_purge"], root_batch_id, finished_before)
    return [row["id"] for row in rows]


async def delete_last_tries(conn: Connection, root_batch_ids: Sequence[UUID]) -> None:
    """Delete the last tries of some lineages."""
    await conn.execute(_SQL["delete_last_tries"], root_batch_ids)


async def _write(conn: Connection, statement: str, *args: Any) -> int:
    """The number of written items, which must be that of the marked items."""
    row = await only_row(conn, statement, *args)
    if row["taken"] != row["written"]:
        raise ReprocessRefused(
            f"{counted(row['taken'] - row['written'], 'record')} already in another reprocessing.",
            hint="nothing was changed; call again.",
        )
    return int(row["written"])


async def unfinished_child(conn: Connection, root_batch_id: UUID) -> UUID | None:
    """The newest unfinished reprocessing of a lineage."""
    child: UUID | None = await conn.fetchval(_SQL["unfinished_child"], root_batch_id)
    return child


async def newest_child(conn: Connection, root_batch_id: UUID) -> UUID | None:
    """The newest reprocessing of a lineage."""
    child: UUID | None = await conn.fetchval(_SQL["newest_child"], root_batch_id)
    return child


async def decide_canary(conn: Connection, canary_id: UUID, rest_id: UUID | None) -> bool:
    """Record in which batch the rest of a canary runs; False if that was recorded before."""
    return await conn.fetchval(_SQL["decide_canary"], canary_id, rest_id) is not None


async def note_no_rest(conn: Connection, canary_id: UUID) -> None:
    """Record that there was no rest to run after a canary."""
    await conn.execute(_SQL["note_no_rest"], canary_id)


async def undecided_canaries(
    conn: Connection, batch_types: Sequence[str], limit: int
) -> list[UUID]:
    """Finished canaries for workers whose rest is not decided yet."""
    rows = await conn.fetch(_SQL["list_undecided_canaries"], batch_types, limit)
    return [row["id"] for row in rows]


async def is_enqueued(conn: Connection, batch_id: UUID) -> bool:
    """Whether a batch is for workers."""
    return bool(await conn.fetchval(_SQL["is_enqueued"], batch_id))
