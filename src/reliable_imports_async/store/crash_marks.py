"""Statements about crash marks."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from ..guarded import Connection
from ..sql import statements

_SQL = statements("crash_marks")


@dataclass(frozen=True, slots=True)
class Marks:
    """How many other workers have left a mark on an item, by whether they live."""

    dead: int
    living: int


async def of_others(
    conn: Connection, batch_id: UUID, item_number: int, worker_id: UUID, dead_after: float
) -> Marks:
    """The marks of other workers; one that was silent for `dead_after` seconds is dead."""
    row = await conn.fetchrow(_SQL["others_marks"], batch_id, item_number, worker_id, dead_after)
    assert row is not None  # noqa: S101 - an aggregate always returns a row
    return Marks(row["dead"], row["living"])


async def mark(conn: Connection, batch_id: UUID, item_number: int, worker_id: UUID) -> None:
    """Say that this worker is about to run an item."""
    await conn.execute(_SQL["mark_item"], batch_id, item_number, worker_id)


async def keep(conn: Connection, batch_id: UUID, worker_id: UUID) -> None:
    """Say that this worker lives."""
    await conn.execute(_SQL["keep_marks"], batch_id, worker_id)


async def unmark(
    conn: Connection, batch_id: UUID, item_number: int, worker_id: UUID, *, settled: bool
) -> None:
    """Say that the item is over, or given up, and this worker lives."""
    await conn.execute(_SQL["unmark_item"], batch_id, item_number, worker_id, settled)


async def delete(conn: Connection, batch_ids: Sequence[UUID]) -> None:
    """Delete all marks of some batches."""
    await conn.execute(_SQL["delete_crash_marks"], batch_ids)
