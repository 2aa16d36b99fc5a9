"""Statements about item keys and the contents with which they were last completed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic_core import to_json

from ..database.guard import Connection
from ..database.statements import statements
from ..outcomes import Failure

_SQL = statements("store/item_keys")


@dataclass(frozen=True, slots=True)
class Remembering:
    """The batch type and version of the processor for which contents are remembered."""

    batch_type: str
    version: str


@dataclass(frozen=True, slots=True)
class RecordKeys:
    """The results of a processor's `item_key` and `lock_key` for a record."""

    key: str | None
    lock: str | None = None


async def pending_page(
    conn: Connection, batch_id: UUID, after: int, limit: int
) -> list[tuple[int, str, RecordKeys]]:
    """The numbers, records and keys of the next pending items above a number."""
    rows = await conn.fetch(_SQL["unkeyed_page"], batch_id, after, limit)
    return [
        (row["item_number"], row["source_data"], RecordKeys(row["item_key"], row["lock_key"]))
        for row in rows
    ]


async def rekey(
    conn: Connection, batch_id: UUID, changed: Mapping[int, RecordKeys | Failure]
) -> None:
    """Give items new keys, and fail items whose records have no valid key."""
    stored = {number: _stored(key) for number, key in changed.items()}
    await conn.execute(_SQL["rekey"], batch_id, list(stored), to_json(stored).decode())


async def mark_repeated(
    conn: Connection, root_batch_id: UUID, batch_id: UUID, on_duplicate: str, hint: str, group: str
) -> int:
    """Mark the items that repeat a key, and settle them if asked to; how many.

    Args:
        on_duplicate: "process", "skip" or "fail".
        hint: The hint of the failures.
        group: Their failure group.
    """
    marked: int = await conn.fetchval(
        _SQL["mark_repeated"], root_batch_id, batch_id, on_duplicate, hint, group
    )
    return marked


async def recount_ranges(conn: Connection, batch_id: UUID) -> None:
    """Count the items in a batch's ranges."""
    await conn.execute(_SQL["recount_ranges"], batch_id)


async def skip_unchanged(
    conn: Connection, batch_id: UUID, first: int, last: int, remembering: Remembering
) -> int:
    """Skip items that have not changed since their keys were last completed; how many."""
    rows = await conn.fetch(
        _SQL["skip_unchanged"], batch_id, first, last, remembering.batch_type, remembering.version
    )
    return len(rows)


async def find_unchanged(
    conn: Connection, batch_id: UUID, first: int, last: int, remembering: Remembering
) -> frozenset[int]:
    """The numbers of the items that would be skipped."""
    rows = await conn.fetch(
        _SQL["find_unchanged"], batch_id, first, last, remembering.batch_type, remembering.version
    )
    return frozenset(row["item_number"] for row in rows)


def _stored(key: RecordKeys | Failure) -> dict[str, Any]:
    if not isinstance(key, Failure):
        return {"key": key.key, "lock": key.lock}
    return {
        "kind": key.kind,
        "type": key.type,
        "message": key.message,
        "hint": key.hint,
        "group": key.group,
    }
