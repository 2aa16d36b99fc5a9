"""Statements that settle many items at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic_core import to_json

from ..context import LogLine
from ..guarded import Connection
from ..models import ImportBatchItem, ItemStatus
from ..outcomes import COMPLETED, Completed, Deferred, Failed, Outcome, Postponed, Skip
from ..sql import statements
from .item_keys import SETTLE_OUTCOMES as _SETTLE_KEYED
from .item_keys import Remembering
from .items import StoredStatus, stored_outcome, stored_status

_SQL = statements("settlements")
_SETTLE_COMPLETED = _SQL["settle_completed"]
_SETTLE_OUTCOMES = _SQL["settle_outcomes"]


@dataclass(slots=True)
class Settlement:
    """What is stored about one item.

    Attributes:
        lines: Its log lines.
        seconds: How long the try took.
    """

    item: ImportBatchItem[Any]
    outcome: Outcome
    lines: Sequence[LogLine]
    seconds: float


async def settle(
    conn: Connection,
    batch_id: UUID,
    settling: Sequence[Settlement],
    *,
    timeout: float,
    lines: Sequence[LogLine] = (),
    remembering: Remembering | None = None,
) -> int:
    """Settle items of one batch; how many of them were still pending, and so are settled now.

    Args:
        settling: In the order in which their outcomes came about.
        lines: Log lines about the batch.
        remembering: Where the contents of completed items with a key are remembered.

    Raises:
        TimeoutError: There was no answer within `timeout` seconds.
    """
    tries = settling[0].item.attempts
    plain, others = [], {}
    for one in settling:
        if one.outcome == COMPLETED and one.item.attempts == tries:
            plain.append(one.item.item_number)
        else:
            others[one.item.item_number] = _stored(one)
    logged: list[tuple[Any, ...]] = [(None, *line) for line in lines]
    logged += [(one.item.item_number, *line) for one in settling for line in one.lines]
    kept = [] if remembering is None else _last_of_each_key(settling)
    if not (others or logged or kept):
        tag = await conn.execute(_SETTLE_COMPLETED, batch_id, plain, tries, timeout=timeout)
        return int(tag.split()[1])
    keyed = (remembering.batch_type, remembering.version, kept) if remembering and kept else ()
    settled: int = await conn.fetchval(
        _SETTLE_KEYED if keyed else _SETTLE_OUTCOMES,
        batch_id,
        plain,
        tries,
        list(others),
        to_json(others).decode(),
        *([list(column) for column in zip(*logged, strict=True)] or [[], [], [], [], []]),
        *keyed,
        timeout=timeout,
    )
    return settled


async def ask(conn: Connection, batch_id: UUID, numbers: Sequence[int]) -> dict[int, StoredStatus]:
    """What became of items in doubt, by number: waits for their row locks, then reads."""
    rows = await conn.fetch(_SQL["ask_items"], batch_id, numbers)
    found = {row["item_number"]: stored_status(row) for row in rows}
    return {number: found.get(number, stored_status(None)) for number in numbers}


def _last_of_each_key(settling: Sequence[Settlement]) -> list[int]:
    """The numbers of the completed items whose contents are the last with their keys."""
    completed = [one.item for one in settling if isinstance(one.outcome, Completed)]
    last = {item.item_key: item.item_number for item in completed if item.item_key is not None}
    return list(last.values())


def _stored(one: Settlement) -> dict[str, Any]:
    """What the statement reads about one item; what is missing is NULL."""
    stored: dict[str, Any] = {"attempts": one.item.attempts, "seconds": one.seconds}
    match one.outcome:
        case Completed() | Skip() | Failed() as outcome:
            stored |= stored_outcome(outcome)
        case Postponed(after):
            stored |= {"status": ItemStatus.PENDING, "after": after}
        case Deferred():
            raise AssertionError  # nothing is stored about it
    return stored
