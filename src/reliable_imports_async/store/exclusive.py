"""Statements about batch types of which only one batch may run at a time."""

from dataclasses import dataclass
from uuid import UUID

from ..database.guard import Connection
from ..database.statements import statements

_SQL = statements("store/exclusive")


@dataclass(frozen=True, slots=True)
class Holder:
    """The running batch of a type.

    Attributes:
        abandoned: No worker works on it, although one could: its process was killed.
    """

    batch_id: UUID
    abandoned: bool


async def take_turn(conn: Connection, batch_type: str, batch_id: UUID, vacant: float) -> UUID:
    """Take the turn of a type, in the transaction that `conn` is in; the batch that has it now.

    Args:
        vacant: Seconds without a running item after which an unfinished batch loses its turn.
    """
    holder: UUID = await conn.fetchval(_SQL["lock_turn"], batch_type, batch_id)
    if holder != batch_id:
        holder = await conn.fetchval(_SQL["take_turn"], batch_type, batch_id, vacant)
    return holder


async def holder(conn: Connection, batch_type: str) -> Holder | None:
    """The running batch of a type, if there is one."""
    row = await conn.fetchrow(_SQL["holder"], batch_type)
    return None if row is None else Holder(row["batch_id"], row["abandoned"])
