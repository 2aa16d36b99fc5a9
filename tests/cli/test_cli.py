"""The command: called in this process where it can be, as one of its own where it matters."""

import asyncio
import base64
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import anyio
import asyncpg
import pytest
from anyio import to_thread
from rich.console import Console

from reliable_imports_async import BatchManager

from ..support.command import Command, Result, unpadded
from ..support.trying import PATIENCE
from . import processors
from .processors import HOSTILE, HostileProcessor
from .reach import Bar, Lines, Output, batches_table, display
from .reach import formatting as words

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")


# ---------------------------------------------------------------- running items


async def test_import_shows_counts_causes_and_the_next_step(cli: Command, shop, orders) -> None:
    result = await cli("import", orders, "--type", "orders", "--metadata", '{"year": 2013}')

    assert result.code == 1
    row = await shop.fetchrow(
        "SELECT id, metadata, created_by FROM reliable_imports.import_batches"
    )
    tail = row["id"].hex[-12:]
    shown = unpadded(result.out)
    assert re.search(
        rf"^Batch {tail} · orders · partial in [\d.]+ s \([\d,.]+ items/s\)$", shown, re.M
    )
    assert "  5 items: 2 completed, 1 skipped, 2 failed\n" in shown
    assert f"id {row['id']}   from orders.csv   by {row['created_by']}" in shown
    assert re.search(
        r"2  ForeignKeyViolationError 23503 orders_sku_fkey   group [0-9a-f]{12}", shown
    )
    assert "Key (sku): c 2\n" in shown
    assert "e.g. items 4, 5" in shown
    assert shown.endswith(f"Next: fix the cause, then: reliable-imports reprocess {tail}")
    assert json.loads(row["metadata"]) == {"year": 2013}
    assert row["created_by"]


async def test_reprocess_runs_what_failed_and_says_when_nothing_is_left(
    cli: Command, shop, orders
) -> None:
    await cli("import", orders, "-t", "orders", "-q")
    group = (await cli("show", "latest", "--json")).objects[0]["groups"][0]["group"]

    assert (await cli("reprocess", "latest", "--group", "nosuch")).code == 2
    await shop.execute("INSERT INTO products VALUES ('c')")
    again = await cli("reprocess", "latest:orders", "--group", group[:6], "--json")
    assert again.code == 0
    assert again.objects[0]["total_items"] == 2
    nothing = await cli("reprocess", "latest")
    assert (nothing.code, "Nothing to reprocess: all failures were" in nothing.err) == (
        0,
        True,
    )
    assert await shop.fetchval("SELECT count(*) FROM orders") == 4

    root = again.objects[0]["root_batch_id"]
    shown = (await cli("show", root)).out
    assert "  5 items: 2 completed, 1 skipped, 2 failed at first, all 2 fixed since\n" in shown
    assert "Nothing left to do: all failures were fixed by later batches." in shown


async def test_every_item_again_is_never_implied(cli: Command, shop, orders, monkeypatch) -> None:
    await cli("import", orders, "-t", "orders", "-q")

    refused = await cli("reprocess", "latest", "--all")
    assert (refused.code, "--yes" in refused.err) == (2, True)
    assert (await cli("reprocess", "latest", "--all", "--item", "1", "--yes")).code == 2
    monkeypatch.setattr("sys.stdin", TerminalInput("n\n"))
    declined = await cli("reprocess", "latest", "--all")
    assert (declined.code, "Rerun all 5 items" in declined.err) == (4, True)
    assert await shop.fetchval("SELECT count(*) FROM orders") == 2
    assert (await cli("reprocess", "latest", "--all", "--yes", "--json")).objects[0][
        "total_items"
    ] == 5
    assert await shop.fetchval("SELECT count(*) FROM orders") == 4


class TerminalInput(io.StringIO):
    def isatty(self) -> bool:
        return True


async def test_the_same_file_is_refused_skipped_or_forced(cli: Command, shop, orders) -> None:
    first = (await cli("import", orders, "-t", "orders", "--json")).objects[0]["batch_id"]

    refused = await cli("import", orders, "-t", "orders")
    assert (refused.code, refused.out) == (2, "")
    assert first in refused.err
    skipped = await cli("import", orders, "-t", "orders", "--on-same-file", "skip")
    assert (skipped.code, f"Already imported, as batch {first}" in skipped.err) == (1, True)
    forced = await cli("import", orders, "-t", "orders", "--on-same-file", "force", "--json")
    assert forced.objects[0]["batch_id"] != first


async def test_reading_options_reach_the_reader(cli: Command, shop, tmp_path: Path) -> None:
    file = tmp_path / "raw"
    file.write_bytes("a\t1\nä\t2\n".encode("latin-1"))
    await shop.execute("INSERT INTO products VALUES ('ä')")
    options = ("--delimiter", "tab", "--encoding", "latin-1", "--columns", "sku, count")

    result = await cli(
        "import", file, "-t", "orders", "--format", "csv", *options, "--name", "x.csv",
        "--idempotency-key", "k", "--concurrency", "2", "--json",
    )  # fmt: skip

    assert (result.code, result.objects[0]["source_name"]) == (0, "x.csv")
    assert {row["sku"] for row in await shop.fetch("SELECT sku FROM orders")} == {"a", "ä"}
    file.write_text("a\t7\n")
    other = await cli("import", file, "-t", "orders", *options, "--idempotency-key", "k")
    assert other.code == 2


async def test_the_table_in_a_file_is_named(cli: Command, shop, tmp_path: Path) -> None:
    file = tmp_path / "raw.csv"
    file.write_text("x,y\n# z,w\nsku,count\na,1\n,\nb,2\nTotal,3\n")
    options = ("--skip-rows", 1, "--comment", "#", "--skip-footer", 1)
    result = await cli("import", file, "-t", "orders", *options)
    assert (result.code, "2 completed" in result.out) == (0, True)
    assert "1 row without values was skipped." in result.out + result.err
    refused = await cli("import", file, "-t", "orders", "--header-row", 3, "--member", "x")
    assert (refused.code, "leave out --member" in refused.err) == (2, True)


async def test_processes_are_refused_where_they_have_no_effect(
    cli: Command, shop, tmp_path
) -> None:
    file = tmp_path / "orders.csv"
    file.write_text("sku\na\n")
    result = await cli("import", file, "-t", "orders", "--dry-run", "--processes", 2)
    assert (result.code, "--processes has no effect" in result.err) == (2, True)
    result = await cli("process", "latest", "--background", "--processes", 2)
    assert (result.code, "--processes has no effect" in result.err) == (2, True)


async def test_a_pipe_is_imported(cli: Command, shop, monkeypatch) -> None:
    received, sent = os.pipe()
    with os.fdopen(received) as stdin:
        with os.fdopen(sent, "w") as other_end:
            other_end.write("sku\na\nb\n")
        monkeypatch.setattr("sys.stdin", stdin)
        result = await cli("import", "-", "-t", "orders", "--name", "piped.csv")
    assert (result.code, result.err) == (0, "")
    assert "from piped.csv" in result.out
    assert "2 completed" in result.out


async def test_a_pause_is_visible_everywhere_and_undone(
    cli: Command, manager: BatchManager
) -> None:
    manager.registry.register(HostileProcessor)
    batch_id = await manager.create_batch("hostile", [{"a": 1}])

    paused = await cli("pause", batch_id, "--reason", "lunch")
    assert (paused.code, f"resume {batch_id.hex[-12:]}" in paused.out) == (0, True)
    assert "Paused: lunch" in (await cli("show", "latest")).out
    refused = await cli("process", "latest")
    assert (refused.code, "lunch" in refused.err) == (4, True)
    assert (await cli("resume", "latest", "--json")).objects[0]["status"] == "pending"
    assert (await cli("resume", "latest")).code == 2
    assert (await cli("cancel", "latest", "--reason", "wrong file")).code == 0
    assert (await cli("process", "latest")).code == 4
    actors = [line["details"]["actor"] for line in (await cli("logs", "latest", "--json")).objects]
    assert len(actors) == 4
    assert all(actors[1:])


# ---------------------------------------------------------------- looking


async def test_batches_are_named_by_id_tail_or_latest(cli: Command, shop, orders) -> None:
    batch = (await cli("import", orders, "-t", "orders", "--json")).objects[0]["batch_id"]

    for name in (batch, batch.upper(), batch[-12:], batch[-5:], "latest", "latest:orders"):
        assert (await cli("show", name, "--json")).objects[0]["batch_id"] == batch
    for name in ("latest:other", "xyz", "0" * 32, "%"):
        missing = await cli("show", name)
        assert (missing.code, missing.out) == (2, "")
        assert "There is no batch" in missing.err
        assert "reliable-imports list" in missing.err


async def test_json_is_one_object_a_line(cli: Command, shop, tmp_path: Path) -> None:
    file = tmp_path / "orders.jsonl"
    file.write_bytes(b'{"sku": "a"}\n{"sku": "zz"}\n\xff{broken\n')
    summary = (await cli("--json", "import", file, "-t", "orders")).objects[0]
    assert (summary["completed_items"], summary["failed_items"], summary["ok"]) == (1, 2, False)
    foreign = next(one for one in summary["groups"] if one["sqlstate"] == "23503")
    assert foreign["values"] == [["sku=zz", 1]]

    (batch,) = (await cli("list", "--json", "--type", "orders", "--status", "partial")).objects
    assert batch["batch_id"] == summary["batch_id"]
    assert batch["completed_items"] == 1
    assert (await cli("list", "--json", "--status", "paused")).objects == []
    items = (await cli("items", "latest", "--json")).objects
    assert [item["status"] for item in items] == ["completed", "failed", "failed"]
    assert [
        item["item_number"]
        for item in (await cli("items", "latest", "--json", "--after", 1, "-n", 1)).objects
    ] == [2]
    failed = (
        await cli("items", "latest", "--status", "failed", "--group", foreign["group"], "--json")
    ).objects
    assert [item["item_number"] for item in failed] == [2]
    unreadable = (await cli("item", "latest", 3, "--json")).objects[0]
    assert base64.urlsafe_b64decode(unreadable["raw_base64"]) == b"\xff{broken"
    assert unreadable["logs"] == []
    assert unreadable["failure"]["kind"] == "parse"


async def test_people_see_items_and_logs(cli: Command, shop, orders, monkeypatch) -> None:
    await cli("import", orders, "-t", "orders", "-q")
    monkeypatch.setenv("COLUMNS", "140")

    items = await cli("items", "latest", "-n", 4)
    lines = unpadded(items.out).splitlines()
    assert re.match(r"Item +Status +Outcome +Record", lines[0])
    assert re.match(r" +1 +completed +orders \d +\{", lines[2])
    assert "--after 4" in items.err
    item = unpadded((await cli("item", "latest", 4)).out)
    assert re.match(r"Item 4 of batch \w{12} · failed · 1 attempt · line 5\n", item)
    assert '"sku": "c"' in item
    assert "Failed (data): ForeignKeyViolationError 23503 orders_sku_fkey" in item
    assert "process_item" in item
    rows = (await cli("list")).out
    assert re.search(r"orders +partial +5 +100% +2 +1 +2 +2 +\d+ s +orders.csv", rows)
    logged = await cli("logs", "latest", "--level", "info", "--limit", 1)
    assert re.match(r"\d{4}-\d\d-\d\d .* info +batch created \{", logged.out)
    assert (await cli("logs", "latest", "--level", "error")).out == ""
    assert "No items match" in (await cli("items", "latest", "--status", "pending")).err
    assert (await cli("item", "latest", 99)).code == 2
    assert (await cli("item", "latest", 2**31)).code == 2


@pytest.mark.parametrize(
    ("count", "shown"), [("1\u200b2", r"1\u200b2"), ("1\u00a0234", r"1\u00a0234"), ("1,5", "1,5")]
)
async def test_an_item_shows_the_value_at_fault_and_what_cannot_be_seen(
    cli: Command, shop, tmp_path: Path, count: str, shown: str
) -> None:
    file = tmp_path / "odd.jsonl"
    file.write_text(json.dumps({"sku": "a", "count": count}, ensure_ascii=False) + "\n", "utf-8")
    await cli("import", file, "-t", "orders", "-q")
    item = unpadded((await cli("item", "latest", 1)).out)
    assert f'"count": "{shown}"' in item
    assert item.count("Input should be a valid integer") == 1
    value = shown.replace("\\u00a0", "\\xa0")  # as Python writes it
    assert f"unable to parse string as an integer; the value is '{value}'" in " ".join(item.split())


async def test_types_need_no_database(bare: Command, monkeypatch) -> None:
    shown = await bare("types")
    assert shown.code == 0
    assert re.search(rf"orders +{processors.__name__}.OrdersProcessor +Order", shown.out)
    rows = {row["batch_type"]: row for row in (await bare("types", "--json")).objects}
    assert rows["orders"]["schema"]["properties"].keys() == {"sku", "count"}
    assert rows["hostile"]["schema"] is None
    monkeypatch.delenv("RELIABLE_IMPORTS_PROCESSORS")
    assert "--processors" in (await bare("types")).err
    assert (await bare("--processors", processors.__name__, "types")).out == shown.out
    broken = await bare("types", "-p", f"{processors.__name__},no.such.module")
    assert (broken.code, "no.such.module" in broken.err) == (2, True)


async def test_records_cannot_drive_the_terminal(cli: Command, tmp_path: Path) -> None:
    file = tmp_path / "hostile.jsonl"
    file.write_text(json.dumps({"a": HOSTILE}) + "\n{broken " + HOSTILE + "\n")
    options = ("-t", "hostile", "-v", "--name", f"n{HOSTILE}.jsonl")
    results = [await cli("import", file, *options)]
    for words_ in (["show", "latest"], ["list"], ["items", "latest"], ["logs", "latest"]):
        results += [await cli(*words_), await cli(*words_, "--json")]
    for number in (1, 2):
        results += [
            await cli("item", "latest", number),
            await cli("item", "latest", number, "--json"),
        ]
    results.append(await cli("show", f"x{HOSTILE}"))

    for result in results:
        assert not CONTROL.search(result.out + result.err)
    assert "[bold red]x[/]" in results[0].out
    item = await cli("item", "latest", 1, "--json")
    assert item.objects[0]["source_data"] == {"a": HOSTILE}


@pytest.mark.parametrize("width", [50, 80, 120])
async def test_tables_fit_the_terminal(cli: Command, shop, orders, monkeypatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    await cli("import", orders, "-t", "orders", "--name", "n" * 200 + ".csv")
    for arguments in (["show", "latest"], ["list"], ["items", "latest"], ["item", "latest", 4]):
        result = await cli(*arguments)
        assert max(map(len, result.out.splitlines())) <= width
        assert result.code == 0
    assert re.search(r"\w{12} +orders +partial", (await cli("list")).out)


# ---------------------------------------------------------------- refusals


async def test_nothing_works_without_a_database(bare: Command) -> None:
    result = await bare("list")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("Error: No database is configured.\nHint: ")


async def test_an_unreachable_server_is_exit_code_3(bare: Command, monkeypatch) -> None:
    url = "postgresql://me:s3cr3t-w0rd@127.0.0.1:1/x"
    monkeypatch.setenv("RELIABLE_IMPORTS_DATABASE_URL", url)
    result = await bare("list", "--json")
    assert (result.code, result.out) == (3, "")
    error = json.loads(result.err)
    assert (error["error"], error["exit_code"]) == ("DatabaseUnavailable", 3)
    assert error["hint"]
    assert "s3cr3t" not in result.err


async def test_a_missing_schema_is_exit_code_3_until_it_is_migrated(
    bare: Command, empty_dsn: str, tmp_path: Path
) -> None:
    url = tmp_path / "url"
    url.write_text(empty_dsn + "\n")
    missing = await bare("list", "--database-url-file", url)
    assert (missing.code, "reliable-imports migrate" in missing.err) == (3, True)
    assert (await bare("migrate", "--check", empty_dsn)).code == 3
    applied = (await bare("migrate", "--json", empty_dsn)).objects[0]["applied"]
    assert applied[0] == "0001_tables"
    assert "up to date" in (await bare("--database-url-file", url, "migrate")).out
    checked = await bare("migrate", empty_dsn, "--check", "--json")
    assert (checked.code, checked.objects[0]["migrations"]) == (0, applied)
    assert (await bare("list", "--database-url-file", url)).code == 0


async def test_migrate_prints_the_script(bare: Command, empty_dsn: str) -> None:
    script = await bare("migrate", "--sql")
    conn = await asyncpg.connect(empty_dsn)
    await conn.execute(script.out)
    await conn.close()
    assert (await bare("migrate", "--check", empty_dsn)).code == 0


USAGE_ERRORS = [
    (["import", "x.csv"], "--type"),
    (["import", "no-such.csv", "-t", "orders"], "no-such.csv"),
    (["import", __file__, "-t", "unheard"], "unheard"),
    (["import", __file__, "-t", "orders", "--metadata", "[1]"], "JSON object"),
    (["import", __file__, "-t", "orders", "--metadata", "{"], "not JSON"),
    (["import", __file__, "-t", "orders", "--format", "docx"], "docx"),
    (["list", "--status", "odd"], "odd"),
    (["purge"], "--older-than"),
    (["purge", "latest", "--older-than", "1d"], "either"),
    (["purge", "--older-than", "soon"], "30d"),
    (["purge", "--older-than", "999999999w"], "too long"),
    (["migrate", "--check", "--sql"], "combined"),
    (["list", "--database-url-file", "/no/such/file"], "/no/such/file"),
    (["nonsense"], "nonsense"),
    (["db"], "db --help"),
]


async def test_usage_errors_are_exit_code_2(cli: Command) -> None:
    for arguments, expected in USAGE_ERRORS:
        for mode in ([], ["--json"]):
            result = await cli(*arguments, *mode)
            assert (result.code, result.out) == (2, ""), arguments
            assert expected in result.err
        assert json.loads(result.err)["exit_code"] == 2


async def test_a_setting_that_cannot_work_is_named(cli: Command, monkeypatch) -> None:
    monkeypatch.setenv("RELIABLE_IMPORTS_CONCURRENCY", "many")
    result = await cli("list")
    assert (result.code, "RELIABLE_IMPORTS_CONCURRENCY" in result.err) == (2, True)


async def test_the_unexpected_is_one_line_without_passwords(bare: Command, monkeypatch) -> None:
    url = "postgresql://me:s3cr3t-w0rd@127.0.0.1:1/x"
    monkeypatch.setenv("RELIABLE_IMPORTS_DATABASE_URL", url)

    async def surprise(*_: object) -> None:
        raise RuntimeError(f"cannot use {url} or s3cr3t-w0rd")

    monkeypatch.setattr(BatchManager, "open", surprise)
    result = await bare("list")
    assert result.code == 3
    assert result.err.splitlines()[0].startswith(
        "Error: An unexpected error occurred: RuntimeError: cannot use"
    )
    assert "Traceback" not in result.err
    monkeypatch.setenv("RELIABLE_IMPORTS_TRACEBACK", "1")
    explained = await bare("list")
    assert "Traceback" in explained.err
    assert "s3cr3t" not in result.err + explained.err


async def test_purge_asks_and_deletes_a_lineage(cli: Command, shop, orders) -> None:
    await cli("import", orders, "-t", "orders", "-q")
    await cli("reprocess", "latest", "-q")
    assert (await cli("purge", "latest")).code == 2
    old = await cli("purge", "--older-than", "1d", "--yes", "--json")
    assert old.objects == [{"purged_batches": 0}]
    assert (await cli("purge", "latest", "--yes")).out == "2 batches deleted.\n"
    assert "No batches match" in (await cli("list")).err


# ---------------------------------------------------------------- processes of their own

SLOW = """
import os
import anyio
from reliable_imports_async import BaseProcessor

class SlowProcessor(BaseProcessor):
    async def process_item(self, item, ctx):
        await ctx.execute("INSERT INTO done VALUES ($1)", item.item_number)
        await ctx.execute("SELECT pg_notify('done', 'settled')")
        if item.item_number > 3 and "STUCK" in os.environ:
            with anyio.CancelScope(shield=os.environ["STUCK"] == "badly"):
                await anyio.sleep_forever()
"""


@dataclass
class Program:
    """Starts the command as a process, in a directory of its own."""

    directory: Path
    environment: dict[str, str]

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "reliable_imports_async", *arguments],
            cwd=self.directory,
            env=self.environment | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    async def finish(self, process: subprocess.Popen[str]) -> Result:
        with process:
            out, err = await to_thread.run_sync(lambda: process.communicate(timeout=PATIENCE))
        return Result(process.returncode, out, err)


@pytest.fixture
def program(tmp_path: Path) -> Program:
    (tmp_path / "slow_processors.py").write_text(SLOW)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RELIABLE_")}
    return Program(tmp_path, kept | {"RELIABLE_IMPORTS_PROCESSORS": "slow_processors"})


@pytest.fixture
async def settled(conn: asyncpg.Connection, program: Program, dsn: str):
    """Waits until so many items of the slow processor have committed."""
    program.environment["RELIABLE_IMPORTS_DATABASE_URL"] = dsn
    (program.directory / "slow.csv").write_text("a\n" + "1\n" * 10)
    await conn.execute("CREATE TABLE done (item integer)")
    queue: asyncio.Queue[str] = asyncio.Queue()
    await conn.add_listener("done", lambda *_: queue.put_nowait("settled"))

    async def wait(count: int) -> None:
        with anyio.fail_after(PATIENCE):
            for _ in range(count):
                await queue.get()

    return wait


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_stopped_import_is_resumed_and_loses_nothing(
    program: Program, settled, conn, cli: Command, monkeypatch, number: signal.Signals
) -> None:
    monkeypatch.syspath_prepend(program.directory)
    monkeypatch.setenv("RELIABLE_IMPORTS_PROCESSORS", "slow_processors")
    process = program.start("import", "slow.csv", "-t", "slow", STUCK="yes")
    await settled(3)
    process.send_signal(number)
    stopped = await program.finish(process)

    assert (stopped.code, stopped.out) == (4, "")
    assert "Stopped. 3 of 10 items done; nothing is lost." in stopped.err
    (tail,) = re.findall(r"continue with: reliable-imports process (\w+)", stopped.err)
    leased = "SELECT count(*) FROM reliable_imports.import_batch_ranges WHERE lease_until > now()"
    assert await conn.fetchval(leased) == 0
    resumed = await cli("process", tail, "--json")
    assert (resumed.code, resumed.objects[0]["completed_items"]) == (0, 10)
    rows = await conn.fetch("SELECT item FROM done ORDER BY item")
    assert [row["item"] for row in rows] == list(range(1, 11))


async def test_the_second_interrupt_leaves_at_once(program: Program, settled) -> None:
    process = program.start("import", "slow.csv", "-t", "slow", STUCK="badly")
    await settled(3)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert "Stopping" in await to_thread.run_sync(process.stderr.readline)
    process.send_signal(signal.SIGINT)
    assert (await program.finish(process)).code == 4


async def test_an_interrupted_loading_imports_nothing(program: Program, settled, conn) -> None:
    process = program.start("import", "-", "-t", "slow", "--json", "-v")
    assert process.stdin is not None
    # More than a pipe holds: once all of it is written, somebody reads, and hears signals.
    await to_thread.run_sync(process.stdin.write, "a\n" + "1\n" * 500_000)
    process.send_signal(signal.SIGINT)
    stopped = await program.finish(process)
    assert (stopped.code, stopped.out) == (4, "")
    assert json.loads(stopped.err)["error"] == "Stopped"
    assert await conn.fetchval("SELECT count(*) FROM reliable_imports.import_batches") == 0


async def test_a_reader_may_leave_early(program: Program, manager, dsn: str) -> None:
    manager.registry.register(HostileProcessor)
    await manager.create_batch("hostile", ({"text": "x" * 100} for _ in range(5_000)))
    process = program.start("items", "latest", "--json", RELIABLE_IMPORTS_DATABASE_URL=dsn)
    assert process.stdout is not None
    assert json.loads(await to_thread.run_sync(process.stdout.readline))["item_number"] == 1
    process.stdout.close()
    assert process.stderr is not None
    with process:
        assert await to_thread.run_sync(process.stderr.read) == ""
    assert process.returncode == 0


async def test_version_and_help(bare: Command) -> None:
    version = await bare("--version")
    assert re.fullmatch(r"reliable-imports \d+\.\d+\.\d+\n", version.out)
    help_ = await bare()
    assert help_.code == 0
    assert all(f" {name} " in help_.out for name in ("import", "process", "reprocess", "db"))


@pytest.mark.long
async def test_the_embedded_server_runs_while_db_start_does(
    program: Program, bare: Command, monkeypatch
) -> None:
    directory = Path(tempfile.gettempdir()) / f"ri-cli-{uuid4().hex[:12]}"
    try:
        assert (
            "The server is not running" in (await bare("db", "stop", "--directory", directory)).err
        )
        process = program.start("db", "start", "try", "--directory", str(directory))
        assert process.stdout is not None
        url = (await to_thread.run_sync(process.stdout.readline)).strip()
        conn = await asyncpg.connect(url)
        assert await conn.fetchval("SELECT current_database()") == "try"
        await conn.close()
        used = await bare("db", "stop", "--json", "--directory", directory)
        assert used.objects == [{"running": True}]
        monkeypatch.setenv("PATH", "")
        no_psql = await bare("db", "psql", "--directory", directory)
        assert (no_psql.code, "psql is not on the PATH" in no_psql.err) == (2, True)
        process.send_signal(signal.SIGINT)
        ended = await program.finish(process)
        assert (ended.code, "The server has stopped." in ended.err) == (0, True)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


# ---------------------------------------------------------------- the small parts


@pytest.fixture
def terminal(monkeypatch) -> Iterator[Output]:
    """A terminal of 80 columns, into a text."""
    output = Output()
    output.notes = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    return output


async def test_the_bar_shows_counts_rate_and_failures(terminal: Output, manager) -> None:
    manager.registry.register(HostileProcessor)
    batch_id = await manager.create_batch("hostile", [{"a": number} for number in range(1_000)])
    summary = await manager.get_batch_summary(batch_id)
    bar = display(terminal)
    assert isinstance(bar, Bar)
    with bar:
        bar.loading(500, 4_096, 8_192)
        bar.processing(summary)
        bar.processing(replace(summary, completed_items=400, failed_items=100))
    shown = terminal.notes.file.getvalue()
    assert re.search(r"Processing .* 50% 500/1,000 .*100 failed", shown)
    assert all(
        len(line) <= 80
        for line in re.split(r"[\r\n]", re.sub("\x1b\\[[^a-zA-Z]*[a-zA-Z]", "", shown))
    )


async def test_progress_is_lines_or_nothing_where_there_is_no_terminal(capsys) -> None:
    assert display(Output()) is None
    lines = display(Output(verbose=True))
    assert isinstance(lines, Lines)
    lines.loading(1_500, 50, 100)
    lines.loading(1_600, 60, 100)
    assert capsys.readouterr().err == "1,500 records loaded (50%)\n"
    assert display(Output(verbose=True, json=True)) is not None


def test_durations_are_read_and_written() -> None:
    assert words.parse_duration("30d") == timedelta(days=30)
    assert words.parse_duration(" 2W ") == timedelta(weeks=2)
    for text in ("", "d", "-1d", "1.5h", "30", "1y"):
        with pytest.raises(ValueError, match="not a duration"):
            words.parse_duration(text)
    shown = [words.duration(timedelta(seconds=seconds)) for seconds in (8.24, 200, 7_500, 200_000)]
    assert shown == ["8.2 s", "3 min 20 s", "2 h 5 min", "2 d 7 h"]
    assert words.duration_left(3_725) == "1:02:05 left"
    assert words.rate(3_289.4) == "3,289"
    assert words.rate(0.26) == "0.3"


def test_foreign_text_becomes_signs() -> None:
    assert words.plain("a\x1b[2J\tb\nc\x7f\x9b\u202e\ud800") == "a␛[2J\tb\nc␡\ufffd\ufffd\ufffd"
    assert words.one_line(" a \n\n b ") == "a b"
    assert json.loads(words.json_text({"a": HOSTILE, "b": UUID(int=1)}))["a"] == HOSTILE


def test_an_empty_table_is_no_trouble() -> None:
    assert batches_table([], 80).row_count == 0
