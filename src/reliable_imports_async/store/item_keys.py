"""Statements about the keys of items, and the contents with which keys were last completed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic_core import to_json

from ..database.guard import Connection
from ..database.statements import statements
from ..log_buffer import LogLine
from ..models import ImportBatchItem
from ..outcomes import Completed, Failure, Skip
from . import items

_SQL = statements("store/item_keys")
_SETTLE = _SQL["settle_keyed"]
_SETTLE_WITH_LOGS = _SQL["settle_keyed_with_logs"]
SETTLE_OUTCOMES = _SQL["settle_keyed_outcomes"]
REASONS_RANGES = 250  # of which reasons are counted: all, in a batch of up to 100,000 items


@dataclass(frozen=True, slots=True)
class Remembering:
    """Where contents are remembered: for which type, and for which version of its processor."""

    batch_type: str
    version: str


@dataclass(frozen=True, slots=True)
class RecordKeys:
    """What a processor's `item_key` and `lock_key` say about a record."""

    key: str | None
    lock: str | None = None


async def pending_page(
    conn: Connection, batch_id: UUID, after: int, limit: int
) -> list[tuple[int, str, RecordKeys]]:
    """Numbers, records and keys of the next pending items above a number."""
    rows = await conn.fetch(_SQL["unkeyed_page"], batch_id, after, limit)
    return [
        (row["item_number"], row["source_data"], RecordKeys(row["item_key"], row["lock_key"]))
        for row in rows
    ]


async def rekey(
    conn: Connection, batch_id: UUID, changed: Mapping[int, RecordKeys | Failure]
) -> None:
    """Give items other keys, or fail those whose records have none that can be used."""
    stored = {number: _stored(key) for number, key in changed.items()}
    await conn.execute(_SQL["rekey"], batch_id, list(stored), to_json(stored).decode())


async def mark_repeated(
    conn: Connection, root_batch_id: UUID, batch_id: UUID, on_duplicate: str, hint: str, group: str
) -> int:
    """Note which items repeat a key, and settle them if that is asked for; how many.

    Args:
        on_duplicate: process, skip or fail.
        hint: What a failing one says.
        group: Its failure group.
    """
    marked: int = await conn.fetchval(
        _SQL["mark_repeated"], root_batch_id, batch_id, on_duplicate, hint, group
    )
    return marked


async def recount_ranges(conn: Connection, batch_id: UUID) -> None:
    """Count a batch's ranges from its items."""
    await conn.execute(_SQL["recount_ranges"], batch_id)


async def skip_unchanged(
    conn: Connection, batch_id: UUID, first: int, last: int, remembering: Remembering
) -> int:
    """Settle what has not changed since its key was last completed as skipped; how many."""
    rows = await conn.fetch(
        _SQL["skip_unchanged"], batch_id, first, last, remembering.batch_type, remembering.version
    )
    return len(rows)


async def find_unchanged(
    conn: Connection, batch_id: UUID, first: int, last: int, remembering: Remembering
) -> frozenset[int]:
    """The numbers of those items; nothing is stored."""
    rows = await conn.fetch(
        _SQL["find_unchanged"], batch_id, first, last, remembering.batch_type, remembering.version
    )
    return frozenset(row["item_number"] for row in rows)


async def settle(
    conn: Connection,
    item: ImportBatchItem[Any],
    outcome: Completed | Skip,
    logs: Sequence[LogLine],
    remembering: Remembering | None,
    *,
    timeout: float,
) -> bool:
    """The same as `items.settle`; the content of a completed item with a key is remembered.

    Raises:
        TimeoutError: There was no answer within `timeout` seconds.
    """
    if remembering is None or item.item_key is None or isinstance(outcome, Skip):
        return await items.settle(conn, item, outcome, logs, timeout=timeout)
    values: tuple[Any, ...] = (item.batch_id, item.item_number, item.attempts)
    values += (outcome.target_table, outcome.target_id, outcome.processed_data)
    values += (remembering.batch_type, remembering.version)
    if not logs:
        tag = await conn.execute(_SETTLE, *values, timeout=timeout)
        return bool(tag == "INSERT 0 1")
    lines = items.logged(logs)
    settled = await conn.fetchval(_SETTLE_WITH_LOGS, *values, lines, timeout=timeout)
    return bool(settled == 1)


async def skip_reasons(conn: Connection, batch_id: UUID, limit: int) -> list[tuple[str, int]]:
    """Why items were skipped, most frequent first."""
    rows = await conn.fetch(_SQL["skip_reasons"], batch_id, limit, REASONS_RANGES)
    return [(row["reason"], row["items"]) for row in rows]


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
