"""Statements about log lines."""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from pydantic_core import to_json

from ..database.guard import Connection
from ..database.statements import statements
from ..log_buffer import LogLine
from ..models import LogEntry, LogLevel
from ..sanitize import storable_json

_SQL = statements("store/logs")


async def insert(
    conn: Connection, batch_id: UUID, level: LogLevel, message: str, details: Mapping[str, Any]
) -> None:
    """Write one line about a batch."""
    text = storable_json(to_json(dict(details), fallback=str).decode())
    await insert_text(conn, batch_id, level, message, text)


async def insert_text(
    conn: Connection, batch_id: UUID, level: LogLevel, message: str, details: str | None
) -> None:
    """The same with details as JSON text."""
    await conn.execute(_SQL["insert_log"], batch_id, level.value, message, details)


async def insert_lines(conn: Connection, batch_id: UUID, lines: Sequence[LogLine]) -> None:
    """Write lines about a batch, each with the time at which it was logged."""
    if lines:
        levels, messages, details, times = zip(*lines, strict=True)
        await conn.execute(_SQL["insert_lines"], batch_id, levels, messages, details, times)


async def page(
    conn: Connection,
    batch_id: UUID,
    *,
    item_number: int | None,
    levels: Sequence[str] | None,
    after: int,
    limit: int,
) -> list[LogEntry]:
    """A page of log lines above the id `after`, in the order of writing."""
    if item_number is None:
        rows = await conn.fetch(_SQL["list_logs"], batch_id, levels, after, limit)
    else:
        rows = await conn.fetch(_SQL["list_item_logs"], batch_id, item_number, levels, after, limit)
    return [
        LogEntry(
            log_id=row["log_id"],
            batch_id=row["batch_id"],
            item_number=row["item_number"],
            level=LogLevel(row["level"]),
            message=row["message"],
            details=None if row["details"] is None else json.loads(row["details"]),
            logged_at=row["logged_at"],
        )
        for row in rows
    ]


async def delete_chunk(conn: Connection, batch_ids: Sequence[UUID], limit: int) -> int:
    """Delete up to `limit` log lines of some batches; how many."""
    tag = await conn.execute(_SQL["delete_logs"], batch_ids, limit)
    return int(tag.split()[1])
