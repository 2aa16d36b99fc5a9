"""Statements about the outbox: hooks to run outside of any transaction, and who runs them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic_core import from_json, to_json

from ..database.guard import Connection
from ..database.statements import statements

_SQL = statements("store/outbox")


class OutboxHook(StrEnum):
    """A hook that the outbox runs at least once."""

    AFTER_CREATE = "endpoint.after_create_batch"
    PROCESSOR_AFTER_COMPLETE = "processor.after_batch_complete"
    ENDPOINT_AFTER_COMPLETE = "endpoint.after_batch_complete"


@dataclass(frozen=True, slots=True)
class WaitingHook:
    """A hook of a batch that has not run yet, or is running.

    Attributes:
        due: Whether this process may run it now.
        seconds: Until any other may; negative or 0 when it may now.
    """

    hook: OutboxHook
    due: bool
    seconds: float


async def add(
    conn: Connection,
    batch_id: UUID,
    hooks: Mapping[OutboxHook, bool],
    process_id: UUID,
    lease: float,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Add hooks, in the transaction that they are about.

    Args:
        hooks: Whether this process can run each; it claims those for the lease.
        details: What the hook must know beside its batch, as JSON data.
    """
    text = None if details is None else to_json(dict(details), fallback=str).decode()
    await conn.execute(
        _SQL["add_hooks"], batch_id, list(hooks), list(hooks.values()), process_id, lease, text
    )


async def of_batch(
    conn: Connection, batch_id: UUID, process_id: UUID, lease: float
) -> list[WaitingHook]:
    """The hooks of a batch that have not run, or are running."""
    rows = await conn.fetch(_SQL["hooks_of_batch"], batch_id, process_id, lease)
    return [WaitingHook(OutboxHook(row["hook"]), row["due"], row["seconds"]) for row in rows]


async def due(
    conn: Connection, known: Sequence[tuple[OutboxHook, str]], lease: float, limit: int
) -> list[tuple[UUID, OutboxHook]]:
    """The hooks among some, of some batch types, that any process may run now."""
    hooks, types = [hook for hook, _ in known], [batch_type for _, batch_type in known]
    rows = await conn.fetch(_SQL["due_hooks"], hooks, types, lease, limit)
    return [(row["batch_id"], OutboxHook(row["hook"])) for row in rows]


async def claim(
    conn: Connection, batch_id: UUID, hook: OutboxHook, process_id: UUID, lease: float
) -> dict[str, Any] | None:
    """Claim a hook for the next `lease` seconds; its details, or None if it cannot be claimed."""
    text = await conn.fetchval(_SQL["claim_hook"], batch_id, hook, process_id, lease)
    return None if text is None else from_json(text)


async def renew(
    conn: Connection, batch_id: UUID, hook: OutboxHook, process_id: UUID, lease: float
) -> None:
    """Keep the claim for another `lease` seconds."""
    await conn.execute(_SQL["renew_claim"], batch_id, hook, process_id, lease)


async def release(conn: Connection, batch_id: UUID, hook: OutboxHook, process_id: UUID) -> None:
    """Let other processes run a hook that was stopped."""
    await conn.execute(_SQL["release_claim"], batch_id, hook, process_id)


async def ran(conn: Connection, batch_id: UUID, hook: OutboxHook) -> None:
    """Delete a hook that has run."""
    await conn.execute(_SQL["hook_ran"], batch_id, hook)


async def is_held(conn: Connection, batch_id: UUID) -> bool:
    """Whether after_create_batch of a batch has not run yet."""
    return bool(await conn.fetchval(_SQL["is_held"], batch_id))


async def delete(conn: Connection, batch_ids: Sequence[UUID]) -> None:
    """Delete the hooks of some batches."""
    await conn.execute(_SQL["delete_hooks"], batch_ids)
