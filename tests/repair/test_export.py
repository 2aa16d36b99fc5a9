"""The file of failures: exactly those, in their columns, harmless, and losslessly."""

import csv
import io
import json
from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reliable_imports_async import BaseProcessor, BatchManager, read_file
from reliable_imports_async.errors import BatchNotFound, ConfigurationError

from ..database.reach import database_of
from ..loading.reach import from_value
from .reach import CONTROL, changes, control_names, harmless, original, read_control_names, shown

DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "\n")


class PickyProcessor(BaseProcessor):
    """Fails what `refused` says; without a database of its own."""

    def __init__(self) -> None:
        self.refused = lambda record: record.get("fail") == "yes"

    async def process_item(self, item, ctx):
        if self.refused(item.source_data):
            raise ValueError("refused")


@pytest.fixture
def processor(manager: BatchManager) -> PickyProcessor:
    made = PickyProcessor()
    manager.registry.register(made)
    return made


async def exported(manager: BatchManager, batch_id, **options) -> bytes:
    return b"".join([chunk async for chunk in manager.export_failures(batch_id, **options)])


def rows(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode(), newline=""), strict=True))


async def import_csv(manager: BatchManager, text: str):
    source = read_file(io.BytesIO(text.encode()), format="csv", name="data.csv")
    return await manager.process_batch(await manager.create_batch("picky", source))


async def test_columns_keep_their_order_and_cells_are_harmless(manager, processor):
    text = 'b,a,fail,=h\n1,"x,""y""",no,\n=cmd|x,-5,yes,@z\n\'=q,"two\r\nlines",yes,é\nshort\n'
    summary = await import_csv(manager, text)
    content = await exported(manager, summary.batch_id)
    header, *body = csv.reader(io.StringIO(content.decode(), newline=""))
    control = ["_batch", "_item", "_line", "_group", "_error", "_detail", "_raw"]
    assert header == ["_batch", "b", "a", "fail", "'=h", *control[1:]]
    assert [row[1:5] for row in body] == [
        ["'=cmd|x", "'-5", "yes", "'@z"],
        ["''=q", "two\r\nlines", "yes", "é"],
        ["", "", "", ""],
    ]
    assert [(row[5], row[6], row[10]) for row in body] == [
        ("2", "3", ""),
        ("3", "4", ""),
        ("4", "6", "short"),
    ]
    assert {row[0] for row in body} == {str(summary.batch_id)}
    assert body[0][8] == "ValueError: refused"


async def test_json_lines_are_lossless(manager, processor):
    raw = '{"fail": "yes", "n": 1.10, "big": 12345678901234567890.123456789, "x": null}'
    source = read_file(io.BytesIO(f"{raw}\n{{broken\n".encode()), format="jsonl")
    summary = await manager.process_batch(await manager.create_batch("picky", source))
    lines = (await exported(manager, summary.batch_id, format="jsonl")).splitlines()
    assert b'"n": 1.10' in lines[0]
    assert b"12345678901234567890.123456789" in lines[0]
    first, second = map(json.loads, lines)
    assert (first["batch_id"], first["item_number"]) == (str(summary.batch_id), 1)
    assert first["error"]["type"] == "ValueError"
    assert (second["record"], b64decode(second["raw_base64"])) == (None, b"{broken")
    assert second["error"]["kind"] == "parse"


async def test_the_file_holds_exactly_what_is_outstanding(manager, processor):
    records = [{"n": n, "fail": "yes" if n % 3 == 0 else "no"} for n in range(1, 31)]
    first = await manager.process_batch(await manager.create_batch("picky", records))

    async def numbers(batch_id, **options) -> list[int]:
        content = await exported(manager, batch_id, **options)
        return [int(row["_item"]) for row in rows(content)]

    every = list(range(3, 31, 3))
    assert await numbers(first.batch_id) == every
    assert await numbers(first.batch_id, group=first.groups[0].group) == every
    assert await numbers(first.batch_id, group="another") == []
    processor.refused = lambda record: record["n"] in {9, 12}
    second = await manager.reprocess_batch(first.batch_id)
    assert (second.failed_items, await numbers(first.batch_id)) == (2, [9, 12])
    assert await numbers(second.batch_id) == [3, 4], "by their numbers in that batch"
    assert (await manager.get_batch_summary(first.batch_id)).outstanding_items == 2
    processor.refused = lambda record: True
    third = await manager.reprocess_batch(first.batch_id, transform=lambda r: {**r, "fixed": True})
    assert third.total_items == 2
    content = rows(await exported(manager, first.batch_id))
    assert [(row["n"], row["fixed"]) for row in content] == [("9", "true"), ("12", "true")]
    processor.refused = lambda record: False
    await manager.reprocess_batch(first.batch_id)
    assert await exported(manager, first.batch_id, format="jsonl") == b""
    assert rows(await exported(manager, first.batch_id)) == []


async def test_what_a_cancelled_reprocessing_left_is_outstanding(manager, processor, conn):
    summary = await manager.process_batch(
        await manager.create_batch("picky", [{"fail": "yes"}, {"fail": "no"}])
    )
    child = await manager.reprocess_batch(summary.batch_id)
    await conn.execute(
        "UPDATE reliable_imports.import_batches SET status = 'cancelled' WHERE id = $1",
        child.batch_id,
    )
    await conn.execute(
        "UPDATE reliable_imports.import_batch_items SET status = 'pending', error_group = NULL"
        " WHERE batch_id = $1",
        child.batch_id,
    )
    (row,) = rows(await exported(manager, summary.batch_id))
    assert (row["_item"], row["_error"]) == ("1", "ValueError: refused")


async def test_a_large_batch_with_few_failures(manager, processor):
    failing = set(range(7, 100_000, 3_500))
    records = [{"n": n, "fail": "yes" if n in failing else "no"} for n in range(1, 100_001)]
    assert len(failing) == 29
    await manager.pause_batch(batch_id := await manager.create_batch("picky", records))
    async with database_of(
        manager
    ).connection() as conn:  # a run of 100,000 items would take minutes
        await conn.execute(
            "UPDATE reliable_imports.import_batch_items SET status = CASE"
            " WHEN item_number = ANY ($2) THEN 'failed' ELSE 'completed' END,"
            " error_group = CASE WHEN item_number = ANY ($2) THEN 'g' END, error_kind = 'data',"
            " error_type = 'E', error_message = 'm' WHERE batch_id = $1",
            batch_id,
            sorted(failing),
        )
    content = rows(await exported(manager, batch_id))
    assert [int(row["_item"]) for row in content] == sorted(failing)


async def test_no_such_batch_and_no_such_format(manager, processor):
    with pytest.raises(BatchNotFound):
        await exported(manager, "019a0000-0000-7000-8000-000000000001")
    with pytest.raises(ConfigurationError, match="csv or jsonl"):
        await exported(manager, "019a0000-0000-7000-8000-000000000001", format="xlsx")


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_a_harmless_cell_can_be_undone(text: str) -> None:
    cell = harmless(text)
    assert not cell.startswith(DANGEROUS)
    assert original(cell) == text


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=2),
)


@given(st.dictionaries(st.text("abc", min_size=1), values))
def test_a_row_that_nobody_changed_changes_nothing(record) -> None:
    cells = {name: shown(value) for name, value in record.items()} | {"another": ""}
    assert changes(cells, record) == {}


def test_a_changed_cell_is_text_unless_it_was_none() -> None:
    record = {"a": "1", "n": 5, "list": [1], "none": None}
    cells = {"a": "2", "n": "6", "list": "[2, 3]", "none": "x", "new": "'=1"}
    assert changes(cells, record) == {
        "a": "2",
        "n": 6,
        "list": [2, 3],
        "none": "x",
        "new": "=1",
    }
    assert changes({"n": "six", "a": "1"}, record) == {"n": "six"}
    assert changes({"a": "1", "n": ""}, None) == {"a": "1", "n": ""}
    assert from_value(record).text is not None


@given(st.lists(st.from_regex("_{0,3}(item|batch|raw|x)", fullmatch=True), unique=True))
def test_control_columns_never_collide_and_are_found_again(columns) -> None:
    names = control_names(columns)
    assert tuple(names) == CONTROL
    assert not set(names.values()) & set(columns)
    assert read_control_names([*names.values(), *columns]) == names
