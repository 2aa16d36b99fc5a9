"""Statements about what was deferred."""

from dataclasses import dataclass
from uuid import UUID

from ..guarded import Connection
from ..sql import statements

_SQL = statements("deferrals")


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
