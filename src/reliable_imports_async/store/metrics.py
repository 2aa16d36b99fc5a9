"""Statements for monitoring."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..database.guard import Connection
from ..database.statements import only_row, statements
from .visibility import Visibility

_SQL = statements("store/metrics")


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """The durations of the finished batches of a type.

    Attributes:
        buckets: The number of batches in each bucket; the last one is above all bounds.
        seconds: The sum of the durations.
    """

    buckets: tuple[int, ...]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """The measurements of one moment.

    Attributes:
        batches: The number of batches by type and status.
        items: The number of items by type and outcome; items without an outcome are pending.
        durations: Of finished batches, by type.
        oldest_transaction: Seconds since the oldest running transaction began; 0 without one.
        expired_leases: Expired leases of ranges that no worker has taken over.
    """

    batches: Mapping[tuple[str, str], int]
    items: Mapping[tuple[str, str], int]
    durations: Mapping[str, Durations]
    oldest_transaction: float
    expired_leases: int


async def measure(
    conn: Connection, bounds: Sequence[float], visible: Visibility | None = None
) -> Measurements:
    """Measure everything, in O(batches) and O(ranges of unfinished batches).

    Args:
        bounds: The upper bounds of the buckets for durations, in seconds.
        visible: Which batches count; None for all.
    """
    rules = None if visible is None else visible.as_json()
    health = await only_row(conn, _SQL["health"], rules)
    return Measurements(
        batches=await _batches(conn, rules),
        items=await _items(conn, rules),
        durations=await _durations(conn, bounds, rules),
        oldest_transaction=health["oldest_transaction"],
        expired_leases=health["expired_leases"],
    )


async def _batches(conn: Connection, rules: str | None) -> dict[tuple[str, str], int]:
    rows = await conn.fetch(_SQL["batches"], rules)
    return {(row["batch_type"], row["status"]): row["batches"] for row in rows}


async def _items(conn: Connection, rules: str | None) -> dict[tuple[str, str], int]:
    counts = {}
    for row in await conn.fetch(_SQL["items"], rules):
        settled = {outcome: row[outcome] for outcome in ("completed", "skipped", "failed")}
        pending = row["total"] - sum(settled.values())
        for outcome, items in {**settled, "pending": pending}.items():
            counts[row["batch_type"], outcome] = items
    return counts


async def _durations(
    conn: Connection, bounds: Sequence[float], rules: str | None
) -> dict[str, Durations]:
    buckets: dict[str, list[int]] = {}
    seconds: dict[str, float] = {}
    for row in await conn.fetch(_SQL["durations"], bounds, rules):
        name = row["batch_type"]
        buckets.setdefault(name, [0] * (len(bounds) + 1))[row["bucket"]] = row["batches"]
        seconds[name] = seconds.get(name, 0.0) + row["seconds"]
    return {
        name: Durations(buckets=tuple(counts), seconds=seconds[name])
        for name, counts in buckets.items()
    }
