"""Statements for the dashboard's previews; each reads a limited number of items."""

from datetime import datetime
from uuid import UUID

import asyncpg

from ..database.guard import Connection
from ..database.statements import statements
from ..models import (
    FailureGroupPreview,
    ItemPreview,
    ItemStatus,
    LogLevel,
    LogPreview,
    Minute,
    SourceDetails,
    Tick,
)
from .visibility import Visibility

_SQL = statements("store/previews")


async def throughput(conn: Connection, minutes: int, visible: Visibility | None) -> list[Minute]:
    """Settled items per minute, oldest first."""
    rules = None if visible is None else visible.as_json()
    rows = await conn.fetch(_SQL["throughput"], minutes, rules)
    return [Minute(at=row["at"], settled=row["settled"], failed=row["failed"]) for row in rows]


async def timeline(conn: Connection, batch_id: UUID, total: int, step: int) -> list[Tick]:
    """When every `step`-th item was settled."""
    rows = await conn.fetch(_SQL["timeline"], batch_id, [*range(1, total + 1, step)])
    return [Tick(at=row["finished_at"], failed=row["failed"]) for row in rows]


async def previews(
    conn: Connection,
    batch_id: UUID,
    *,
    status: ItemStatus | None,
    group: str | None,
    after: int,
    limit: int,
) -> list[ItemPreview]:
    """A page of shortened items; a group takes precedence over a status."""
    if group is not None:
        rows = await conn.fetch(_SQL["previews_by_group"], batch_id, after, limit, group)
    elif status is not None:
        rows = await conn.fetch(_SQL["previews_by_status"], batch_id, after, limit, status.value)
    else:
        rows = await conn.fetch(_SQL["previews"], batch_id, after, limit)
    return [_preview(row) for row in rows]


async def failure_group_preview(
    conn: Connection, batch_id: UUID, group: str, sampled: int, shown: int
) -> FailureGroupPreview:
    """The values and first items of a group, from its first `sampled` items."""
    values = []
    if sampled:
        values = await conn.fetch(_SQL["failure_group_preview"], batch_id, group, sampled, shown)
    samples = await conn.fetch(_SQL["group_first_items"], batch_id, group, shown)
    return FailureGroupPreview(
        values=tuple((row["value"], row["items"], row["first_item"]) for row in values),
        samples=tuple(row["item_number"] for row in samples),
    )


async def source(conn: Connection, batch_id: UUID) -> SourceDetails | None:
    """The file of a batch."""
    row = await conn.fetchrow(_SQL["source"], batch_id)
    if row is None:
        return None
    enqueued: datetime | None = row["enqueued_at"]
    return SourceDetails(
        format=row["source_format"],
        size=row["source_size"],
        sha256=row["source_sha256"],
        enqueued_at=enqueued,
    )


async def latest_logs(
    conn: Connection, batch_id: UUID, before: int | None, limit: int
) -> list[LogPreview]:
    """A page of log lines, newest first."""
    rows = await conn.fetch(_SQL["latest_logs"], batch_id, before, limit)
    return [LogPreview(**{**row, "level": LogLevel(row["level"])}) for row in rows]


def _preview(row: asyncpg.Record) -> ItemPreview:
    return ItemPreview(**{**row, "status": ItemStatus(row["status"])})
