"""What an overview shows: shortened items, samples and rates, all frozen."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from .models import ItemStatus, LogLevel


@dataclass(frozen=True, slots=True)
class Minute:
    """How many items were settled in a minute, and how many of them failed."""

    at: datetime
    settled: float
    failed: float


@dataclass(frozen=True, slots=True)
class Tick:
    """When an item of a sample was settled."""

    at: datetime
    failed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemPreview:
    """An item in a list: its record and message are cut short.

    Attributes:
        record: The beginning of the record as JSON text; None where it is large or unreadable.
        record_size: Bytes that the record takes in the database.
        raw: The beginning of a record that could not be read.
        error_detail: The beginning of what PostgreSQL adds to its message.
        error_fields: The errors of fields as JSON text; None where they are many.
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
class GroupGlance:
    """The offending values of a failure group, with counts and first items, and samples."""

    values: tuple[tuple[str, int, int], ...]
    samples: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDetails:
    """A batch's file, and when workers were asked to process it."""

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
