"""Statements that settle items, protected by the fence, and that read stored outcomes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

import asyncpg
from pydantic_core import to_json

from ..database.guard import Connection
from ..database.statements import statements
from ..log_buffer import LogLine
from ..models import ImportBatchItem, ItemStatus
from ..outcomes import (
    COMPLETED,
    Completed,
    Deferred,
    Failed,
    Failure,
    FailureKind,
    FenceLost,
    Outcome,
    Postponed,
    Rescheduled,
    Skip,
)
from .item_keys import Remembering

_SQL = statements("store/settlements")
_SETTLE_COMPLETED = _SQL["settle_completed"]
_SETTLE_OUTCOMES = _SQL["settle_outcomes"]
_SETTLE_ITEM = _SQL["settle_item"]
_SETTLE_COMPLETED_ITEM = _SQL["settle_completed_item"]
FENCE_LOST = "RI001"
"""The SQLSTATE of a message that settles an item which is not pending any more in this try."""


class Settlement(Protocol):
    """What is stored about one item of a chunk."""

    @property
    def item(self) -> ImportBatchItem[Any]:
        """The item as it was read."""

    @property
    def outcome(self) -> Outcome:
        """Its outcome, of which something is stored."""

    @property
    def lines(self) -> Sequence[LogLine]:
        """Its log lines."""

    @property
    def seconds(self) -> float:
        """How long the try took."""


async def settle(
    conn: Connection,
    batch_id: UUID,
    settlements: Sequence[Settlement],
    *,
    timeout: float,
    lines: Sequence[LogLine] = (),
    remembering: Remembering | None = None,
) -> int:
    """Settle items of one batch; returns how many of them the fence let through.

    Args:
        settlements: In the order in which the items ended.
        timeout: Seconds to wait for the answer.
        lines: Log lines about the batch.
        remembering: Where the contents of completed items with a key are remembered.

    Raises:
        TimeoutError: There was no answer in time.
    """
    tries = settlements[0].item.attempts
    plain, rows, outcomes = _divided(settlements, tries)
    log: list[tuple[Any, ...]] = [(None, *line) for line in lines]
    log += [(each.item.item_number, *line) for each in settlements for line in each.lines]
    last = {} if remembering is None else _last_of_each_key(settlements)
    if not (outcomes or log or last):
        table, ids = rows.table, rows.ids
        return await settle_completed(
            conn, batch_id, plain, attempts=tries, table=table, ids=ids, timeout=timeout
        )
    remembered = remembering if last else None
    settled: int = await conn.fetchval(
        _SETTLE_OUTCOMES,
        batch_id,
        _array(plain),
        tries,
        rows.table,
        to_json(rows.ids).decode() if rows.ids else None,
        _array(outcomes),
        to_json(outcomes).decode(),
        to_json(log).decode(),
        remembered and remembered.batch_type,
        remembered and remembered.version,
        _array(_repeating(settlements, last)),
        timeout=timeout,
    )
    return settled


async def settle_completed(
    conn: Connection,
    batch_id: UUID,
    numbers: Sequence[int],
    *,
    attempts: int,
    table: str | None = None,
    ids: Mapping[int, str | None] | None = None,
    timeout: float,
) -> int:
    """Settle items that completed in the same try; returns how many the fence let through.

    Args:
        attempts: The stored attempts of each.
        table: The table of the rows that they reported.
        ids: The keys of these rows by item number; None: without a key.
        timeout: Seconds to wait for the answer.

    Raises:
        TimeoutError: There was no answer in time.
    """
    reported = to_json(ids).decode() if ids else None
    key = (batch_id, _array(numbers), attempts)
    tag = await conn.execute(_SETTLE_COMPLETED, *key, table, reported, timeout=timeout)
    return int(tag.split()[1])


async def settle_item(
    conn: Connection,
    item: ImportBatchItem[Any],
    outcome: Outcome,
    lines: Sequence[LogLine] = (),
    *,
    seconds: float = 0.0,
    remembering: Remembering | None = None,
    timeout: float | None = None,
) -> bool:
    """Settle one item; False if the fence is lost, and with it the transaction.

    Args:
        outcome: Not `Deferred`: nothing is stored about a deferred item.
        lines: The item's log lines.
        seconds: How long a failed try took.
        remembering: Where the content of a completed item with a key is remembered.
        timeout: Seconds to wait for the answer; None: without end.

    Raises:
        TimeoutError: There was no answer in time.
    """
    key = (item.batch_id, item.item_number, item.attempts)
    stored = _message(item, outcome, lines, seconds, remembering)
    try:
        if stored is None:
            await conn.execute(_SETTLE_COMPLETED_ITEM, *key, timeout=timeout)
        else:
            await conn.execute(_SETTLE_ITEM, *key, stored, timeout=timeout)
    except asyncpg.PostgresError as exc:
        if exc.sqlstate != FENCE_LOST:
            raise
        return False
    return True


def settling_text(
    item: ImportBatchItem[Any],
    outcome: Outcome,
    lines: Sequence[LogLine] = (),
    *,
    seconds: float = 0.0,
    remembering: Remembering | None = None,
) -> str:
    """The SQL text that does the same, for a message that also ends the transaction.

    A message of several statements takes no arguments. The values in the text are an id, numbers
    and hexadecimal digits, so there is nothing to escape. If the fence is lost, the message ends
    with the SQLSTATE `FENCE_LOST`.
    """
    stored = _message(item, outcome, lines, seconds, remembering)
    key = (f"'{item.batch_id}'", item.item_number, item.attempts)
    if stored is None:
        return _COMPLETED_TEXT(None, *key)
    return _ITEM_TEXT(None, *key, f"'{stored}'")


async def read_outcomes(
    conn: Connection, batch_id: UUID, in_doubt: Sequence[ImportBatchItem[Any]]
) -> dict[int, Outcome]:
    """The outcomes of items, by number, once nobody holds the locks of their rows.

    Returns:
        Without the items that are pending as they were read: no try has been stored since.
    """
    numbers = _array(item.item_number for item in in_doubt)
    rows = await conn.fetch(_SQL["read_outcomes"], batch_id, numbers)
    by_number = {row["item_number"]: row for row in rows}
    read = {item.item_number: _outcome(by_number.get(item.item_number), item) for item in in_doubt}
    return {number: outcome for number, outcome in read.items() if outcome is not None}


def _outcome(row: asyncpg.Record | None, item: ImportBatchItem[Any]) -> Outcome | None:
    """The outcome in an item's row; None: it is pending as it was read."""
    if row is None or row["reprocessed_by"] is not None:
        return Skip()  # it was purged, or a reprocessing took it over
    match ItemStatus(row["status"]):
        case ItemStatus.COMPLETED:
            return COMPLETED
        case ItemStatus.SKIPPED:
            return Skip()
        case ItemStatus.FAILED:
            stored = {name: row[f"error_{name}"] for name in ("type", "message", "group")}
            return Failed(Failure(kind=FailureKind(row["error_kind"]), **stored))
        case ItemStatus.PENDING:
            return None if row["attempts"] == item.attempts else Rescheduled()


def _template(sql: str) -> Callable[..., str]:
    """Makes a statement's text from the values of its parameters, which are counted from 1."""
    for number in range(1, 5):
        sql = sql.replace(f"${number}", f"{{{number}}}")
    return sql.format


_ITEM_TEXT = _template(_SETTLE_ITEM)
_COMPLETED_TEXT = _template(_SETTLE_COMPLETED_ITEM)


def _message(
    item: ImportBatchItem[Any],
    outcome: Outcome,
    lines: Sequence[LogLine],
    seconds: float,
    remembering: Remembering | None,
) -> str | None:
    """What `settle_item` stores, as hexadecimal digits of JSON; None: that the item completed."""
    if item.item_key is None or not isinstance(outcome, Completed):
        remembering = None
    if outcome == COMPLETED and not lines and remembering is None:
        return None
    stored = _stored(outcome, seconds)
    if lines:
        stored["lines"] = lines
    if remembering is not None:
        stored |= {"batch_type": remembering.batch_type, "version": remembering.version}
    return to_json(stored).hex()


@dataclass(slots=True)
class _Rows:
    """The rows of one table that items reported, by item number."""

    table: str | None = None
    ids: dict[int, str] = field(default_factory=dict)

    def add(self, number: int, outcome: Completed) -> bool:
        """Add an item's row; False: it has another table, or the item reported more."""
        table, row = outcome.target_table, outcome.target_id
        if table is None or row is None or outcome.processed_data is not None:
            return False
        if self.table is None:
            self.table = table
        if table != self.table:
            return False
        self.ids[number] = row
        return True


def _divided(
    settlements: Sequence[Settlement], tries: int
) -> tuple[list[int], _Rows, dict[int, dict[str, Any]]]:
    """The items that completed in this try, and what is stored about the others, by number.

    What items report is stored with the latter, except for rows of one table.
    """
    plain, rows, outcomes = list[int](), _Rows(), dict[int, dict[str, Any]]()
    for each in settlements:
        item, outcome = each.item, each.outcome
        number = item.item_number
        if (
            item.attempts == tries
            and type(outcome) is Completed
            and (outcome is COMPLETED or rows.add(number, outcome) or outcome == COMPLETED)
        ):
            plain.append(number)
        else:
            outcomes[number] = _stored(outcome, each.seconds, item.attempts)
    return plain, rows, outcomes


def _stored(outcome: Outcome, seconds: float, attempts: int | None = None) -> dict[str, Any]:
    """What settling statements read about an item, as JSON; missing members are NULL."""
    stored: dict[str, Any] = {"seconds": seconds}
    if attempts is not None:
        stored["attempts"] = attempts
    match outcome:
        case Completed(table, target_id, data):
            stored["status"] = ItemStatus.COMPLETED
            stored |= {"target_table": table, "target_id": target_id, "processed_data": data}
        case Skip(reason):
            stored |= {"status": ItemStatus.SKIPPED, "skip_reason": reason}
        case Failed(failure):
            stored |= {name: getattr(failure, name) for name in Failure.__slots__}
            stored["status"] = ItemStatus.FAILED
            stored["fields"] = to_json(failure.fields).decode() if failure.fields else None
        case Postponed(after):
            stored |= {"status": ItemStatus.PENDING, "after": after}
        case Deferred() | Rescheduled() | FenceLost():
            raise AssertionError  # nothing is stored about it
    return stored


def _array(numbers: Iterable[int]) -> str:
    return f"{{{','.join(map(str, numbers))}}}"


def _last_of_each_key(settlements: Sequence[Settlement]) -> dict[str, int]:
    """By key the number of the completed item whose content is the last with it."""
    return {
        each.item.item_key: each.item.item_number
        for each in settlements
        if each.item.item_key is not None and isinstance(each.outcome, Completed)
    }


def _repeating(settlements: Sequence[Settlement], last: dict[str, int]) -> list[int]:
    """The numbers of items whose keys later items have as well."""
    return [
        each.item.item_number
        for each in settlements
        if each.item.item_key is not None
        and last.get(each.item.item_key, each.item.item_number) != each.item.item_number
    ]
