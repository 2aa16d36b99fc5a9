"""What requests and answers about failures and their repair look like."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field, JsonValue, RootModel

from .payloads import OUTSTANDING, BatchAnswer, GroupAnswer, Json, Payload, Text


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
