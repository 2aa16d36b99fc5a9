"""From a terminal: what is skipped and why, and who has to wait for whom."""

import asyncio
from pathlib import Path

import pytest
from uuid_utils.compat import uuid7

from ..support.command import Command
from ..support.keyed_processors import running

END = "DELETE FROM reliable_imports.import_batches WHERE id = $1"


@pytest.fixture
def cli(cli: Command, monkeypatch) -> Command:
    monkeypatch.setenv("RELIABLE_IMPORTS_PROCESSORS", "tests.support.keyed_processors")
    return cli


@pytest.fixture
def stock(tmp_path: Path) -> Path:
    file = tmp_path / "stock.csv"
    file.write_text("sku,count\na,1\nb,2\na,3\nc,bad\n")
    return file


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]


async def test_a_file_that_comes_again_is_skipped_and_says_why(cli, stock) -> None:
    first = await cli("import", stock, "-t", "stock")
    assert first.code == 1
    assert "4 items: 2 completed, 1 skipped, 1 failed" in first.out
    assert lines(first.out)[3:5] == ["Skipped, by reason", "1  duplicate of item …"]
    stock.write_text(stock.read_text().replace("bad", "4"))
    again = await cli("import", stock, "-t", "stock")
    assert again.code == 0
    assert "4 items: 1 completed, 3 skipped, 0 failed" in again.out
    shown = lines((await cli("show", "latest")).out)
    assert shown[4:6] == ["2  unchanged since item … of batch …", "1  duplicate of item …"]
    (stored,) = (await cli("show", "latest", "--json")).objects
    assert stored["skip_reasons"] == [
        {"reason": "unchanged since item … of batch …", "count": 2},
        {"reason": "duplicate of item …", "count": 1},
    ]
    item = (await cli("item", "latest", "1", "--json")).objects[0]
    assert item["item_key"] == "a"
    assert item["skip_reason"].startswith("unchanged since item 1 of batch ")
    everything = ("--on-same-file", "force", "--no-skip-unchanged", "--json")
    (forced,) = (await cli("import", stock, "-t", "stock", *everything)).objects
    assert (forced["completed_items"], forced["skipped_items"]) == (3, 1)


async def test_an_import_is_refused_while_another_runs_and_nothing_is_stored(
    cli, stock, conn
) -> None:
    other = uuid7()
    await running(conn, other, "nightly")
    refused = await cli("import", stock, "-t", "nightly")
    assert refused.code == 4
    assert f"batch {other} is running" in " ".join(refused.err.split())
    assert await conn.fetchval("SELECT count(*) FROM reliable_imports.import_batches") == 1


async def test_an_import_says_for_what_it_waits(cli, stock, conn) -> None:
    other = uuid7()
    await running(conn, other, "patient")
    importing = asyncio.create_task(cli("import", stock, "-t", "patient"))
    pending = "SELECT count(*) FROM reliable_imports.import_batches WHERE status = 'pending'"
    while not await conn.fetchval(pending):
        await asyncio.sleep(0.01)
    await conn.execute(END, other)
    done = await importing
    assert done.code == 0
    assert f"Waiting for batch {other}: only one batch of type patient runs at a time." in done.err
