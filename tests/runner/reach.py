"""What the tests reach of `runner` beyond its public face; nothing else names its modules."""

from collections import Counter
from typing import Any

import asyncpg
import pytest

from reliable_imports_async import BatchManager
from reliable_imports_async.runner import (
    block_watch,
    exclusive,
    leases,
    lifecycle,
    outbox,
    process,
    quarantine,
    slots,
)
from reliable_imports_async.runner.adaptive_limit import AdaptiveLimit
from reliable_imports_async.runner.item_queue import Channel, Queue, QueuedItem
from reliable_imports_async.runner.slots import (
    LOSSES,
    REFUSALS,
    STATE_REFUSALS,
    STUCK_REFUSALS,
    Outages,
    Slots,
)

from ..execution.reach import SETTLED

__all__ = [
    "LOSSES",
    "REFUSALS",
    "STATE_REFUSALS",
    "STUCK_REFUSALS",
    "AdaptiveLimit",
    "Channel",
    "Outages",
    "Queue",
    "QueuedItem",
    "accept_another",
    "ask_for_the_turn_every",
    "claim_hooks_for",
    "dead_after",
    "heartbeat_every",
    "lease_for",
    "leases_of",
    "lifecycle",
    "lifecycle_of",
    "lock_for",
    "longest_pause_of_slots",
    "outbox",
    "outbox_of",
    "outcomes_of_items",
    "quarantine",
    "sweep_every",
    "try_hooks",
    "watch_for_blocks",
    "when_a_change_waited_in_vain",
    "when_asked_in_vain",
]


def leases_of(manager: BatchManager) -> leases.Leases:
    """What keeps a manager's leases."""
    return manager._processing._leases


def lease_for(manager: BatchManager, seconds: float) -> None:
    """Let a manager lease its ranges for so long."""
    settings = manager.settings.model_copy(update={"lease_seconds": seconds})
    manager._processing._leases._settings = settings


def lifecycle_of(manager: BatchManager) -> lifecycle.Lifecycle:
    """What starts and finishes a manager's batches."""
    return manager._processing._lifecycle


def outbox_of(manager: BatchManager) -> Any:
    """What delivers a manager's hooks."""
    return manager._outbox


def sweep_every(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """How often hooks are looked for whose process died."""
    monkeypatch.setattr(outbox, "SWEEP_SECONDS", seconds)


def claim_hooks_for(
    monkeypatch: pytest.MonkeyPatch, seconds: float, *, renewed_every: float
) -> None:
    """How long a hook is its process's own."""
    monkeypatch.setattr(outbox, "LEASE_SECONDS", seconds)
    monkeypatch.setattr(outbox, "RENEWAL_SECONDS", renewed_every)


def dead_after(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """After how long without a sign a worker is taken for dead."""
    monkeypatch.setattr(quarantine, "DEAD_SECONDS", seconds)


def heartbeat_every(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """How often leases are renewed."""
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", seconds)


def watch_for_blocks(monkeypatch: pytest.MonkeyPatch, *, every: float, of: float) -> None:
    """When a blocked event loop is told."""
    monkeypatch.setattr(block_watch, "LOOK_SECONDS", every)
    monkeypatch.setattr(block_watch, "BLOCKED_SECONDS", of)


def longest_pause_of_slots(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """How long a slot waits at most before it goes on after an outage."""
    monkeypatch.setattr(slots, "LONGEST_BACKOFF", seconds)


def ask_for_the_turn_every(
    monkeypatch: pytest.MonkeyPatch, seconds: float, *, vacant_after: float
) -> None:
    """How often a batch that waits for another of its type asks, and when that one is gone."""
    monkeypatch.setattr(process, "ASK_SECONDS", seconds)
    monkeypatch.setattr(exclusive, "VACANT_SECONDS", vacant_after)


def when_asked_in_vain(monkeypatch: pytest.MonkeyPatch, tell: Any) -> None:
    """Tell when a batch has asked for its turn, and another has it."""
    other = exclusive.other

    async def watched(*args: Any) -> Any:
        if (answer := await other(*args)) is not None:
            tell()
        return answer

    monkeypatch.setattr(exclusive, "other", watched)


def accept_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accept a batch although another of its type runs."""

    async def accepted(*_: Any, **__: Any) -> None: ...

    monkeypatch.setattr(BatchManager, "_refuse_another", accepted)


def lock_for(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """How long a change of a batch waits for its row."""
    monkeypatch.setattr(lifecycle, "LOCK_SECONDS", seconds)


def when_a_change_waited_in_vain(monkeypatch: pytest.MonkeyPatch, tell: Any) -> None:
    """Tell when PostgreSQL has refused a change of a batch."""
    once = lifecycle.Lifecycle._once

    async def counted(self: lifecycle.Lifecycle, *args: Any) -> Any:
        try:
            return await once(self, *args)
        except asyncpg.PostgresError:
            tell()
            raise

    monkeypatch.setattr(lifecycle.Lifecycle, "_once", counted)


def try_hooks(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """How often a hook is tried that meets an outage."""
    monkeypatch.setattr(lifecycle, "HOOK_TRIES", times)


def outcomes_of_items(monkeypatch: pytest.MonkeyPatch, seen: Counter[Any]) -> None:
    """Count what slots believe about each item that runs alone."""
    outcome_of = Slots._outcome

    async def listening(self: Slots, entry: Any, *args: Any) -> Any:
        outcome = await outcome_of(self, entry, *args)
        if type(outcome) in SETTLED:
            seen[entry.item.item_number, SETTLED[type(outcome)]] += 1
        return outcome

    monkeypatch.setattr(Slots, "_outcome", listening)
