"""Processors without a method: model, table and key say it all, and items are upserted as sets."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import fields
from datetime import date, datetime
from enum import Enum
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from ..database.conversions import plain_row
from ..database.guard import Connection
from ..database.upsert_sql import Column, quoted, row_text, upsert_statement
from ..errors import ConfigurationError, ItemRefused, KeyIsNull, NotWritten
from ..models import ImportBatchItem
from ..store import catalog
from ..store.catalog import ColumnFacts, TableFacts, UniqueIndex
from .context import ImportContext
from .processor import BaseProcessor, fields_of, key_of

Key = tuple[str, ...]


class _Row(NamedTuple):
    """A row of one item: its JSON text, what its key is called, and what tells it from others."""

    text: str
    target_id: str | None
    key: Hashable


class Upsert:
    """How the items of one processor get into its table.

    Args:
        nulls_equal: Whether a key may be NULL, because NULLs are equal in its constraint.
        folding: The key columns in which PostgreSQL may take different texts for equal.
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
        self._table = table
        self._key = key
        self._nulls_equal = nulls_equal
        self._sql = upsert_statement(table, tuple(columns), key, returning=False)
        self._columns = columns
        self._names = [one.name for one in columns]
        self._plan = [(one.name, one.convert.as_is, one.convert.checks) for one in columns]
        self._folding = folding
        self._single = key[0] if len(key) == 1 and not folding else ""

    async def write(
        self, items: Sequence[ImportBatchItem[Any]], ctx: ImportContext
    ) -> list[dict[str, Any]]:
        """Insert or update the rows of some items; what `process_items` returns.

        Two items with the same key cannot be in one statement: the second waits for the next.

        Raises:
            ItemRefused: A value cannot be written, or PostgreSQL has left out a row.
        """
        left = rows = [self._row_of(position, item) for position, item in enumerate(items)]
        while left:
            wave: dict[Hashable, _Row] = {}
            behind = [row for row in left if wave.setdefault(row.key, row) is not row]
            in_key_order = sorted(wave.values(), key=_called)  # as others lock them
            await self._write(in_key_order, ctx)
            left = behind
        return [{"target_table": self._table, "target_id": row.target_id} for row in rows]

    async def _write(self, rows: Sequence[_Row], ctx: ImportContext) -> None:
        """One statement; that each row was written, its command tag tells at no cost."""
        tag = await ctx.execute(self._sql, f"[{','.join([row.text for row in rows])}]")
        written = int(tag.rpartition(" ")[2])
        if written != len(rows):
            raise NotWritten(self._table, written, len(rows))

    def _row_of(self, position: int, item: ImportBatchItem[Any]) -> _Row:
        values = getattr(item.data, "__dict__", None) or _slots(item.data)
        try:
            text = self._text(values)
            key = values.get(self._single)
            if type(key) is str:
                return _Row(text, key, key)
            return _Row(text, self._target_id(values), self._same(values))
        except ItemRefused as exc:
            exc.position = position
            raise

    def _text(self, values: Mapping[str, Any]) -> str:
        """A row as JSON text: at once where its values are of usual classes, else one by one."""
        try:
            for name, as_is, checks in self._plan:
                cls = type(values.get(name))
                if cls not in as_is:
                    checks[cls](values[name])
            if len(values) > len(self._plan):
                values = {name: values.get(name) for name in self._names}
            return plain_row(values)
        except (KeyError, ValueError):
            return row_text(self._table, self._columns, values)

    def _target_id(self, values: Mapping[str, Any]) -> str | None:
        given = [values.get(name) for name in self._key]
        if None not in given:
            return ",".join(map(_shown, given))
        if not self._nulls_equal:
            raise KeyIsNull(self._table, [name for name in self._key if values.get(name) is None])
        return None

    def _same(self, values: Mapping[str, Any]) -> Hashable:
        """What is equal for rows with the same key, as far as can be known without asking.

        PostgreSQL may take more keys for equal; then it refuses the statement, and smaller sets
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


_SIMPLE = frozenset({str, int, UUID, date, datetime})


def _slots(data: Any) -> Mapping[str, Any]:
    """The values of a dataclass with slots."""
    return {one.name: getattr(data, one.name) for one in fields(data)}


def _shown(value: Any) -> str:
    if type(value) is str:
        return value
    return str(value.value if isinstance(value, Enum) else value)


def _called(row: _Row) -> str:
    return row.target_id or ""


async def declared_upsert(conn: Connection, processor: BaseProcessor[Any]) -> Upsert:
    """What a processor declares, checked against the table and the role's rights.

    Raises:
        ConfigurationError: Items could not be upserted, whatever they hold.
    """
    table, key, names = processor.table, key_of(processor), fields_of(type(processor))
    try:
        facts = await catalog.table_facts(conn, table)
    except asyncpg.InsufficientPrivilegeError as exc:
        raise ConfigurationError(
            f"Table {table} cannot be looked up: {exc}.",
            hint="GRANT USAGE ON that SCHEMA to the role that imports.",
        ) from None
    _check_table(table, facts)
    assert facts is not None  # noqa: S101 - checked
    found = {column.name: column for column in await catalog.columns(conn, table)}
    missing = [name for name in names if name not in found]
    if missing:
        raise ConfigurationError(
            f"Table {table} has no column {', '.join(missing)}.",
            hint=f"its columns are {', '.join(found)}; the model's fields must be among them.",
        )
    _check_columns(table, facts, await catalog.column_facts(conn, table), names, key)
    index = _usable_index(table, key, await catalog.unique_indexes(conn, table, key))
    folding = await catalog.folding_columns(conn, table, key)
    columns = [found[name] for name in names]
    return Upsert(table, key, columns, nulls_equal=index.nulls_equal, folding=folding)


_NO_TABLE = {
    "v": "a view",
    "m": "a materialized view",
    "f": "a foreign table",
    "S": "a sequence",
    "i": "an index",
    "I": "an index",
    "c": "a type",
}


def _check_table(table: str, facts: TableFacts | None) -> None:
    if facts is None:
        raise ConfigurationError(
            f"There is no table {table} to upsert into.",
            hint="create it before the batch starts, or in on_batch_start.",
        )
    if facts.kind in _NO_TABLE:
        raise ConfigurationError(
            f"{table} is {_NO_TABLE[facts.kind]}, and rows can only be upserted into a table.",
            hint="name the table behind it, or write process_items.",
        )
    if facts.has_rules:
        raise ConfigurationError(
            f"Table {table} has rules for INSERT or UPDATE, with which PostgreSQL cannot upsert.",
            hint="use triggers instead of rules, or write process_items.",
        )


def _check_columns(
    table: str,
    facts: TableFacts,
    columns: Sequence[ColumnFacts],
    model: Sequence[str],
    key: Key,
) -> None:
    """Refuse columns that the model must not have or must have, and missing rights."""
    given = [one for one in columns if one.name in model]
    generated = [one.name for one in given if one.generated or one.identity_always]
    if generated:
        raise ConfigurationError(
            f"PostgreSQL itself fills {', '.join(generated)} of table {table} (GENERATED ALWAYS).",
            hint="take the field out of the model"
            + (", and choose another key." if set(generated) & set(key) else "."),
        )
    lacking = [one.name for one in columns if one.needs_value and one.name not in model]
    if lacking and not facts.has_trigger:  # a trigger may fill them
        raise ConfigurationError(
            f"Table {table} needs a value for {', '.join(lacking)}: NOT NULL without a default.",
            hint="add the field to the model, or give the column a default.",
        )
    changed = [one for one in given if one.name not in key] or given[:1]
    rights = {
        "INSERT": [one.name for one in given if not one.may_insert],
        "UPDATE": [one.name for one in changed if not one.may_update],
        "SELECT": [one.name for one in given if one.name in key and not one.may_select],
    }
    refused = {right: names for right, names in rights.items() if names}
    if refused:
        names = ", ".join(sorted({name for names in refused.values() for name in names}))
        raise ConfigurationError(
            f"Role {facts.role} may not {' and '.join(refused)} in table {table}"
            f" (columns {names}).",
            hint=f"GRANT {', '.join(refused)} ON {table} TO {quoted(facts.role)};",
        )


def _usable_index(table: str, key: Key, indexes: Sequence[UniqueIndex]) -> UniqueIndex:
    for one in indexes:
        if one.usable:
            return one
    columns = ", ".join(key)
    if not indexes:
        raise ConfigurationError(
            f"Table {table} has no unique constraint on ({columns}).",
            hint=f"ALTER TABLE {table} ADD UNIQUE ({columns}).",
        )
    first = indexes[0]
    if first.invalid:
        why, hint = "is invalid", f"REINDEX INDEX {first.name}, once no duplicates are left."
    elif first.partial:
        why, hint = "covers only a part of the rows", f"ALTER TABLE {table} ADD UNIQUE ({columns})."
    else:
        why = "is deferrable"
        hint = (
            f"drop the constraint and ALTER TABLE {table} ADD UNIQUE ({columns}), not deferrable."
        )
    raise ConfigurationError(
        f"Table {table} has no unique constraint on ({columns}) that an upsert can use: "
        f"{first.name} {why}.",
        hint=hint,
    )
