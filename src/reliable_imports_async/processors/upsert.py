"""Processors that declare a model, a table and a key instead of a method: items are upserted.

`declared_upsert` checks the declaration against the table, and `Upsert` writes sets of items.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from datetime import date, datetime
from enum import Enum
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg

from ..database.conversions import plain_rows
from ..database.guard import Connection
from ..database.upsert_sql import Column, quoted, row_text, upsert_statement
from ..errors import ConfigurationError, ItemRefused, KeyIsNull, NotWritten
from ..models import ImportBatchItem
from ..outcomes import Completed
from ..store import catalog
from ..store.catalog import ColumnFacts, TableFacts, UniqueIndex
from .context import ImportContext
from .processor import BaseProcessor, fields_of, key_of, reported_name

Key = tuple[str, ...]
Rows: TypeAlias = Sequence[Mapping[str, Any]]
_SIMPLE = frozenset({str, int, UUID, date, datetime})
_NOT_A_TABLE = {
    "v": "a view",
    "m": "a materialized view",
    "f": "a foreign table",
    "S": "a sequence",
    "i": "an index",
    "I": "an index",
    "c": "a type",
}


class Upsert:
    """Upserts the items of one processor into its table.

    Args:
        table: The table, optionally with its schema.
        key: The columns of its unique constraint.
        columns: The columns to write.
        nulls_equal: Whether the key may be NULL, because NULLs are equal in its constraint.
        folding: The key columns in which PostgreSQL may treat different texts as equal.

    Attributes:
        table: As given.
    """

    def __init__(
        self,
        table: str,
        key: Key,
        columns: Sequence[Column],
        *,
        nulls_equal: bool = False,
        folding: frozenset[str] = frozenset(),
    ) -> None:
        self.table = table
        self._key = key
        self._nulls_equal = nulls_equal
        self._sql = upsert_statement(table, tuple(columns), key, returning=False)
        self._columns = columns
        self._plan = [
            (column.name, column.convert.as_is, column.convert.checks) for column in columns
        ]
        self._folding = folding
        self._single = key[0] if len(key) == 1 and not folding else ""

    async def write(
        self, items: Sequence[ImportBatchItem[Any]], ctx: ImportContext
    ) -> list[Completed]:
        """Insert or update the rows of some items; returns their outcomes.

        Raises:
            ItemRefused: A value cannot be written, or PostgreSQL did not write a row.
        """
        ids = await self.write_data([item.data for item in items], ctx)
        return [Completed(self.table, reported) for reported in ids]

    async def write_data(self, data: Sequence[Any], ctx: ImportContext) -> list[str | None]:
        """Insert or update the rows of some models; returns the keys to report, as text.

        A statement cannot have two rows with the same key; the second goes into the next statement.
        Each statement writes its rows in the order of their keys, so that two of them lock rows
        that they share in the same order.

        Raises:
            ItemRefused: A value cannot be written, or PostgreSQL did not write a row.
        """
        rows = [getattr(each, "__dict__", None) or _slots(each) for each in data]
        ids, keys = self._keys(rows)
        in_order = [shown or "" for shown in ids]
        remaining: Sequence[int] = range(len(rows))
        while remaining:
            first: dict[Hashable, int] = {}
            repeated = [at for at in remaining if first.setdefault(keys[at], at) != at]
            await self._write(sorted(first.values(), key=in_order.__getitem__), rows, ctx)
            remaining = repeated
        return list(map(reported_name, ids))

    async def _write(self, positions: Sequence[int], rows: Rows, ctx: ImportContext) -> None:
        """Write some rows in one statement, whose command tag says how many were written."""
        tag = await ctx.execute(self._sql, self._text(positions, rows))
        written = int(tag.rpartition(" ")[2])
        if written != len(positions):
            raise NotWritten(self.table, written, len(positions))

    def _text(self, positions: Sequence[int], rows: Rows) -> str:
        """Rows as a JSON array: all together if their values are usual, else one by one."""
        chosen = [rows[position] for position in positions]
        with suppress(KeyError, ValueError):
            self._check_plain(chosen)
            if any(len(row) > len(self._plan) for row in chosen):
                chosen = [{name: row[name] for name, _, _ in self._plan} for row in chosen]
            return plain_rows(chosen)
        texts = []
        for position in positions:
            with _at(position):
                texts.append(row_text(self.table, self._columns, rows[position]))
        return f"[{','.join(texts)}]"

    def _check_plain(self, rows: Rows) -> None:
        """Check the classes of all values, column by column.

        Raises:
            KeyError: A value is missing, or is of an unusual class.
            NotPlain: A value has to be converted by itself.
        """
        for name, as_is, checks in self._plan:
            values = [row[name] for row in rows]
            if not as_is.issuperset(map(type, values)):
                for value in values:
                    cls = type(value)
                    if cls not in as_is:
                        checks[cls](value)

    def _keys(self, rows: Rows) -> tuple[Sequence[str | None], Sequence[Hashable]]:
        """For each row its key as text, and a value that is equal for rows with the same key."""
        if self._single:
            keys = [row.get(self._single) for row in rows]
            if set(map(type, keys)) == {str}:
                return keys, keys
        ids = []
        for position, row in enumerate(rows):
            with _at(position):
                ids.append(self._target_id(row))
        return ids, list(map(self._same, rows))

    def _target_id(self, values: Mapping[str, Any]) -> str | None:
        given = [values.get(name) for name in self._key]
        if None not in given:
            return ",".join(map(_shown, given))
        if not self._nulls_equal:
            raise KeyIsNull(self.table, [name for name in self._key if values.get(name) is None])
        return None

    def _same(self, values: Mapping[str, Any]) -> Hashable:
        """A value that is equal for rows with the same key, as far as is known without PostgreSQL.

        PostgreSQL may treat more keys as equal; it then refuses the statement, and smaller sets
        are tried.
        """
        if self._single:
            key = values.get(self._single)
            return key if type(key) in _SIMPLE else _shown(key)
        return tuple(
            _shown(values.get(name)).replace(" ", "").casefold()
            if name in self._folding
            else _shown(values.get(name))
            for name in self._key
        )


@contextmanager
def _at(position: int) -> Iterator[None]:
    """Name the position of the item that is refused inside."""
    try:
        yield
    except ItemRefused as exc:
        exc.position = position
        raise


async def declared_upsert(conn: Connection, processor: BaseProcessor[Any]) -> Upsert:
    """The upsert that a processor declares, checked against the table and the role's privileges.

    Raises:
        ConfigurationError: The declaration does not fit the table, so no item could be written.
    """
    table, key, names = processor.table, key_of(processor), fields_of(type(processor))
    try:
        facts = await catalog.table_facts(conn, table)
    except asyncpg.InsufficientPrivilegeError as exc:
        raise ConfigurationError(
            f"Table {table} cannot be looked up: {exc}.",
            hint="GRANT USAGE ON that SCHEMA to the role that imports.",
        ) from None
    checked = _check_table(table, facts)
    known = {column.name: column for column in await catalog.columns(conn, table)}
    if missing := [name for name in names if name not in known]:
        raise ConfigurationError(
            f"Table {table} has no column {', '.join(missing)}.",
            hint=f"its columns are {', '.join(known)}; the model's fields must be among them.",
        )
    _check_columns(table, checked, await catalog.column_facts(conn, table), names, key)
    index = _usable_index(table, key, await catalog.unique_indexes(conn, table, key))
    folding = await catalog.folding_columns(conn, table, key)
    columns = [known[name] for name in names]
    return Upsert(table, key, columns, nulls_equal=index.nulls_equal, folding=folding)


def _slots(data: Any) -> Mapping[str, Any]:
    """The values of a dataclass with slots."""
    return {field.name: getattr(data, field.name) for field in fields(data)}


def _shown(value: Any) -> str:
    if type(value) is str:
        return value
    return str(value.value if isinstance(value, Enum) else value)


def _check_table(table: str, facts: TableFacts | None) -> TableFacts:
    if facts is None:
        raise ConfigurationError(
            f"The table {table} does not exist.",
            hint="create it before the batch starts, or in on_batch_start.",
        )
    if facts.kind in _NOT_A_TABLE:
        raise ConfigurationError(
            f"{table} is {_NOT_A_TABLE[facts.kind]}; only a table can be upserted into.",
            hint="name the table behind it, or write process_items.",
        )
    if facts.has_rules:
        raise ConfigurationError(
            f"Table {table} has rules for INSERT or UPDATE, so PostgreSQL cannot upsert into it.",
            hint="use triggers instead of rules, or write process_items.",
        )
    return facts


def _check_columns(
    table: str,
    facts: TableFacts,
    columns: Sequence[ColumnFacts],
    model: Sequence[str],
    key: Key,
) -> None:
    """Check that the model has the right columns, and that the role may write them."""
    written = [column for column in columns if column.name in model]
    generated = [column.name for column in written if column.generated or column.identity_always]
    if generated:
        raise ConfigurationError(
            f"PostgreSQL itself fills {', '.join(generated)} of table {table} (GENERATED ALWAYS).",
            hint="remove the field from the model"
            + (", and choose another key." if set(generated) & set(key) else "."),
        )
    lacking = [column.name for column in columns if column.needs_value and column.name not in model]
    if lacking and not facts.has_trigger:  # a trigger may fill them
        raise ConfigurationError(
            f"Table {table} needs a value for {', '.join(lacking)}: NOT NULL without a default.",
            hint="add the field to the model, or give the column a default.",
        )
    changed = [column for column in written if column.name not in key] or written[:1]
    _check_privileges(
        table,
        facts.role,
        {
            "INSERT": [column.name for column in written if not column.may_insert],
            "UPDATE": [column.name for column in changed if not column.may_update],
            "SELECT": [
                column.name for column in written if column.name in key and not column.may_select
            ],
        },
    )


def _check_privileges(table: str, role: str, lacking: Mapping[str, Sequence[str]]) -> None:
    """Refuse missing privileges; `lacking` has the columns of each privilege."""
    privileges = [privilege for privilege, columns in lacking.items() if columns]
    if privileges:
        names = sorted({name for columns in lacking.values() for name in columns})
        raise ConfigurationError(
            f"Role {role} may not {' and '.join(privileges)} in table {table}"
            f" ({'column' if len(names) == 1 else 'columns'} {', '.join(names)}).",
            hint=f"GRANT {', '.join(privileges)} ON {table} TO {quoted(role)};",
        )


def _usable_index(table: str, key: Key, indexes: Sequence[UniqueIndex]) -> UniqueIndex:
    for index in indexes:
        if index.usable:
            return index
    columns = ", ".join(key)
    add = f"ALTER TABLE {table} ADD UNIQUE ({columns})"
    if not indexes:
        raise ConfigurationError(
            f"Table {table} has no unique constraint on ({columns}).", hint=f"{add}."
        )
    first = indexes[0]
    if first.invalid:
        reason, hint = "is invalid", f"remove the duplicates, then REINDEX INDEX {first.name}."
    elif first.partial:
        reason, hint = "covers only some of the rows", f"{add}."
    else:
        reason, hint = "is deferrable", f"drop the constraint and {add}, not deferrable."
    raise ConfigurationError(
        f"Table {table} has no unique constraint on ({columns}) that an upsert can use: "
        f"{first.name} {reason}.",
        hint=hint,
    )
