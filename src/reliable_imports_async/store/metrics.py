"""Statements that measure, for monitoring."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..database.guard import Connection
from ..database.statements import statements
from .visibility import Visibility

_SQL = statements("store/metrics")


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """How long the finished batches of a type took.

    Attributes:
        buckets: Batches in each bucket, not added up; the last is for those above every bound.
        seconds: All of them together.
    """

    buckets: tuple[int, ...]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """A look at everything.

    Attributes:
        batches: How many, by type and status.
        items: How many, by type and outcome; those without one are pending.
        durations: Of finished batches, by type.
        oldest_transaction: Seconds since the oldest running transaction began; 0 without one.
        expired_leases: Ranges whose worker fell silent and that nobody has taken over.
    """

    batches: Mapping[tuple[str, str], int]
    items: Mapping[tuple[str, str], int]
    durations: Mapping[str, Durations]
    oldest_transaction: float
    expired_leases: int


async def measure(
    conn: Connection, bounds: Sequence[float], visible: Visibility | None = None
) -> Measurements:
    """Four statements that cost O(batches), and O(ranges) of unfinished ones.

    Args:
        bounds: The upper bounds of the buckets for durations, in seconds.
        visible: Which batches count; None for all.
    """
    rules = None if visible is None else visible.as_json()
    health = await conn.fetchrow(_SQL["health"], rules)
    assert health is not None  # noqa: S101 - it reads no table in its FROM
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
