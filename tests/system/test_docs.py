"""The documentation says what the code is, and its examples run."""

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import anyio
import pytest

from reliable_imports_async import (
    BaseProcessor,
    BatchManager,
    Failure,
    ImportBatchItem,
    ImportContext,
    Settings,
)
from reliable_imports_async.failures import SQLSTATES

from ..cli.reach import COMMANDS, DATABASE_COMMANDS

ROOT = Path(__file__).parents[2]
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


VARYING = (
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID"),
    (r"\b[0-9a-f]{12}\b", "TAIL"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME"),
    (r"in [\d.]+ s \([\d.,]+ items/s\)", "in SECONDS"),
    (r"   by \S+", "   by WHOM"),
)


def steady(output: str) -> list[str]:
    """Its lines without what differs from run to run; the two streams may mix in any order."""
    for pattern, word in VARYING:
        output = re.sub(pattern, word, output)
    return sorted(line.rstrip() for line in output.splitlines() if line.strip())


def agrees(shown: str, real: str) -> bool:
    """Whether a printed output is the real one; … stands for the rest of a line, or for lines."""
    left, printed = steady(real), steady(shown)
    for line in printed:
        known = [
            one for one in left if one == line or (line.endswith("…") and one.startswith(line[:-1]))
        ]
        if line != "…":
            if not known:
                return False
            left.remove(known[0])
    return "…" in printed or not left


@pytest.mark.long
async def test_following_the_quick_start_word_for_word_imports_every_record(dsn, conn, tmp_path):
    """Each command as it is printed, each output as it is printed, and all five orders are in."""
    page = text("README.md")
    (tmp_path / "shop.py").write_text(blocks("README.md")[0])
    (tmp_path / "orders.csv").write_text(re.findall(r"```csv\n(.*?)```", page, re.DOTALL)[0])
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("RELIABLE_")
    } | {"RELIABLE_IMPORTS_DATABASE_URL": dsn}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["COLUMNS"] = "120"  # of the terminal in which the outputs were printed
    for kind, content in re.findall(r"```(console|diff)\n(.*?)```", page, re.DOTALL):
        if kind == "diff":
            change(tmp_path / "shop.py", content)
            continue
        for step in re.split(r"^\$ ", content, flags=re.MULTILINE)[1:]:
            command, _, shown = step.partition("\n")
            if command.startswith("export "):  # the suite has a database of its own
                continue
            done = await anyio.run_process(
                ["bash", "-c", command], cwd=tmp_path, env=environment, check=False,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
            assert agrees(shown, done.stdout.decode()), f"{command}\n{done.stdout.decode()}"
    rows = await conn.fetch("SELECT number, total FROM orders ORDER BY number")
    assert [row["number"] for row in rows] == [1, 2, 3, 4, 5]
    assert [str(row["total"]) for row in rows] == ["12.50", "3.00", "None", "7.00", "8.00"]
    compile(blocks("README.md")[1], "README.md", "exec")


def change(file: Path, diff: str) -> None:
    """Make the changes of a printed diff: each removed line is the one that the added one replaces."""
    source = file.read_text()
    lines = diff.splitlines()
    for old, new in zip(lines[::2], lines[1::2], strict=True):
        assert (old[0], new[0]) == ("-", "+")
        assert source.count(f"{old[1:]}\n") == 1
        source = source.replace(f"{old[1:]}\n", f"{new[1:]}\n")
    file.write_text(source)


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
