"""Statements about the tables that processors declare."""

from collections.abc import Sequence

from ..guarded import Connection
from ..sql import statements
from ..upsert import Column, quoted_table

_SQL = statements("tables")


async def columns(conn: Connection, table: str) -> list[Column]:
    """The columns of a table; none when there is no such table."""
    rows = await conn.fetch(_SQL["table_columns"], quoted_table(table))
    return [Column(row["name"], row["type"], row["is_bytes"]) for row in rows]


async def is_unique(conn: Connection, table: str, key: Sequence[str]) -> bool:
    """Whether a unique constraint or index has exactly these columns."""
    return bool(await conn.fetchval(_SQL["table_is_unique"], quoted_table(table), list(key)))
