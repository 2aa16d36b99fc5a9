"""What the tests reach of `execution` beyond its public face; nothing else names its modules."""

from collections import Counter
from typing import Any

import pytest

from reliable_imports_async import ItemStatus, failures, sanitize
from reliable_imports_async.execution import attempt, executor
from reliable_imports_async.execution.chunk import Abandoned, ChunkExecutor
from reliable_imports_async.execution.key_order import Ordering, coarse
from reliable_imports_async.outcomes import Completed, Failed, Outage, Skip

SETTLED = {
    Completed: ItemStatus.COMPLETED,
    Skip: ItemStatus.SKIPPED,
    Failed: ItemStatus.FAILED,
}

__all__ = [
    "SETTLED",
    "Ordering",
    "Outage",
    "coarse",
    "conflict_retries",
    "let_everything_through",
    "longest_backoff",
    "outcomes_of_chunks",
    "repeats",
    "settled_by_chunks",
]


def conflict_retries(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """How often a conflict is tried again at once."""
    monkeypatch.setattr(executor, "CONFLICT_RETRIES", count)


def repeats(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """How often an item is tried again later."""
    monkeypatch.setattr(executor, "REPEATS", count)


def longest_backoff(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """How long an item waits for its next try at most."""
    monkeypatch.setattr(attempt, "LONGEST_BACKOFF", seconds)


def let_everything_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let failures keep texts that PostgreSQL cannot store."""
    for module in (failures, sanitize):
        monkeypatch.setattr(module, "storable", lambda text, *_, **__: text)
    monkeypatch.setattr(failures, "visible", lambda text: text)


def settled_by_chunks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the number of items that each transaction of a chunk settles."""
    seen: list[int] = []
    transaction = ChunkExecutor._transact

    async def counted(self: ChunkExecutor, *args: Any) -> Any:
        ended = await transaction(self, *args)
        if not isinstance(ended, Abandoned):
            seen.append(len(ended))
        return ended

    monkeypatch.setattr(ChunkExecutor, "_transact", counted)
    return seen


def outcomes_of_chunks(monkeypatch: pytest.MonkeyPatch, seen: Counter[Any]) -> None:
    """Count what chunks believe about each item."""
    execute = ChunkExecutor.execute

    async def listening(self: ChunkExecutor, *args: Any) -> Any:
        outcomes = await execute(self, *args)
        for number, outcome in outcomes.items():
            if type(outcome) in SETTLED:
                seen[number, SETTLED[type(outcome)]] += 1
        return outcomes

    monkeypatch.setattr(ChunkExecutor, "execute", listening)
