"""The responses that the OpenAPI document describes.

A model decorated with `sends` has the fields of a dataclass. Written here are only the fields that
have a description or another type, and those that the dataclass computes.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue, RootModel, create_model

from ... import models
from ...models import BatchSummary, CorrectedFile, ImportBatchItem, ItemEdit, LogEntry, RefusedRow
from ...runner.dry_run_report import DryRun, TableChanges
from .payloads import OUTSTANDING

Model = TypeVar("Model", bound=BaseModel)


def sends(
    dataclass: type,
    *,
    only: Collection[str] | None = None,
    without: Collection[str] = (),
    optional: Collection[str] = (),
) -> Callable[[type[Model]], type[Model]]:
    """Add the fields of the dataclass that is sent to a model.

    Args:
        dataclass: Its fields are added, except those that the model has already.
        only: The fields to add; by default all.
        without: The fields to leave out.
        optional: The fields that the document does not require.
    """

    def completed(model: type[Model]) -> type[Model]:
        kinds = get_type_hints(dataclass)
        names = [each.name for each in fields(dataclass) if only is None or each.name in only]
        added: dict[str, Any] = {
            name: (_as_sent(kinds[name]), None if name in optional else ...)
            for name in names
            if name not in without and name not in model.model_fields
        }
        return create_model(
            model.__name__, __base__=model, __doc__=model.__doc__, __module__=__name__, **added
        )

    return completed


def _as_sent(kind: Any) -> Any:
    """The type of a field in JSON."""
    if Mapping in (get_origin(kind), *map(get_origin, get_args(kind))):
        return dict[str, JsonValue] | None if type(None) in get_args(kind) else dict[str, JsonValue]
    return kind


class Links(BaseModel):
    """The paths of everything else about a batch."""

    self: str
    items: str
    logs: str
    events: str
    failures_csv: str
    failures_jsonl: str


@sends(
    models.FailureGroup,
    without=("values", "sample_items", "first_seen", "last_seen", "seen_before"),
    optional=("sqlstate", "constraint", "table", "column", "hint"),
)
class GroupAnswer(BaseModel):
    """Failed items with the same cause."""

    batch_id: UUID | None = Field(
        default=None, description="The batch of the items, in lists about a whole lineage."
    )


@sends(models.FailureGroup)
class CauseAnswer(GroupAnswer):
    """Failed items with the same cause, with values and samples."""

    values: list[tuple[str, int]] = Field(
        description="The values that PostgreSQL named, with counts."
    )
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


@sends(models.ListedBatch, without=("id", "options"))
class ListedBatch(BaseModel):
    """A batch in a list."""

    batch_id: UUID
    pending_items: int
    outstanding_items: int = Field(description=OUTSTANDING)
    links: Links


class BatchPage(BaseModel):
    """A page of batches, newest first."""

    batches: list[ListedBatch]
    next: UUID | None = Field(description="The cursor of the next page.")


@sends(BatchSummary, without=("read_at", "stopped"))
class BatchAnswer(BaseModel):
    """The state of a batch."""

    pending_items: int
    deferred_items: int = Field(description="Pending items that wait for other items.")
    outstanding_items: int = Field(description=OUTSTANDING)
    success_rate: float = Field(description="Percent of the items with an outcome.")
    items_per_second: float | None
    duration: float | None = Field(description="Seconds.")
    ok: bool
    notes: list[str] = Field(description="How the records were read: encoding, columns.")
    groups: list[GroupAnswer] = Field(description="Failed items by cause, largest first.")
    links: Links
    replayed: bool = Field(
        default=False,
        description="Whether an earlier request with this `Idempotency-Key` created the batch; "
        "only in responses that create a batch.",
    )


@sends(
    BatchSummary,
    only=(
        "batch_id", "parent_batch_id", "status", "total_items", "completed_items",
        "skipped_items", "failed_items", "outstanding_items", "created_at",
    ),
)  # fmt: skip
class LineageAnswer(BaseModel):
    """A batch of the same lineage."""


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
    lineage: list[LineageAnswer] = Field(description="Oldest first.")


class ReprocessAnswer(BatchAnswer):
    """The reprocessing batch; or the latest batch of the lineage if nothing was left to rerun."""

    created: bool = Field(description="Whether a batch was created.")
    message: str | None = Field(description="Why no batch was created.")


@sends(RefusedRow)
class RefusedRowAnswer(BaseModel):
    """A refused row of a corrected file."""


@sends(CorrectedFile)
class CorrectedAnswer(BatchAnswer):
    """The batch that runs a corrected file, and how many rows were accepted and refused."""

    refused: list[RefusedRowAnswer]


@sends(TableChanges)
class TableAnswer(BaseModel):
    """How many rows of a table a batch would change."""


@sends(DryRun)
class DryRunAnswer(BaseModel):
    """The result of a dry run. Nothing was changed."""

    groups: list[CauseAnswer]
    tables: list[TableAnswer]


class ProcessedAnswer(RootModel[BatchAnswer | DryRunAnswer]):
    """The state of the batch, or the result of a dry run."""


class FailureAnswer(BaseModel):
    """Why an item failed."""

    model_config = ConfigDict(extra="allow")

    kind: str
    type: str
    message: str
    group: str


@sends(ImportBatchItem, without=("data", "prepared", "final_pass", "raw", "is_large"))
class ItemAnswer(BaseModel):
    """An item with all stored data."""

    source_data: dict[str, JsonValue] | None
    raw_base64: str | None = Field(description="A record that is not valid JSON, as received.")
    processed_data: JsonValue
    failure: FailureAnswer | None
    idempotency_key: str


class ItemPage(BaseModel):
    """A page of items, in the order of their numbers."""

    items: list[ItemAnswer]
    next: int | None = Field(description="The cursor of the next page.")


@sends(ItemEdit, without=("raw",))
class EditAnswer(BaseModel):
    """One edit of an item's record."""

    raw_base64: str | None = Field(description="The unreadable record, as received.")


class EditsAnswer(BaseModel):
    """The edits of an item's record, oldest first."""

    edits: list[EditAnswer]


@sends(LogEntry)
class LogAnswer(BaseModel):
    """A log line; `item_number` is null for lines about the batch."""


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
