"""The bodies and queries that clients send, as the OpenAPI document describes them."""

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
    StringConstraints,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from ...exact_json import ExactFloat
from ...loading.sources import LARGEST_ROW
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
    skip_rows: int = Field(
        default=0, ge=0, le=LARGEST_ROW, description="Lines to skip at the beginning."
    )
    header_row: int | None = Field(
        default=None, ge=1, le=LARGEST_ROW, description="The line with the names of the columns."
    )
    skip_footer: int = Field(
        default=0, ge=0, le=LARGEST_ROW, description="Records to leave out at the end."
    )
    comment: str | None = Field(
        default=None, max_length=20, description="Lines that begin with this text are skipped."
    )
    member: str | None = Field(
        default=None, max_length=255, description="The file in a ZIP archive of several."
    )
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
