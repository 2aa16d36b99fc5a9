"""Every statement against a real database: it parses, it is used, and it stays fast when tables grow."""

import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

import reliable_imports_async
from reliable_imports_async import BatchManager

from ..database.reach import statements
from ..support.trying import LEDGER, insert, run

PACKAGE = Path(reliable_imports_async.__file__).parent
FILES = sorted(f"{path.parts[-3]}/{path.stem}" for path in PACKAGE.rglob("*/sql/*.sql"))
USE = re.compile(r'_SQL\["(\w+)"\]')

BATCHES, ITEMS, RANGE = 10, 100_000, 1_000
BATCH = UUID("019a0000-0000-7000-8000-000000000003")  # one of the ten
WORKER = UUID("019a0000-0000-7000-8000-00000000ffff")
GROUP = "group-7"


@pytest.mark.parametrize("file", FILES)
async def test_every_statement_can_be_prepared(file: str, conn) -> None:
    for text in statements(file).values():
        if text.startswith(("CREATE", "ANALYZE")):
            await conn.execute(text)  # what cannot be prepared can be repeated
        else:
            await conn.prepare(text)


@pytest.mark.parametrize("file", FILES)
def test_the_code_uses_the_statements_that_exist(file: str) -> None:
    users = [path for path in PACKAGE.rglob("*.py") if f'statements("{file}")' in path.read_text()]
    used = {name for path in users for name in USE.findall(path.read_text())}
    assert used == set(statements(file))


@pytest.mark.parametrize("file", FILES)
def test_a_statement_says_what_it_does_and_names_its_schema(file: str) -> None:
    text = (PACKAGE / file.replace("/", "/sql/")).with_suffix(".sql").read_text()
    assert (
        text.count("-- name: ")
        == len(statements(file))
        == len(re.findall("-- name: .*\n-- ", text))
    )
    for one in statements(file).values():
        assert not re.search(r"(?<!reliable_imports\.)(?<!_)\bimport_(batch|logs)", one), one


READS_ITEMS = "import_(batch_items|range_counts|item_details)|count_(items|failures)"
HUNDRED = f"{{{','.join(map(str, range(2_500, 2_601)))}}}"
HOT: dict[str, tuple[str, tuple[Any, ...]]] = {
    "read_pending": ("store/items", (BATCH, 2_001, 3_000, 100)),
    "settle_completed": ("store/settlements", (BATCH, HUNDRED, 0, "shop", "{}")),
    "settle_outcomes": (
        "store/settlements",
        (BATCH, "{2500}", 0, None, None, "{2501}", "{}", "[]", "made", "", "{}"),
    ),
    "read_outcomes": ("store/settlements", (BATCH, HUNDRED)),
    "get_item": ("store/items", (BATCH, 2_500)),
    "list_items": ("store/items", (BATCH, None, None, 2_000, 100)),
    "list_failed_items": ("store/items", (BATCH, GROUP, 0, 100)),
    "list_items_by_status": ("store/items", (BATCH, "failed", 2_000, 100)),
    "previews": ("store/previews", (BATCH, 2_000, 100)),
    "previews_by_status": ("store/previews", (BATCH, 2_000, 100, "failed")),
    "previews_by_group": ("store/previews", (BATCH, 2_000, 100, GROUP)),
    "timeline": ("store/previews", (BATCH, [*range(1, 10_001, 100)])),
    "failure_group_preview": ("store/previews", (BATCH, GROUP, 1_000, 5)),
    "read_undue": ("store/items", (BATCH, 2_001, 3_000)),
    "runnable_ranges": ("store/ranges", (BATCH, [2_001], '["item_key"]')),
    "claim_range": ("store/ranges", (BATCH, WORKER, 15.0, [], 50, 20, 50, [], None, None)),
    "count_range": ("store/ranges", (BATCH, 2_001, 3_000)),
    "release_range": ("store/ranges", (BATCH, 2_001, 3_000, 0, [2_500], [])),
    "reopen_deferred": ("store/ranges", (BATCH, 1)),
    "outlook": ("store/ranges", (BATCH, 15.0)),
    "recount_ranges": ("store/item_keys", (BATCH,)),
    "insert_ranges": ("store/ranges", (BATCH, 10_000, 1_000, True)),
    "skip_reasons": ("store/summaries", (BATCH, 10, 250)),
    "skip_unchanged": ("store/item_keys", (BATCH, 2_001, 3_000, "made", "")),
    "find_unchanged": ("store/item_keys", (BATCH, 2_001, 3_000, "made", "")),
    "unkeyed_page": ("store/item_keys", (BATCH, 2_000, 100)),
    "rekey": ("store/item_keys", (BATCH, [2_500], "{}")),
    "summary": ("store/summaries", ([BATCH],)),
    "groups": ("store/summaries", ([BATCH], 100)),
    "group_samples": ("store/summaries", (BATCH, GROUP, 10, False)),
}


@pytest.fixture(scope="module")
async def large(server: Callable[[str], str], template: str) -> AsyncIterator[dict[str, Any]]:
    """The plans of the hot statements with 100,000 items, before and after ANALYZE."""
    name = f"large_{uuid4().hex[:12]}"
    admin = await asyncpg.connect(server("postgres"))
    await admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    conn = await asyncpg.connect(server(name))
    try:
        await _fill(conn)
        fresh = await _plans(conn)
        await conn.execute("ANALYZE")
        yield {"fresh": fresh, "analyzed": await _plans(conn)}
    finally:
        await conn.close()
        await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        await admin.close()


@pytest.mark.parametrize("when", ["fresh", "analyzed"])
@pytest.mark.parametrize("statement", list(HOT))
async def test_a_hot_statement_finds_items_by_an_index(large, when: str, statement: str) -> None:
    nodes = list(_nodes(large[when][statement]))
    scans = [node for node in nodes if node.get("Relation Name") == "import_batch_items"]
    found = [node for node in scans if "Scan" in node["Node Type"]]
    text = statements(HOT[statement][0])[statement]
    assert bool(found) == bool(re.search(READS_ITEMS, text))
    assert [node for node in found if node["Node Type"] == "Seq Scan"] == []
    for node in found:  # the number or the group narrows it, not the batch alone
        condition = node.get("Index Cond") or node.get("Recheck Cond")
        assert re.search("item_number|error_group", condition), condition


@pytest.mark.parametrize("when", ["fresh", "analyzed"])
@pytest.mark.parametrize("statement", ["skip_unchanged", "find_unchanged"])
async def test_keys_are_looked_up_one_by_one(large, when: str, statement: str) -> None:
    nodes = [
        n
        for n in _nodes(large[when][statement])
        if "import_item_keys" in str(n.get("Relation Name"))
    ]
    assert nodes
    for node in nodes:  # the table holds every key there ever was
        assert node["Node Type"] == "Index Scan"
        assert "item_key = i.item_key" in node["Index Cond"]


async def test_settling_an_item_stays_a_hot_update(manager: BatchManager, conn) -> None:
    await conn.execute(LEDGER)
    assert (await run(manager, insert, 400)).completed_items == 400
    await manager.close()  # its sessions report what they did
    await conn.execute("SELECT pg_stat_force_next_flush()")
    updates = await conn.fetchrow(
        "SELECT n_tup_upd AS every, n_tup_hot_upd AS hot FROM pg_stat_user_tables"
        " WHERE relid = 'reliable_imports.import_batch_items'::regclass"
    )
    assert updates["every"] >= 400
    assert updates["hot"] / updates["every"] >= 0.5


NOT_BY_BATCH = {
    "schema_migrations_pkey": "a row is a migration",
    "import_batches_pkey": "its id is the batch_id",
    "import_batches_idempotency": "finds a batch by what its creator knows",
    "import_item_keys_pkey": "outlives the batches; found by the type and the key",
    "import_only_one_pkey": "a row is a batch type",
    "import_sessions_pkey": "a row is a browser's session",
    "import_last_tries_pkey": "a row is a record of a lineage: found by its root",
}


async def test_every_key_leads_with_the_batch(conn) -> None:
    rows = await conn.fetch("""
        SELECT i.relname AS name, a.attname AS first
          FROM pg_index x
          JOIN pg_class i ON i.oid = x.indexrelid
          LEFT JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0]
         WHERE x.indisunique AND i.relnamespace = 'reliable_imports'::regnamespace""")
    others = {row["name"] for row in rows if row["first"] != "batch_id"}
    assert others == set(NOT_BY_BATCH)
    assert len(rows) > len(others)


async def test_no_index_mentions_an_items_status(conn) -> None:
    rows = await conn.fetch(
        "SELECT indexdef FROM pg_indexes WHERE tablename = 'import_batch_items'"
    )
    assert rows
    assert [row["indexdef"] for row in rows if "status" in row["indexdef"]] == []


async def _fill(conn: Any) -> None:
    """Ten batches of ten thousand items in ten ranges each; every tenth item of them failed."""
    await conn.execute(
        "ALTER TABLE reliable_imports.import_batch_items SET (autovacuum_enabled = off)"
    )
    await conn.execute(f"""
        CREATE TEMP TABLE made AS
        SELECT n, format('019a0000-0000-7000-8000-%s', lpad(n::text, 12, '0'))::uuid AS id
          FROM generate_series(1, {BATCHES}) AS n;
        INSERT INTO reliable_imports.import_batches
               (id, batch_type, status, root_batch_id, total_items)
        SELECT id, 'made', 'processing', id, {ITEMS // BATCHES} FROM made;
        INSERT INTO reliable_imports.import_batch_items
               (batch_id, item_number, status, source_data, error_group)
        SELECT id, i, CASE WHEN i % 10 = 0 THEN 'failed' ELSE 'pending' END,
               jsonb_build_object('n', i), CASE WHEN i % 10 = 0 THEN 'group-' || i / 10 % 20 END
          FROM made, generate_series(1, {ITEMS // BATCHES}) AS i;
        INSERT INTO reliable_imports.import_batch_ranges
               (batch_id, first_item, last_item, failed, groups)
        SELECT id, i, i + {RANGE - 1}, {RANGE // 10}, '{{"{GROUP}": 5}}'
          FROM made, generate_series(1, {ITEMS // BATCHES}, {RANGE}) AS i;
        INSERT INTO reliable_imports.import_item_keys
               (batch_type, item_key, content_sha256, batch_id, item_number)
        SELECT 'made', format('%s-%s', n, i), '', id, i FROM made, generate_series(1, {RANGE}) AS i;
    """)


async def _plans(conn: Any) -> dict[str, Any]:
    """The plan of each hot statement, made without knowing the values of its parameters."""
    await conn.execute("SET plan_cache_mode = force_generic_plan")
    plans = {}
    for name, (file, args) in HOT.items():
        text = f"EXPLAIN (FORMAT JSON) {statements(file)[name]}"
        plans[name] = json.loads(await conn.fetchval(text, *args))[0]["Plan"]
    return plans


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)
