"""What is said about repaired records: who changed what, and what became of a corrected file."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from .json_ready import json_ready


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemEdit:
    """One change of a failed item's record.

    Attributes:
        before: The record as it was; None for one that could not be read, which is in `raw`.
        after: The record as it became.
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
        plain = json_ready(self)
        return plain | {"raw_base64": plain.pop("raw")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reprocessing:
    """What came of the wish to reprocess.

    Attributes:
        batch_id: The new batch; or, where nothing was left to take, the reprocessing that is in
            progress, the lineage's latest batch, or the batch itself.
        is_new: Whether a batch was created.
    """

    batch_id: UUID
    is_new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedRow:
    """A row of a corrected file that was not taken.

    Attributes:
        line: The line of the file on which it starts.
        item_number: The item it names, where it names one.
        reason: Why not, in a few words.
    """

    line: int | None
    item_number: int | None
    reason: str

    def __str__(self) -> str:
        named = f", item {self.item_number}" if self.item_number is not None else ""
        return f"line {self.line}{named}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectedFile:
    """What became of a corrected file.

    Attributes:
        batch_id: The new batch, in which exactly the accepted rows run.
        accepted: How many rows that are.
        unchanged: How many of them are as they were exported.
        refused: The first of the rows that were not taken.
        refused_rows: How many were not taken.
    """

    batch_id: UUID
    accepted: int
    unchanged: int
    refused: tuple[RefusedRow, ...]
    refused_rows: int

    def as_dict(self) -> dict[str, Any]:
        """All fields, with JSON-ready values."""
        return json_ready(self)
