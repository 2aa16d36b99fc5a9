"""What a dry run has found."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from ..models import BatchSummary, FailureGroup, ImportBatch, ImportBatchItem, json_values
from ..outcomes import Completed, Deferred, Failed, Outcome, Postponed, Skip

ITEMS_OF_A_GROUP = 100
VALUES_OF_A_GROUP = 10
_NAMED = re.compile(r"[^(]*+\((.*?)\)=\((.*?)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class TableChanges:
    """Rows of one table that the items would have changed."""

    table: str
    inserted: int
    updated: int
    deleted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """What processing a batch would come to; nothing of it has happened.

    Attributes:
        failed: With the records that could not be read.
        retried: Items that raised `Retry`; how those would end is not known.
        deferred: Items that would wait for others, which a dry run never has beside them; how
            those would end is not known either.
        groups: The failures by cause, largest first, each with its first 100 items.
        tables: What the completed and skipped items would have written.
        seconds: How long it took.
        notes: What happened all the same, and what the verdicts do not take into account.
    """

    batch_id: UUID
    batch_type: str
    total_items: int
    completed: int
    skipped: int
    failed: int
    retried: int
    deferred: int
    groups: tuple[FailureGroup, ...]
    tables: tuple[TableChanges, ...]
    seconds: float
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """All fields, with JSON-ready values."""
        return json_values(self)


@dataclass(slots=True)
class _Group:
    first: FailureGroup
    items: list[int] = field(default_factory=list)
    values: Counter[str] = field(default_factory=Counter)
    count: int = 0


class Tally:
    """Counts the outcomes of a dry run, beside what had failed at parse."""

    def __init__(
        self, batch: ImportBatch, summary: BatchSummary, unreadable: Sequence[FailureGroup]
    ) -> None:
        self._batch = batch
        self._notes = summary.notes
        self._counts: Counter[str] = Counter(failed=summary.failed_items)
        self._groups = {
            one.group: _Group(one, list(one.sample_items), count=one.count) for one in unreadable
        }
        self._rows: dict[int, list[int]] = {}

    def count(
        self,
        item: ImportBatchItem[Any],
        outcome: Outcome,
        rows: Mapping[int, tuple[int, int, int]],
    ) -> None:
        """Add the outcome that an item would have, and the rows it would change."""
        match outcome:
            case Completed():
                self._counts["completed"] += 1
            case Skip():
                self._counts["skipped"] += 1
            case Failed():
                self._counts["failed"] += 1
                self._add_failure(item, outcome)
            case Postponed():
                self._counts["retried"] += 1
            case Deferred():
                self._counts["deferred"] += 1
        for oid, changed in rows.items():
            known = self._rows.get(oid, [0, 0, 0])
            self._rows[oid] = [a + b for a, b in zip(known, changed, strict=True)]

    def report(
        self, names: Mapping[int, str], seconds: float, *, notes: Sequence[str] = ()
    ) -> DryRun:
        """Everything, put together."""
        changes = {names[oid]: rows for oid, rows in self._rows.items() if any(rows)}
        return DryRun(
            batch_id=self._batch.id,
            batch_type=self._batch.batch_type,
            total_items=self._batch.total_items,
            completed=self._counts["completed"],
            skipped=self._counts["skipped"],
            failed=self._counts["failed"],
            retried=self._counts["retried"],
            deferred=self._counts["deferred"],
            groups=tuple(
                sorted(
                    map(_finished, self._groups.values()), key=lambda one: (-one.count, one.group)
                )
            ),
            tables=tuple(
                TableChanges(table=table, inserted=rows[0], updated=rows[1], deleted=rows[2])
                for table, rows in sorted(changes.items())
            ),
            seconds=round(seconds, 3),
            notes=(*self._notes, *notes),
        )

    def _add_failure(self, item: ImportBatchItem[Any], outcome: Failed) -> None:
        failure = outcome.failure
        group = self._groups.get(failure.group)
        if group is None:
            first = FailureGroup(
                group=failure.group,
                count=0,
                kind=failure.kind,
                type=failure.type,
                message=failure.message,
                sqlstate=failure.sqlstate,
                constraint=failure.constraint,
                table=failure.table,
                column=failure.column,
                hint=failure.hint,
            )
            group = self._groups[failure.group] = _Group(first)
        group.count += 1
        group.items.append(item.item_number)
        if len(group.items) > 2 * ITEMS_OF_A_GROUP:  # slots are not in order
            group.items = sorted(group.items)[:ITEMS_OF_A_GROUP]
        if named := _NAMED.match(failure.detail or ""):
            group.values[f"{named[1]}={named[2]}"] += 1


def _finished(group: _Group) -> FailureGroup:
    values = sorted(group.values.items(), key=lambda one: (-one[1], one[0]))
    return replace(
        group.first,
        count=group.count,
        sample_items=tuple(sorted(group.items)[:ITEMS_OF_A_GROUP]),
        values=tuple(values[:VALUES_OF_A_GROUP]) or group.first.values,
    )
