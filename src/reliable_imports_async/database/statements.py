"""Named SQL statements from the `.sql` files of the rooms.

A file consists of blocks, each with a name and a comment: ``-- name:`` begins a statement,
``-- part:`` a text that several statements of the file share. ``-- use:`` stands for a part.
"""

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

import asyncpg

from .guard import Connection

_PACKAGE = resources.files(__package__.rpartition(".")[0])

_NAME = re.compile(r"^-- (name|part): (\w+)$", re.MULTILINE)

_CLOCK = re.compile(r"(?<![\w.])(?:now|clock_timestamp)\(\)")
"""Applications may define clocks of their own that precede these two in the `search_path`; our
leases, retries and times must not depend on them."""


@cache
def statements(file: str) -> Mapping[str, str]:
    """The statements of a file by name, in the order of the file.

    Args:
        file: Its room and name: "store/items" is ``store/sql/items.sql``.
    """
    room, name = file.split("/")
    text = _PACKAGE.joinpath(room, "sql", f"{name}.sql").read_text(encoding="utf-8")
    _, *pieces = _NAME.split(text)
    blocks = list(zip(pieces[::3], pieces[1::3], pieces[2::3], strict=True))
    parts = {name: body for kind, name, body in blocks if kind == "part"}
    return MappingProxyType(
        {name: _statement(body, parts) for kind, name, body in blocks if kind == "name"}
    )


async def only_row(conn: Connection, statement: str, *args: Any) -> asyncpg.Record:
    """The row of a statement that always returns one, such as an aggregate.

    Raises:
        LookupError: It returned none.
    """
    row: asyncpg.Record | None = await conn.fetchrow(statement, *args)
    if row is None:
        raise LookupError("A statement that always returns a row returned none.")
    return row


def _statement(body: str, parts: Mapping[str, str]) -> str:
    """The text to send: with the parts it uses, and without comments."""
    for name, part in parts.items():
        body = body.replace(f"-- use: {name}\n", part)
    lines = [line for line in body.splitlines() if not line.startswith("--")]
    text = "\n".join(lines).strip().removesuffix(";")
    return _CLOCK.sub(r"pg_catalog.\g<0>", text)
