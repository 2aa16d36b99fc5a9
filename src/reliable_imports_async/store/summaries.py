"""Statements that sum up a batch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

import asyncpg

from ..database.guard import Connection
from ..database.statements import only_row, statements
from ..models import BatchStatus, BatchSummary, FailureGroup
from .visibility import Visibility

_SQL = statements("store/summaries")
GROUPS_SHOWN = 50
_DESCRIPTION = ("kind", "type", "message", "sqlstate", "constraint", "table", "column", "hint")
REASONS_RANGES = 250  # whose reasons are counted: all, in a batch of up to 100,000 items


async def get(conn: Connection, batch_id: UUID) -> BatchSummary | None:
    """The summary of a batch, with its failure groups."""
    summaries = await get_many(conn, [batch_id])
    return summaries[0] if summaries else None


async def get_many(conn: Connection, batch_ids: Sequence[UUID]) -> list[BatchSummary]:
    """The summaries of batches with their failure groups, in the order of their ids."""
    summaries = await progress(conn, batch_ids)
    failed = [summary.batch_id for summary in summaries if summary.failed_items]
    causes = await _groups(conn, failed, GROUPS_SHOWN) if failed else {}
    return [replace(each, groups=causes.get(each.batch_id, ())) for each in summaries]


async def progress(conn: Connection, batch_ids: Sequence[UUID]) -> list[BatchSummary]:
    """The summaries of batches without groups, in the order of their ids; O(ranges)."""
    rows = await conn.fetch(_SQL["summary"], batch_ids)
    roots = {row["root_batch_id"] for row in rows if row["reprocesses_all"]}
    recounted = {root: int(await conn.fetchval(_SQL["recount"], root)) for root in roots}
    return [
        _summary(row, recounted.get(row["root_batch_id"], row["outstanding_items"])) for row in rows
    ]


async def outstanding_groups(
    conn: Connection, root_batch_id: UUID, limit: int
) -> tuple[FailureGroup, ...]:
    """The outstanding failures of a lineage, by batch and group."""
    rows = await conn.fetch(_SQL["outstanding_groups"], root_batch_id, limit)
    return tuple(replace(_group(row), batch_id=row["batch_id"]) for row in rows)


async def totals(conn: Connection, batch_id: UUID) -> tuple[int, int]:
    """The number of failed items of a batch, and of all settled ones; O(ranges)."""
    row = await only_row(conn, _SQL["totals"], batch_id)
    return row["failed"], row["settled"]


@dataclass(frozen=True, slots=True)
class FieldSum:
    """A field over all records of a batch.

    Attributes:
        total: The exact sum of its values, as a numeral.
        present: The number of records that have it.
        odd: The number of values that are neither numbers nor blank.
        example: One of these values.
    """

    total: str
    present: int
    odd: int
    example: str | None


async def sums(conn: Connection, batch_id: UUID, names: Sequence[str]) -> list[FieldSum]:
    """The sums of some fields, in the order of their names."""
    return [FieldSum(**row) for row in await conn.fetch(_SQL["sums"], batch_id, names)]


async def groups(
    conn: Connection, batch_id: UUID, limit: int = GROUPS_SHOWN
) -> tuple[FailureGroup, ...]:
    """The failure groups of a batch, largest first, without values and samples."""
    return (await _groups(conn, [batch_id], limit)).get(batch_id, ())


async def _groups(
    conn: Connection, batch_ids: Sequence[UUID], limit: int
) -> dict[UUID, tuple[FailureGroup, ...]]:
    by_batch: dict[UUID, tuple[FailureGroup, ...]] = {}
    for row in await conn.fetch(_SQL["groups"], batch_ids, limit):
        batch_id = row["batch_id"]
        by_batch[batch_id] = (*by_batch.get(batch_id, ()), _group(row))
    return by_batch


async def with_values(
    conn: Connection,
    batch_id: UUID,
    groups: Sequence[FailureGroup],
    limit: int,
    visible: Visibility | None = None,
) -> tuple[FailureGroup, ...]:
    """The same groups with their most frequent invalid values, first items and history.

    A group that names its batch is limited to the outstanding items of that batch.
    """
    detailed = []
    rules = None if visible is None else visible.as_json()
    for group in groups:
        open_only = group.batch_id is not None
        batch_id = group.batch_id or batch_id
        history = await only_row(conn, _SQL["group_history"], batch_id, group.group, rules)
        values = await conn.fetch(_SQL["group_values"], batch_id, group.group, limit, open_only)
        samples = await conn.fetch(_SQL["group_samples"], batch_id, group.group, limit, open_only)
        detailed.append(
            replace(
                group,
                values=tuple((row["value"], row["items"]) for row in values),
                sample_items=tuple(row["item_number"] for row in samples),
                **dict(history),
            )
        )
    return tuple(detailed)


async def skip_reasons(conn: Connection, batch_id: UUID, limit: int) -> list[tuple[str, int]]:
    """The reasons why items were skipped, most frequent first."""
    rows = await conn.fetch(_SQL["skip_reasons"], batch_id, limit, REASONS_RANGES)
    return [(row["reason"], row["items"]) for row in rows]


def _summary(row: asyncpg.Record, outstanding: int) -> BatchSummary:
    """The summary without groups."""
    stored = dict(row) | {
        "status": BatchStatus(row["status"]),
        "outstanding_items": outstanding,
        "notes": tuple(row["notes"]),
    }
    del stored["reprocesses_all"]
    return BatchSummary(**stored)


def _group(row: asyncpg.Record) -> FailureGroup:
    return FailureGroup(
        group=row["error_group"],
        count=row["items"],
        **{name: row[f"error_{name}"] for name in _DESCRIPTION},
    )
