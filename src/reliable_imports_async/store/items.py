"""Statements about items."""

import json
import re
from collections.abc import Sequence
from functools import partial
from typing import Any
from uuid import UUID

import asyncpg
from anyio.lowlevel import cancel_shielded_checkpoint
from pydantic_core import to_json

from .. import exact_json
from ..database.guard import Connection
from ..database.statements import statements
from ..exact_json import LARGE, aside
from ..log_buffer import LogLine
from ..models import ImportBatchItem, ItemStatus
from ..outcomes import (
    COMPLETED,
    Completed,
    Failed,
    Failure,
    FailureKind,
    Outcome,
    Rescheduled,
    Skip,
)

_SQL = statements("store/items")
_SETTLE = _SQL["settle"]
_SETTLE_WITH_LOGS = _SQL["settle_with_logs"]
_SETTLE_AT_ONCE = re.sub(r"\$(\d)", r"{\1}", _SQL["settle_at_once"]).format
READ_AT_ONCE = 524_288  # characters of records; then everything else that waits has its turn
FENCE_LOST = "RI001"
"""The SQLSTATE of a settling statement whose item is not pending any more in this try."""


async def read_pending(
    conn: Connection, batch_id: UUID, root_batch_id: UUID, first: int, last: int, limit: int
) -> list[ImportBatchItem[Any]]:
    """The next due items with numbers from `first` to `last`, at most `limit`."""
    rows = await conn.fetch(_SQL["read_pending"], batch_id, first, last, limit)
    return await _pending(rows, batch_id, root_batch_id)


async def read_undue(
    conn: Connection, batch_id: UUID, root_batch_id: UUID, first: int, last: int
) -> list[ImportBatchItem[Any]]:
    """The items with numbers from `first` to `last` that are to be tried again later."""
    rows = await conn.fetch(_SQL["read_undue"], batch_id, first, last)
    return await _pending(rows, batch_id, root_batch_id)


async def _pending(
    rows: Sequence[asyncpg.Record], batch_id: UUID, root_batch_id: UUID
) -> list[ImportBatchItem[Any]]:
    pending: list[ImportBatchItem[Any]] = []
    size = 0
    for number, attempts, text, line, key, root in rows:
        size += len(text)
        if size > READ_AT_ONCE:
            size = len(text)
            await cancel_shielded_checkpoint()
        large = len(text) > LARGE
        if large:
            data = await aside(len(text), partial(exact_json.read, text))
        else:
            data = exact_json.read(text)
        pending.append(
            ImportBatchItem.quickly(
                batch_id=batch_id,
                item_number=number,
                source_data=data,
                data=data,
                is_large=large,
                attempts=attempts,
                root_batch_id=root_batch_id,
                root_item_number=root or number,
                source_line=line,
                item_key=key,
            )
        )
    return pending


async def settle(
    conn: Connection,
    item: ImportBatchItem[Any],
    outcome: Completed | Skip,
    logs: Sequence[LogLine],
    *,
    timeout: float,
) -> bool:
    """The last statement of an item's transaction; False when the fence did not hold.

    Raises:
        TimeoutError: There was no answer within `timeout` seconds.
    """
    key = (item.batch_id, item.item_number, item.attempts)
    values: tuple[Any, ...]
    match outcome:
        case Completed(table, target_id, data):
            values = (ItemStatus.COMPLETED.value, table, target_id, data, None)
        case Skip(reason):
            values = (ItemStatus.SKIPPED.value, None, None, None, reason)
    if not logs:
        tag = await conn.execute(_SETTLE, *key, *values, timeout=timeout)
        return bool(tag == "UPDATE 1")
    lines = logged(logs)
    return bool(await conn.fetchval(_SETTLE_WITH_LOGS, *key, *values, lines, timeout=timeout) == 1)


def settling(item: ImportBatchItem[Any], outcome: Completed | Skip | Failed, seconds: float) -> str:
    """The SQL text that settles an item, for one message with what ends its transaction.

    A message of several statements takes no arguments. The values in it are an id, numbers and
    hexadecimal digits, so there is nothing to escape.

    Args:
        seconds: How long a failed try took.
    """
    stored = "NULL"
    if outcome != COMPLETED:
        digits = to_json(stored_outcome(outcome) | {"seconds": seconds}).hex()
        stored = f"'{digits}'"
    return _SETTLE_AT_ONCE(None, f"'{item.batch_id}'", item.item_number, item.attempts, stored)


def stored_outcome(outcome: Completed | Skip | Failed) -> dict[str, Any]:
    """What settling statements read about an outcome, as JSON; what is missing is NULL."""
    match outcome:
        case Completed(table, target_id, data):
            return {
                "status": ItemStatus.COMPLETED,
                "target_table": table,
                "target_id": target_id,
                "processed_data": data,
            }
        case Skip(reason):
            return {"status": ItemStatus.SKIPPED, "skip_reason": reason}
        case Failed(failure):
            fields = to_json(failure.fields).decode() if failure.fields else None
            stored = {name: getattr(failure, name) for name in Failure.__slots__}
            return stored | {"status": ItemStatus.FAILED, "fields": fields}


async def settle_failed(
    conn: Connection,
    item: ImportBatchItem[Any],
    failure: Failure,
    logs: Sequence[LogLine],
    seconds: float,
) -> bool:
    """Store a failure and its log lines; False when the fence did not hold.

    Args:
        seconds: How long the try took.
    """
    settled = await conn.fetchval(
        _SQL["settle_failed"],
        item.batch_id,
        item.item_number,
        item.attempts,
        failure.kind.value,
        failure.type,
        failure.message,
        failure.group,
        failure.sqlstate,
        failure.constraint,
        failure.table,
        failure.column,
        failure.detail,
        failure.hint,
        failure.traceback,
        to_json(failure.fields).decode() if failure.fields else None,
        seconds,
        logged(logs),
    )
    return bool(settled == 1)


async def postpone(
    conn: Connection, item: ImportBatchItem[Any], after: float, logs: Sequence[LogLine]
) -> bool:
    """Store a retry that is due in `after` seconds; False when the fence did not hold."""
    stored = await conn.fetchval(
        _SQL["postpone"],
        item.batch_id,
        item.item_number,
        item.attempts,
        after,
        logged(logs),
    )
    return bool(stored == 1)


async def ask(conn: Connection, item: ImportBatchItem[Any]) -> Outcome | None:
    """What became of an item in doubt: waits for its row lock, then reads.

    Returns:
        None: the item is pending, and no other try has been stored since it was read.
    """
    row = await conn.fetchrow(_SQL["ask_item"], item.batch_id, item.item_number)
    return answered(row, item.attempts)


def answered(row: asyncpg.Record | None, attempts: int) -> Outcome | None:
    """What an item's row says to the try that asks; None: this try is as good as never made.

    Args:
        attempts: As the try has read them.
    """
    if row is None or row["reprocessed_by"] is not None:
        return Skip()  # purged, or taken over: not ours
    match ItemStatus(row["status"]):
        case ItemStatus.COMPLETED:
            return COMPLETED
        case ItemStatus.SKIPPED:
            return Skip()
        case ItemStatus.FAILED:
            kind, name = FailureKind(row["error_kind"]), row["error_type"]
            message, group = row["error_message"], row["error_group"]
            return Failed(Failure(kind=kind, type=name, message=message, group=group))
        case ItemStatus.PENDING:
            return None if row["attempts"] == attempts else Rescheduled()


async def get(conn: Connection, batch_id: UUID, number: int) -> ImportBatchItem[Any] | None:
    """One item with everything stored about it."""
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
    """A page of items above the number `after`, in the order of their numbers."""
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


def logged(lines: Sequence[Sequence[Any]]) -> str:
    """Log lines as settling statements read them."""
    return to_json(lines).decode()


def _item(row: asyncpg.Record) -> ImportBatchItem[Any]:
    data: Any = None if row["source_data"] is None else exact_json.read(row["source_data"])
    processed = row["processed_data"]
    return ImportBatchItem(
        batch_id=row["batch_id"],
        item_number=row["item_number"],
        source_data=data,
        data=data,
        status=ItemStatus(row["status"]),
        attempts=row["attempts"],
        root_batch_id=row["root_batch_id"],
        root_item_number=row["root_item_number"] or row["item_number"],
        source_line=row["source_line"],
        item_key=row["item_key"],
        raw=row["raw"],
        due_at=row["due_at"],
        target_table=row["target_table"],
        target_id=row["target_id"],
        processed_data=None if processed is None else exact_json.read(processed),
        skip_reason=row["skip_reason"],
        failure=_failure(row),
        reprocessed_by=row["reprocessed_by"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
    )


def _failure(row: asyncpg.Record) -> Failure | None:
    if row["error_group"] is None:
        return None
    return Failure(
        kind=FailureKind(row["error_kind"]),
        type=row["error_type"],
        message=row["error_message"],
        group=row["error_group"],
        sqlstate=row["error_sqlstate"],
        constraint=row["error_constraint"],
        table=row["error_table"],
        column=row["error_column"],
        detail=row["error_detail"],
        hint=row["error_hint"],
        traceback=row["error_traceback"],
        fields=tuple(json.loads(row["error_fields"])) if row["error_fields"] else (),
    )
