"""What PostgreSQL's catalog says about the tables that processors write to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..database.guard import Connection
from ..database.statements import statements
from ..database.upsert_sql import Column, quoted_table

_SQL = statements("store/catalog")

Columns = Mapping[str, Column]


class Fetches(Protocol):
    """A connection, guard or not."""

    async def fetch(self, sql: str, *args: Any) -> list[Any]:
        """Return the rows of a query."""


@dataclass(slots=True)
class Catalog:
    """The columns of tables; each table is read once."""

    _known: dict[str, Columns] = field(default_factory=dict)

    async def columns(self, conn: Fetches, table: str) -> Columns:
        """The columns of a table by name; empty if the table does not exist."""
        known = self._known.get(table)
        if known is None:
            known = {column.name: column for column in await columns(conn, table)}
            if known:
                self._known[table] = known
        return known

    def forget(self, table: str) -> None:
        """Read a table again next time: it has changed."""
        self._known.pop(table, None)


@dataclass(frozen=True, slots=True)
class TableFacts:
    """The facts that decide whether rows can be upserted into a table.

    Attributes:
        kind: Its ``relkind``: "r" a table, "p" a partitioned one, "v" a view, and so on.
        role: The current role.
        has_rules: Whether rules rewrite INSERT or UPDATE.
        has_trigger: Whether a trigger may change a row before it is inserted.
    """

    kind: str
    role: str
    has_rules: bool
    has_trigger: bool


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    """Who fills a column, and what the role may do with it."""

    name: str
    generated: bool
    identity_always: bool
    needs_value: bool
    may_insert: bool
    may_update: bool
    may_select: bool


@dataclass(frozen=True, slots=True)
class UniqueIndex:
    """A unique index on the columns of a key, and the reasons why it may not be usable."""

    name: str
    partial: bool
    deferrable: bool
    invalid: bool
    nulls_equal: bool

    @property
    def usable(self) -> bool:
        """Whether ON CONFLICT can use it."""
        return not (self.partial or self.deferrable or self.invalid)


async def columns(conn: Fetches, table: str) -> list[Column]:
    """The columns of a table in order; empty if the table does not exist."""
    rows = await conn.fetch(_SQL["table_columns"], quoted_table(table))
    return [
        Column(row["name"], row["type"], row["shown"], row["base"], row["kind"], row["array"])
        for row in rows
    ]


async def table_facts(conn: Fetches, table: str) -> TableFacts | None:
    """The facts about a table; None if it does not exist."""
    rows = await conn.fetch(_SQL["table_facts"], quoted_table(table))
    return TableFacts(**rows[0]) if rows else None


async def column_facts(conn: Fetches, table: str) -> list[ColumnFacts]:
    """The facts about the columns of a table, in order."""
    rows = await conn.fetch(_SQL["column_facts"], quoted_table(table))
    return [ColumnFacts(**row) for row in rows]


async def unique_indexes(conn: Fetches, table: str, key: Sequence[str]) -> list[UniqueIndex]:
    """The unique indexes on exactly these columns, usable ones first."""
    rows = await conn.fetch(_SQL["unique_indexes"], quoted_table(table), list(key))
    return [UniqueIndex(**row) for row in rows]


async def nulls_are_equal(conn: Fetches, table: str, key: Sequence[str]) -> bool:
    """Whether NULLs are equal in the key's unique index (NULLS NOT DISTINCT)."""
    indexes = await unique_indexes(conn, table, key)
    return any(index.usable and index.nulls_equal for index in indexes)


async def folding_columns(conn: Fetches, table: str, names: Sequence[str]) -> frozenset[str]:
    """The columns in which different texts can be equal."""
    rows = await conn.fetch(_SQL["folding_columns"], quoted_table(table), list(names))
    return frozenset(row["name"] for row in rows)


async def refresh(conn: Connection, added: int) -> None:
    """Analyze the table of items after `added` items were added, unless it is much larger."""
    if await conn.fetchval(_SQL["items_outgrown"], added):
        await conn.execute(_SQL["analyze_items"])


async def deferred(conn: Connection) -> list[str]:
    """The constraints that are checked at COMMIT, as quoted names with schemas."""
    return [row["name"] for row in await conn.fetch(_SQL["deferred_constraints"])]


async def waits_for_locks(conn: Connection) -> bool:
    """Whether a session of this role waits for a lock of another transaction."""
    waits: bool = await conn.fetchval(_SQL["waits_for_locks"])
    return waits


Rows = dict[int, tuple[int, int, int]]
"""Rows inserted, updated and deleted so far, by the table's oid."""


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables a processor may write to, by oid, and whether constraints are deferrable."""

    names: dict[int, str]
    deferrable: bool


async def tables(conn: Connection) -> Tables:
    """The tables a processor may write to."""
    rows = await conn.fetch(_SQL["user_tables"])
    return Tables({row["oid"]: row["name"] for row in rows}, any(r["deferrable"] for r in rows))


async def rows_changed(conn: Connection, oids: Sequence[int]) -> Rows:
    """The rows that this backend has changed so far; see the statement for what they include."""
    rows = await conn.fetch(_SQL["rows_changed"], oids)
    return {oid: (inserted, updated, deleted) for oid, inserted, updated, deleted in rows}
