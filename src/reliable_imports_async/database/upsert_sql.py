"""Composes the statements of an upsert at run time: INSERT … ON CONFLICT DO UPDATE."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any

from ..errors import ConfigurationError, ValueRefused
from .conversions import Converter, Refused, converter

_KEY_HINT = "the processor's key has to name the columns of a unique constraint."


@dataclass(frozen=True, slots=True)
class Column:
    """A column of an existing table.

    Attributes:
        name: Its name.
        type: Its type in SQL, with the schema and without a length.
        shown: Its type for people.
        base: The name of the type underneath domains and arrays.
        kind: The ``typtype`` of that type.
        is_array: Whether the column is an array of that type.
    """

    name: str
    type: str
    shown: str
    base: str
    kind: str
    is_array: bool

    @property
    def convert(self) -> Converter:
        """The converter of values for this column into JSON text."""
        return converter(self.base, self.kind, array=self.is_array)


@lru_cache(maxsize=512)
def upsert_statement(
    table: str, columns: tuple[Column, ...], key: tuple[str, ...], *, returning: bool
) -> str:
    """SQL that inserts or updates the rows of a JSON array, which is passed as text.

    Args:
        table: Table name, optionally with its schema (``shop.products``).
        columns: The columns to write.
        key: The columns of a unique constraint; each must be among `columns`.
        returning: Whether to return the rows.
    """
    names = ", ".join(quoted(column.name) for column in columns)
    typed = ", ".join(f"{quoted(column.name)} {column.type}" for column in columns)
    changed = [column.name for column in columns if column.name not in key] or [key[0]]
    updates = ", ".join(f"{quoted(name)} = EXCLUDED.{quoted(name)}" for name in changed)
    return (
        f"INSERT INTO {quoted_table(table)} ({names}) SELECT {names} "  # noqa: S608 - all quoted
        f"FROM pg_catalog.json_to_recordset($1::pg_catalog.text::pg_catalog.json) "
        f"AS given({typed}) "
        f"ON CONFLICT ({', '.join(map(quoted, key))}) DO UPDATE SET {updates}"
        f"{' RETURNING *' if returning else ''}"
    )


def naming_statement(table: str, columns: Iterable[str]) -> str:
    """SQL that selects nothing from a table, so that PostgreSQL reports unknown columns."""
    names = ", ".join(map(quoted, columns))
    return f"SELECT {names} FROM {quoted_table(table)} LIMIT 0"  # noqa: S608 - all quoted


def check_key(table: str, columns: Iterable[str], key: tuple[str, ...]) -> None:
    """Check that the columns of an upsert include its key.

    Raises:
        ConfigurationError: There is no key, or it is not among the columns.
    """
    known = set(columns)
    missing = [name for name in key if name not in known]
    if not key or missing:
        raise ConfigurationError(
            f"The upsert into {table} needs a value for its key; missing: "
            f"{', '.join(missing) or 'the key'}.",
            hint="pass key=('column', …) naming the columns of a unique constraint.",
            cli_hint=_KEY_HINT,
            web_hint=_KEY_HINT,
        )


def row_text(table: str, columns: Iterable[Column], values: Mapping[str, Any]) -> str:
    """A row as a JSON object, for the array that the statement of an upsert takes.

    Raises:
        ValueRefused: A value does not fit its column.
    """
    parts = []
    for column in columns:
        try:
            text = column.convert(values.get(column.name))
        except Refused as exc:
            raise ValueRefused(table, column.name, column.shown, exc.reason, exc.hint) from None
        parts.append(f"{encode_basestring(column.name)}:{text}")
    return f"{{{','.join(parts)}}}"


def quoted_table(table: str) -> str:
    """A table name with or without its schema, each part quoted."""
    return ".".join(map(quoted, table.split(".")))


def quoted(name: str) -> str:
    """An SQL identifier in double quotes."""
    return '"' + name.replace('"', '""') + '"'
