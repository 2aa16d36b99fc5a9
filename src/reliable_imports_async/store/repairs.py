"""Statements that change and export the records of failed items."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from .. import exact_json
from ..database.guard import Connection
from ..database.statements import statements
from ..models import ItemEdit

_SQL = statements("store/repairs")


@dataclass(frozen=True, slots=True)
class FailedItem:
    """A failed item that may be changed; `text` is its record, or None if it is unreadable."""

    item_number: int
    text: str | None
    raw: bytes | None


async def lock_failed(
    conn: Connection,
    batch_id: UUID,
    *,
    group: str | None = None,
    item_number: int | None = None,
    after: int = 0,
    limit: int = 1,
) -> list[FailedItem]:
    """A page of items that may be changed, locked until the transaction ends."""
    rows = await conn.fetch(_SQL["lock_failed"], batch_id, group, item_number, after, limit)
    return [FailedItem(*row) for row in rows]


async def edit(
    conn: Connection,
    batch_id: UUID,
    numbers: Sequence[int],
    texts: Sequence[str],
    *,
    actor: str | None,
    reason: str | None,
) -> None:
    """Give locked items new records, and store the old ones as their history."""
    await conn.execute(_SQL["edit_items"], batch_id, numbers, texts, actor, reason)


async def history(conn: Connection, batch_id: UUID, item_number: int) -> tuple[ItemEdit, ...]:
    """The changes of one item, oldest first."""
    rows = await conn.fetch(_SQL["item_edits"], batch_id, item_number)
    return tuple(
        ItemEdit(
            edit_id=row["edit_id"],
            batch_id=batch_id,
            item_number=item_number,
            before=_record(row["before"]),
            after=_record(row["after"]) or {},
            raw=row["raw"],
            actor=row["actor"],
            reason=row["reason"],
            edited_at=row["edited_at"],
        )
        for row in rows
    )


async def delete(conn: Connection, batch_ids: Sequence[UUID]) -> None:
    """Delete the changes of some batches."""
    await conn.execute(_SQL["delete_edits"], batch_ids)


def _record(text: str | None) -> dict[str, Any] | None:
    return None if text is None else exact_json.read(text)


@dataclass(frozen=True, slots=True)
class Try:
    """The last try of a failed record, by the item's number in the exported batch."""

    item_number: int
    batch_id: UUID
    number: int


@dataclass(frozen=True, slots=True)
class FailedRecord:
    """A failed record with its error; `text` is its JSON, or None if it is unreadable."""

    item_number: int
    text: str | None
    raw: bytes | None
    line: int | None
    group: str
    kind: str
    type: str
    message: str
    sqlstate: str | None
    constraint: str | None
    detail: str | None


async def outstanding(
    conn: Connection,
    batch_id: UUID,
    root_batch_id: UUID,
    *,
    group: str | None,
    after: int,
    limit: int,
) -> list[Try]:
    """The last tries of the outstanding records of a batch."""
    rows = await conn.fetch(_SQL["outstanding_tries"], batch_id, root_batch_id, group, after, limit)
    return [Try(*row) for row in rows]


async def keys(conn: Connection, tries: Sequence[Try]) -> list[str]:
    """The field names in the records of some tries."""
    batches, numbers = [each.batch_id for each in tries], [each.number for each in tries]
    return [row["name"] for row in await conn.fetch(_SQL["keys_of_tries"], batches, numbers)]


async def read(conn: Connection, batch_id: UUID, tries: Sequence[Try]) -> list[FailedRecord]:
    """The records of some tries, with their errors."""
    rows = await conn.fetch(
        _SQL["read_tries"],
        batch_id,
        [each.item_number for each in tries],
        [each.batch_id for each in tries],
        [each.number for each in tries],
    )
    return [FailedRecord(*row) for row in rows]
