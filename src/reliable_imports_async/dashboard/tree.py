"""A lineage as a tree: which batch came of which."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from ..models import BatchSummary


@dataclass(frozen=True, slots=True)
class Branch:
    """A batch, and how deep it stands in the tree."""

    summary: BatchSummary
    depth: int


def lineage_tree(family: Sequence[BatchSummary]) -> tuple[Branch, ...]:
    """The batches of a lineage, each below its parent, siblings oldest first."""
    children: dict[UUID | None, list[BatchSummary]] = {}
    known = {one.batch_id for one in family}
    for one in family:
        parent = one.parent_batch_id if one.parent_batch_id in known else None
        children.setdefault(parent, []).append(one)
    found: list[Branch] = []
    waiting = [(one, 0) for one in reversed(children.get(None, []))]
    while waiting:
        one, depth = waiting.pop()
        found.append(Branch(one, depth))
        waiting += [(child, depth + 1) for child in reversed(children.get(one.batch_id, []))]
    return tuple(found)
