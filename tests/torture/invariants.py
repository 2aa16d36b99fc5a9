"""What must be true of the data once everything has come to rest."""

import asyncio
from collections import Counter
from pathlib import Path
from uuid import UUID

import asyncpg

from reliable_imports_async import BatchManager

from .processor import OUTCOMES, POISON, SUPERSEDED, SetProcessor

# Lines of a set belong to no item.
LOGGED = f"logged > 1 OR (logged = 0 AND batch_type <> '{SetProcessor.batch_type}')"

EXPECTED = "CASE WHEN i.source_data ? '{}' THEN 'crash' {} ELSE 'completed' END".format(
    POISON,
    " ".join(
        f"WHEN i.item_number % 100 = {number} THEN '{outcome}'"
        for number, outcome in OUTCOMES.items()
    ),
)
# Killed twice by us in the middle of the same item, which is rare, a worker says that the item did it.
WRONGLY_BLAMED = "(i.error_kind = 'crash' AND NOT i.source_data ? 'poison')"
COUNTS = f"""
WITH applied AS (SELECT batch_id, number, count(*) AS times FROM ledger GROUP BY 1, 2),
flown AS (SELECT batch_id, number, count(*) AS times FROM flights GROUP BY 1, 2),
logged AS (
    SELECT batch_id, item_number AS number, count(*) AS times
      FROM reliable_imports.import_logs WHERE item_number IS NOT NULL GROUP BY 1, 2),
compared AS (
    SELECT b.batch_type, i.status, i.attempts, i.item_number, coalesce(a.times, 0) AS applied,
           coalesce(f.times, 0) AS flown, coalesce(l.times, 0) AS logged,
           i.status IN ('completed', 'skipped') AS good, {EXPECTED} AS expected,
           CASE WHEN {WRONGLY_BLAMED} THEN {EXPECTED}
                WHEN i.status = 'failed' THEN i.error_kind ELSE i.status END AS outcome,
           coalesce({WRONGLY_BLAMED}, false) AS wrongly_blamed
      FROM reliable_imports.import_batch_items i
      JOIN reliable_imports.import_batches b ON b.id = i.batch_id
      LEFT JOIN applied a ON (a.batch_id, a.number) = (i.batch_id, i.item_number)
      LEFT JOIN flown f ON (f.batch_id, f.number) = (i.batch_id, i.item_number)
      LEFT JOIN logged l ON (l.batch_id, l.number) = (i.batch_id, i.item_number))
SELECT count(*) AS items,
       count(*) FILTER (WHERE status = 'pending') AS pending,
       count(*) FILTER (WHERE wrongly_blamed) AS wrongly_blamed_items,
       count(*) FILTER (WHERE good AND (applied = 0 OR flown = 0)) AS lost,
       count(*) FILTER (WHERE applied > 1 OR flown > 1 OR logged > 1) AS doubled,
       count(*) FILTER (WHERE NOT good AND applied + flown > 0) AS torn,
       count(*) FILTER (WHERE outcome <> expected) AS wrong_outcomes,
       count(*) FILTER (WHERE attempts <> 1 AND status <> 'pending') AS wrong_attempts,
       count(*) FILTER (WHERE good AND item_number % 10 = 0 AND ({LOGGED})) AS wrong_logs
  FROM compared
"""
WRONG = f"""
SELECT i.item_number, i.status, i.error_kind, i.error_message, {EXPECTED} AS expected
  FROM reliable_imports.import_batch_items i
 WHERE CASE i.status WHEN 'failed' THEN i.error_kind ELSE i.status END <> {EXPECTED}
   AND NOT coalesce({WRONGLY_BLAMED}, false) LIMIT 5
"""
WRONG_COUNTS = {
    "pending", "lost", "doubled", "torn", "wrong_outcomes", "wrong_attempts", "wrong_logs", "altered"
}  # fmt: skip
ALTERED = """
SELECT count(*)
  FROM flights f
  JOIN reliable_imports.import_batch_items i ON (i.batch_id, i.item_number) = (f.batch_id, f.number)
 WHERE (f.carrier, f.flight::text, f.origin, f.dest, f.distance::text) IS DISTINCT FROM
       (i.source_data->>'carrier', i.source_data->>'flight', i.source_data->>'origin',
        i.source_data->>'dest', i.source_data->>'distance')
"""
# Who has a range that nobody took over is never overtaken: in doubt, it asks under the row lock.
OVERTAKEN = """
SELECT EXISTS (SELECT FROM reliable_imports.import_batch_ranges
                WHERE batch_id = $1 AND $2 BETWEEN first_item AND last_item AND crashes = 0)
"""
STATUSES = """
SELECT batch_id, count(*) FILTER (WHERE status = 'completed'),
       count(*) FILTER (WHERE status = 'skipped'),
       count(*) FILTER (WHERE status = 'failed')
  FROM reliable_imports.import_batch_items GROUP BY batch_id
"""
JOBS = "SELECT count(*) FROM pgqueuer"
LEFTOVERS = """
SELECT (SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()
           AND backend_type = 'client backend'),
       (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')
"""


async def check(conn: asyncpg.Connection, dsn: str, history: Path) -> tuple[dict, list[str]]:
    """The counts, and every violated invariant in words."""
    counts = dict(await conn.fetchrow(COUNTS))
    counts["altered"] = await conn.fetchval(ALTERED)
    violations = [
        f"{name}: {count}" for name, count in counts.items() if count and name in WRONG_COUNTS
    ]
    violations += [f"wrong outcome: {dict(row)}" for row in await conn.fetch(WRONG)]
    if total := await conn.fetchval("SELECT sum(balance) FROM accounts"):
        violations.append(f"the balances add up to {total}")
    violations += await _batches(conn, dsn)
    if counts["wrongly_blamed_items"] > 5:
        violations.append(f"{counts['wrongly_blamed_items']} items were blamed for our kills")
    counts["acknowledged"], wrong = await _acknowledged(conn, history)
    wrong += await _overtaken(conn, history)
    counts["taken_over"] = await conn.fetchval(
        "SELECT sum(crashes) FROM reliable_imports.import_batch_ranges"
    )
    for _ in range(100):  # a backend notices within seconds that its client is gone
        sessions, locks = await conn.fetchrow(LEFTOVERS)
        if not sessions + locks:
            break
        await asyncio.sleep(0.1)
    if sessions or locks:
        violations.append(f"{sessions} sessions and {locks} advisory locks are left")
    return counts, violations + wrong


async def _batches(conn: asyncpg.Connection, dsn: str) -> list[str]:
    """Each batch has finished once, with the numbers that its items have."""
    wrong = []
    hooks = Counter(tuple(row) for row in await conn.fetch("SELECT batch_id, hook FROM hooks"))
    told = {
        row["batch_id"]: tuple(row)[1:]
        for row in await conn.fetch(
            "SELECT batch_id, completed, skipped, failed FROM hooks WHERE hook = 'complete'"
        )
    }
    async with BatchManager(dsn, concurrency=1) as manager:
        for batch_id, *counted in await conn.fetch(STATUSES):
            if (hooks[batch_id, "start"], hooks[batch_id, "complete"]) != (1, 1):
                wrong.append(f"the hooks of batch {batch_id} did not run once each")
            summary = await manager.get_batch_summary(batch_id)
            shown = (summary.completed_items, summary.skipped_items, summary.failed_items)
            if not shown == tuple(counted) == told.get(batch_id):
                wrong.append(f"batch {batch_id}: {counted} items, {shown} in its summary")
            if sum(group.count for group in summary.groups) != counted[2]:
                wrong.append(f"batch {batch_id}: its groups do not add up to {counted[2]}")
    return wrong


async def _overtaken(conn: asyncpg.Connection, history: Path) -> list[str]:
    """Items that a worker ran again although its own COMMIT, or nobody else's, had settled them."""
    lines = {line for line in await _lines(history) if line.startswith(SUPERSEDED)}
    wrong = []
    for _, batch_id, number in map(str.split, sorted(lines)):
        if await conn.fetchval(OVERTAKEN, UUID(batch_id), int(number)):
            wrong.append(f"run again although it was settled: item {number} of {batch_id}")
    return wrong[:10]


async def _lines(history: Path) -> list[str]:
    return await asyncio.to_thread(lambda: history.read_text().splitlines())


async def _acknowledged(conn: asyncpg.Connection, history: Path) -> tuple[int, list[str]]:
    """What workers were told is what is stored; and nothing was acknowledged twice."""
    other = ("after ", SUPERSEDED)
    told = Counter(line for line in await _lines(history) if not line.startswith(other))
    stored = {
        f"{row['status']} {row['batch_id']} {row['item_number']}"
        for row in await conn.fetch(
            "SELECT status, batch_id, item_number FROM reliable_imports.import_batch_items"
        )
    }
    wrong = [f"acknowledged, but not so stored: {line}" for line in told.keys() - stored]
    wrong += [f"acknowledged {times} times: {line}" for line, times in told.items() if times > 1]
    return len(told), wrong[:10]
