"""Batches as the API shows them: the dataclasses as JSON, with links."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from ...models import BatchSummary, ImportBatch, ListedBatch
from ..http import responses
from ..http.call import Call


def summarised(call: Call, summary: BatchSummary) -> dict[str, Any]:
    """The state of a batch."""
    return summary.as_dict() | {"links": links(call, summary.batch_id)}


def detailed(
    call: Call,
    batch: ImportBatch,
    lineage: Sequence[BatchSummary],
    skip_reasons: Sequence[tuple[str, int]],
) -> dict[str, Any]:
    """The state of a batch, with its metadata, its lineage, and why items were skipped."""
    members = [summary.as_dict() for summary in lineage]
    (own,) = [member for member in members if member["batch_id"] == str(batch.id)]
    shown = responses.LineageAnswer.model_fields
    return own | {
        "links": links(call, batch.id),
        "metadata": dict(batch.metadata),
        "skip_reasons": [{"reason": reason, "count": count} for reason, count in skip_reasons],
        "lineage": [{name: member[name] for name in shown} for member in members],
    }


def listed(call: Call, batch: ListedBatch) -> dict[str, Any]:
    """A batch in a list."""
    plain = batch.as_dict() | {"batch_id": str(batch.id), "links": links(call, batch.id)}
    return {name: plain[name] for name in responses.ListedBatch.model_fields}


def links(call: Call, batch_id: UUID) -> dict[str, str]:
    """The paths of everything else about a batch, wherever the API is mounted."""
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
