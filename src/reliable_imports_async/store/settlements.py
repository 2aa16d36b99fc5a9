"""Statements that settle many items at once."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol
from uuid import UUID

from pydantic_core import to_json

from ..database.guard import Connection
from ..database.statements import statements
from ..log_buffer import LogLine
from ..models import ImportBatchItem, ItemStatus
from ..outcomes import COMPLETED, Completed, Deferred, Failed, Outcome, Postponed, Skip
from .item_keys import SETTLE_OUTCOMES as _SETTLE_KEYED
from .item_keys import Remembering
from .items import answered, logged, stored_outcome

_SQL = statements("store/settlements")
_SETTLE_COMPLETED = _SQL["settle_completed"]
_SETTLE_OUTCOMES = _SQL["settle_outcomes"]


class Settlement(Protocol):
    """What is stored about one item."""

    @property
    def item(self) -> ImportBatchItem[Any]:
        """As it was read."""

    @property
    def outcome(self) -> Outcome:
        """What became of it."""

    @property
    def lines(self) -> Sequence[LogLine]:
        """Its log lines."""

    @property
    def seconds(self) -> float:
        """How long the try took."""


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
        item, outcome = one.item, one.outcome
        plainly = outcome is COMPLETED or outcome == COMPLETED  # comparing fields takes long
        if plainly and item.attempts == tries:
            plain.append(item.item_number)
        else:
            others[item.item_number] = _stored(one)
    log: list[tuple[Any, ...]] = [(None, *line) for line in lines]
    log += [(one.item.item_number, *line) for one in settling for line in one.lines]
    kept = [] if remembering is None else _last_of_each_key(settling)
    if not (others or log or kept):
        numbers = _array(plain)
        tag = await conn.execute(_SETTLE_COMPLETED, batch_id, numbers, tries, timeout=timeout)
        return int(tag.split()[1])
    keyed: tuple[str, ...] = ()
    if remembering and kept:
        keyed = (remembering.batch_type, remembering.version, _array(kept))
    settled: int = await conn.fetchval(
        _SETTLE_KEYED if keyed else _SETTLE_OUTCOMES,
        batch_id,
        _array(plain),
        tries,
        _array(others),
        to_json(others).decode(),
        logged(log),
        *keyed,
        timeout=timeout,
    )
    return settled


async def ask(
    conn: Connection, batch_id: UUID, asked: Sequence[ImportBatchItem[Any]]
) -> dict[int, Outcome]:
    """What became of items in doubt, by number: waits for their row locks, then reads.

    Returns:
        An item is missing while it is pending and no other try has been stored since it was read.
    """
    rows = await conn.fetch(_SQL["ask_items"], batch_id, [item.item_number for item in asked])
    by_number = {row["item_number"]: row for row in rows}
    outcomes = {
        item.item_number: answered(by_number.get(item.item_number), item.attempts) for item in asked
    }
    return {number: outcome for number, outcome in outcomes.items() if outcome is not None}


def _array(numbers: Iterable[int]) -> str:
    return f"{{{','.join(map(str, numbers))}}}"


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
