"""The statements that are composed at run time: INSERT … ON CONFLICT DO UPDATE."""

from dataclasses import dataclass
from functools import lru_cache

from .errors import ConfigurationError


@lru_cache(maxsize=512)
def upsert_statement(table: str, columns: tuple[str, ...], key: tuple[str, ...]) -> str:
    """SQL that inserts one row or updates the one with the same key, and returns it.

    Args:
        table: Table name, optionally with its schema (``shop.products``).
        columns: All columns, in the order of the arguments.
        key: The columns of a unique constraint; each must be among `columns`.

    Raises:
        ConfigurationError: There is no key, or it is not among the columns.
    """
    missing = [name for name in key if name not in columns]
    if not key or missing:
        raise ConfigurationError(
            f"upsert into {table} needs its key among the values; missing: {missing or 'a key'}.",
            hint="pass key=('column', …) naming the columns of a unique constraint.",
            cli_hint="the processor's key has to name the columns of a unique constraint.",
            web_hint="the processor's key has to name the columns of a unique constraint.",
        )
    changed = [name for name in columns if name not in key] or [key[0]]
    names = ", ".join(map(quoted, columns))
    slots = ", ".join(f"${position}" for position in range(1, len(columns) + 1))
    updates = ", ".join(f"{quoted(name)} = EXCLUDED.{quoted(name)}" for name in changed)
    return (
        f"INSERT INTO {quoted_table(table)} ({names}) VALUES ({slots}) "  # noqa: S608 - all quoted
        f"ON CONFLICT ({', '.join(map(quoted, key))}) DO UPDATE SET {updates} RETURNING *"
    )


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table, with its type as SQL spells it."""

    name: str
    type: str
    is_bytes: bool = False


@lru_cache(maxsize=512)
def upsert_many_statement(table: str, columns: tuple[Column, ...], key: tuple[str, ...]) -> str:
    """SQL that upserts the rows of one JSON array, given as text; bytes come as hexadecimal."""
    names = ", ".join(quoted(one.name) for one in columns)
    typed = ", ".join(
        f"{quoted(one.name)} {'text' if one.is_bytes else one.type}" for one in columns
    )
    values = ", ".join(
        f"decode({quoted(one.name)}, 'hex')" if one.is_bytes else quoted(one.name)
        for one in columns
    )
    changed = [one.name for one in columns if one.name not in key] or [key[0]]
    updates = ", ".join(f"{quoted(name)} = EXCLUDED.{quoted(name)}" for name in changed)
    return (
        f"INSERT INTO {quoted_table(table)} ({names}) SELECT {values} "  # noqa: S608 - all quoted
        f"FROM jsonb_to_recordset($1::text::jsonb) AS given({typed}) "
        f"ON CONFLICT ({', '.join(map(quoted, key))}) DO UPDATE SET {updates}"
    )


def quoted_table(table: str) -> str:
    """A table name with or without its schema, each part quoted."""
    return ".".join(map(quoted, table.split(".")))


def quoted(name: str) -> str:
    """An SQL identifier in double quotes."""
    return '"' + name.replace('"', '""') + '"'
