"""Ten million items in ten thousand batches, made by a few statements and consistent throughout.

One batch of four million, some of a million or less in every status, a long lineage, and thousands
of small ones; a range counts what its items say.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from uuid import UUID

import asyncpg

from reliable_imports_async.loading.create import range_size

from .servers import TYPES

ITEMS, BATCHES = 10_000_000, 10_000
STATUSES = ("completed", "completed", "completed", "completed", "partial", "partial", "failed")


@dataclass(frozen=True, slots=True)
class Made:
    """A batch to make.

    Attributes:
        failing: How many of a thousand items fail.
        settled: The share of its items that have an outcome, from the first on.
    """

    name: str
    batch_type: str
    status: str
    total: int
    failing: int
    minutes_ago: float
    minutes_long: float = 0.5
    settled: float = 1.0
    parent: str | None = None


LARGE = (
    Made("largest", "flight", "partial", 4_000_000, 25, 55, 50),
    Made("repair", "flight", "partial", 80_000, 400, 3, 2, parent="largest"),
    Made("running", "stock", "processing", 1_000_000, 15, 30, settled=0.6),
    Made("waiting", "invoice", "pending", 400_000, 0, 20, settled=0.0),
    Made("paused", "price", "paused", 300_000, 10, 90, settled=0.3),
    Made("cancelled", "price", "cancelled", 200_000, 10, 100, settled=0.5),
    Made("nothing succeeded", "invoice", "failed", 200_000, 1000, 120, 12),
)
FAMILY = 120  # reprocessings of one small batch


def plan(items: int = ITEMS, batches: int = BATCHES) -> list[Made]:
    """What to make: so many items in so many batches, of which 229 are given."""
    made = list(LARGE)
    made.append(Made("often repaired", "customer", "partial", 2_000, 500, 200))
    made += [
        Made(f"repair {n}", "customer", "partial", 1000 - 8 * n, 990, 199 - n, 0.4,
             parent="often repaired")
        for n in range(FAMILY)
    ]  # fmt: skip
    made += [
        Made(f"medium {n}", TYPES[n % len(TYPES)], "partial", 10_000, 20, 8 * n, 4)
        for n in range(100)
    ]
    made = [replace(one, total=max(1, one.total * items // ITEMS)) for one in made]
    left, rest = batches - len(made), items - sum(one.total for one in made)
    chance = Random(6)
    weights = [chance.lognormvariate(0, 1) for _ in range(left)]
    scale = rest / sum(weights)
    for n, weight in enumerate(weights):
        status = chance.choice(STATUSES)
        failing = {"completed": 0, "partial": 40, "failed": 1000}[status]
        made.append(
            Made(f"small {n}", chance.choice(TYPES), status, max(1, round(weight * scale)),
                 failing, n / 3 + 1, 0.2)
        )  # fmt: skip
    return made


async def fill(conn: asyncpg.Connection, made: list[Made]) -> dict[str, UUID]:
    """Make them; the ids of the batches by their names."""
    ids, rows = {}, []
    for row in _rows(made):
        ids[row[-1]] = row[0]
        rows.append(row)
    create, *fill_in = Path(__file__).with_suffix(".sql").read_text().split("-- name: ")[1:]
    await conn.execute(f"-- {create}")
    await conn.copy_records_to_table("made", records=rows, schema_name="pg_temp")
    for statement in fill_in:
        await conn.execute(f"-- {statement}")
    return ids


def _rows(made: list[Made]) -> Iterator[tuple[object, ...]]:
    now, ids = datetime.now(UTC), dict[str, UUID]()
    chance = Random(7)
    for one in sorted(made, key=lambda one: -one.minutes_ago):
        created = now - timedelta(minutes=one.minutes_ago)
        milliseconds = int(created.timestamp() * 1000)
        ids[one.name] = batch_id = UUID(
            int=milliseconds << 80 | 7 << 76 | chance.getrandbits(12) << 64
            | 2 << 62 | chance.getrandbits(62)
        )  # fmt: skip
        parent = ids[one.parent] if one.parent else None
        ended = one.status in {"completed", "partial", "failed", "cancelled"}
        yield (
            batch_id, one.batch_type, one.status, parent, parent or batch_id, one.total,
            one.failing, round(one.total * one.settled), range_size(one.total),
            f"{one.batch_type}-{created:%Y-%m-%d-%H%M}.csv", created,
            None if one.status == "pending" else created + timedelta(seconds=1),
            created + timedelta(minutes=one.minutes_long) if ended else None,
            json.dumps({"origin": "sftp", "day": f"{created:%Y-%m-%d}"}), one.name,
        )  # fmt: skip
