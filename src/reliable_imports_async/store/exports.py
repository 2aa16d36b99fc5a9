"""Statements about the outstanding failures of a batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from ..guarded import Connection
from ..sql import statements

_SQL = statements("exports")


@dataclass(frozen=True, slots=True)
class Try:
    """The last try of a record that failed, by the item's number in the exported batch."""

    item_number: int
    batch_id: UUID
    number: int


@dataclass(frozen=True, slots=True)
class FailedRecord:
    """A record that failed and why; `text` is its JSON, or None when it failed at parse."""

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
    """The last tries of the records that failed in a batch and that nobody has taken up since."""
    rows = await conn.fetch(_SQL["outstanding_tries"], batch_id, root_batch_id, group, after, limit)
    return [Try(*row) for row in rows]


async def keys(conn: Connection, tries: Sequence[Try]) -> list[str]:
    """The names that the records of some tries use."""
    batches, numbers = [each.batch_id for each in tries], [each.number for each in tries]
    return [row["name"] for row in await conn.fetch(_SQL["keys_of_tries"], batches, numbers)]


async def read(conn: Connection, batch_id: UUID, tries: Sequence[Try]) -> list[FailedRecord]:
    """The records of some tries, with why they failed."""
    rows = await conn.fetch(
        _SQL["read_tries"],
        batch_id,
        [each.item_number for each in tries],
        [each.batch_id for each in tries],
        [each.number for each in tries],
    )
    return [FailedRecord(*row) for row in rows]
