"""Statements about reprocessing, all inside the transaction that holds the root batch's lock."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

import asyncpg

from ..database.guard import Connection
from ..database.statements import statements
from ..errors import BatchNotFound, EditRefused, ReprocessRefused
from ..wording import counted

_SQL = statements("store/reprocessing")

Change = Literal["replace", "record", "merge"]
"""What a text says about an item's record: all of it, all of it under a name, or some values."""


@dataclass(frozen=True, slots=True)
class EligibleItem:
    """An item that may run again; `text` is its record, or None when it failed at parse."""

    batch_id: UUID
    item_number: int
    root_number: int
    text: str | None
    raw: bytes | None


@dataclass(frozen=True, slots=True)
class OpenTries:
    """A batch in which records are still to be processed.

    Attributes:
        same: Whether it runs every item of the batch that was asked about again.
        items: How many of the records.
    """

    batch_id: UUID
    same: bool
    items: int


async def lock_root(conn: Connection, root_batch_id: UUID) -> None:
    """Let one reprocessing or purge of a lineage happen at a time.

    Raises:
        BatchNotFound: It has been purged, or is being purged.
    """
    if await conn.fetchval(_SQL["lock_root"], root_batch_id) is None:
        raise BatchNotFound(root_batch_id)


async def share_root(conn: Connection, batch_id: UUID, seconds: float) -> bool:
    """Keep reprocessings of a batch's lineage out until the transaction ends; False: no batch.

    Raises:
        EditRefused: One of them goes on for longer than `seconds`.
    """
    await conn.execute(_SQL["wait_at_most"], f"{int(seconds * 1000)}ms")
    try:
        return await conn.fetchval(_SQL["share_root"], batch_id) is not None
    except asyncpg.LockNotAvailableError:
        raise EditRefused(
            "Records of this import are being taken up by a reprocessing right now.",
            hint="try again in a moment; what was taken up is edited in the new batch.",
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
        unreadable: Whether records that failed at parse are among them.
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
    """The root numbers of `count` of the items that may run again, from anywhere."""
    rows = await conn.fetch(
        _SQL["sample_eligible"], root_batch_id, group, numbers, unreadable, count
    )
    return [row["root_number"] for row in rows]


async def unreadable(conn: Connection, root_batch_id: UUID) -> int:
    """How many outstanding records of a lineage could not be read."""
    return int(await conn.fetchval(_SQL["count_unreadable"], root_batch_id))


async def take_over(
    conn: Connection,
    root_batch_id: UUID,
    child_id: UUID,
    *,
    group: str | None,
    numbers: Sequence[int] | None,
) -> int:
    """Mark what may run again and write it into the child; how many."""
    row = await conn.fetchrow(_SQL["take_over"], root_batch_id, child_id, 0, group, numbers)
    return _written(row)


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
    row = await conn.fetchrow(
        _SQL["take_over_edited"],
        root_batch_id,
        child_id,
        offset,
        [item.batch_id for item in items],
        [item.item_number for item in items],
        texts,
        change,
    )
    return _written(row)


async def find_items(
    conn: Connection, root_batch_id: UUID, batch_ids: Sequence[UUID], numbers: Sequence[int]
) -> dict[int, int]:
    """The root numbers of items of a lineage, by their place (from 0) in what was asked for."""
    rows = await conn.fetch(_SQL["find_lineage_items"], root_batch_id, batch_ids, numbers)
    return {row["n"] - 1: row["root_number"] for row in rows}


async def open_tries(conn: Connection, batch_id: UUID, root_id: UUID) -> list[OpenTries]:
    """Where records of a batch are still to be processed, newest batch first."""
    rows = await conn.fetch(_SQL["open_tries"], batch_id, root_id)
    return [OpenTries(*row) for row in rows]


async def take_all(conn: Connection, batch_id: UUID, child_id: UUID, root_id: UUID) -> int:
    """Write every item of a batch into the child, whatever its outcome; how many."""
    return _written(await conn.fetchrow(_SQL["take_all"], root_id, child_id, 0, batch_id))


async def begin_purge(
    conn: Connection, root_batch_id: UUID, finished_before: datetime | None = None
) -> list[UUID]:
    """Let nothing join a lineage any more; its batches.

    None at all when one of them is not finished, or finished after a time.
    """
    rows = await conn.fetch(_SQL["begin_purge"], root_batch_id, finished_before)
    return [row["id"] for row in rows]


async def delete_last_tries(conn: Connection, root_batch_ids: Sequence[UUID]) -> None:
    """Forget which tries were the last."""
    await conn.execute(_SQL["delete_last_tries"], root_batch_ids)


def _written(row: asyncpg.Record | None) -> int:
    """How many items were written; all that were marked, or nothing may be."""
    assert row is not None  # noqa: S101 - the statement counts
    if row["taken"] != row["written"]:
        raise ReprocessRefused(
            f"{counted(row['taken'] - row['written'], 'record')} already in another reprocessing.",
            hint="nothing was changed; call again.",
        )
    return int(row["written"])


async def unfinished_child(conn: Connection, root_batch_id: UUID) -> UUID | None:
    """The newest reprocessing of the lineage that is not finished."""
    child: UUID | None = await conn.fetchval(_SQL["unfinished_child"], root_batch_id)
    return child


async def newest_child(conn: Connection, root_batch_id: UUID) -> UUID | None:
    """The newest reprocessing of the lineage."""
    child: UUID | None = await conn.fetchval(_SQL["newest_child"], root_batch_id)
    return child


async def decide_canary(conn: Connection, canary_id: UUID, rest_id: UUID | None) -> bool:
    """Note in which batch the rest of a canary runs; False when that was noted before."""
    return await conn.fetchval(_SQL["decide_canary"], canary_id, rest_id) is not None


async def note_no_rest(conn: Connection, canary_id: UUID) -> None:
    """Note that nothing was left to run after a canary."""
    await conn.execute(_SQL["note_no_rest"], canary_id)


async def undecided_canaries(
    conn: Connection, batch_types: Sequence[str], limit: int
) -> list[UUID]:
    """Finished canaries for workers, about whose rest nobody has decided."""
    rows = await conn.fetch(_SQL["list_undecided_canaries"], batch_types, limit)
    return [row["id"] for row in rows]


async def is_enqueued(conn: Connection, batch_id: UUID) -> bool:
    """Whether a batch is for workers."""
    return bool(await conn.fetchval(_SQL["is_enqueued"], batch_id))
