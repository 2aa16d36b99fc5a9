"""Statements that settle many items at once."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic_core import to_json

from ..context import LogLine
from ..guarded import Connection
from ..models import ImportBatchItem, ItemStatus
from ..outcomes import Completed, Failed, Failure, Outcome, Postponed, Skip
from ..sql import statements
from .items import StoredStatus, stored_status

_SQL = statements("settlements")
_SETTLE_COMPLETED = _SQL["settle_completed"]
_SETTLE_RESULTS = _SQL["settle_results"]
_SETTLE_MIXED = _SQL["settle_mixed"]
_PLAIN = Completed()


@dataclass(frozen=True, slots=True)
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
) -> int:
    """Settle items of one batch; how many of them were still pending, and so are settled now.

    Args:
        lines: Log lines about the batch.

    Raises:
        TimeoutError: There was no answer within `timeout` seconds.
    """
    if lines or any(one.lines for one in settling):
        return await _mixed(conn, batch_id, settling, lines, timeout)
    first = settling[0].item.attempts
    if all(one.outcome == _PLAIN and one.item.attempts == first for one in settling):
        numbers = [one.item.item_number for one in settling]
        tag = await conn.execute(_SETTLE_COMPLETED, batch_id, numbers, first, timeout=timeout)
    elif all(isinstance(one.outcome, Completed | Skip) for one in settling):
        tag = await conn.execute(_SETTLE_RESULTS, batch_id, *_results(settling), timeout=timeout)
    else:
        return await _mixed(conn, batch_id, settling, lines, timeout)
    return int(tag.split()[1])


async def ask(conn: Connection, batch_id: UUID, numbers: Sequence[int]) -> dict[int, StoredStatus]:
    """What became of items in doubt, by number: waits for their row locks, then reads."""
    rows = await conn.fetch(_SQL["ask_items"], batch_id, numbers)
    found = {row["item_number"]: stored_status(row) for row in rows}
    return {number: found.get(number, stored_status(None)) for number in numbers}


async def _mixed(
    conn: Connection,
    batch_id: UUID,
    settling: Sequence[Settlement],
    lines: Sequence[LogLine],
    timeout: float,
) -> int:
    logged: list[tuple[Any, ...]] = [(None, *line) for line in lines]
    logged += [(one.item.item_number, *line) for one in settling for line in one.lines]
    settled: int = await conn.fetchval(
        _SETTLE_MIXED,
        batch_id,
        *_results(settling),
        *_failures(settling),
        *_retries(settling),
        *_columns(logged, 5),
        timeout=timeout,
    )
    return settled


def _results(settling: Iterable[Settlement]) -> list[list[Any]]:
    rows: list[tuple[Any, ...]] = []
    for one in settling:
        match one.outcome:
            case Completed(table, target_id, data):
                status = ItemStatus.COMPLETED.value
                rows.append((*_key(one), status, table, target_id, data, None))
            case Skip(reason):
                rows.append((*_key(one), ItemStatus.SKIPPED.value, None, None, None, reason))
            case Failed() | Postponed():
                pass
    return _columns(rows, 7)


_FIELDS: tuple[Callable[[Failure], Any], ...] = (
    lambda failure: failure.kind.value,
    lambda failure: failure.type,
    lambda failure: failure.message,
    lambda failure: failure.group,
    lambda failure: failure.sqlstate,
    lambda failure: failure.constraint,
    lambda failure: failure.table,
    lambda failure: failure.column,
    lambda failure: failure.detail,
    lambda failure: failure.hint,
    lambda failure: failure.traceback,
    lambda failure: to_json(failure.fields).decode() if failure.fields else None,
)


def _failures(settling: Iterable[Settlement]) -> list[list[Any]]:
    rows = [
        (*_key(one), *(field(one.outcome.failure) for field in _FIELDS), one.seconds)
        for one in settling
        if isinstance(one.outcome, Failed)
    ]
    return _columns(rows, len(_FIELDS) + 3)


def _retries(settling: Iterable[Settlement]) -> list[list[Any]]:
    rows = [
        (*_key(one), one.outcome.after) for one in settling if isinstance(one.outcome, Postponed)
    ]
    return _columns(rows, 3)


def _key(one: Settlement) -> tuple[int, int]:
    return one.item.item_number, one.item.attempts


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """Rows as one array a column."""
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]
