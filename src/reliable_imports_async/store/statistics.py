"""Statements that keep the planner informed."""

from ..guarded import Connection
from ..sql import statements

_SQL = statements("statistics")


async def refresh(conn: Connection, added: int) -> None:
    """After so many items were added: have the table looked at, unless it is far larger."""
    if await conn.fetchval(_SQL["items_outgrown"], added):
        await conn.execute(_SQL["analyze_items"])
