"""The report of a dry run: counts, failure groups, and the rows that would change."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
    """How many rows of a table the items would have changed."""

    table: str
    inserted: int
    updated: int
    deleted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """The result that processing a batch would have; all of it was rolled back.

    Attributes:
        failed: Items that would fail, including records that could not be read.
        retried: Items that raised `Retry`; their final outcomes are unknown.
        deferred: Items that would wait for other items; their final outcomes are unknown, because
            a dry run tries each item alone.
        groups: The failures by cause, largest first, each with its first 100 items.
        tables: The rows that completed and skipped items would have written.
        seconds: How long the dry run took.
        notes: Effects that were not rolled back, and limits of the prediction.
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
    """Counts the outcomes of a dry run.

    Args:
        summary: Of the batch, whose unreadable records have failed already.
        unreadable: The failure groups of those.
    """

    def __init__(
        self, batch: ImportBatch, summary: BatchSummary, unreadable: Sequence[FailureGroup]
    ) -> None:
        self._batch = batch
        self._notes = summary.notes
        self._counts: Counter[str] = Counter(failed=summary.failed_items)
        self._groups = {
            group.group: _Group(group, list(group.sample_items), count=group.count)
            for group in unreadable
        }
        self._rows: dict[int, list[int]] = {}

    def count(
        self,
        item: ImportBatchItem[Any],
        outcome: Outcome,
        rows: Mapping[int, tuple[int, int, int]],
    ) -> None:
        """Add the outcome that an item would have, and the rows that it would change."""
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
        self.add_rows([rows])

    def add_rows(self, counted: Iterable[Mapping[int, tuple[int, int, int]]]) -> None:
        """Add rows that items would change."""
        for rows in counted:
            for oid, changed in rows.items():
                known = self._rows.get(oid, [0, 0, 0])
                self._rows[oid] = [a + b for a, b in zip(known, changed, strict=True)]

    def report(
        self, names: Mapping[int, str], seconds: float, *, notes: Sequence[str] = ()
    ) -> DryRun:
        """The report of everything counted.

        Args:
            names: The tables' names by oid.
            seconds: How long the dry run took.
            notes: What else readers should know.
        """
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
                    map(_finished, self._groups.values()),
                    key=lambda group: (-group.count, group.group),
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
    values = sorted(group.values.items(), key=lambda value: (-value[1], value[0]))
    return replace(
        group.first,
        count=group.count,
        sample_items=tuple(sorted(group.items)[:ITEMS_OF_A_GROUP]),
        values=tuple(values[:VALUES_OF_A_GROUP]) or group.first.values,
    )
