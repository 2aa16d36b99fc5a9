"""Statements that sum up a batch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

import asyncpg

from ..guarded import Connection
from ..models import BatchStatus, BatchSummary, FailureGroup
from ..sql import statements

_SQL = statements("summaries")
GROUPS_SHOWN = 50
FEW = 4  # more batches than these are asked about in one statement


async def get(conn: Connection, batch_id: UUID) -> BatchSummary | None:
    """Where a batch stands, with its failure groups."""
    found = await get_many(conn, [batch_id])
    return found[0] if found else None


async def get_many(conn: Connection, batch_ids: Sequence[UUID]) -> list[BatchSummary]:
    """Where batches of one lineage stand, with their failure groups, in the order of their ids."""
    rows = await conn.fetch(_SQL["summary"], batch_ids)
    failed = [row["id"] for row in rows if row["failed"]]
    causes = await _groups(conn, failed, GROUPS_SHOWN) if failed else {}
    left = await _outstanding_in_lineage(conn, rows) if len(failed) > FEW else {}
    found = []
    for row in rows:
        summary = _summary(row)
        if summary.failed_items:
            known = summary.batch_id != summary.root_batch_id and len(failed) > FEW
            items = left.get(summary.batch_id, 0) if known else await _outstanding(conn, row)
            groups = causes.get(summary.batch_id, ())
            summary = replace(summary, outstanding_items=items, groups=groups)
        found.append(summary)
    return found


async def _outstanding_in_lineage(
    conn: Connection, rows: Sequence[asyncpg.Record]
) -> dict[UUID, int]:
    """The outstanding items of all batches but the root, for those that have any."""
    found = await conn.fetch(_SQL["outstanding_in_lineage"], rows[0]["root_batch_id"])
    return {row["batch_id"]: row["items"] for row in found}


async def progress(conn: Connection, batch_ids: Sequence[UUID]) -> list[BatchSummary]:
    """Where batches stand, without groups; every failed item counts as outstanding."""
    return [_summary(row) for row in await conn.fetch(_SQL["summary"], batch_ids)]


async def outstanding(conn: Connection, batch_id: UUID) -> int:
    """How many failed items of a batch no later batch has completed; 0 for an unknown one."""
    row = await conn.fetchrow(_SQL["summary"], [batch_id])
    return 0 if row is None else await _outstanding(conn, row)


async def totals(conn: Connection, batch_id: UUID) -> tuple[int, int]:
    """How many items of a batch failed, and how many have an outcome; O(ranges)."""
    row = await conn.fetchrow(_SQL["totals"], batch_id)
    assert row is not None  # noqa: S101 - an aggregate always returns a row
    return row["failed"], row["settled"]


@dataclass(frozen=True, slots=True)
class FieldSum:
    """A field over all records of a batch.

    Attributes:
        total: The exact sum of its values, as a numeral.
        present: How many records have it.
        odd: How many of its values are neither numbers nor blank.
        example: One of those.
    """

    total: str
    present: int
    odd: int
    example: str | None


async def sums(conn: Connection, batch_id: UUID, names: Sequence[str]) -> list[FieldSum]:
    """What some fields add up to, in the order of their names."""
    return [FieldSum(**row) for row in await conn.fetch(_SQL["sums"], batch_id, names)]


async def groups(
    conn: Connection, batch_id: UUID, limit: int = GROUPS_SHOWN
) -> tuple[FailureGroup, ...]:
    """The failure groups of a batch, largest first, without values and samples."""
    return (await _groups(conn, [batch_id], limit)).get(batch_id, ())


async def _groups(
    conn: Connection, batch_ids: Sequence[UUID], limit: int
) -> dict[UUID, tuple[FailureGroup, ...]]:
    found: dict[UUID, tuple[FailureGroup, ...]] = {}
    for row in await conn.fetch(_SQL["groups"], batch_ids, limit):
        batch_id = row["batch_id"]
        found[batch_id] = (*found.get(batch_id, ()), _group(row))
    return found


async def with_values(
    conn: Connection, batch_id: UUID, found: Sequence[FailureGroup], limit: int
) -> tuple[FailureGroup, ...]:
    """The same groups with their most frequent offending values, first items and history."""
    detailed = []
    for group in found:
        history = await conn.fetchrow(_SQL["group_history"], batch_id, group.group)
        assert history is not None  # noqa: S101 - an aggregate always returns a row
        values = await conn.fetch(_SQL["group_values"], batch_id, group.group, limit)
        samples = await conn.fetch(_SQL["group_samples"], batch_id, group.group, limit)
        detailed.append(
            replace(
                group,
                values=tuple((row["value"], row["items"]) for row in values),
                sample_items=tuple(row["item_number"] for row in samples),
                **dict(history),
            )
        )
    return tuple(detailed)


async def _outstanding(conn: Connection, row: asyncpg.Record) -> int:
    """Failed items that nothing later in the lineage has completed."""
    batch_id, root_id, failed = row["id"], row["root_batch_id"], row["failed"]
    later = await conn.fetchrow(_SQL["repaired"], root_id, batch_id)
    assert later is not None  # noqa: S101 - an aggregate always returns a row
    if not failed or not later["repaired"]:
        return int(failed)
    first = batch_id == root_id and row["status"] != BatchStatus.CANCELLED
    if first and not later["reprocesses_all"]:
        return int(failed - later["repaired"])
    return int(await conn.fetchval(_SQL["outstanding"], batch_id, root_id))


def _summary(row: asyncpg.Record) -> BatchSummary:
    """The summary without groups, as if nothing had been reprocessed."""
    return BatchSummary(
        batch_id=row["id"],
        batch_type=row["batch_type"],
        status=BatchStatus(row["status"]),
        parent_batch_id=row["parent_batch_id"],
        root_batch_id=row["root_batch_id"],
        total_items=row["total_items"],
        completed_items=row["completed"],
        skipped_items=row["skipped"],
        failed_items=row["failed"],
        outstanding_items=row["failed"],
        deferred_items=row["deferred"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        read_at=row["read_at"],
        pause_reason=row["pause_reason"],
        error=row["error"],
        source_name=row["source_name"],
        source_encoding=row["source_encoding"],
        notes=tuple(row["notes"]),
        created_by=row["created_by"],
    )


def _group(row: asyncpg.Record) -> FailureGroup:
    return FailureGroup(
        group=row["error_group"],
        count=row["items"],
        kind=row["error_kind"],
        type=row["error_type"],
        message=row["error_message"],
        sqlstate=row["error_sqlstate"],
        constraint=row["error_constraint"],
        table=row["error_table"],
        column=row["error_column"],
        hint=row["error_hint"],
    )
