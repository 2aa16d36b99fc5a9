"""Statements that read and delete items."""

import json
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
from anyio.lowlevel import cancel_shielded_checkpoint

from .. import exact_json
from ..database.guard import Connection
from ..database.statements import statements
from ..exact_json import LARGE, aside
from ..models import ImportBatchItem, ItemStatus
from ..outcomes import Failure, FailureKind

_SQL = statements("store/items")
_ERROR_COLUMNS = {name: f"error_{name}" for name in Failure.__slots__}
PendingRow: TypeAlias = asyncpg.Record
"""Number, attempts, record as text, line, key, number in the root batch."""
READ_AT_ONCE = 524_288  # characters of records, before other tasks run


async def pending_rows(
    conn: Connection, batch_id: UUID, first: int, last: int, limit: int
) -> list[PendingRow]:
    """The rows of the next due items with numbers from `first` to `last`, at most `limit`."""
    return await conn.fetch(_SQL["read_pending"], batch_id, first, last, limit)


async def read_pending(
    conn: Connection, batch_id: UUID, root_batch_id: UUID, first: int, last: int, limit: int
) -> list[ImportBatchItem[Any]]:
    """The next due items with numbers from `first` to `last`, at most `limit`."""
    rows = await pending_rows(conn, batch_id, first, last, limit)
    return await read_rows(rows, batch_id, root_batch_id)


async def read_undue(
    conn: Connection, batch_id: UUID, root_batch_id: UUID, first: int, last: int
) -> list[ImportBatchItem[Any]]:
    """The items with numbers from `first` to `last` whose retry is not due yet."""
    rows = await conn.fetch(_SQL["read_undue"], batch_id, first, last)
    return await read_rows(rows, batch_id, root_batch_id)


async def read_rows(
    rows: Sequence[PendingRow], batch_id: UUID, root_batch_id: UUID
) -> list[ImportBatchItem[Any]]:
    """The items of rows that `pending_rows` returned; large records are parsed in a thread."""
    pending: list[ImportBatchItem[Any]] = []
    size = 0
    for row in rows:
        text = row[2]
        size += len(text)
        if size > READ_AT_ONCE:
            size = len(text)
            await cancel_shielded_checkpoint()
        if len(text) > LARGE:
            record = await aside(len(text), partial(exact_json.read, text))
        else:
            record = exact_json.read(text)
        pending.append(item_of(row, record, record, batch_id, root_batch_id))
    return pending


def item_of(
    row: PendingRow, record: Any, data: Any, batch_id: UUID, root_batch_id: UUID
) -> ImportBatchItem[Any]:
    """The item of a row.

    Args:
        record: The parsed record.
        data: The record as the processor's model.
    """
    number, attempts, text, line, key, root = row
    return ImportBatchItem.quickly(
        {
            "batch_id": batch_id,
            "item_number": number,
            "source_data": record,
            "data": data,
            "is_large": len(text) > LARGE,
            "attempts": attempts,
            "root_batch_id": root_batch_id,
            "root_item_number": root or number,
            "source_line": line,
            "item_key": key,
        }
    )


async def get(conn: Connection, batch_id: UUID, number: int) -> ImportBatchItem[Any] | None:
    """One item with everything that is stored about it."""
    row = await conn.fetchrow(_SQL["get_item"], batch_id, number)
    return None if row is None else (await _items([row]))[0]


async def page(
    conn: Connection,
    batch_id: UUID,
    *,
    status: str | None,
    group: str | None,
    after: int,
    limit: int,
) -> list[ImportBatchItem[Any]]:
    """A page of items in the order of their numbers, above `after`."""
    if group is not None and status in (None, ItemStatus.FAILED):
        rows = await conn.fetch(_SQL["list_failed_items"], batch_id, group, after, limit)
    elif group is None and status is not None:
        rows = await conn.fetch(_SQL["list_items_by_status"], batch_id, status, after, limit)
    else:
        rows = await conn.fetch(_SQL["list_items"], batch_id, status, group, after, limit)
    return await _items(rows)


async def _items(rows: Sequence[asyncpg.Record]) -> list[ImportBatchItem[Any]]:
    size = sum(len(row["source_data"] or "") + len(row["processed_data"] or "") for row in rows)
    return await aside(size, lambda: [_item(row) for row in rows])


async def delete_chunk(conn: Connection, batch_ids: Sequence[UUID], limit: int) -> int:
    """Delete up to `limit` items of some batches; how many."""
    tag = await conn.execute(_SQL["delete_items"], batch_ids, limit)
    return int(tag.split()[1])


def _item(row: asyncpg.Record) -> ImportBatchItem[Any]:
    stored = dict(row)
    failure = {name: stored.pop(column) for name, column in _ERROR_COLUMNS.items()}
    data: Any = None if row["source_data"] is None else exact_json.read(row["source_data"])
    processed = row["processed_data"]
    stored |= {
        "source_data": data,
        "data": data,
        "status": ItemStatus(row["status"]),
        "processed_data": None if processed is None else exact_json.read(processed),
        "failure": None if failure["group"] is None else _failure(failure),
    }
    return ImportBatchItem(**stored)


def _failure(stored: dict[str, Any]) -> Failure:
    fields = stored["fields"]
    stored["kind"] = FailureKind(stored["kind"])
    stored["fields"] = tuple(json.loads(fields)) if fields else ()
    return Failure(**stored)
