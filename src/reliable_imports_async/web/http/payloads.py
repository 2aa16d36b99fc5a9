"""What requests and answers look like: the bodies and queries that the API document describes."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    RootModel,
    StringConstraints,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from ...exact_json import ExactFloat
from ...models import BatchStatus, ItemStatus, LogLevel

Process = Literal["background", "wait"] | Literal[False]

Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=1_000)]
"""PostgreSQL stores no NUL."""


def _as_it_is(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """A value once it is known to be JSON; pydantic's copy would be without its digits."""
    check(value)
    return value


Json = Annotated[JsonValue, WrapValidator(_as_it_is)]


def _in_utc(moment: datetime) -> datetime:
    """The same moment in UTC, where each year is one that PostgreSQL and Python share."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("this moment is before the year 1 or after the year 9999") from None


Moment = Annotated[datetime, AfterValidator(_in_utc)]

LARGEST_NUMBER = 2_147_483_647  # item numbers are PostgreSQL integers
OUTSTANDING = (
    "Records of the whole lineage that failed, or were left pending by a cancelled batch, and that "
    "no batch has completed since."
)
LARGEST_LOG_ID = 2**53 - 1  # larger numbers are rounded by many readers of JSON, also in our schema


class Payload(BaseModel):
    """What a client sends: unknown names are refused, so that a typing error is noticed."""

    model_config = ConfigDict(extra="forbid")


class Thresholds(Payload):
    """When failures pause a batch; kept with it."""

    max_failures: int | None = Field(
        default=None, ge=0, le=LARGEST_NUMBER, description="Pause when more items fail."
    )
    max_failure_rate: float | None = Field(
        default=None, ge=0, le=1, description="Pause when a larger share fails."
    )
    min_processed: int | None = Field(
        default=None, ge=1, le=LARGEST_NUMBER, description="Items before the share counts."
    )


def _digits(value: Any) -> Any:
    """A sum as it is written, of which a float would keep only the beginning."""
    return value.digits if isinstance(value, ExactFloat) else value


class Expected(Payload):
    """Control totals: a batch whose records do not add up to them is refused."""

    count: int | None = Field(default=None, ge=0, le=LARGEST_NUMBER)
    sum: dict[Text, Annotated[str | int | float, BeforeValidator(_digits)]] = Field(
        default_factory=dict, description="Exact sums by column.", examples=[{"amount": "12.50"}]
    )


class CreateBatch(Thresholds):
    """A new batch."""

    batch_type: Text = Field(description="Names the processor.", examples=["customer_data"])
    items: list[Any] | None = Field(default=None, description="The records, in their order.")
    metadata: dict[str, Json] = Field(
        default_factory=dict, description="Your own; processors read it."
    )
    process: Process = Field(
        default="background",
        description="`background`: answer at once. `wait`: up to 30 seconds for the end. "
        "`false`: only create.",
    )
    strict: bool = Field(
        default=False,
        description="Refuse the batch when an item is invalid, instead of storing a failed item.",
    )
    skip_unchanged: Literal[False] | None = Field(
        default=None, description="`false` processes unchanged items as well."
    )
    expect: Expected | None = None
    allow_empty: bool = Field(
        default=False, description="Create a batch even where there are no records."
    )


class ProcessBatch(Thresholds):
    """How to process."""

    process: Literal["background", "wait"] = "background"
    dry_run: bool = Field(
        default=False,
        description="Only try, here and now: everything is rolled back. `prepare_item` runs all "
        "the same, sequences advance, and each item is tried alone.",
    )


class ReprocessBatch(Payload):
    """Which failures to run again; by default all."""

    process: Literal["background", "wait"] = "background"
    canary: int | None = Field(
        default=None,
        ge=1,
        le=LARGEST_NUMBER,
        description="First only so many, in a batch of their own; the rest if enough succeed.",
    )
    min_success: float = Field(default=0.9, ge=0, le=1, description="The share that is enough.")

    failed_items_only: bool = Field(
        default=True, description="`false` runs every item again, also what succeeded."
    )
    group: Text | None = Field(default=None, description="Only failures of this group.")
    item_numbers: list[int] | None = Field(
        default=None, description="Only these items.", min_length=1, max_length=10_000
    )


class Reason(Payload):
    """Why."""

    reason: Text | None = None


class BatchQuery(Payload):
    """Which batches to list."""

    batch_type: Text | None = None
    status: BatchStatus | None = None
    root: UUID | None = Field(default=None, description="Only batches of this lineage.")
    created_since: Moment | None = Field(default=None, description="Created then or later.")
    created_before: Moment | None = Field(default=None, description="Created earlier.")
    cursor: UUID | None = Field(default=None, description="`next` of the page before.")
    limit: int = Field(default=50, ge=1)


class ItemQuery(Payload):
    """Which items to list."""

    status: ItemStatus | None = None
    group: Text | None = Field(default=None, description="Only failures of this group.")
    cursor: int = Field(
        default=0, ge=0, le=LARGEST_NUMBER, description="`next` of the page before."
    )
    limit: int = Field(default=100, ge=1)


class LogQuery(Payload):
    """Which log lines to list."""

    item_number: int | None = Field(default=None, ge=1, le=LARGEST_NUMBER)
    level: LogLevel | None = Field(default=None, description="Only lines of this level.")
    cursor: int = Field(
        default=0, ge=0, le=LARGEST_LOG_ID, description="`next` of the page before."
    )
    limit: int = Field(default=100, ge=1)


class UploadQuery(Payload):
    """What an uploaded file holds."""

    batch_type: Text = Field(description="Names the processor.")
    name: Text | None = Field(default=None, max_length=255, description="The file's name.")
    format: Literal["csv", "tsv", "jsonl", "json"] | None = None
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    encoding: str | None = Field(default=None, max_length=40)
    on_same_file: Literal["refuse", "skip", "force"] = "refuse"
    process: Literal["background", "wait", "false"] = "background"
    expect_count: int | None = Field(
        default=None, ge=0, le=LARGEST_NUMBER, description="How many records it must hold."
    )
    allow_empty: bool = Field(
        default=False, description="Create a batch even from a file without records."
    )
    max_failures: int | None = Field(default=None, ge=0, le=LARGEST_NUMBER)
    max_failure_rate: float | None = Field(default=None, ge=0, le=1)
    min_processed: int | None = Field(default=None, ge=1, le=LARGEST_NUMBER)
    skip_unchanged: Literal["false"] | None = Field(
        default=None, description="`false` processes unchanged items as well."
    )


class ExportQuery(Payload):
    """Which failures to download."""

    group: Text | None = Field(default=None, description="Only failures of this group.")


class EventQuery(Payload):
    """How a client that cannot send headers proves who it is."""

    ticket: str | None = Field(default=None, max_length=2_000, description="See `…/events/ticket`.")


class Links(BaseModel):
    """Where the rest of a batch is."""

    self: str
    items: str
    logs: str
    events: str
    failures_csv: str
    failures_jsonl: str


class GroupAnswer(BaseModel):
    """Failed items with one cause."""

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
    batch_id: UUID | None = Field(
        default=None, description="The batch its items stand in, where a lineage was asked about."
    )


class BatchAnswer(BaseModel):
    """Where a batch stands."""

    batch_id: UUID
    batch_type: str
    status: BatchStatus
    parent_batch_id: UUID | None
    root_batch_id: UUID
    total_items: int
    pending_items: int
    deferred_items: int = Field(description="Pending, and waiting for other items.")
    completed_items: int
    skipped_items: int
    failed_items: int
    outstanding_items: int = Field(description=OUTSTANDING)
    success_rate: float = Field(description="Percent of the items with an outcome.")
    items_per_second: float | None
    duration: float | None = Field(description="Seconds.")
    ok: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    created_by: str | None
    source_name: str | None
    source_encoding: str | None
    notes: list[str] = Field(description="About how the records were read: encoding, columns.")
    pause_reason: str | None
    error: str | None
    groups: list[GroupAnswer] = Field(description="Failed items by cause, largest first.")
    links: Links
    replayed: bool = Field(
        default=False,
        description="Whether an earlier request with this `Idempotency-Key` created the batch; "
        "only where a batch is created.",
    )


class SkipReasonAnswer(BaseModel):
    """Why items were skipped, and how many."""

    reason: str
    count: int


class DetailedBatchAnswer(BatchAnswer):
    """A batch with its lineage."""

    skip_reasons: list[SkipReasonAnswer] = Field(
        description="Most frequent first, without numbers and ids; once the batch has settled."
    )
    metadata: dict[str, JsonValue]
    lineage: list["LineageAnswer"] = Field(description="Oldest first.")


class LineageAnswer(BaseModel):
    """A batch of the same lineage."""

    batch_id: UUID
    parent_batch_id: UUID | None
    status: BatchStatus
    total_items: int
    completed_items: int
    skipped_items: int
    failed_items: int
    outstanding_items: int
    created_at: datetime


class ListedBatch(BaseModel):
    """A batch in a list."""

    batch_id: UUID
    batch_type: str
    status: BatchStatus
    parent_batch_id: UUID | None
    root_batch_id: UUID
    total_items: int
    pending_items: int
    completed_items: int
    skipped_items: int
    failed_items: int
    outstanding_items: int = Field(description=OUTSTANDING)
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    created_by: str | None
    source_name: str | None
    source_columns: list[str] | None
    pause_reason: str | None
    error: str | None
    metadata: dict[str, JsonValue]
    links: Links


class BatchPage(BaseModel):
    """A page of batches, newest first."""

    batches: list[ListedBatch]
    next: UUID | None = Field(description="The cursor of the next page.")


class FailureAnswer(BaseModel):
    """Why an item failed."""

    model_config = ConfigDict(extra="allow")

    kind: str
    type: str
    message: str
    group: str


class ItemAnswer(BaseModel):
    """An item with everything stored about it."""

    batch_id: UUID
    item_number: int
    status: ItemStatus
    attempts: int
    source_data: dict[str, JsonValue] | None
    raw_base64: str | None = Field(description="A record that JSON cannot hold, as it came.")
    source_line: int | None
    item_key: str | None
    root_batch_id: UUID | None
    root_item_number: int | None
    idempotency_key: str
    due_at: datetime | None
    target_table: str | None
    target_id: str | None
    processed_data: JsonValue
    skip_reason: str | None
    failure: FailureAnswer | None
    reprocessed_by: UUID | None
    started_at: datetime | None
    finished_at: datetime | None


class ItemPage(BaseModel):
    """A page of items, in the order of their numbers."""

    items: list[ItemAnswer]
    next: int | None = Field(description="The cursor of the next page.")


class LogAnswer(BaseModel):
    """A log line; `item_number` is null for a line about the batch."""

    log_id: int
    batch_id: UUID
    item_number: int | None
    level: LogLevel
    message: str
    details: dict[str, JsonValue] | None
    logged_at: datetime


class LogPage(BaseModel):
    """A page of log lines, oldest first."""

    logs: list[LogAnswer]
    next: int | None = Field(description="The cursor of the next page.")


class BatchTypeAnswer(BaseModel):
    """A batch type, its processor and the JSON schema of its records."""

    batch_type: str
    description: str | None
    json_schema: dict[str, JsonValue] | None = Field(description="Null: any object is taken.")


class BatchTypes(BaseModel):
    """The batch types this server knows."""

    batch_types: list[BatchTypeAnswer]


class Ticket(BaseModel):
    """Lets a browser's EventSource in, for a short time."""

    ticket: str
    expires_in: int = Field(description="Seconds.")


class HealthAnswer(BaseModel):
    """Whether this server can work."""

    status: Literal["ok", "unavailable"]
    database: str
    schema_version: str | None
    worker: str


class Problem(BaseModel):
    """What went wrong, as RFC 9457 describes it."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str | None = None
    hint: str | None = None
    errors: list[dict[str, JsonValue]] | None = None


class CorrectionQuery(Payload):
    """How to read a corrected file, and what to do with it."""

    name: Text | None = Field(default=None, max_length=255, description="The file's name.")
    format: Literal["csv", "tsv", "jsonl"] | None = None
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    encoding: str | None = Field(default=None, max_length=40)
    process: Literal["background", "wait"] = "background"


class FailuresQuery(Payload):
    """Which failures, and how much about them."""

    group: Text | None = Field(default=None, description="Only this group.")
    values: int = Field(default=10, ge=1, le=100, description="Values and items a group.")


class EditItem(Payload):
    """A failed item's new record."""

    source_data: dict[str, Json] = Field(description="The whole new record.")
    reason: Text | None = Field(default=None, description="For the history.")
    force: bool = Field(
        default=False,
        description="Save also an unknown field, or a value that the model refuses; else 422.",
    )


class CauseAnswer(GroupAnswer):
    """Failed items that share a cause."""

    values: list[tuple[str, int]] = Field(description="What PostgreSQL named, and how often.")
    sample_items: list[int]
    first_seen: datetime | None
    last_seen: datetime | None
    seen_before: int | None = Field(description="Earlier batches with the same cause.")


class FailuresAnswer(BaseModel):
    """What failed, by cause; the largest first."""

    groups: list[CauseAnswer] = Field(description="Of this batch, also those fixed since.")
    root_batch_id: UUID
    outstanding_items: int = Field(description=OUTSTANDING)
    outstanding: list[CauseAnswer] = Field(
        description="The outstanding failures of the whole lineage, by the batch they stand in."
    )
    unreadable_items: int = Field(
        description="Outstanding records that could not be read: to be corrected before they run."
    )


class ReprocessAnswer(BatchAnswer):
    """The batch that reprocesses; or the lineage's latest batch, where nothing was left."""

    created: bool = Field(description="Whether a batch was created.")
    message: str | None = Field(description="Why none was.")


class EditAnswer(BaseModel):
    """One change of an item's record."""

    edit_id: int
    batch_id: UUID
    item_number: int
    before: dict[str, JsonValue] | None
    after: dict[str, JsonValue]
    raw_base64: str | None = Field(description="What could not be read, as it came.")
    actor: str | None
    reason: str | None
    edited_at: datetime


class EditsAnswer(BaseModel):
    """The changes of an item's record, oldest first."""

    edits: list[EditAnswer]


class RefusedRowAnswer(BaseModel):
    """A row of a corrected file that was not taken."""

    line: int | None
    item_number: int | None
    reason: str


class CorrectedAnswer(BatchAnswer):
    """The batch that runs a corrected file, and what became of its rows."""

    accepted: int
    unchanged: int
    refused: list[RefusedRowAnswer]
    refused_rows: int


class TableAnswer(BaseModel):
    """Rows of one table that a batch would change."""

    table: str
    inserted: int
    updated: int
    deleted: int


class DryRunAnswer(BaseModel):
    """What processing a batch would come to; nothing of it has happened."""

    batch_id: UUID
    batch_type: str
    total_items: int
    completed: int
    skipped: int
    failed: int
    retried: int
    deferred: int
    groups: list[CauseAnswer]
    tables: list[TableAnswer]
    seconds: float
    notes: list[str]


class ProcessedAnswer(RootModel[BatchAnswer | DryRunAnswer]):
    """Where the batch stands; or, for a dry run, what it would come to."""
