"""Batches, items and log lines as the API shows them."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from ...models import BatchSummary, ImportBatch, ListedBatch
from ..http.call import Call

LISTED = (
    "batch_type", "status", "parent_batch_id", "root_batch_id", "total_items", "pending_items",
    "completed_items", "skipped_items", "failed_items", "outstanding_items", "created_at",
    "started_at", "finished_at", "created_by", "source_name", "source_columns", "pause_reason",
    "error", "metadata",
)  # fmt: skip
LINEAGE = (
    "batch_id", "parent_batch_id", "status", "total_items", "completed_items", "skipped_items",
    "failed_items", "outstanding_items", "created_at",
)  # fmt: skip


def summarised(call: Call, summary: BatchSummary) -> dict[str, Any]:
    """Where a batch stands."""
    return summary.as_dict() | {"links": links(call, summary.batch_id)}


def detailed(
    call: Call,
    batch: ImportBatch,
    lineage: Sequence[BatchSummary],
    skip_reasons: Sequence[tuple[str, int]],
) -> dict[str, Any]:
    """Where a batch stands, with its metadata and lineage, and why items were skipped."""
    members = [one.as_dict() for one in lineage]
    (own,) = [one for one in members if one["batch_id"] == str(batch.id)]
    return own | {
        "links": links(call, batch.id),
        "metadata": dict(batch.metadata),
        "skip_reasons": [{"reason": reason, "count": count} for reason, count in skip_reasons],
        "lineage": [{name: one[name] for name in LINEAGE} for one in members],
    }


def listed(call: Call, batch: ListedBatch) -> dict[str, Any]:
    """A batch in a list."""
    plain = batch.as_dict()
    return {
        "batch_id": plain["id"],
        **{name: plain[name] for name in LISTED},
        "links": links(call, batch.id),
    }


def links(call: Call, batch_id: UUID) -> dict[str, str]:
    """Where the rest of a batch is, wherever the API is mounted."""
    own = path_of(call, batch_id)
    return {
        "self": own,
        "items": f"{own}/items",
        "logs": f"{own}/logs",
        "events": f"{own}/events",
        "failures_csv": f"{own}/failures.csv",
        "failures_jsonl": f"{own}/failures.jsonl",
    }


def path_of(call: Call, batch_id: UUID) -> str:
    """The path of a batch."""
    return f"{call.base}/api/batches/{batch_id}"
