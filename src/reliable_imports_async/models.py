"""The data that the library returns: batches, items, log lines, summaries and previews, all frozen.

Each model is a plain dataclass; `as_dict` gives it with values that json.dumps accepts.
"""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import Any, Generic, Self, cast
from uuid import UUID

from typing_extensions import TypeVar

from .errors import BatchNotCompleted
from .outcomes import Failure

_PLAIN = frozenset({str, int, float, bool, type(None)})
T = TypeVar("T", default=dict[str, Any])


class BatchStatus(StrEnum):
    """The status of a batch, spelled as in the database."""

    PENDING = "pending"  # created, nothing has started
    PROCESSING = "processing"  # on_batch_start has committed
    COMPLETED = "completed"  # every item completed or was skipped
    PARTIAL = "partial"  # finished, some items failed
    FAILED = "failed"  # finished and no item completed, or a batch hook failed
    PAUSED = "paused"  # its pending items wait until it is resumed
    CANCELLED = "cancelled"  # its pending items stay pending

    @property
    def settled(self) -> bool:
        """Whether the batch stays as it is until a user acts."""
        return self not in (BatchStatus.PENDING, BatchStatus.PROCESSING)


class ItemStatus(StrEnum):
    """The status of an item. There is no "processing": an item is pending until it commits."""

    PENDING = "pending"
    COMPLETED = "completed"
    SKIPPED = "skipped"
    FAILED = "failed"


class LogLevel(StrEnum):
    """The level of a log line, lowest first."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportBatch:
    """A batch as it is stored; its counts are in `BatchSummary`."""

    id: UUID
    batch_type: str
    status: BatchStatus
    parent_batch_id: UUID | None
    root_batch_id: UUID
    created_by: str | None
    metadata: Mapping[str, Any]
    options: Mapping[str, Any]
    source_name: str | None
    source_columns: tuple[str, ...] | None
    total_items: int
    pause_reason: str | None
    error: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    def as_dict(self) -> dict[str, Any]:
        """All fields, with JSON-ready values."""
        return json_values(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedBatch(ImportBatch):
    """A batch in a list, with its counts; those of a running batch are about a second old.

    Attributes:
        outstanding_items: The outstanding records of the whole lineage, as in `BatchSummary`.
    """

    completed_items: int
    skipped_items: int
    failed_items: int
    outstanding_items: int

    @classmethod
    def of(cls, batch: ImportBatch, summary: "BatchSummary") -> Self:
        """The batch with the counts of its summary."""
        row = {attribute.name: getattr(batch, attribute.name) for attribute in fields(batch)}
        return cls(
            **row,
            completed_items=summary.completed_items,
            skipped_items=summary.skipped_items,
            failed_items=summary.failed_items,
            outstanding_items=summary.outstanding_items,
        )

    @property
    def pending_items(self) -> int:
        """Items without an outcome."""
        return self.total_items - self.completed_items - self.skipped_items - self.failed_items

    def as_dict(self) -> dict[str, Any]:
        """All fields and counts, with JSON-ready values."""
        return json_values(self) | {"pending_items": self.pending_items}


@dataclass(frozen=True, kw_only=True)  # without slots, for `quickly`
class ImportBatchItem(Generic[T]):
    """One record of a batch, as a processor receives it and as it is stored.

    Attributes:
        batch_id: Its batch.
        item_number: Its number in the batch, from 1, in the order of the source.
        source_data: The record as it came; None if it could not be stored as JSON.
        data: The record as the processor's model, or `source_data` without a model.
        prepared: The value that `prepare_item` returned.
        attempts: The number of stored attempts.
        final_pass: Whether deferring the item fails it, because no other item can help any more.
        source_line: The line of the file on which the record starts.
        raw: The bytes of a record that could not be stored as JSON.
        failure: Why it failed.
        target_table: The table that the processor reported.
        target_id: The key of the row that the processor reported.
        processed_data: Further data that the processor reported.
        skip_reason: Why it was skipped.
        reprocessed_by: The batch that reprocesses this record.
        is_large: Whether the record is so large that it is parsed in a thread.
    """

    batch_id: UUID
    item_number: int
    source_data: dict[str, Any] = field(default_factory=dict)
    data: T = cast("T", None)  # noqa: RUF009 - a constant, typed
    prepared: Any = None
    status: ItemStatus = ItemStatus.PENDING
    attempts: int = 0
    final_pass: bool = False
    root_batch_id: UUID | None = None
    root_item_number: int | None = None
    source_line: int | None = None
    item_key: str | None = None
    raw: bytes | None = None
    due_at: datetime | None = None
    target_table: str | None = None
    target_id: str | None = None
    processed_data: Any = None
    skip_reason: str | None = None
    failure: Failure | None = None
    reprocessed_by: UUID | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    is_large: bool = field(default=False, repr=False, compare=False)

    @classmethod
    def quickly(cls, fields: Mapping[str, Any]) -> Self:
        """An item with these fields, `source_data` among them, and defaults for all others.

        It is for millions of items: a frozen dataclass would set every field with a call.
        """
        item = object.__new__(cls)
        item.__dict__.update(fields)
        return item

    def having(self, **fields: Any) -> Self:
        """The same item with other values in some fields."""
        item = self.quickly(self.__dict__)
        item.__dict__.update(fields)
        return item

    @property
    def attempt(self) -> int:
        """The number of the current attempt, from 1."""
        return self.attempts + 1

    @property
    def idempotency_key(self) -> str:
        """A key for calls to other systems, the same for all retries and reprocessings."""
        return f"{self.root_batch_id or self.batch_id}:{self.root_item_number or self.item_number}"

    def as_dict(self) -> dict[str, Any]:
        """The stored fields, with JSON-ready values; `raw` as base64 in ``raw_base64``."""
        plain = json_values(
            self, "data", "prepared", "final_pass", "is_large", "source_data", "processed_data"
        )
        plain["raw_base64"] = plain.pop("raw")
        # Both come from JSON, and may be large.
        plain |= {"source_data": self.source_data, "processed_data": self.processed_data}
        return plain | {"idempotency_key": self.idempotency_key}


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One stored log line; `item_number` is None for a line about the batch."""

    log_id: int
    batch_id: UUID
    item_number: int | None
    level: LogLevel
    message: str
    details: Mapping[str, Any] | None
    logged_at: datetime

    def as_dict(self) -> dict[str, Any]:
        """All fields, with JSON-ready values."""
        return json_values(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureGroup:
    """Failed items of a batch that share a cause.

    Attributes:
        group: The name of the cause, the same in all batches.
        count: How many items failed with it.
        values: The values at fault, most frequent first, if requested.
        sample_items: The lowest item numbers, if requested.
        first_seen: When the first of the items failed, if requested.
        last_seen: When the last of the items failed, if requested.
        seen_before: How many earlier batches of this type, in other lineages, had failures of
            this cause (among the latest 1,000 with failures), if requested.
        batch_id: The batch of the items, if they come from a whole lineage.
    """

    group: str
    count: int
    kind: str
    type: str
    message: str
    sqlstate: str | None = None
    constraint: str | None = None
    table: str | None = None
    column: str | None = None
    hint: str | None = None
    values: tuple[tuple[str, int], ...] = ()
    sample_items: tuple[int, ...] = ()
    first_seen: datetime | None = None
    last_seen: datetime | None = None
    seen_before: int | None = None
    batch_id: UUID | None = None

    @property
    def title(self) -> str:
        """The cause in a few words."""
        code = f" {self.sqlstate}" if self.sqlstate else ""
        constraint = f" {self.constraint}" if self.constraint else ""
        return f"{self.type}{code}{constraint}"

    def as_dict(self) -> dict[str, Any]:
        """All fields, with JSON-ready values."""
        return json_values(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSummary:
    """The status and the counts of a batch.

    Attributes:
        outstanding_items: How many records of the whole lineage (of `root_batch_id`) failed, or
            were left pending by a cancelled batch, and were not completed by a later batch.
        deferred_items: Pending items that wait for other items, until the next pass.
        groups: The failed items by cause, largest first.
        source_encoding: The codec with which the file was read.
        notes: Notes for the user about how the records were read.
        stopped: Why `reprocess_batch` stopped after this batch, a canary that has not passed.
    """

    batch_id: UUID
    batch_type: str
    status: BatchStatus
    parent_batch_id: UUID | None
    root_batch_id: UUID
    total_items: int
    completed_items: int
    skipped_items: int
    failed_items: int
    outstanding_items: int
    deferred_items: int = 0
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    read_at: datetime
    pause_reason: str | None = None
    error: str | None = None
    source_name: str | None = None
    source_encoding: str | None = None
    notes: tuple[str, ...] = ()
    created_by: str | None = None
    groups: tuple[FailureGroup, ...] = ()
    stopped: str | None = None

    @property
    def pending_items(self) -> int:
        """Items without an outcome."""
        return self.total_items - self.settled_items

    @property
    def settled_items(self) -> int:
        """Items with an outcome."""
        return self.completed_items + self.skipped_items + self.failed_items

    @property
    def success_rate(self) -> float:
        """Completed and skipped items in percent (0-100) of the items with an outcome."""
        if not self.settled_items:
            return 0.0 if self.total_items else 100.0
        return round(100 * (self.completed_items + self.skipped_items) / self.settled_items, 2)

    @property
    def duration(self) -> timedelta | None:
        """The time from the start to the end, or until now; None before the start."""
        if self.started_at is None:
            return None
        return (self.finished_at or self.read_at) - self.started_at

    @property
    def items_per_second(self) -> float | None:
        """Settled items per second since the start; None before the start."""
        seconds = self.duration.total_seconds() if self.duration else 0.0
        return round(self.settled_items / seconds, 1) if seconds > 0 else None

    @property
    def ok(self) -> bool:
        """Whether every item completed or was skipped, and the batch is finished."""
        return self.status is BatchStatus.COMPLETED

    def raise_for_status(self) -> None:
        """Raise `BatchNotCompleted` unless `ok`."""
        if not self.ok:
            raise BatchNotCompleted(self.batch_id, self.status, self.failed_items, self.total_items)

    def as_dict(self) -> dict[str, Any]:
        """All fields and rates, with JSON-ready values."""
        return json_values(self, "read_at") | {
            "pending_items": self.pending_items,
            "success_rate": self.success_rate,
            "items_per_second": self.items_per_second,
            "duration": self.duration.total_seconds() if self.duration else None,
            "ok": self.ok,
        }


@dataclass(frozen=True, slots=True)
class Minute:
    """How many items were settled in a minute, and how many of them failed."""

    at: datetime
    settled: float
    failed: float


@dataclass(frozen=True, slots=True)
class Tick:
    """The time at which an item of a sample was settled."""

    at: datetime
    failed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemPreview:
    """An item in a list, with the beginning of its record and of its message.

    Attributes:
        record: The beginning of the record as JSON text; None if it is large or unreadable.
        record_size: The number of bytes that the record takes in the database.
        raw: The beginning of a record that could not be read.
        error_detail: The beginning of PostgreSQL's DETAIL.
        error_fields: The errors of fields as JSON text; None if there are many.
    """

    item_number: int
    status: ItemStatus
    attempts: int
    source_line: int | None
    item_key: str | None
    reprocessed_by: UUID | None
    finished_at: datetime | None
    error_group: str | None
    record: str | None
    record_size: int | None
    raw: str | None
    error_type: str | None
    message: str | None
    error_column: str | None
    error_detail: str | None
    error_fields: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureGroupPreview:
    """The values at fault in a failure group, with counts and first items; and sample items."""

    values: tuple[tuple[str, int, int], ...]
    samples: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDetails:
    """A batch's file, and the time at which the batch was enqueued."""

    format: str | None
    size: int | None
    sha256: str | None
    enqueued_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPreview:
    """A log line in a list; message and details (JSON text) are cut at 4,000 characters."""

    log_id: int
    item_number: int | None
    level: LogLevel
    message: str
    details: str | None
    logged_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemEdit:
    """One edit of a failed item's record.

    Attributes:
        before: The old record; None if it could not be read and is in `raw`.
        after: The new record.
    """

    edit_id: int
    batch_id: UUID
    item_number: int
    before: Mapping[str, Any] | None
    after: Mapping[str, Any]
    raw: bytes | None
    actor: str | None
    reason: str | None
    edited_at: datetime

    def as_dict(self) -> dict[str, Any]:
        """All fields, with JSON-ready values; `raw` as base64 in ``raw_base64``."""
        plain = json_values(self)
        return plain | {"raw_base64": plain.pop("raw")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reprocessing:
    """The result of a request to reprocess.

    Attributes:
        batch_id: The new batch. If no item was eligible, the reprocessing that is in progress, the
            lineage's latest batch, or the batch itself.
        is_new: Whether a batch was created.
    """

    batch_id: UUID
    is_new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedRow:
    """A row of a corrected file that was refused.

    Attributes:
        line: The line of the file on which it starts.
        item_number: The number of its item, if it has one.
        reason: Why it was refused.
    """

    line: int | None
    item_number: int | None
    reason: str

    def __str__(self) -> str:
        item = f", item {self.item_number}" if self.item_number is not None else ""
        return f"line {self.line}{item}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectedFile:
    """The result of importing a corrected file.

    Attributes:
        batch_id: The new batch, which runs exactly the accepted rows.
        accepted: The number of accepted rows.
        unchanged: How many of them are unchanged since the export.
        refused: The first refused rows.
        refused_rows: The number of refused rows.
    """

    batch_id: UUID
    accepted: int
    unchanged: int
    refused: tuple[RefusedRow, ...]
    refused_rows: int

    def as_dict(self) -> dict[str, Any]:
        """All fields, with JSON-ready values."""
        return json_values(self)


def json_values(value: Any, *without: str) -> dict[str, Any]:
    """The fields of a dataclass as values that json.dumps accepts; bytes become base64.

    Args:
        value: The dataclass.
        without: The fields to leave out.
    """
    return {name: _json_value(getattr(value, name)) for name in _names(value.__class__, without)}


@cache
def _names(cls: Any, without: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(attribute.name for attribute in fields(cls) if attribute.name not in without)


def _json_value(value: object) -> object:
    if type(value) in _PLAIN:  # most values are, and the patterns below are slow
        return value
    result: object = value
    match value:
        case StrEnum():
            result = value.value
        case bytes():
            result = b64encode(value).decode()
        case UUID():
            result = str(value)
        case datetime():
            result = value.isoformat()
        case list() | tuple():
            result = [_json_value(element) for element in value]
        case Mapping():
            result = {key: _json_value(element) for key, element in value.items()}
        case _ if is_dataclass(value):
            result = json_values(value)
    return result
