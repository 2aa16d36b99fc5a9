"""A corrected file goes back to exactly the items it came from; edits keep what was there."""

import csv
import io
import json

import pytest

from reliable_imports_async import BaseProcessor, BatchManager, read_file
from reliable_imports_async.errors import (
    EditRefused,
    ItemNotFound,
    ReprocessRefused,
    SourceError,
    WrongBatchStatus,
)


class CityProcessor(BaseProcessor):
    """Writes cities; only those that are known."""

    async def process_item(self, item, ctx):
        await ctx.execute(
            "INSERT INTO cities VALUES ($1, $2)",
            item.source_data["name"],
            json.dumps(item.source_data),
        )


KNOWN = ("Rome", "Oslo", "=Bern", "Łódź")
CSV = "name,n,note\nRome,1,\nXXX,2,=SUM(A1)\n=Bern,3,'quoted\nYYY,4,-1\nshort\nZZZ,6,last\n"


@pytest.fixture(autouse=True)
async def processor(manager: BatchManager, conn) -> None:
    await conn.execute(
        "CREATE TABLE known (name text PRIMARY KEY);"
        "CREATE TABLE cities (name text REFERENCES known, record jsonb)"
    )
    await conn.executemany("INSERT INTO known VALUES ($1)", [(name,) for name in KNOWN])
    manager.registry.register(CityProcessor)


async def imported(manager: BatchManager, text: str, kind: str = "csv"):
    source = read_file(io.BytesIO(text.encode()), format=kind, name=f"cities.{kind}")
    batch_id = await manager.create_batch("city", source, on_same_file="force")
    return await manager.process_batch(batch_id)


async def exported(manager: BatchManager, batch_id, kind: str = "csv") -> str:
    chunks = [chunk async for chunk in manager.export_failures(batch_id, format=kind)]
    return b"".join(chunks).decode()


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def written(rows: list[dict[str, str]], **options) -> io.BytesIO:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), **options)
    writer.writeheader()
    writer.writerows(rows)
    return io.BytesIO(text.getvalue().encode())


async def cities(conn) -> list[str]:
    return [row["name"] for row in await conn.fetch("SELECT name FROM cities ORDER BY name")]


async def test_the_corrected_rows_run_and_no_other(manager, conn):
    first = await imported(manager, CSV)
    assert (first.completed_items, first.failed_items) == (2, 4)
    rows = read(await exported(manager, first.batch_id))
    assert [row["_item"] for row in rows] == ["2", "4", "5", "6"]
    rows[0] |= {"name": "Oslo"}
    rows[2] |= {"name": "Łódź", "n": "5", "note": "'+1"}
    child = await manager.reprocess_from_file(first.batch_id, written([rows[0], rows[2]]))
    assert (child.total_items, child.completed_items) == (2, 2)
    stored = [item.source_data async for item in manager.list_items(child.batch_id)]
    assert stored == [
        {"name": "Oslo", "n": "2", "note": "=SUM(A1)"},
        {"name": "Łódź", "n": "5", "note": "+1"},
    ]
    assert (await manager.get_item(first.batch_id, 2)).source_data["name"] == "XXX"
    left = read(await exported(manager, first.batch_id))
    assert [row["_item"] for row in left] == ["4", "6"]
    assert (await manager.get_batch_summary(first.batch_id)).outstanding_items == 2
    for row in left:
        row["name"] = "Rome"
    await manager.reprocess_from_file(child.batch_id, written(left, delimiter=";"))
    assert await cities(conn) == ["=Bern", "Oslo", "Rome", "Rome", "Rome", "Łódź"]
    assert read(await exported(manager, first.batch_id)) == []
    assert (await manager.get_batch_summary(first.batch_id)).outstanding_items == 0


async def test_what_failed_again_comes_back_again_from_the_same_file(manager, conn):
    first = await imported(manager, CSV)
    rows = read(await exported(manager, first.batch_id))
    rows = [row | {"name": "Nowhere"} for row in rows if row["_item"] != "5"]
    again = await manager.reprocess_from_file(first.batch_id, written(rows))
    assert (again.failed_items, again.completed_items) == (3, 0)
    rows = [row | {"name": "Oslo"} for row in rows]
    last = await manager.reprocess_from_file(first.batch_id, written(rows))
    assert last.completed_items == 3
    assert await cities(conn) == ["=Bern", "Oslo", "Oslo", "Oslo", "Rome"]


async def test_rows_that_cannot_be_taken_are_reported(manager, conn):
    first = await imported(manager, CSV)
    other = await imported(manager, CSV.replace("XXX", "QQQ"))
    row, _, unread, *_ = read(await exported(manager, first.batch_id))
    row["name"] = "Oslo"
    rows = [
        row,
        row,
        row | {"_item": "1"},
        row | {"_item": "99"},
        row | {"_item": "4294967296"},
        row | {"_item": "two"},
        row | {"_batch": "not an id"},
        row | {"_batch": str(other.batch_id)},
        unread,
    ]
    corrected = await manager.create_corrected_batch(first.batch_id, written(rows), actor="me")
    assert (corrected.accepted, corrected.unchanged, corrected.refused_rows) == (1, 0, 8)
    names_none = "it has no item number"
    assert sorted((one.line, one.reason) for one in corrected.refused) == [
        (3, "the file contains it more than once"),
        (4, "it has not failed, or is already being reprocessed"),
        (5, "there is no such item in this import"),
        (6, names_none),
        (7, names_none),
        (8, names_none),
        (9, "there is no such item in this import"),
        (10, "it could not be read, and its columns are still empty"),
    ]
    assert json.loads(json.dumps(corrected.as_dict()))["refused"][0]["item_number"] is None
    (line,) = [line async for line in manager.get_logs(corrected.batch_id)]
    assert (line.details["refused"], line.details["actor"]) == (8, "me")
    with pytest.raises(ReprocessRefused, match="line 2, item 2: it has not failed"):
        await manager.create_corrected_batch(first.batch_id, written([row]))
    assert len(await manager.lineage(first.batch_id)) == 2


async def test_a_file_without_item_numbers_is_no_file_of_failures(manager):
    first = await imported(manager, CSV)
    with pytest.raises(SourceError, match="no column _item"):
        await manager.create_corrected_batch(first.batch_id, io.BytesIO(b"name,n\nOslo,1\n"))
    waiting = await manager.create_batch("city", [{"name": "Rome"}])
    with pytest.raises(WrongBatchStatus):
        await manager.create_corrected_batch(waiting, io.BytesIO(b"name,_item\nOslo,1\n"))


async def test_json_lines_come_back_whole_and_exact(manager, conn):
    lines = '{"name": "XXX", "n": 1.10, "deep": [1, {"a": null}]}\n{"name"\n{"name": "Rome"}\n'
    first = await imported(manager, lines, "jsonl")
    text = await exported(manager, first.batch_id, "jsonl")
    text = text.replace('"XXX"', '"Oslo"').replace('"record": null', '"record": {"name": "Rome"}')
    child = await manager.reprocess_from_file(first.batch_id, io.BytesIO(text.encode()))
    assert (child.completed_items, child.failed_items) == (2, 0)
    stored = await conn.fetchval(
        "SELECT source_data::text FROM reliable_imports.import_batch_items"
        " WHERE batch_id = $1 AND item_number = 1",
        child.batch_id,
    )
    assert stored == '{"n": 1.10, "deep": [1, {"a": null}], "name": "Oslo"}'
    null = text.replace('"record": {"name": "Rome"}', '"record": null')
    with pytest.raises(ReprocessRefused, match="its record is not an object"):
        await manager.create_corrected_batch(first.batch_id, io.BytesIO(null.encode()))


async def test_values_that_are_no_text_survive_a_spreadsheet(manager, conn):
    record = {"name": "XXX", "n": 5, "share": 1.25, "list": [1, 2], "none": None, "yes": True}
    batch_id = await manager.create_batch("city", [record])
    await manager.process_batch(batch_id)
    (row,) = read(await exported(manager, batch_id))
    row |= {"name": "Oslo", "n": "6"}
    child = await manager.reprocess_from_file(batch_id, written([row]))
    stored = await manager.get_item(child.batch_id, 1)
    assert stored.source_data == record | {"name": "Oslo", "n": 6}
    assert stored.idempotency_key == f"{batch_id}:1"


async def test_an_edit_keeps_what_was_there(manager, conn):
    first = await imported(manager, CSV)
    batch_id = first.batch_id
    await manager.update_item_source(
        batch_id, 2, {"name": "Rom"}, reason="a typing error", actor="ann"
    )
    await manager.update_item_source(batch_id, 2, {"name": "Rome"}, actor="bob")
    await manager.update_item_source(batch_id, 5, {"name": "Oslo"})
    assert (await manager.get_item(batch_id, 2)).source_data == {"name": "Rome"}
    one, two = await manager.item_history(batch_id, 2)
    assert (one.before["name"], one.after, two.before) == ("XXX", {"name": "Rom"}, {"name": "Rom"})
    assert (one.actor, one.reason, two.actor, two.after) == (
        "ann",
        "a typing error",
        "bob",
        {"name": "Rome"},
    )
    (parsed,) = await manager.item_history(batch_id, 5)
    assert (parsed.before, parsed.raw) == (None, b"short")
    assert json.loads(json.dumps(parsed.as_dict()))["raw_base64"]
    assert await manager.unreadable_items(batch_id) == 0
    child = await manager.reprocess_batch(batch_id, item_numbers=[2, 5])
    assert child.completed_items == 2
    assert await cities(conn) == ["=Bern", "Oslo", "Rome", "Rome"]
    with pytest.raises(EditRefused, match="moved to batch"):
        await manager.update_item_source(batch_id, 2, {"name": "Rome"})
    await manager.purge(batch_id)
    assert await conn.fetchval("SELECT count(*) FROM reliable_imports.import_item_edits") == 0


async def test_only_failed_items_can_be_edited(manager):
    first = await imported(manager, CSV)
    with pytest.raises(EditRefused, match="completed"):
        await manager.update_item_source(first.batch_id, 1, {"name": "Oslo"})
    with pytest.raises(ItemNotFound):
        await manager.update_item_source(first.batch_id, 99, {"name": "Oslo"})
    with pytest.raises(EditRefused, match="NaN"):
        await manager.update_item_source(first.batch_id, 2, {"n": float("nan")})
    assert await manager.item_history(first.batch_id, 2) == ()


async def test_many_are_edited_at_once_or_none(manager, conn):
    first = await imported(manager, CSV)

    def to_oslo(record):
        if isinstance(record, bytes):
            return None
        return record | {"name": "Oslo"}

    with pytest.raises(TypeError):
        await manager.update_item_sources(first.batch_id, lambda record: record["name"] + 1)
    assert await manager.item_history(first.batch_id, 2) == ()
    assert await manager.update_item_sources(first.batch_id, to_oslo, group="none such") == 0
    count = await manager.update_item_sources(first.batch_id, to_oslo, reason="moved", actor="me")
    assert count == 3
    (edit,) = await manager.item_history(first.batch_id, 6)
    assert (edit.before["name"], edit.reason) == ("ZZZ", "moved")
    assert (await manager.reprocess_batch(first.batch_id)).completed_items == 3
    assert await manager.unreadable_items(first.batch_id) == 1


async def test_groups_say_when_they_were_seen_and_in_how_many_batches_before(manager):
    for _ in range(3):
        last = await imported(manager, CSV)
    groups = {group.kind: group for group in await manager.failure_groups(last.batch_id)}
    data, parse = groups["data"], groups["parse"]
    assert (data.seen_before, parse.seen_before) == (2, 2)
    assert last.started_at <= data.first_seen <= data.last_seen <= last.finished_at
    assert parse.first_seen == last.created_at
    assert data.values == (("name=XXX", 1), ("name=YYY", 1), ("name=ZZZ", 1))
    assert data.sample_items == (2, 4, 6)
    child = await manager.reprocess_batch(last.batch_id)
    (again,) = await manager.failure_groups(child.batch_id)
    assert again.seen_before == 2, "its own lineage does not count"
