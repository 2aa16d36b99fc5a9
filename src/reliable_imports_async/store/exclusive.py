"""Statements about types of which only one batch may run at a time."""

from dataclasses import dataclass
from uuid import UUID

from ..database.guard import Connection
from ..database.statements import statements

_SQL = statements("store/exclusive")


@dataclass(frozen=True, slots=True)
class Holder:
    """The batch of a type that runs.

    Attributes:
        abandoned: Whether it could be processed, but no process does: its process was killed.
    """

    batch_id: UUID
    abandoned: bool


async def take_turn(conn: Connection, batch_type: str, batch_id: UUID, vacant: float) -> UUID:
    """Take the turn of a type, in the transaction that `conn` is in; whose it is now.

    Args:
        vacant: Seconds for which nothing of a batch that has not ended must have run.
    """
    holder: UUID = await conn.fetchval(_SQL["lock_turn"], batch_type, batch_id)
    if holder != batch_id:
        holder = await conn.fetchval(_SQL["take_turn"], batch_type, batch_id, vacant)
    return holder


async def holder(conn: Connection, batch_type: str) -> Holder | None:
    """The batch of a type that runs, if one does."""
    row = await conn.fetchrow(_SQL["holder"], batch_type)
    return None if row is None else Holder(row["batch_id"], row["abandoned"])
