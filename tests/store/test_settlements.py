"""The three settling statements: each stores all of an outcome, and none gets past the fence."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from reliable_imports_async import ImportBatchItem
from reliable_imports_async.outcomes import (
    Completed,
    Failed,
    Failure,
    FailureKind,
    Outcome,
    Postponed,
    Skip,
)

from .reach import Remembering, settlements

BATCH = UUID("019a0000-0000-7000-8000-000000000001")
FAILURE = Failure(
    kind=FailureKind.DATA, type="E", message="m", group="g", detail="d", fields=({"loc": "a"},)
)
LINE = ("info", "hello", '{"a": 1}', datetime(2026, 1, 1, tzinfo=UTC))
COLUMNS = """item_number, status, attempts, target_table, target_id, processed_data::text AS data, skip_reason,
    error_kind, error_type, error_message, error_group, error_detail, error_fields::text AS fields,
    due_at IS NOT NULL AS due, started_at IS NOT NULL AS started, finished_at IS NOT NULL AS finished"""


@dataclass
class OneOfMany:
    item: ImportBatchItem[Any]
    outcome: Outcome
    lines: tuple[Any, ...] = ()
    seconds: float = 0.5


def item(number: int, attempts: int = 0) -> ImportBatchItem[Any]:
    return ImportBatchItem(
        batch_id=BATCH, item_number=number, attempts=attempts, item_key=f"k{number}"
    )


async def in_a_chunk(conn, item, outcome, lines=(), remembering=None) -> bool:
    settled = await settlements.settle(
        conn, BATCH, [OneOfMany(item, outcome, lines)], timeout=5.0, remembering=remembering
    )
    return settled == 1


async def by_itself(conn, item, outcome, lines=(), remembering=None) -> bool:
    return await settlements.settle_item(
        conn, item, outcome, lines, seconds=0.5, remembering=remembering
    )


async def as_text(conn, item, outcome, lines=(), remembering=None) -> bool:
    text = settlements.settling_text(item, outcome, lines, seconds=0.5, remembering=remembering)
    try:
        await conn.execute(f"{text}; SELECT 1")
    except asyncpg.PostgresError as exc:
        if exc.sqlstate != settlements.FENCE_LOST:
            raise
        return False
    return True


WAYS = pytest.mark.parametrize("settle", [in_a_chunk, by_itself, as_text])
OUTCOMES = {
    "completed": Completed(),
    "result": Completed("t", "5", '{"a": 1.50}'),
    "skip": Skip("nothing to do"),
    "failed": Failed(FAILURE),
    "postponed": Postponed(60.0, FAILURE),
}


@pytest.fixture
async def stored(conn):
    await conn.execute(
        "INSERT INTO reliable_imports.import_batches (id, batch_type, root_batch_id)"
        " VALUES ($1, 'tried', $1)",
        BATCH,
    )
    await conn.execute(
        "INSERT INTO reliable_imports.import_batch_items (batch_id, item_number, source_data, item_key)"
        " SELECT $1, n, jsonb_build_object('n', n), 'k' || n FROM generate_series(1, 3) AS n",
        BATCH,
    )
    return conn


async def row(conn, number: int) -> dict[str, Any]:
    found = await conn.fetchrow(
        f"SELECT {COLUMNS} FROM reliable_imports.import_batch_items WHERE item_number = $1", number
    )
    return dict(found)


@pytest.mark.parametrize("outcome", OUTCOMES.values(), ids=list(OUTCOMES))
async def test_each_way_stores_the_same(stored, outcome):
    ways = (in_a_chunk, by_itself, as_text)
    for number, settle in enumerate(ways, 1):
        assert await settle(stored, item(number), outcome, (LINE,))
    rows = [{**await row(stored, number), "item_number": 0} for number in (1, 2, 3)]
    assert rows[0] == rows[1] == rows[2]
    assert rows[0]["attempts"] == 1
    assert rows[0]["due"] == isinstance(outcome, Postponed) != rows[0]["finished"]
    logs = await stored.fetch(
        "SELECT item_number, level, message, details, logged_at"
        "  FROM reliable_imports.import_logs ORDER BY log_id"
    )
    assert [tuple(log) for log in logs] == [(number, *LINE) for number in (1, 2, 3)]


@WAYS
@pytest.mark.parametrize("outcome", OUTCOMES.values(), ids=list(OUTCOMES))
@pytest.mark.parametrize(
    "lost", ["status = 'completed'", "attempts = 1", "reprocessed_by = batch_id"]
)
async def test_nothing_gets_past_the_fence(stored, settle, outcome, lost):
    await stored.execute(f"UPDATE reliable_imports.import_batch_items SET {lost}")
    before = await row(stored, 1)
    assert not await settle(stored, item(1), outcome)
    assert await row(stored, 1) == before


@WAYS
@pytest.mark.parametrize("outcome", OUTCOMES.values(), ids=list(OUTCOMES))
async def test_only_completed_items_are_remembered(stored, settle, outcome):
    assert await settle(stored, item(2), outcome, (), Remembering("tried", "v1"))
    keys = await stored.fetch(
        "SELECT item_key, item_number, content_sha256 = sha256(E'v1\\x1f{\"n\": 2}'::bytea) AS same"
        "  FROM reliable_imports.import_item_keys"
    )
    assert [tuple(key) for key in keys] == [("k2", 2, True)] * isinstance(outcome, Completed)


async def test_of_a_key_that_is_repeated_the_last_content_is_remembered(stored):
    same = [OneOfMany(item(number).having(item_key="k"), Completed()) for number in (1, 2, 3)]
    await stored.execute("UPDATE reliable_imports.import_batch_items SET item_key = 'k'")
    remembering = Remembering("tried", "")
    assert await settlements.settle(stored, BATCH, same, timeout=5.0, remembering=remembering) == 3
    numbers = await stored.fetch("SELECT item_number FROM reliable_imports.import_item_keys")
    assert [tuple(number) for number in numbers] == [(3,)]


async def test_a_process_of_the_version_before_goes_on_settling(stored):
    """It knows the function since migration 0008, and sends these members only."""
    await stored.execute("SELECT reliable_imports.settle_item($1, 1, 0, NULL)", BATCH)
    result = {"status": "completed", "target_table": "t", "target_id": "5", "processed_data": None}
    failed = {"kind": "data", "type": "E", "message": "m", "group": "g", "status": "failed"}
    for number, outcome in enumerate((result, failed), 2):
        await stored.execute(
            "SELECT reliable_imports.settle_item($1, $2, 0, $3::text::jsonb)",
            BATCH,
            number,
            json.dumps(outcome | {"seconds": 0.0}),
        )
    rows = [await row(stored, number) for number in (1, 2, 3)]
    assert [row["status"] for row in rows] == ["completed", "completed", "failed"]
    assert (rows[1]["target_table"], rows[2]["error_group"]) == ("t", "g")


async def test_counts_of_items_are_counted_in_one_place(stored):
    await by_itself(stored, item(1), Completed())
    await by_itself(stored, item(2), Failed(FAILURE))
    counts = await stored.fetchrow("SELECT * FROM reliable_imports.count_items($1, 1, 3)", BATCH)
    assert tuple(counts) == (1, 0, 1, 1, '{"g": 1}')
    counts = await stored.fetchrow("SELECT * FROM reliable_imports.count_items($1, 3, 9)", BATCH)
    assert tuple(counts) == (0, 0, 0, 1, "{}")
