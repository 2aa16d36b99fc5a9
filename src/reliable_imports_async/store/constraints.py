"""Statements about the constraints of the processors' tables."""

from ..guarded import Connection
from ..sql import statements

_SQL = statements("constraints")


async def deferred(conn: Connection) -> list[str]:
    """The constraints that are checked at COMMIT, quoted, with their schemas."""
    return [row["name"] for row in await conn.fetch(_SQL["deferred_constraints"])]
