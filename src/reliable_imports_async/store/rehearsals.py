"""Statements of a dry run."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..guarded import Connection
from ..sql import statements

_SQL = statements("rehearsals")

Rows = dict[int, tuple[int, int, int]]
"""Rows inserted, updated and deleted so far, by the table's oid."""


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables a processor may write to, by oid, and whether constraints are deferrable."""

    names: dict[int, str]
    deferrable: bool


async def tables(conn: Connection) -> Tables:
    """What a processor may write to."""
    rows = await conn.fetch(_SQL["user_tables"])
    return Tables({row["oid"]: row["name"] for row in rows}, any(r["deferrable"] for r in rows))


async def rows_changed(conn: Connection, oids: Sequence[int]) -> Rows:
    """What this backend has changed so far, as far as it counts: see the statement."""
    rows = await conn.fetch(_SQL["rows_changed"], oids)
    return {oid: (inserted, updated, deleted) for oid, inserted, updated, deleted in rows}
