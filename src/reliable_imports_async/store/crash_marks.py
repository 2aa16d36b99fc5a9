"""Statements about crash marks."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from ..database.guard import Connection
from ..database.statements import statements

_SQL = statements("store/crash_marks")


@dataclass(frozen=True, slots=True)
class Marks:
    """How many other workers have left a mark on an item, by whether they live."""

    dead: int
    living: int


async def mark(
    conn: Connection,
    batch_id: UUID,
    item_number: int,
    worker_id: UUID,
    *,
    dead_after: float,
    most: int,
) -> Marks:
    """Say that this worker is about to run an item and no other any more, unless `most` have.

    Args:
        dead_after: A worker that was silent for so many seconds is dead.
        most: With so many marks of others none is added: the item must not be run now.
    """
    row = await conn.fetchrow(_SQL["mark_item"], batch_id, item_number, worker_id, dead_after, most)
    assert row is not None  # noqa: S101 - an aggregate always returns a row
    return Marks(row["dead"], row["living"])


async def keep(conn: Connection, batch_id: UUID, worker_id: UUID) -> None:
    """Say that this worker lives."""
    await conn.execute(_SQL["keep_marks"], batch_id, worker_id)


async def unmark_batch(conn: Connection, batch_id: UUID, worker_id: UUID) -> None:
    """Say that this worker lives, and runs no marked item of a batch."""
    await conn.execute(_SQL["unmark_batch"], batch_id, worker_id)


async def unmark_item(conn: Connection, batch_id: UUID, item_number: int) -> None:
    """Forget who has marked an item, now that it is settled."""
    await conn.execute(_SQL["unmark_item"], batch_id, item_number)


async def delete(conn: Connection, batch_ids: Sequence[UUID]) -> None:
    """Delete all marks of some batches."""
    await conn.execute(_SQL["delete_crash_marks"], batch_ids)
