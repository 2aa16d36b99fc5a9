"""What the tests reach of `store` beyond its public face; nothing else names its modules."""

import pytest

from reliable_imports_async.store import (
    batches,
    enqueue,
    item_keys,
    items,
    outbox,
    ranges,
    reprocessing,
    settlements,
    summaries,
)
from reliable_imports_async.store.item_keys import Remembering
from reliable_imports_async.store.visibility import Visibility

__all__ = [
    "Remembering",
    "Visibility",
    "batches",
    "break_item_keys",
    "enqueue",
    "items",
    "outbox",
    "ranges",
    "reprocessing",
    "settlements",
    "summaries",
]


def break_item_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every statement about item keys fail."""
    monkeypatch.setattr(item_keys, "_SQL", dict.fromkeys(item_keys._SQL, "broken"))
