"""The usual row of a CSV file becomes the very text that a serialiser would write."""

import csv
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic_core import to_json

from .reach import DEFAULT_LIMITS, CsvReader, Dialect, Limits, from_value, usual_row

COLUMNS = ("a", "100 %s", 'q"\\\té')
anything = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=5)


@given(fields=anything, delimiter=st.sampled_from([",", ";", "\t", "|"]))
@example(fields=["1", "%s", "%"], delimiter=",")
@example(fields=["\x7f", "\u2028", "\xa0"], delimiter=",")
@example(fields=["\x00", "", ""], delimiter=",")
@example(fields=["a\\", "b", "c"], delimiter=",")
@example(fields=["", "", ""], delimiter="\t")
def test_a_row_is_none_or_exactly_what_the_serialiser_writes(fields, delimiter):
    line = delimiter.join(fields)
    found = usual_row(COLUMNS, delimiter, "utf-8")(line.encode())
    if found is not None:
        [read] = csv.reader([line], delimiter=delimiter, strict=True)
        assert found == to_json(dict(zip(COLUMNS, read, strict=True)))
        assert from_value(json.loads(found)).text == found


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_plain_rows_are_usual(delimiter):
    raw = delimiter.join(["1", "Zürich", ""]).encode("cp1252")
    text = usual_row(COLUMNS, delimiter, "cp1252")(raw)
    assert json.loads(text or b"") == dict(zip(COLUMNS, ["1", "Zürich", ""], strict=True))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"1,2",
        b"1,2,3,4",
        b'1,"2",3',
        b"1,\\,3",
        b"1,\x00,3",
        b"1,\t,3",
        b"1,\xff,3",
        b"1,2,3\r",
        "1,\u2028,3".encode(),
    ],
)
def test_other_rows_are_not(raw):
    assert usual_row(COLUMNS, ",", "utf-8")(raw) is None


def test_rows_without_a_value_are_not_usual():
    assert usual_row(("a",), ",", "utf-8")(b"") is None
    assert usual_row(("a", "b"), ",", "utf-8")(b",") is None
    assert usual_row(("a", "b"), ",", "utf-8")(b" ,") is None
    assert usual_row(("a", "b"), ",", "utf-8")(b",0") == b'{"a":"","b":"0"}'
    assert usual_row(("a", None), ",", "utf-8")(b"1,") == b'{"a":"1"}'


def test_a_usual_row_can_still_be_too_long():
    limits = Limits(record_bytes=40)
    lines = [b"a,b\n", b"1,2\n", b"x" * 35 + b",y\n"]  # 37 bytes as a row, 51 as JSON
    data = iter(lines)
    reader = CsvReader(lambda _size: next(data, b""), Dialect(","), limits)
    reader.lines.next()
    fits, long = reader.records(("a", "b"))
    assert fits.text == b'{"a":"1","b":"2"}'
    assert (long.text, long.raw, long.line) == (None, lines[2][:-1], 3)
    assert long.reason == "it is 51 bytes long as JSON; at most 40 are allowed"
    assert from_value({"a": "x" * 35, "b": "y"}, limits=DEFAULT_LIMITS).reason is None
