"""The bodies, queries and responses that the OpenAPI document describes.

Requests come first, each validated by its model; then responses, whose models only describe what
the dataclasses of `models` give as JSON.
"""

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


def _unchanged(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """Check that a value is JSON, and keep it; pydantic's copy would lose digits."""
    check(value)
    return value


Json = Annotated[JsonValue, WrapValidator(_unchanged)]


def _in_utc(moment: datetime) -> datetime:
    """The same moment in UTC, limited to the years that PostgreSQL and Python share."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("this moment is before the year 1 or after the year 9999") from None


Moment = Annotated[datetime, AfterValidator(_in_utc)]

LARGEST_NUMBER = 2_147_483_647  # item numbers are PostgreSQL integers
OUTSTANDING = (
    "Records of the whole lineage that failed or were left pending by a cancelled batch, and have "
    "not been completed by a later batch."
)
LARGEST_LOG_ID = 2**53 - 1  # many JSON parsers round larger numbers


class Payload(BaseModel):
    """A request. Unknown names are refused, so that spelling mistakes are noticed."""

    model_config = ConfigDict(extra="forbid")


class Thresholds(Payload):
    """When failures pause a batch; stored with the batch."""

    max_failures: int | None = Field(
        default=None, ge=0, le=LARGEST_NUMBER, description="Pause when more items than this fail."
    )
    max_failure_rate: float | None = Field(
        default=None, ge=0, le=1, description="Pause when a larger share than this fails."
    )
    min_processed: int | None = Field(
        default=None,
        ge=1,
        le=LARGEST_NUMBER,
        description="Check the failure rate only after this many items.",
    )


def _digits(value: Any) -> Any:
    """A sum with all its digits, which a float would not keep."""
    return value.digits if isinstance(value, ExactFloat) else value


class Expected(Payload):
    """Control totals: a batch whose records do not match them is refused."""

    count: int | None = Field(default=None, ge=0, le=LARGEST_NUMBER)
    sum: dict[Text, Annotated[str | int | float, BeforeValidator(_digits)]] = Field(
        default_factory=dict,
        description="The exact sum of each column.",
        examples=[{"amount": "12.50"}],
    )


class CreateBatch(Thresholds):
    """A new batch."""

    batch_type: Text = Field(
        description="The batch type, which selects the processor.", examples=["customer_data"]
    )
    items: list[Any] | None = Field(default=None, description="The records, in order.")
    metadata: dict[str, Json] = Field(
        default_factory=dict, description="Your own data; processors can read it."
    )
    process: Process = Field(
        default="background",
        description="`background`: respond at once. `wait`: respond when the batch ends, after 30 "
        "seconds at most. `false`: only create the batch.",
    )
    strict: bool = Field(
        default=False,
        description="Refuse the batch if an item is invalid, instead of storing a failed item.",
    )
    skip_unchanged: Literal[False] | None = Field(
        default=None, description="`false`: also process unchanged items."
    )
    expect: Expected | None = None
    allow_empty: bool = Field(
        default=False, description="Create a batch even if there are no records."
    )


class ProcessBatch(Thresholds):
    """How to process a batch."""

    process: Literal["background", "wait"] = "background"
    dry_run: bool = Field(
        default=False,
        description="Try every item and roll everything back. Note that `prepare_item` runs, "
        "sequences advance, and each item is tried on its own.",
    )


class ReprocessBatch(Payload):
    """Which failures to rerun; by default all."""

    process: Literal["background", "wait"] = "background"
    canary: int | None = Field(
        default=None,
        ge=1,
        le=LARGEST_NUMBER,
        description="Rerun this many items first, in a batch of their own. The rest follow if "
        "enough of them succeed.",
    )
    min_success: float = Field(
        default=0.9, ge=0, le=1, description="The share of the canary that must succeed."
    )

    failed_items_only: bool = Field(
        default=True, description="`false`: rerun every item, also the successful ones."
    )
    group: Text | None = Field(default=None, description="Only failures in this group.")
    item_numbers: list[int] | None = Field(
        default=None, description="Only these items.", min_length=1, max_length=10_000
    )


class Reason(Payload):
    """The reason for an action."""

    reason: Text | None = None


class BatchQuery(Payload):
    """Which batches to list."""

    batch_type: Text | None = None
    status: BatchStatus | None = None
    root: UUID | None = Field(default=None, description="Only batches of this lineage.")
    created_since: Moment | None = Field(
        default=None, description="Only batches created at this time or later."
    )
    created_before: Moment | None = Field(
        default=None, description="Only batches created before this time."
    )
    cursor: UUID | None = Field(default=None, description="`next` of the previous page.")
    limit: int = Field(default=50, ge=1)


class ItemQuery(Payload):
    """Which items to list."""

    status: ItemStatus | None = None
    group: Text | None = Field(default=None, description="Only failures in this group.")
    cursor: int = Field(
        default=0, ge=0, le=LARGEST_NUMBER, description="`next` of the previous page."
    )
    limit: int = Field(default=100, ge=1)


class LogQuery(Payload):
    """Which log lines to list."""

    item_number: int | None = Field(default=None, ge=1, le=LARGEST_NUMBER)
    level: LogLevel | None = Field(default=None, description="Only lines with this level.")
    cursor: int = Field(
        default=0, ge=0, le=LARGEST_LOG_ID, description="`next` of the previous page."
    )
    limit: int = Field(default=100, ge=1)


class UploadQuery(Payload):
    """How to read an uploaded file, and what to do with it."""

    batch_type: Text = Field(description="The batch type, which selects the processor.")
    name: Text | None = Field(default=None, max_length=255, description="The file's name.")
    format: Literal["csv", "tsv", "jsonl", "json"] | None = None
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    encoding: str | None = Field(default=None, max_length=40)
    on_same_file: Literal["refuse", "skip", "force"] = "refuse"
    process: Literal["background", "wait", "false"] = "background"
    expect_count: int | None = Field(
        default=None, ge=0, le=LARGEST_NUMBER, description="How many records the file must contain."
    )
    allow_empty: bool = Field(
        default=False, description="Create a batch even if the file has no records."
    )
    max_failures: int | None = Field(default=None, ge=0, le=LARGEST_NUMBER)
    max_failure_rate: float | None = Field(default=None, ge=0, le=1)
    min_processed: int | None = Field(default=None, ge=1, le=LARGEST_NUMBER)
    skip_unchanged: Literal["false"] | None = Field(
        default=None, description="`false`: also process unchanged items."
    )


class ExportQuery(Payload):
    """Which failures to download."""

    group: Text | None = Field(default=None, description="Only failures in this group.")


class EventQuery(Payload):
    """Authentication for clients that cannot send headers."""

    ticket: str | None = Field(default=None, max_length=2_000, description="See `…/events/ticket`.")


class CorrectionQuery(Payload):
    """How to read a corrected file, and what to do with it."""

    name: Text | None = Field(default=None, max_length=255, description="The file's name.")
    format: Literal["csv", "tsv", "jsonl"] | None = None
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    encoding: str | None = Field(default=None, max_length=40)
    process: Literal["background", "wait"] = "background"


class FailuresQuery(Payload):
    """Which failures to list, and with how many details."""

    group: Text | None = Field(default=None, description="Only this failure group.")
    values: int = Field(default=10, ge=1, le=100, description="Values and items per group.")


class EditItem(Payload):
    """A new record for a failed item."""

    source_data: dict[str, Json] = Field(description="The whole new record.")
    reason: Text | None = Field(default=None, description="Kept in the item's history.")
    force: bool = Field(
        default=False,
        description="Save the record even if it has an unknown field or a value that the model "
        "refuses; otherwise 422.",
    )


class Links(BaseModel):
    """The paths of everything else about a batch."""

    self: str
    items: str
    logs: str
    events: str
    failures_csv: str
    failures_jsonl: str


class GroupAnswer(BaseModel):
    """Failed items with the same cause."""

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
        default=None, description="The batch of the items, in lists about a whole lineage."
    )


class BatchRow(BaseModel):
    """What a batch is, and its counts."""

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
    pause_reason: str | None
    error: str | None
    links: Links


class ListedBatch(BatchRow):
    """A batch in a list."""

    source_columns: list[str] | None
    metadata: dict[str, JsonValue]


class BatchPage(BaseModel):
    """A page of batches, newest first."""

    batches: list[ListedBatch]
    next: UUID | None = Field(description="The cursor of the next page.")


class BatchAnswer(BatchRow):
    """The state of a batch."""

    deferred_items: int = Field(description="Pending items that wait for other items.")
    success_rate: float = Field(description="Percent of the items with an outcome.")
    items_per_second: float | None
    duration: float | None = Field(description="Seconds.")
    ok: bool
    source_encoding: str | None
    notes: list[str] = Field(description="How the records were read: encoding, columns.")
    groups: list[GroupAnswer] = Field(description="Failed items by cause, largest first.")
    replayed: bool = Field(
        default=False,
        description="Whether an earlier request with this `Idempotency-Key` created the batch; "
        "only in responses that create a batch.",
    )


class SkipReasonAnswer(BaseModel):
    """A reason why items were skipped, and how many."""

    reason: str
    count: int


class DetailedBatchAnswer(BatchAnswer):
    """The state of a batch, with its lineage."""

    skip_reasons: list[SkipReasonAnswer] = Field(
        description="Most frequent first, numbers and ids removed; empty until the batch settles."
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


class FailureAnswer(BaseModel):
    """Why an item failed."""

    model_config = ConfigDict(extra="allow")

    kind: str
    type: str
    message: str
    group: str


class ItemAnswer(BaseModel):
    """An item with all stored data."""

    batch_id: UUID
    item_number: int
    status: ItemStatus
    attempts: int
    source_data: dict[str, JsonValue] | None
    raw_base64: str | None = Field(description="A record that is not valid JSON, as received.")
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
    """A log line; `item_number` is null for lines about the batch."""

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
    json_schema: dict[str, JsonValue] | None = Field(description="Null: any object is accepted.")


class BatchTypes(BaseModel):
    """The batch types that this server knows."""

    batch_types: list[BatchTypeAnswer]


class Ticket(BaseModel):
    """Authenticates a browser's EventSource for a short time."""

    ticket: str
    expires_in: int = Field(description="Seconds.")


class HealthAnswer(BaseModel):
    """The health of this server."""

    status: Literal["ok", "unavailable"]
    database: str
    schema_version: str | None
    worker: str


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str | None = None
    hint: str | None = None
    errors: list[dict[str, JsonValue]] | None = None


class CauseAnswer(GroupAnswer):
    """Failed items with the same cause, with values and samples."""

    values: list[tuple[str, int]] = Field(
        description="The values that PostgreSQL named, with counts."
    )
    sample_items: list[int]
    first_seen: datetime | None
    last_seen: datetime | None
    seen_before: int | None = Field(description="How many earlier batches failed with this cause.")


class FailuresAnswer(BaseModel):
    """Failures by cause, largest first."""

    groups: list[CauseAnswer] = Field(
        description="All failures of this batch, including those fixed since."
    )
    root_batch_id: UUID
    outstanding_items: int = Field(description=OUTSTANDING)
    outstanding: list[CauseAnswer] = Field(
        description="The outstanding failures of the whole lineage, by batch."
    )
    unreadable_items: int = Field(
        description="Outstanding records that could not be read. They must be corrected first."
    )


class ReprocessAnswer(BatchAnswer):
    """The reprocessing batch; or the latest batch of the lineage if nothing was left to rerun."""

    created: bool = Field(description="Whether a batch was created.")
    message: str | None = Field(description="Why no batch was created.")


class EditAnswer(BaseModel):
    """One edit of an item's record."""

    edit_id: int
    batch_id: UUID
    item_number: int
    before: dict[str, JsonValue] | None
    after: dict[str, JsonValue]
    raw_base64: str | None = Field(description="The unreadable record, as received.")
    actor: str | None
    reason: str | None
    edited_at: datetime


class EditsAnswer(BaseModel):
    """The edits of an item's record, oldest first."""

    edits: list[EditAnswer]


class RefusedRowAnswer(BaseModel):
    """A refused row of a corrected file."""

    line: int | None
    item_number: int | None
    reason: str


class CorrectedAnswer(BatchAnswer):
    """The batch that runs a corrected file, and how many rows were accepted and refused."""

    accepted: int
    unchanged: int
    refused: list[RefusedRowAnswer]
    refused_rows: int


class TableAnswer(BaseModel):
    """How many rows of a table a batch would change."""

    table: str
    inserted: int
    updated: int
    deleted: int


class DryRunAnswer(BaseModel):
    """The result of a dry run. Nothing was changed."""

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
    """The state of the batch, or the result of a dry run."""
