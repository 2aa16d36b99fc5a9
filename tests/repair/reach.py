"""What the tests reach of `repair` beyond its public face; nothing else names its modules."""

from typing import Any

import pytest

from reliable_imports_async import BatchManager
from reliable_imports_async.repair import edits
from reliable_imports_async.repair.csv_cells import (
    CONTROL,
    changes,
    control_names,
    harmless,
    original,
    read_control_names,
    shown,
)

__all__ = [
    "CONTROL",
    "after_a_canary",
    "changes",
    "control_names",
    "harmless",
    "look_for_canaries",
    "original",
    "read_control_names",
    "shown",
    "wait_for_the_root",
]


def wait_for_the_root(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """How long an edit waits for whoever works on the lineage."""
    monkeypatch.setattr(edits, "ROOT_SECONDS", seconds)


def after_a_canary(manager: BatchManager, act: Any) -> None:
    """Let a manager do something else where the rest of a canary would follow."""
    manager._processing._rest_of = act


async def look_for_canaries(manager: BatchManager, batch_types: list[str], most: int) -> None:
    """What a worker does now and then for canaries that nobody has finished."""
    await manager._continuation.sweep(batch_types, most)
