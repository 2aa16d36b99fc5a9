"""The documentation says what the code is, and its examples run."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from reliable_imports_async import (
    BaseProcessor,
    BatchManager,
    Failure,
    ImportBatchItem,
    ImportContext,
    Settings,
)
from reliable_imports_async.cli.app import COMMANDS, DATABASE_COMMANDS
from reliable_imports_async.judgement import SQLSTATES

ROOT = Path(__file__).parents[1]
PROMISE = """\
> Each item's database effects are committed at most once, together with its status. A killed process, a lost
> connection or a restarted PostgreSQL loses nothing and doubles nothing: what was not committed is still pending.
> Your code may run more than once for an item; calls to other systems are at least once.
"""


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text(name), re.DOTALL)


def public(cls: type) -> list[str]:
    return [name for name in dir(cls) if not name.startswith("_")]


@pytest.mark.parametrize("name", ["README.md", "docs/concepts.md"])
def test_the_promise_stands_word_for_word(name):
    assert PROMISE in text(name)


def test_every_setting_is_listed_with_its_meaning():
    readme = text("README.md")
    for name, field in Settings.model_fields.items():
        assert f"`RELIABLE_IMPORTS_{name.upper()}`" in readme
        assert field.description in readme


@pytest.mark.parametrize("cls", [BaseProcessor, ImportContext])
def test_every_attribute_hook_and_method_is_documented(cls):
    page = text("docs/processors.md")
    internal = {"model", "overrides", "changes"}
    named = set(re.findall(r"\w+", " ".join(re.findall(r"`[^`\n]+`", page))))
    assert not set(public(cls)) - internal - named


def test_every_field_of_an_item_and_of_a_failure_is_documented():
    page = text("docs/processors.md")
    named = set(re.findall(r"\w+", " ".join(re.findall(r"`[^`\n]+`", page))))
    for cls in (ImportBatchItem, Failure):
        assert not {field.name for field in fields(cls)} - named
    assert {"attempt", "idempotency_key"} <= named


def test_every_row_of_the_table_of_sqlstates_is_documented_with_its_kind():
    rows = text("docs/concepts.md").splitlines()
    for prefix, (_, kind) in SQLSTATES.items():
        (row,) = [one for one in rows if re.search(rf"\|[^|]*\b{prefix}\b[^|]*\|[^|]*\|$", one)]
        assert f"`{kind}`" in row or "waits" in row


def test_every_command_is_listed():
    page = text("docs/cli.md")
    for name in (*COMMANDS, *(f"db {name}" for name in DATABASE_COMMANDS)):
        assert re.search(rf"`{name}\b", page), name


async def test_the_readmes_first_import_runs(manager: BatchManager, conn, tmp_path):
    namespace: dict = {}
    exec(blocks("README.md")[0], namespace)
    manager.registry.register(namespace["OrderProcessor"])
    path = tmp_path / "orders.csv"
    path.write_text(re.findall(r"```csv\n(.*?)```", text("README.md"), re.DOTALL)[0])
    summary = await manager.import_file(path, "order")
    assert (summary.completed_items, summary.failed_items) == (2, 3)
    readme = text("README.md")
    for group in summary.groups:
        assert group.title in readme
        assert group.message in readme
        assert group.group in readme
    compile(blocks("README.md")[1], "README.md", "exec")


def register_documented(manager: BatchManager) -> None:
    namespace: dict = {"__name__": "documented"}
    for block in blocks("docs/processors.md"):
        exec(block, namespace)
    for value in list(namespace.values()):
        if (
            isinstance(value, type)
            and value.__module__ == "documented"
            and hasattr(value, "overrides")
        ):
            manager.registry.register(value)


async def test_the_processors_page_runs(manager: BatchManager, conn):
    await conn.execute("CREATE TABLE customers (id serial, email text PRIMARY KEY, name text)")
    register_documented(manager)
    records = [{"email": "a@x", "name": "Ann"}, {"email": "b@x", "name": "NA"}, {"email": "c"}]
    first = await manager.process_batch(await manager.create_batch("customer_data", records))
    assert (first.completed_items, first.failed_items) == (2, 1)
    again = await manager.process_batch(await manager.create_batch("customer_data", records[:2]))
    assert (again.skipped_items, again.status) == (2, "completed")
    retried = await manager.process_batch(await manager.create_batch("geocode", [{"n": 1}]))
    assert retried.ok
    assert (await manager.get_item(retried.batch_id, 1)).attempts == 2


async def test_the_documented_children_wait_for_their_parents(manager: BatchManager, conn):
    await conn.execute(
        "CREATE TABLE categories"
        " (id integer PRIMARY KEY, name text, parent_id integer REFERENCES categories)"
    )
    register_documented(manager)
    names = {4: ("Sale", None), 3: ("Boots", 2), 2: ("Shoes", 1), 1: ("Clothes", None)}
    records = [{"id": n, "name": name, "parent_id": up} for n, (name, up) in names.items()]
    assert (await manager.process_batch(await manager.create_batch("category", records))).ok


async def test_the_documented_hooks_run_in_their_order(manager: BatchManager, capsys):
    register_documented(manager)
    assert "ledger_2026" in manager.registry.batch_types
    records = [{"id": 1, "amount": 3}, {"id": 2, "amount": -3}]
    summary = await manager.process_batch(await manager.create_batch("invoice", records))
    assert (summary.completed_items, summary.failed_items) == (1, 1)
    assert summary.groups[0].message == "an invoice is never negative"
    assert (await manager.get_item(summary.batch_id, 1)).processed_data == {"cents": 300}
    metadata = (await manager.get_batch(summary.batch_id)).metadata
    assert metadata == {"rows_before": 0, "rows_after": 1}
    assert capsys.readouterr().out == "1 invoices, 1 failed\n"


async def test_the_documented_set_of_items_is_written(manager: BatchManager, conn):
    await conn.execute("CREATE TABLE measurements (sensor text, value integer CHECK (value > 0))")
    register_documented(manager)
    records = [{"sensor": f"s{n}", "value": n} for n in range(10)]
    summary = await manager.process_batch(await manager.create_batch("measurement", records))
    assert (summary.completed_items, summary.failed_items) == (9, 1)
    assert (await manager.get_item(summary.batch_id, 3)).target_id == "s2"


async def test_the_documented_keys_keep_out_what_is_known(manager: BatchManager, conn):
    await conn.execute("CREATE TABLE catalog (shop text, sku text, price int, UNIQUE (shop, sku))")
    register_documented(manager)
    records = [{"shop": "x", "sku": sku, "price": 1} for sku in "aba"]
    for expected in ((2, 1), (0, 3)):
        summary = await manager.process_batch(await manager.create_batch("catalog", records))
        assert (summary.completed_items, summary.skipped_items) == expected
    item = await manager.get_item(summary.batch_id, 1)
    assert item.item_key == '["x","a"]'
    assert (await manager.process_batch(await manager.create_batch("nightly", [{"n": 1}]))).ok


async def test_the_documented_context_methods_work(manager: BatchManager, conn):
    await conn.execute(
        "CREATE TABLE stock (sku text PRIMARY KEY, amount int);"
        "CREATE TABLE moves (sku text, amount int)"
    )
    register_documented(manager)
    records = [{"sku": "A", "amount": 4}]
    batch_id = await manager.create_batch("stock", records, metadata={"limit": 4})
    assert (await manager.process_batch(batch_id)).ok
    item = await manager.get_item(batch_id, 1)
    assert (item.target_table, item.target_id, item.processed_data) == ("stock", "A", 2)
    assert await conn.fetchval("SELECT array_agg(amount) FROM moves") == [1, 4, 0]
    (line,) = [one async for one in manager.get_logs(batch_id, item_number=1)]
    assert (line.level, line.message) == ("warning", "much")
