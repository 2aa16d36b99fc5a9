"""From a terminal: what failed, corrected by each way, until all is in."""

import csv
import json
import re
from pathlib import Path

import pytest

from ..support.command import Command, unpadded


@pytest.fixture
async def failed(cli: Command, shop, orders: Path) -> Path:
    """Two orders of what is not in the shop, and a row that cannot be read."""
    with orders.open("a") as file:
        file.write("short\n")
    await cli("import", orders, "-t", "orders", "-q")
    return orders


async def test_failures_by_cause(cli, failed) -> None:
    shown = unpadded((await cli("failures", "latest")).out)
    assert re.search(r"2  ForeignKeyViolationError 23503 orders_sku_fkey   group \w{12}", shown)
    assert "Key (sku): c 2" in shown
    assert re.search(r"failed \d{4}-\d\d-\d\d \d\d:\d\d:\d\d$", shown, re.M)
    groups = (await cli("failures", "latest", "--json")).objects
    assert [group["count"] for group in groups] == [2, 1]
    assert (groups[0]["seen_before"], groups[0]["values"]) == (0, [["sku=c", 2]])
    one = (await cli("failures", "latest", "--group", groups[1]["group"][:6], "--json")).objects
    assert [group["kind"] for group in one] == ["parse"]
    await cli("import", failed, "-t", "orders", "-q", "--on-same-file", "force")
    assert "seen before in 1 batch\n" in unpadded((await cli("failures", "latest")).out)


async def test_export_correct_and_bring_back(cli, shop, failed, tmp_path) -> None:
    file = tmp_path / "bad.csv"
    done = await cli("failures", "latest", "--export", file)
    assert re.search(rf"reprocess \w+ --from-file {re.escape(str(file))}", done.err)
    assert (await cli("failures", "latest", "--export", file)).code == 2, "it exists"
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert [row["_item"] for row in rows] == ["4", "5", "6"]
    rows[0]["sku"] = "a"
    rows[2] |= {"sku": "b", "count": "1"}
    rows.append(rows[0] | {"_item": "1"})
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    result = await cli("reprocess", "latest", "--from-file", file)
    assert result.code == 1
    assert "1 of 3 rows is unchanged." in result.err
    assert "line 5, item 1: it has not failed, or is already being reprocessed" in result.err
    assert "3 items: 2 completed, 1 failed" in result.out
    assert await shop.fetchval("SELECT count(*) FROM orders") == 4
    lines = (await cli("failures", "latest", "--export", "-", "--format", "jsonl")).objects
    assert [line["record"] for line in lines] == [{"sku": "c", "count": "5"}]
    assert (await cli("reprocess", "latest", "--from-file", file, "--item", "1")).code == 2


async def test_a_file_that_cannot_be_written_is_not_a_database_that_is_away(
    cli, failed, tmp_path
) -> None:
    places = [tmp_path / "absent" / "bad.csv", tmp_path, Path("/dev/full")]
    for place in places:
        result = await cli("failures", "latest", "--export", place)
        assert result.code == 2, result.err
        assert f"{place} cannot be written: " in result.err.replace("\n", "")
        assert "check that its folder" in result.err


async def test_a_misspelt_variable_is_noted(cli, failed, monkeypatch) -> None:
    assert "not a setting" not in (await cli("list")).err
    monkeypatch.setenv("RELIABLE_IMPORTS_CONCURENCY", "5")
    noted = unpadded((await cli("list")).err)
    assert "RELIABLE_IMPORTS_CONCURENCY is not a setting and has no effect." in noted
    assert "Did you mean RELIABLE_IMPORTS_CONCURRENCY?" in noted


async def test_edit_an_item_and_run_it(cli, shop, failed) -> None:
    assert (await cli("edit", "latest", "4")).code == 2
    edited = await cli("edit", "latest", "4", "--set", "sku=b", "--reason", "it was meant")
    tail = re.search(r"To rerun it: reliable-imports reprocess (\w+) --item 4", edited.out)[1]
    await cli("edit", "latest", "6", "--data", json.dumps({"sku": "a", "count": 1}))
    assert (await cli("edit", "latest", "1", "--set", "sku=b")).code == 2
    assert (await cli("edit", "latest", "5", "--set", "sku")).code == 2
    assert (await cli("edit", "latest", "5", "--data", "[1]")).code == 2
    shown = unpadded((await cli("item", "latest", "4")).out)
    assert re.search(r'Edited .* by .*: it was meant; before: \{"sku":\s?"c"', shown)
    (item,) = (await cli("item", "latest", "4", "--json")).objects
    assert (item["source_data"]["sku"], item["edits"][0]["before"]["sku"]) == ("b", "c")
    assert (await cli("reprocess", tail, "--item", "4", "--item", "6")).code == 0
    assert await shop.fetchval("SELECT count(*) FROM orders") == 4
    shown = unpadded((await cli("show", tail)).out)
    assert "3 failed\n  1 record is still outstanding\n" in shown


async def test_reprocess_says_what_took_no_part(cli, shop, failed) -> None:
    await shop.execute("INSERT INTO products VALUES ('c')")
    result = await cli("reprocess", "latest", "--processors", "tests.cli.processors")
    assert result.code == 0
    assert "1 unreadable record was not included. To correct it: " in result.err
    assert re.search(r"--from-file bad.csv --processors tests.cli.processors$", result.err.strip())


async def test_a_canary_that_fails_stops(cli, failed) -> None:
    result = await cli("reprocess", "latest", "--canary", "1", "--min-success", "1")
    assert result.code == 1
    assert "Stopped: the canary has not passed: 0 of 1 item succeeded, and 100% must" in result.out


async def test_limits_and_totals(cli, shop, orders, monkeypatch) -> None:
    force = ("-t", "orders", "--on-same-file", "force")
    assert (await cli("import", orders, *force, "--tolerate", "0.4")).code == 0
    assert (await cli("import", orders, *force, "--tolerate", "0.39")).code == 1
    paused = await cli("import", orders, *force, "--max-failures", "1", "--concurrency", "1")
    assert paused.code == 4
    assert "Paused: more than 1 item failed (max_failures)" in paused.out
    assert (await cli("process", "latest")).code == 4
    assert (await cli("resume", "latest", "--reason", "known")).code == 0
    assert (await cli("process", "latest", "--max-failure-rate", "0.5")).code == 1
    assert "known" in (await cli("logs", "latest")).out
    await shop.execute("INSERT INTO products VALUES ('c')")
    wrong = await cli("import", orders, *force, "--expect-count", "6", "--expect-sum", "count=15")
    assert wrong.code == 2
    assert "Error: The control totals do not agree: count is 5, expected 6" in wrong.err
    assert "nothing was imported; compare the file with its source" in wrong.err
    right = await cli("import", orders, *force, "--expect-count", "5", "--expect-sum", "count=15")
    assert right.code == 0
    assert (await cli("import", orders, *force, "--expect-sum", "count")).code == 2
    assert (await cli("import", orders, *force, "--max-failure-rate", "5")).code == 2


async def test_the_next_step_repeats_the_processors(cli, failed, monkeypatch) -> None:
    monkeypatch.delenv("RELIABLE_IMPORTS_PROCESSORS")
    options = ("--processors", "tests.cli.processors")
    again = ("-t", "orders", "--on-same-file", "force")
    shown = await cli("import", failed, *again, *options)
    assert re.search(
        r"reliable-imports reprocess \w+ --processors tests.cli.processors\n", shown.out
    )


async def test_a_dry_run_says_what_would_happen(cli, shop, orders) -> None:
    tried = await cli("import", orders, "-t", "orders", "--dry-run")
    assert tried.code == 1
    shown = unpadded(tried.out)
    assert "5 items: 2 would complete, 1 would be skipped, 2 would fail\n" in shown
    assert "public.orders: 2 inserted, 0 updated, 0 deleted" in shown
    assert "each item was tried alone" in shown
    assert "Key (sku): c 2" in shown
    assert re.search(r"Next: to process the batch: reliable-imports process \w+$", shown)
    assert await shop.fetchval("SELECT count(*) FROM orders") == 0
    (report,) = (await cli("process", "latest", "--dry-run", "--json")).objects
    assert (report["completed"], report["failed"]) == (2, 2)
    assert (await cli("process", "latest", "--dry-run", "--background")).code == 2
    assert (await cli("process", "latest", "-q")).code == 1
    assert (await cli("process", "latest", "--dry-run")).code == 2, "it is not pending any more"


async def test_a_file_without_records_has_an_exit_code_of_its_own(cli, shop, tmp_path) -> None:
    empty = tmp_path / "empty.csv"
    empty.write_text("sku,count\n", encoding="utf-8")
    refused = await cli("import", str(empty), "-t", "orders")
    assert refused.code == 5
    assert "There are no records in empty.csv" in refused.err
    assert "--allow-empty" in refused.err
    assert (await cli("import", str(empty), "-t", "orders", "--allow-empty")).code == 0


async def test_what_a_file_was_read_as_is_told(cli, shop, tmp_path) -> None:
    names = tmp_path / "names.csv"
    names.write_bytes("sku,count\nMüller,1\nJörg,2\n".encode("cp1252"))
    done = await cli("import", str(names), "-t", "orders")
    assert "It was read as cp1252: Müller, Jörg" in unpadded(done.out)
    doubtful = tmp_path / "doubtful.csv"
    doubtful.write_bytes("sku,count\nDvořák,1\n".encode("cp1250"))
    refused = await cli("import", str(doubtful), "-t", "orders")
    assert refused.code == 2
    assert "--encoding" in refused.err
    assert "encoding=" not in refused.err
