"""Statements about crash marks."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from ..database.guard import Connection
from ..database.statements import only_row, statements

_SQL = statements("store/crash_marks")


@dataclass(frozen=True, slots=True)
class Marks:
    """The number of other workers with a mark on an item: dead ones and living ones."""

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
    """Mark the one item that this worker is about to run, unless `most` others have marked it.

    Args:
        dead_after: Seconds of silence after which a worker counts as dead.
        most: With so many marks of others no mark is added: the item must not run now.
    """
    row = await only_row(
        conn, _SQL["mark_item"], batch_id, item_number, worker_id, dead_after, most
    )
    return Marks(row["dead"], row["living"])


async def keep(conn: Connection, batch_id: UUID, worker_id: UUID) -> None:
    """Note that this worker is alive."""
    await conn.execute(_SQL["keep_marks"], batch_id, worker_id)


async def unmark_batch(conn: Connection, batch_id: UUID, worker_id: UUID) -> None:
    """Note that this worker is alive, and runs no marked item of a batch."""
    await conn.execute(_SQL["unmark_batch"], batch_id, worker_id)


async def unmark_item(conn: Connection, batch_id: UUID, item_number: int) -> None:
    """Delete the marks of an item that is settled."""
    await conn.execute(_SQL["unmark_item"], batch_id, item_number)


async def delete(conn: Connection, batch_ids: Sequence[UUID]) -> None:
    """Delete all marks of some batches."""
    await conn.execute(_SQL["delete_crash_marks"], batch_ids)
