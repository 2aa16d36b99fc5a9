"""Processors without a method: model, table and key say it all, and items are upserted as sets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from json.encoder import encode_basestring
from typing import Any

import asyncpg

from . import catalog
from .catalog import ColumnFacts, TableFacts, UniqueIndex
from .context import ImportContext
from .conversions import Refused
from .errors import ConfigurationError, ItemRefused, KeyIsNull, NotWritten
from .guarded import Connection
from .models import ImportBatchItem
from .processors import BaseProcessor, fields_of, key_of
from .upsert import Column, quoted, upsert_statement, value_refused

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of one item: its JSON text, what its key is called, and what tells it from others."""

    text: str
    target_id: str | None
    key: Key


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
        self._plan = [(one, f"{encode_basestring(one.name)}:", one.convert) for one in columns]
        places = {one.name: place for place, one in enumerate(columns)}
        self._key_places = [(places[name], name in folding) for name in key]

    async def write(
        self, items: Sequence[ImportBatchItem[Any]], ctx: ImportContext
    ) -> list[dict[str, Any]]:
        """Insert or update the rows of some items; what `process_items` returns.

        Two items with the same key cannot be in one statement: the second waits for the next.

        Raises:
            ItemRefused: A value cannot be written, or PostgreSQL has left out a row.
        """
        rows = [self._row_of(position, item) for position, item in enumerate(items)]
        left = rows
        while left:
            wave: dict[Key, _Row] = {}
            behind = []
            for row in left:
                if row.key in wave:
                    behind.append(row)
                else:
                    wave[row.key] = row
            in_key_order = [wave[key] for key in sorted(wave)]  # as others lock them
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
        try:
            return self._row(item.data)
        except ItemRefused as exc:
            exc.position = position
            raise

    def _row(self, data: Any) -> _Row:
        values = _values(data)
        texts = []
        for column, name, convert in self._plan:
            value = values.get(column.name)
            handler = convert.handlers.get(type(value))
            try:  # the usual classes are converted right here
                text = handler(value) if handler is not None else convert.unusual(value)
            except Refused as exc:
                raise value_refused(self._table, column, exc) from None
            texts.append(name + text)
        key = [
            texts[place].replace(" ", "").casefold() if folds else texts[place]
            for place, folds in self._key_places
        ]
        return _Row(f"{{{','.join(texts)}}}", self._target_id(values), tuple(key))

    def _target_id(self, values: Mapping[str, Any]) -> str | None:
        given = [values.get(name) for name in self._key]
        missing = [name for name, value in zip(self._key, given, strict=True) if value is None]
        if missing and not self._nulls_equal:
            raise KeyIsNull(self._table, missing)
        return None if missing else ",".join(map(_shown, given))


def _values(data: Any) -> Mapping[str, Any]:
    """An item's data by field."""
    if isinstance(data, Mapping):
        return data
    if hasattr(data, "__dict__"):
        values: Mapping[str, Any] = vars(data)
        return values
    return {name: getattr(data, name) for name in data.__slots__}


def _shown(value: Any) -> str:
    return str(value.value if isinstance(value, Enum) else value)


async def declared_upsert(conn: Connection, processor: BaseProcessor[Any]) -> Upsert:
    """What a processor declares, checked against the table and the role's rights.

    Raises:
        ConfigurationError: Items could not be upserted, whatever they hold.
    """
    table, key, fields = processor.table, key_of(processor), fields_of(type(processor))
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
    missing = [name for name in fields if name not in found]
    if missing:
        raise ConfigurationError(
            f"Table {table} has no column {', '.join(missing)}.",
            hint=f"its columns are {', '.join(found)}; the model's fields must be among them.",
        )
    _check_columns(table, facts, await catalog.column_facts(conn, table), fields, key)
    index = _usable_index(table, key, await catalog.unique_indexes(conn, table, key))
    folding = await catalog.folding_columns(conn, table, key)
    columns = [found[name] for name in fields]
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
    fields: Sequence[str],
    key: Key,
) -> None:
    """Refuse columns that the model must not have or must have, and missing rights."""
    given = [one for one in columns if one.name in fields]
    generated = [one.name for one in given if one.generated or one.identity_always]
    if generated:
        raise ConfigurationError(
            f"PostgreSQL itself fills {', '.join(generated)} of table {table} (GENERATED ALWAYS).",
            hint="take the field out of the model"
            + (", and choose another key." if set(generated) & set(key) else "."),
        )
    lacking = [one.name for one in columns if one.needs_value and one.name not in fields]
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
