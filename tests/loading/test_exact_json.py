"""A value that is only passed through keeps its digits, whichever way its record goes."""

import copy
import csv
import io
import json
import pickle
import re
from decimal import Decimal

import httpx
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from reliable_imports_async import APIManager, BaseProcessor, BatchManager, exact_json

NUMBERS = (
    "12345678901234567.89", "1.10", "0.1", "-0.5000", "1180591620717411303424", "9007199254740993",
    "0.30000000000000004", "1.0", "123456789012345678901234567890.123456789012345678901234567890",
    "1e-7", "2.50e3", "1e22", "0", "-1", "4.35", "1" * 4_300, f"0.{'3' * 4_000}",
)  # fmt: skip
RECORD = (
    '{"edit": "x", '
    + ", ".join(f'"n{i}": {n}' for i, n in enumerate(NUMBERS))
    + (', "deep": {"list": [1.10, {"x": 12345678901234567.89}], "text": "[1.10, 2.50]"}}')
)

digits = st.decimals(allow_nan=False, allow_infinity=False).map(lambda number: f"{number:f}")
values = st.recursive(
    digits | st.text(st.characters(exclude_categories=["Cs"])).map(json.dumps) | st.just("null"),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda some: f"[{', '.join(some)}]")
        | st.lists(inner, max_size=4).map(
            lambda some: "{" + ", ".join(f'"{i}": {one}' for i, one in enumerate(some)) + "}"
        )
    ),
)


def spaced(text):
    """JSON text as `write_readable` spaces and escapes it, its numbers untouched."""
    return json.dumps(json.loads(text, parse_float=Quoted, parse_int=Quoted), ensure_ascii=False)


class Quoted(str):
    """Digits, which json.dumps writes in quotation marks."""


@given(values)
def test_what_is_read_is_written_with_the_same_digits(text):
    known = exact_json.read(text)
    assert exact_json.read_unchecked(exact_json.write_readable(known)) == known
    assert spaced(exact_json.write_readable(known)) == spaced(text)
    assert spaced(exact_json.write(known).decode()) == spaced(text)
    assert exact_json.same(known, exact_json.read(text))
    assert exact_json.with_digits_of(json.loads(exact_json.write_readable(known)), known) == known


def test_a_number_with_its_digits_is_a_float_like_any_other():
    number = exact_json.read("[12345678901234567.89]")[0]
    assert number == 12345678901234567.89
    assert hash(number) == hash(12345678901234567.89)
    assert (str(number), f"{number}", Decimal(str(number))) == (
        "12345678901234567.89", "12345678901234567.89", Decimal("12345678901234567.89"),
    )  # fmt: skip
    for copied in (copy.copy(number), copy.deepcopy(number), pickle.loads(pickle.dumps(number))):
        assert str(copied) == "12345678901234567.89"
    assert type(exact_json.read("[1.5]")[0]) is float


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "{", '{"a": 1} x', "[" * 100_000, ""])
def test_what_is_no_json_is_a_value_error(text):
    with pytest.raises(ValueError, match=r".+"):
        exact_json.read_unchecked(text)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("1.2345678901234568e16", "12345678901234567.89"),  # what a reader of floats sends back
        ("12345678901234568", "12345678901234567.89"),
        ("1.1", "1.10"),
        ("12345678901234567.88", "12345678901234567.88"),  # more digits than a float: a change
        ("1.2", "1.2"),
        ("true", "true"),
        ('"1.1"', '"1.1"'),
    ],
)
def test_a_reader_of_floats_changes_nothing(sent, kept):
    small = kept.startswith(("1.", "t", '"'))
    old = '{"a": [1.10]}' if small else '{"a": [12345678901234567.89]}'
    new = exact_json.with_digits_of(
        exact_json.read_unchecked(f'{{"a": [{sent}]}}'), exact_json.read(old)
    )
    assert exact_json.write_readable(new) == f'{{"a": [{kept}]}}'


class Amounts(BaseModel):
    edit: str
    n0: Decimal
    n1: Decimal


class ExactProcessor(BaseProcessor[Amounts]):
    pause_after = None
    seen = ()

    async def process_item(self, item, ctx):
        type(self).seen = (str(item.data.n0), str(item.data.n1))
        if item.data.edit == "x":
            raise ValueError("not yet")
        return {"processed_data": {"all": item.source_data}}


@pytest_asyncio.fixture(loop_scope="session")
async def failed(manager: BatchManager, conn):
    """A batch whose one record has failed, and what is stored of it in jsonb's own words."""
    manager.registry.register(ExactProcessor)
    api = APIManager(manager, worker=False)
    transport = httpx.ASGITransport(api.app)
    async with (
        api.running(allow_anonymous=True),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        content = b'{"batch_type": "exact", "process": false, "items": [%b]}' % RECORD.encode()
        headers = {"content-type": "application/json"}
        made = await client.post("/api/batches", content=content, headers=headers)
        batch_id = made.json()["batch_id"]
        await manager.process_batch(batch_id)
        yield Failed(manager, conn, client, batch_id)


class Failed:
    def __init__(self, manager, conn, client, batch_id):
        self.manager, self.conn, self.client, self.batch_id = manager, conn, client, batch_id
        self.path = f"/api/batches/{batch_id}"

    async def stored(self):
        """Each batch's record as it is stored, newest batch first."""
        rows = await self.conn.fetch(
            "SELECT source_data::text FROM reliable_imports.import_batch_items ORDER BY batch_id DESC"
        )
        return [row[0] for row in rows]


async def by_python(case):
    item = await case.manager.get_item(case.batch_id, 1)
    await case.manager.update_item_source(case.batch_id, 1, item.source_data | {"edit": "y"})


async def by_transform_in_place(case):
    await case.manager.update_item_sources(case.batch_id, lambda record: record | {"edit": "y"})


async def by_reprocessing(case):
    await case.manager.reprocess_batch(
        case.batch_id, transform=lambda record: record | {"edit": "y"}
    )


async def by_patch(case):
    record = (await case.client.get(f"{case.path}/items/1")).json()["source_data"]
    body = {"source_data": record | {"edit": "y"}}
    assert (await case.client.patch(f"{case.path}/items/1", json=body)).status_code == 200


async def by_dashboard(case):
    url = f"/dashboard/batches/{case.batch_id}/items/1/edit"
    page = (await case.client.get(url)).text
    token = re.search(r'name="token" value="([^"]+)"', page)[1]
    area = re.search(r"<textarea[^>]*>\n(.*?)</textarea>", page, re.DOTALL)[1]
    text = area.replace("&#34;", '"').replace("&#39;", "'")
    form = {"token": token, "record": text.replace('"edit": "x"', '"edit": "y"'), "reason": ""}
    answer = await case.client.post(url, data=form, headers={"sec-fetch-site": "same-origin"})
    assert answer.status_code == 303


async def by_csv(case):
    text = (await case.client.get(f"{case.path}/failures.csv")).text.removeprefix("\ufeff")
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(row))
    writer.writeheader()
    writer.writerow(row | {"edit": "y"})
    await upload(case, out.getvalue().encode(), "text/csv")


async def by_json_lines(case):
    line = (await case.client.get(f"{case.path}/failures.jsonl")).content
    await upload(case, line.replace(b'"edit": "x"', b'"edit": "y"'), "application/x-ndjson")


async def upload(case, content, kind):
    answer = await case.client.post(
        f"{case.path}/reprocess/upload", content=content, headers={"content-type": kind}
    )
    assert answer.json()["accepted"] == 1, answer.text


@pytest.mark.parametrize(
    "edit",
    [
        by_python, by_transform_in_place, by_reprocessing, by_patch, by_dashboard, by_csv,
        by_json_lines,
    ],
)  # fmt: skip
async def test_one_changed_field_leaves_the_others_as_they_are(failed, edit):
    (before,) = await failed.stored()
    assert '"n0": 12345678901234567.89' in before
    await edit(failed)
    assert (await failed.stored())[0] == before.replace('"edit": "x"', '"edit": "y"')


async def test_every_way_out_shows_what_is_stored(failed):
    (before,) = await failed.stored()
    answer = await failed.client.get(f"{failed.path}/items/1")
    assert exact_json.same(exact_json.read(answer.text)["source_data"], exact_json.read(before))
    page = (await failed.client.get(f"/dashboard/batches/{failed.batch_id}/items/1")).text
    assert "12345678901234567.89" in page
    assert "1.2345678901234568e" not in page
    await by_python(failed)
    (edit,) = exact_json.read((await failed.client.get(f"{failed.path}/items/1/edits")).text)[
        "edits"
    ]
    assert exact_json.same(edit["before"], exact_json.read(before))
    summary = await failed.manager.reprocess_batch(failed.batch_id)
    done = await failed.manager.get_item(summary.batch_id, 1)
    assert exact_json.same(done.processed_data["all"], exact_json.read((await failed.stored())[0]))


async def test_a_model_with_decimals_gets_every_digit(failed):
    assert ExactProcessor.seen == ("12345678901234567.89", "1.10")
