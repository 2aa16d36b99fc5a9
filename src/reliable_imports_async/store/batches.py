"""Statements about batches."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

import asyncpg

from .. import exact_json
from ..database.guard import Connection
from ..database.statements import statements
from ..models import BatchStatus, BatchSummary, ImportBatch
from .visibility import Visibility

_SQL = statements("store/batches")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBatch:
    """A batch before its items are read."""

    id: UUID
    batch_type: str
    parent_batch_id: UUID | None = None
    root_batch_id: UUID | None = None
    reprocesses_all: bool = False
    created_by: str | None = None
    idempotency_key: str | None = None
    source_name: str | None = None
    source_format: str | None = None
    source_size: int | None = None
    source_sha256: str | None = None
    source_columns: tuple[str, ...] | None = None
    source_encoding: str | None = None
    notes: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)


async def insert(conn: Connection, new: NewBatch, metadata: str, options: str) -> bool:
    """Create the row; False if the idempotency key is taken."""
    inserted = await conn.fetchval(
        _SQL["insert_batch"],
        new.id,
        new.batch_type,
        new.parent_batch_id,
        new.root_batch_id or new.id,
        new.reprocesses_all,
        new.created_by,
        new.idempotency_key,
        new.source_name,
        new.source_format,
        new.source_size,
        new.source_sha256,
        new.source_columns,
        options,
        metadata,
    )
    return inserted is not None


async def find_idempotent(
    conn: Connection, created_by: str | None, key: str
) -> tuple[UUID, bytes, str] | None:
    """The batch with an idempotency key: its id, content hash and type."""
    row = await conn.fetchrow(_SQL["find_idempotent"], created_by, key)
    return None if row is None else (row["id"], row["content_sha256"], row["batch_type"])


async def lock_file(conn: Connection, batch_type: str, sha256: str) -> None:
    """Wait for other creations from the same file, and block them until the transaction ends."""
    await conn.execute(_SQL["lock_file"], batch_type, sha256)


async def find_same_file(
    conn: Connection, batch_type: str, sha256: str, visible: Visibility | None = None
) -> tuple[UUID, datetime] | None:
    """The newest batch from the same file that the caller may see."""
    rules = None if visible is None else visible.as_json()
    row = await conn.fetchrow(_SQL["find_same_file"], batch_type, sha256, rules)
    return None if row is None else (row["id"], row["created_at"])


async def complete_creation(conn: Connection, new: NewBatch, total: int, sha256: bytes) -> None:
    """Store what is only known after the last record."""
    await conn.execute(
        _SQL["complete_creation"], new.id, total, sha256, new.source_encoding, new.notes
    )


async def creation_committed(conn: Connection, batch_id: UUID) -> bool:
    """Whether a creation whose COMMIT was not answered has committed; waits for its end."""
    transaction = conn.transaction()
    await transaction.start()
    try:
        return await conn.fetchval(_SQL["probe_batch_id"], batch_id) is None
    finally:
        await transaction.rollback()


async def get(conn: Connection, batch_id: UUID) -> ImportBatch | None:
    """One batch."""
    row = await conn.fetchrow(_SQL["get_batch"], batch_id)
    return None if row is None else _batch(row)


async def lock(conn: Connection, batch_id: UUID) -> ImportBatch | None:
    """One batch, with its row locked."""
    row = await conn.fetchrow(_SQL["lock_batch"], batch_id)
    return None if row is None else _batch(row)


async def page(
    conn: Connection,
    *,
    batch_type: str | None = None,
    status: str | None = None,
    root_batch_id: UUID | None = None,
    created_since: datetime | None = None,
    created_before: datetime | None = None,
    before: UUID | None = None,
    search: str | None = None,
    visible: Visibility | None = None,
    limit: int = 100,
) -> list[ImportBatch]:
    """A page of batches, newest first, with ids below `before`.

    Args:
        visible: Which batches to list; None for all.
    """
    if visible is not None and visible.nothing:
        return []
    rows = await conn.fetch(
        _SQL["list_batches"],
        batch_type,
        status,
        root_batch_id,
        created_since,
        before,
        limit,
        created_before,
        None if visible is None else visible.as_json(),
        search,
    )
    return [_batch(row) for row in rows]


async def visible_among(
    conn: Connection, batch_ids: Sequence[UUID], visible: Visibility
) -> frozenset[UUID]:
    """The batches among some that a caller may see."""
    rules = visible.as_json() or '{"otherwise": true}'
    rows = await conn.fetch(_SQL["list_visible"], batch_ids, rules)
    return frozenset(row["id"] for row in rows)


async def find_by_tail(conn: Connection, tail: str) -> list[UUID]:
    """At most two batches whose id ends with these hexadecimal digits."""
    return [row["id"] for row in await conn.fetch(_SQL["find_by_tail"], tail)]


async def lineage(conn: Connection, batch_id: UUID) -> list[ImportBatch]:
    """The root of a batch and all its reprocessings, oldest first; empty if there is no batch."""
    return [_batch(row) for row in await conn.fetch(_SQL["lineage"], batch_id)]


async def mark_started(conn: Connection, batch: ImportBatch, metadata: str) -> ImportBatch | None:
    """The last statement of the transaction that starts a batch; the batch, if it could start."""
    row = await conn.fetchrow(_SQL["mark_started"], batch.id, metadata)
    return None if row is None else _changed(batch, BatchStatus.PROCESSING, None, row)


async def mark_finished(
    conn: Connection, batch: ImportBatch, summary: BatchSummary, metadata: str
) -> ImportBatch | None:
    """The last statement of the transaction that finishes a batch; the batch, if it could end."""
    row = await conn.fetchrow(
        _SQL["mark_finished"],
        batch.id,
        summary.status,
        summary.completed_items,
        summary.skipped_items,
        summary.failed_items,
        metadata,
        summary.error,
    )
    return None if row is None else _changed(batch, summary.status, summary.error, row)


async def mark_start_failed(conn: Connection, batch_id: UUID, error: str) -> bool:
    """Mark a batch whose start failed; False if it is not waiting to be started any more."""
    return await conn.execute(_SQL["mark_start_failed"], batch_id, error) == "UPDATE 1"


async def mark_finish_failed(conn: Connection, batch_id: UUID, error: str) -> bool:
    """Mark a batch whose finish failed; False if it is not waiting to be finished any more."""
    return await conn.execute(_SQL["mark_finish_failed"], batch_id, error) == "UPDATE 1"


async def mark_unfailed(conn: Connection, batch_id: UUID) -> bool:
    """Continue a failed batch that has items to run; False if there is none."""
    return await conn.execute(_SQL["mark_unfailed"], batch_id) == "UPDATE 1"


async def bound(conn: Connection, *, lock_seconds: float, seconds: float) -> None:
    """Limit how long this transaction waits for locks, and how long it takes."""
    limits = (f"{int(value * 1000)}ms" for value in (lock_seconds, seconds))
    await conn.execute(_SQL["bound_transaction"], *limits)


async def mark_enqueued(conn: Connection, batch_id: UUID) -> tuple[str, int] | None:
    """Mark a batch as one for workers; its type and unfinished ranges, None if it has ended."""
    row = await conn.fetchrow(_SQL["mark_enqueued"], batch_id)
    return None if row is None else (row["batch_type"], row["unfinished"])


async def abandoned(conn: Connection, batch_types: Sequence[str], limit: int) -> list[UUID]:
    """Batches for workers on which no worker works, although one could."""
    rows = await conn.fetch(_SQL["list_abandoned"], batch_types, limit)
    return [row["id"] for row in rows]


async def with_free_range(
    conn: Connection, batch_types: Sequence[str], drained: Sequence[UUID], lease: float
) -> UUID | None:
    """A batch for workers, not among `drained`, with a range that no worker holds."""
    batch_id: UUID | None = await conn.fetchval(
        _SQL["find_with_free_range"], batch_types, drained, lease
    )
    return batch_id


async def pause(conn: Connection, batch_id: UUID, reason: str) -> bool:
    """Pause; False if the status of the batch does not allow it."""
    return await conn.fetchval(_SQL["pause_batch"], batch_id, reason) is not None


async def resume(conn: Connection, batch_id: UUID) -> bool | None:
    """End a pause; whether the batch is for workers, or None if it is not paused."""
    enqueued: bool | None = await conn.fetchval(_SQL["resume_batch"], batch_id)
    return enqueued


async def set_options(conn: Connection, batch_id: UUID, options: Mapping[str, Any]) -> None:
    """Add to the options of a batch that is not finished."""
    await conn.execute(_SQL["set_options"], batch_id, json.dumps(dict(options)))


async def cancel(conn: Connection, batch_id: UUID) -> bool:
    """Cancel; False if the batch is finished."""
    return await conn.fetchval(_SQL["cancel_batch"], batch_id) is not None


async def purgeable(
    conn: Connection,
    finished_before: datetime,
    batch_type: str | None,
    after: UUID | None,
    limit: int,
) -> list[UUID]:
    """Root batches, with ids above `after`, whose lineage finished completely before a time."""
    rows = await conn.fetch(_SQL["list_purgeable"], finished_before, batch_type, limit, after)
    return [row["root_batch_id"] for row in rows]


async def delete(conn: Connection, batch_ids: Sequence[UUID]) -> None:
    """Delete the rows of batches whose items, ranges and log lines were deleted before."""
    await conn.execute(_SQL["delete_batches"], batch_ids)


def _changed(
    batch: ImportBatch, status: BatchStatus, error: str | None, row: asyncpg.Record
) -> ImportBatch:
    """A batch after a statement that has started or finished it."""
    metadata = MappingProxyType(exact_json.read(row["metadata"]))
    times = {"started_at": row["started_at"], "finished_at": row["finished_at"]}
    return replace(batch, status=status, error=error, metadata=metadata, **times)


def _batch(row: asyncpg.Record) -> ImportBatch:
    columns = row["source_columns"]
    return ImportBatch(
        **{
            **row,
            "status": BatchStatus(row["status"]),
            "metadata": MappingProxyType(exact_json.read(row["metadata"])),
            "options": MappingProxyType(json.loads(row["options"])),
            "source_columns": None if columns is None else tuple(columns),
        }
    )
