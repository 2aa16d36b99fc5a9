"""Files and iterables become records: every one of them, with its line, readable or not."""

import csv
import gzip
import hashlib
import io
import itertools
import json
import os
import random
import string
import tempfile
import threading
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from reliable_imports_async.errors import SourceError

from .reach import (
    CsvReader,
    Dialect,
    Limits,
    OpenedSource,
    Source,
    SourceInfo,
    as_source,
    read_file,
    read_in_blocks,
)

quick = settings(
    max_examples=100,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


async def opened(source, limits=None):
    """The source's info and all its records."""
    async with source.open() as reading:
        chunks = [chunk async for chunk in reading.chunks(limits or Limits())]
    assert all(chunks)
    return reading.info, list(itertools.chain.from_iterable(chunks))


async def read(data, limits=None, **options):
    """The records in some bytes."""
    return (await opened(read_file(io.BytesIO(data), **options), limits))[1]


def values(records):
    return [json.loads(record.text) if record.text else record.raw for record in records]


def lines(records):
    return [record.line for record in records]


def reasons(records):
    return [record.reason for record in records]


async def body(*blocks):
    for block in blocks:
        yield block


# CSV


async def test_csv_values_stay_strings():
    data = b'id,name\r\n007,"Smith, ""J"""\r\n 1 ,NA\r\n\r\n,\r\n'
    records = await read(data)
    assert values(records) == [
        {"id": "007", "name": 'Smith, "J"'},
        {"id": " 1 ", "name": "NA"},
    ]
    assert lines(records) == [2, 3]


field = st.text('a;,|\t"\n\r 0é😀\u2028\x0b\x1c', max_size=6)


@quick
@given(
    st.integers(1, 4).flatmap(
        lambda width: st.lists(st.lists(field, min_size=width, max_size=width), max_size=8)
    ),
    st.sampled_from(",;\t|"),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "gb18030", "utf-7"]),
    st.booleans(),
)
async def test_csv_round_trip(rows, delimiter, newline, encoding, zipped):
    text = io.StringIO(newline="")
    has_return = any("\r" in value for row in rows for value in row)
    quoting = csv.QUOTE_ALL if has_return else csv.QUOTE_MINIMAL  # csv forgets to quote "\r"
    writer = csv.writer(text, delimiter=delimiter, lineterminator=newline, quoting=quoting)
    columns = [f"column {number}" for number in range(len(rows[0]) if rows else 1)]
    writer.writerow(columns)
    starts = []
    for row in rows:
        starts.append(text.getvalue().count("\n") + 1)
        writer.writerow(row)
    data = text.getvalue().encode(encoding)
    source = read_file(
        io.BytesIO(gzip.compress(data) if zipped else data),
        format="csv",
        delimiter=delimiter,
        encoding=encoding,
    )
    info, records = await opened(source)
    assert info.columns == tuple(columns)
    kept = [
        (dict(zip(columns, row, strict=True)), line)
        for row, line in zip(rows, starts, strict=True)
        if len(row) == 1 or any(value.strip(" \t\xa0") for value in row)
    ]
    assert list(zip(values(records), lines(records), strict=True)) == kept


@quick
@given(st.text('ab,"\n', max_size=30))
def test_rows_are_those_of_the_strict_csv_module(text):
    try:
        expected = [row for row in csv.reader(io.StringIO(text), strict=True) if row]
    except csv.Error:
        return
    reader = CsvReader(io.BytesIO(text.encode()).read, Dialect(","), Limits())
    rows = list(iter(reader.row, None))  # read without the csv module
    assert [row.fields for row in rows] == expected
    assert all(row.problem is None for row in rows)


@quick
@given(st.text('ab,"\n', max_size=40))
async def test_no_line_of_a_broken_csv_file_is_lost(text):
    data = text.encode()
    reader = CsvReader(io.BytesIO(data).read, Dialect(","), Limits())
    rows = list(iter(reader.row, None))
    kept = [line for row in rows for line in row.raw.split(b"\n")]
    assert [line for line in kept if line] == [line for line in data.split(b"\n") if line]


async def test_ragged_rows_are_reported_with_their_line():
    records = await read(b'a,b,c\n1,2\n1,2,3\n1,2,3,4\n"x\ny",2\nlast\n')
    assert values(records)[1] == {"a": "1", "b": "2", "c": "3"}
    assert [record.raw for record in records] == [b"1,2", None, b"1,2,3,4", b'"x\ny",2', b"last"]
    assert reasons(records) == [
        "line 2: 2 fields, the header has 3",
        None,
        "line 4: 4 fields, the header has 3",
        "line 5: 2 fields, the header has 3",
        "line 7: 1 field, the header has 3",
    ]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
async def test_an_unclosed_quote_costs_one_line(newline):
    good = [f"{number},text" for number in range(3_000)]
    broken = [*good[:10], '10,"text', *good[11:2_000], '2000,"never', *good[2_001:]]
    data = newline.join(["id,name", *broken]).encode()
    records = await read(data)
    assert len(records) == 3_000
    failed = [record for record in records if record.text is None]
    assert [record.raw for record in failed] == [b'10,"text', b'2000,"never']
    assert reasons(failed) == [
        "line 12: a quote opened here is never closed",
        "line 2002: a quote opened here is never closed",
    ]
    assert lines(records) == list(range(2, 3_002))


async def test_an_unclosed_quote_before_quoted_rows_costs_one_line():
    data = b'id,name\n1,"open\n2,"closed, well"\n3,plain\n4,"x\ny"\n'
    records = await read(data)
    assert values(records) == [
        b'1,"open',
        {"id": "2", "name": "closed, well"},
        {"id": "3", "name": "plain"},
        {"id": "4", "name": "x\ny"},
    ]


async def test_the_line_with_the_opening_quote_is_named():
    records = await read(b'a,b\n"x\ny","open\n1,2\n')
    assert values(records) == [b'"x\ny","open', {"a": "1", "b": "2"}]
    assert reasons(records)[0] == "line 3: a quote opened here is never closed"


async def test_text_behind_a_closing_quote():
    records = await read(b'a,b\n"x"y,1\n1,"x\ny"\n"x\ny","b"b\n5" pipe,6"\n')
    assert values(records) == [
        b'"x"y,1',
        {"a": "1", "b": "x\ny"},
        b'"x\ny","b"b',
        {"a": '5" pipe', "b": '6"'},
    ]
    assert reasons(records)[0] == "line 2: text follows the closing quote of field 1"
    assert reasons(records)[2] == "line 6: text follows the closing quote of field 2"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'"a\n1\n', "The header in line 1 cannot be read: line 1: a quote opened here"),
        (b"a\0,b\n", "The header in line 1 has a NUL character in the name 'a\\x00'."),
    ],
)
async def test_headers_that_are_ambiguous(data, message):
    with pytest.raises(SourceError) as caught:
        await read(data, delimiter=",")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("delimiter", list(",;\t|"))
async def test_the_delimiter_is_detected(delimiter):
    rows = [["id", "name, first", "price"], ["1", "a, b", "1,5"], ["2", "c; d", "2,50"]]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    records = await read(text.getvalue().encode())
    assert values(records) == [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


async def test_the_delimiter_in_doubt():
    assert values(await read(b"name\na;b\nc\n")) == [{"name": "a;b"}, {"name": "c"}]
    assert values(await read(b"a;b\n1;2\n", delimiter=",")) == [{"a;b": "1;2"}]
    assert values(await read(b"a,b\tc\n1,2\t3\n", name="x.tsv")) == [{"a,b": "1,2", "c": "3"}]
    assert values(await read(b"x,1;2\n", columns=["a", "b"])) == [{"a": "x", "b": "1;2"}]
    assert values(await read(b"x,1;2;3\n", columns=["a", "b", "c"], name="x.txt")) == [
        {"a": "x,1", "b": "2", "c": "3"}
    ]


async def test_columns_name_what_has_no_header():
    info, records = await opened(read_file(io.BytesIO(b"1,2\n3,4\n"), columns=["a", "b"]))
    assert info.columns == ("a", "b")
    assert values(records) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    assert lines(records) == [1, 2]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-32"])
async def test_the_encoding_is_detected(encoding):
    data = "größe;näme\n1;Zoë €\n".encode(encoding)
    assert values(await read(data)) == [{"größe": "1", "näme": "Zoë €"}]


async def test_the_encoding_can_be_given():
    data = "név\nő\n".encode("iso8859-2")
    assert values(await read(data, encoding="latin2")) == [{"név": "ő"}]
    assert values(await read("あ,b\n表,ソ\n".encode("shift_jis"), encoding="shift_jis")) == [
        {"あ": "表", "b": "ソ"}
    ]
    assert values(await read("a\n\u0142\n".encode("cp500", "replace"), encoding="cp500")) == [
        {"a": "?"}
    ]


async def test_a_line_that_does_not_decode_fails_alone():
    data = b"a,b\n" + b"1,2\n" * 300_000 + b'caf\xe9,2\n"x\n\xe9",3\n3,4\n'
    records = await read(data, encoding="utf-8")
    assert len(records) == 300_003
    assert values(records[-3:]) == [b"caf\xe9,2", b'"x\n\xe9",3', {"a": "3", "b": "4"}]
    assert reasons(records[-3:-1]) == [
        "line 300002: byte 3 (0xe9) is not valid utf-8",
        "line 300004: byte 0 (0xe9) is not valid utf-8",
    ]


async def test_characters_that_utf_16_does_not_have_fail_alone():
    good, lone = "a,b\n1,2\n".encode("utf-16-le"), b"\x00\xd8,\x003\x00\n\x00"
    records = await read(b"\xff\xfe" + good + lone + "5,6\n7".encode("utf-16-le") + b"x")
    assert values(records)[0] == {"a": "1", "b": "2"}
    assert [record.text is None for record in records] == [False, True, False, True]
    assert reasons(records) == [
        None,
        "line 3: a part of it is not valid utf-16",
        None,
        "line 5: a part of it is not valid utf-16",
    ]


async def test_a_name_that_is_not_unicode_can_be_stored():
    info, _ = await opened(read_file(io.BytesIO(b"a\n1\n"), name="bad\udcffname.csv"))
    assert info.name == r"bad\udcffname.csv"


async def test_nul_and_unlimited_fields():
    long = "x" * 200_000
    records = await read(f'a,b\n1,\0\n2,{long}\n"3","{long}"\n'.encode())
    assert values(records) == [b"1,\0", {"a": "2", "b": long}, {"a": "3", "b": long}]
    assert csv.field_size_limit() == 131_072


async def test_lines_that_are_too_long_fail_alone():
    long = b"x" * 5_000_000
    data = b"a,b\n1,2\n" + long + b',3\n"' + long + b'",4\n5,6\r\n7,' + long
    records = await read(data, Limits(record_bytes=1_000))
    assert [record.text is not None for record in records] == [True, False, False, True, False]
    assert [len(record.raw or b"") for record in records] == [0, 1_000, 1_000, 0, 1_000]
    assert reasons(records)[1] == (
        "line 3 is longer than a record may be (only its first 1,000 bytes are kept)"
    )
    assert lines(records) == [2, 3, 4, 5, 6]


async def test_carriage_returns_within_lines_are_kept():
    data = b'a,b\nx\ry,"1"\r\r\n"2",z\r\r\n"\r",\n'
    assert values(await read(data, delimiter=",")) == [
        b'x\ry,"1"',
        {"a": "2", "b": "z"},  # CR CR LF ends a line
        {"a": "\r", "b": ""},
    ]


async def test_files_with_carriage_returns_only():
    records = await read(b'a,b\r1,"x\ry"\r3,4\r')
    assert values(records) == [{"a": "1", "b": "x\ry"}, {"a": "3", "b": "4"}]
    assert lines(records) == [2, 4]


# JSON


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('ab{["\\,]}'), inner),
    max_leaves=6,
)
objects = st.lists(st.dictionaries(st.text('a{["\\,]}:', max_size=3), json_values, max_size=3))
space = st.text(" \t\r\n", max_size=3)


def storable(value):
    return "\\u0000" not in json.dumps(value)


@quick
@given(objects, st.sampled_from(["\n", "\r\n", "\n \n"]), st.booleans(), st.booleans())
async def test_json_lines_round_trip(items, newline, ascii_only, zipped):
    items = [item for item in items if storable(item)]
    data = newline.join(json.dumps(item, ensure_ascii=ascii_only) for item in items).encode()
    data = gzip.compress(data) if zipped else data
    records = await read(data, format="jsonl")
    assert values(records) == items
    step = newline.count("\n")
    assert lines(records) == [1 + step * number for number in range(len(items))]


@quick
@given(objects, st.lists(space, min_size=4, max_size=4), st.integers(1, 60), st.booleans())
async def test_json_array_round_trip(items, spaces, block, indented):
    items = [item for item in items if storable(item)]
    before, after, inside, end = spaces
    texts = [json.dumps(item, indent=1 if indented else None) for item in items]
    text, starts = before + "[" + inside, []
    for number, element in enumerate(texts):
        text += ("," + before if number else "") + inside
        starts.append(text.count("\n") + 1)
        text += element + after
    data = (text + "]" + end).encode()
    with pytest.MonkeyPatch.context() as patch:
        read_in_blocks(patch, block)
        records = await read(data, format="json")
    assert values(records) == items
    assert [record.text for record in records] == [element.encode() for element in texts]
    assert lines(records) == starts


async def test_json_lines_are_split_at_newlines_only():
    items = [{"a": "x\u2028y\u2029z\x0b\x0c\x1c\x85"}, {"a": 2}]
    data = "\n".join(json.dumps(item, ensure_ascii=False) for item in items)
    records = await read(data.replace("\\u", "\\u").encode(), name="x.ndjson")
    assert values(records) == items


async def test_broken_json_lines_fail_alone():
    data = b'\xef\xbb\xbf{"a":1.10}\n{"a":\n\n[1]\n{"a":"\xe9"}\r\n{"a":NaN}\n{"a":2}'
    records = await read(data, name="x.jsonl")
    assert [record.text for record in records] == [b'{"a":1.10}', *[None] * 4, b'{"a":2}']
    assert [record.raw for record in records[1:5]] == [
        b'{"a":',
        b"[1]",
        b'{"a":"\xe9"}',
        b'{"a":NaN}',
    ]
    assert lines(records) == [1, 2, 4, 5, 6, 7]


async def test_lines_of_json_that_are_too_long_fail_alone():
    data = b'{"a":1}\n{"a":"' + b"x" * 3_000_000 + b'"}\n{"a":2}\n'
    records = await read(data, Limits(record_bytes=500), format="jsonl")
    assert values(records) == [{"a": 1}, data[8:508], {"a": 2}]
    assert "longer than a record may be" in (records[1].reason or "")


@pytest.mark.parametrize(
    ("data", "format_found", "expected"),
    [
        (b'{"a":1}\n{"a":2}\n', "jsonl", [{"a": 1}, {"a": 2}]),
        (b'{"a":1}', "jsonl", [{"a": 1}]),
        (b'\n {\n "a": [\n  1,\n  {"b": 2}\n ]\n}\n', "json", [{"a": [1, {"b": 2}]}]),
        (b'{"a":1}\nbroken\n{"a":2}\n', "jsonl", [{"a": 1}, b"broken", {"a": 2}]),
        (b'{"a":\n', "json", [b'{"a":']),
        (b"null", "jsonl", [b"null"]),
        (b"", "jsonl", []),
        (b" \n", "jsonl", []),
        (b"[]", "json", []),
        (b" [ ] ", "json", []),
        ('[{"é":1}]'.encode("utf-16"), "json", [{"é": 1}]),
        (b'\xef\xbb\xbf[{"a":1}]', "json", [{"a": 1}]),
    ],
)
async def test_what_a_json_file_may_hold(data, format_found, expected):
    info, records = await opened(read_file(io.BytesIO(data), name="x.json"))
    assert info.format == format_found
    assert values(records) == expected


async def test_json_in_another_encoding():
    data = '[{"é":"ß"}]'.encode("cp1252")
    assert values(await read(data, name="x.json", encoding="cp1252")) == [{"é": "ß"}]


@pytest.mark.parametrize(
    ("data", "expected", "reason"),
    [
        (b'[{"a":1}\n,{"a":}, {"a":3}]', [{"a": 1}, b'{"a":}', {"a": 3}], "it is not JSON"),
        (b'[{"a":1}},{"a":3}]', [b'{"a":1}}', {"a": 3}], "it is not JSON: Extra data"),
        (b'[{"a":1} {"a":2},{}]', [b'{"a":1} {"a":2}', {}], "it is not JSON: Extra data"),
        (b'[{"a":1}\n,,{}]', [{"a": 1}, b"", {}], "an element is missing before this comma"),
        (b'[{"a":1},1,"x,]",[],{}]', [{"a": 1}, b"1", b'"x,]"', b"[]", {}], "it is a number, not"),
        (b'[{"a":1},{"a":{},{"a":3}]', [{"a": 1}, b'{"a":{},{"a":3}]'], "the file ends inside"),
        (b'[{"a":1},{"a', [{"a": 1}, b'{"a'], "the file ends inside this element"),
        (b'[{"a":1},{"a\\', [{"a": 1}, b'{"a\\'], "the file ends inside this element"),
        (b'[{"a":1}', [{"a": 1}, b""], "the file ends without the closing ]"),
        (b'[{"a":1},', [{"a": 1}, b""], "the file ends without the closing ]"),
        (b"[", [b""], "the file ends without the closing ]"),
        (
            b'[{"a":1}], {"b":2}',
            [{"a": 1}, b', {"b":2}'],
            "there is more text after the end of the",
        ),
        (b"[{}]\n[{}]", [{}, b"[{}]"], "there is more text after the end of the array"),
    ],
)
@pytest.mark.parametrize("block", [1, 3, 1_000])
async def test_broken_arrays(data, expected, reason, block, monkeypatch):
    read_in_blocks(monkeypatch, block)
    records = await read(data, name="x.json")
    assert values(records) == expected
    assert any((text or "").startswith(reason) for text in reasons(records))


pieces = ["{", "}", "[", "]", ",", '"', "\\", '\\"', " ", "\n", "1", '"a":1', '{"a":1}', '["x"]']


@quick
@given(st.lists(st.sampled_from(pieces), max_size=25).map("".join), st.integers(1, 5))
async def test_no_byte_of_a_broken_array_is_lost(text, block):
    data = f"[{text}".encode()
    whole = await read(data, format="json")
    with pytest.MonkeyPatch.context() as patch:
        read_in_blocks(patch, block)
        assert await read(data, format="json") == whole
    kept = b"".join(record.text or record.raw or b"" for record in whole)
    dropped = bytes.maketrans(b"", b""), b" \n[],"  # what stands between elements
    assert kept.translate(*dropped) == data.translate(*dropped)
    try:
        assert len(whole) == len(json.loads(data))
    except ValueError:
        assert any(record.text is None for record in whole) or text.rstrip(" \n]").endswith(",")


async def test_a_comma_behind_the_last_element_is_no_element():
    assert values(await read(b'[{"a":1},\n]', name="x.json")) == [{"a": 1}]


async def test_elements_that_are_too_long_fail_alone():
    long = b'{"a":"' + b'x{["\\"' * 300_000 + b'"}'
    records = await read(b'[{"a":1},\n' + long.replace(b'"\\"', b'\\"') + b',\n{"a":2}]')
    assert [record.text is not None for record in records] == [True, False, True]
    assert len(records[1].raw or b"") == 1_048_576
    assert lines(records) == [1, 2, 3]


# Formats, compression, kinds of file


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("suffix", "data"),
    [
        (".csv", b"a\n1\n"),
        (".CSV", b"a\n1\n"),
        (".tsv", b"a\n1\n"),
        (".txt", b"a\n1\n"),
        (".jsonl", b'{"a":"1"}\n'),
        (".ndjson", b'{"a":"1"}\n'),
        (".json", b'[{"a":"1"}]\n'),
        (".unknown", b'[{"a":"1"}]\n'),
        (".unknown", b'{"a":"1"}\n'),
        ("", b"a\n1\n"),
    ],
)
async def test_names_and_contents_tell_the_format(tmp_path, suffix, data, zipped):
    path = tmp_path / f"data{suffix}{'.gz' if zipped else ''}"
    data = gzip.compress(data) if zipped else data
    path.write_bytes(data)
    source = read_file(path)
    assert isinstance(source, Source)
    assert source.is_local
    info, records = await opened(source)
    assert values(records) == [{"a": "1"}]
    assert (info.name, info.size) == (path.name, len(data))
    assert info.sha256 == hashlib.sha256(data).hexdigest()
    assert values((await opened(source))[1]) == [{"a": "1"}]  # a path can be read again


async def test_gzip_is_recognised_without_its_name_and_may_have_several_members():
    data = gzip.compress(b"a,b\n1,2\n") + gzip.compress(b"") + gzip.compress(b"3,4\n") + b"\0" * 99
    assert values(await read(data, name="x.csv")) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


rows = "".join(f"{number},{random.Random(number).random()}\n" for number in range(40_000))
zipped_rows = gzip.compress(b"a,b\n" + rows.encode(), mtime=0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a,b\n1,2\n", "x.csv.gz is not gzip data, although its name says so."),
        (b"", "x.csv.gz is not gzip data"),
        (zipped_rows[:-1], f"The gzip data ends too early, at byte {len(zipped_rows) - 1:,}."),
        (zipped_rows[:99], "The gzip data ends too early, at byte 99."),
        (zipped_rows[:5], "The gzip data ends too early, at byte 5."),
        (zipped_rows[:-6] + b"xy" + zipped_rows[-4:], "The gzip data is corrupt within the"),
        (zipped_rows + b"garbage", "The gzip data is corrupt within the"),
        (gzip.compress(b"a\n" + b"0" * 40_000_000), "The gzip data expands to more than 200 times"),
    ],
    ids=[
        "renamed",
        "empty",
        "one-byte-less",
        "hundred-bytes",
        "header",
        "checksum",
        "garbage",
        "bomb",
    ],
)
async def test_broken_gzip_is_refused_as_a_whole(data, message):
    with pytest.raises(SourceError) as caught:
        await read(data, name="x.csv.gz")
    assert str(caught.value).startswith(message)


async def test_gzip_limits_can_be_changed():
    bomb = gzip.compress(b"a\n" + (b"0" * 999 + b"\n") * 4_000)
    assert len(await read(bomb, max_ratio=2_000)) == 4_000
    with pytest.raises(SourceError, match="expands to more than 3,000,000 bytes"):
        await read(bomb, max_ratio=2_000, max_output_bytes=3_000_000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"format": "xlsx"},
            "The format 'xlsx' is not supported.\nHint: use one of csv, tsv, jsonl, json.",
        ),
        ({"encoding": "klingon"}, "The encoding 'klingon' does not exist."),
        ({"encoding": "base64"}, "The encoding 'base64' does not exist."),
        ({"delimiter": ";;"}, "';;' is not a valid delimiter."),
        ({"delimiter": '"'}, "'\"' is not a valid delimiter."),
        ({"columns": []}, "The columns are not a list of names."),
        ({"columns": "ab"}, "The columns are not a list of names."),
        ({"columns": ["a", "a"]}, "The list of columns repeats the name 'a'."),
        ({"columns": ["a", " "]}, "The list of columns has no name in column 2."),
    ],
)
def test_options_that_cannot_work(options, message):
    with pytest.raises(SourceError) as caught:
        read_file(io.BytesIO(), **options)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("options", [{"columns": ["a"]}, {"delimiter": ";"}])
async def test_options_for_csv_only(options):
    with pytest.raises(SourceError, match="apply only to tables; this file is json"):
        await read(b"[]", name="x.json", **options)


@pytest.mark.parametrize("data", [b"", b"\n\r\n"])
@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.jsonl", "x.json", None])
async def test_empty_files_have_no_records(data, name):
    info, records = await opened(read_file(io.BytesIO(data), name=name))
    assert (info.columns, records) == (None, [])


async def test_a_file_with_a_header_only():
    info, records = await opened(read_file(io.BytesIO(b"a,b"), name="x.csv"))
    assert (info.columns, records) == (("a", "b"), [])


class Pipe(io.RawIOBase):
    """A file that cannot go back."""

    def __init__(self, data):
        self.data = io.BytesIO(data)

    def readable(self):
        return True

    def read(self, size=-1):
        return self.data.read(min(size, 7))


data_and_info = (
    b"a\n1\n2\n",
    SourceInfo(None, 6, hashlib.sha256(b"a\n1\n2\n").hexdigest(), ("a",), "csv", "utf-8"),
)


@pytest.mark.parametrize(
    "make",
    [
        io.BytesIO,
        Pipe,
        lambda data: body(*[data[place : place + 1] for place in range(len(data))]),
        lambda data: body(bytearray(data), b"", memoryview(b"")),
    ],
)
async def test_kinds_of_file(make):
    data, expected = data_and_info
    source = read_file(make(data))
    assert not source.is_local
    info, records = await opened(source)
    assert info == expected
    assert values(records) == [{"a": "1"}, {"a": "2"}]


async def test_a_file_of_the_user_is_read_from_its_beginning_and_stays_open(tmp_path):
    with tempfile.SpooledTemporaryFile() as file:
        file.write(b"a\n1\n")
        assert values((await opened(read_file(file)))[1]) == [{"a": "1"}]
        assert not file.closed
    (tmp_path / "named.csv").write_bytes(b"a\n1\n")
    with (tmp_path / "named.csv").open("rb") as file:
        info, _ = await opened(read_file(file))
        assert info.name == "named.csv"


async def test_standard_input_has_no_name():
    reading, writing = os.pipe()
    os.write(writing, b"a\n1\n")
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        info, records = await opened(read_file(file))
    assert info.name is None
    assert len(records) == 1


async def test_a_stream_can_be_received_only_once():
    source = read_file(body(b"a\n1\n"))
    await opened(source)
    with pytest.raises(SourceError, match="already read"):
        await opened(source)


async def test_what_is_no_binary_file(tmp_path):
    text = tmp_path / "text.csv"
    text.write_text("a\n1\n")
    with text.open() as file, pytest.raises(SourceError, match="text instead of bytes"):
        read_file(file)
    with pytest.raises(SourceError, match="does not exist"):
        read_file(tmp_path / "missing.csv")
    with pytest.raises(SourceError, match="is a folder"):
        read_file(str(tmp_path))
    for wrong in (b"a\n1\n", 7, None, [b"a"]):
        with pytest.raises(SourceError, match="is not a file"):
            read_file(wrong)  # type: ignore[arg-type]
    with tempfile.NamedTemporaryFile("w+") as file, pytest.raises(SourceError, match="text"):
        await opened(read_file(file))
    with pytest.raises(SourceError, match="text instead of bytes"):
        await opened(read_file(body("text")))
    with pytest.raises(SourceError, match="returned int"):
        await opened(read_file(body(7)))

    class Upload:
        async def read(self, size):
            return b""

    with pytest.raises(SourceError, match=r"upload\.file"):
        read_file(Upload())


async def test_what_a_sender_raises_is_passed_on():
    async def sender():
        yield b"a\n1\n"
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError, match="gone"):
        await opened(read_file(sender()))


async def test_a_file_that_is_changed_while_it_is_read(tmp_path):
    path = tmp_path / "data.csv"
    path.write_bytes(b"a\n" + b"1\n" * 1_000)
    async with read_file(path).open() as reading:
        chunks = reading.chunks(Limits())
        assert len(await anext(chunks)) == 500
        path.write_bytes(b"a\n2\n")
        await anext(chunks)  # was read before
        with pytest.raises(SourceError, match="changed while it was read"):
            await anext(chunks)


async def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = tmp_path / "data.csv"
    path.write_bytes(b"a\n")
    source = read_file(path)
    path.unlink()
    with pytest.raises(SourceError, match="cannot be opened: No such file"):
        await opened(source)


async def test_progress_counts_stored_bytes(tmp_path):
    path = tmp_path / "data.csv.gz"
    path.write_bytes(zipped_rows)
    positions = []
    async with read_file(path).open() as reading:
        async for chunk in reading.chunks(Limits()):
            assert len(chunk) <= 500
            positions.append(reading.bytes_read)
    assert positions == sorted(positions)
    assert 0 < positions[0] < len(zipped_rows) == positions[-1] == reading.info.size


async def test_reading_happens_outside_of_the_event_loop():
    seen = set()

    class Watched(io.BytesIO):
        def read(self, *args):
            seen.add(threading.current_thread())
            return super().read(*args)

    assert len((await opened(read_file(Watched(b"a\n1\n"))))[1]) == 1
    assert threading.main_thread() not in seen


# Constant memory


class Generated(io.RawIOBase):
    """A seekable file of 25 MB that is made while it is read."""

    def __init__(self, head, part, tail=b""):
        self.head, self.tail = head, tail
        self.part = part * (65_536 // len(part) + 1)
        self.parts = 25_000_000 // len(self.part)
        self.seek(0)

    def seekable(self):
        return True

    def seek(self, place, whence=0):
        self.blocks = itertools.chain(
            [self.head], itertools.repeat(self.part, self.parts), [self.tail]
        )
        self.buffer = b""
        return 0

    def read(self, size=-1):
        while len(self.buffer) < size and (block := next(self.blocks, b"")):
            self.buffer += block
        result, self.buffer = self.buffer[:size], self.buffer[size:]
        return result


words = string.ascii_letters * 20
row = f"{words},1\n".encode() * 60


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (Generated(b"a,b\n", row), None),
        (Generated(b"", b'{"a":"%s"}\n' % words.encode() * 60), None),
        (Generated(b"[", b'{"a":"%s"},' % words.encode() * 60, b"{}]"), None),
        (Generated(b'a,b\n1,2\n"', b"x"), 2),
        (Generated(b'{"a":1}\n{"a":"', b"x", b'"}\n{"a":1}'), 3),
        (Generated(b'[{},{"a":"', b"x[{", b'"},{}]'), 3),
        (Generated(b"[{},{", b"[{", b""), 2),
        (Generated(b'[{},{"a":[', b"[" + b" " * 999 + b"],", b"]},{}]"), 3),
        (Generated(b"[{}],", b"[{", b""), 2),
    ],
    ids=["csv", "jsonl", "array", "quote", "line", "element", "brackets", "nested", "behind"],
)
async def test_memory_is_constant(file, expected):
    count = 0
    async with read_file(file).open() as reading:
        tracemalloc.start()
        async for chunk in reading.chunks(Limits()):
            count += len(chunk)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert count == expected or (expected is None and count > 20_000)
    assert peak < 12_000_000


async def test_chunks_are_bounded_by_their_text():
    data = "".join(f'{{"a":"{"x" * 100_000}"}}\n' for _ in range(50)).encode()
    async with read_file(io.BytesIO(data)).open() as reading:
        sizes = [len(chunk) async for chunk in reading.chunks(Limits())]
    assert sizes == [11, 11, 11, 11, 6]


# Iterables


class Person(BaseModel):
    name: str


async def people(count):
    for number in range(count):
        yield {"n": number}


@pytest.mark.parametrize(
    ("items", "is_local"),
    [
        ([{"n": number} for number in range(1_234)], True),
        (tuple({"n": number} for number in range(1_234)), True),
        (({"n": number} for number in range(1_234)), False),
        (people(1_234), False),
        ({number: {"n": number} for number in range(1_234)}.values(), False),
    ],
)
async def test_iterables(items, is_local):
    source = as_source(items)
    assert isinstance(source, Source)
    assert as_source(source) is source
    assert source.is_local is is_local
    async with source.open() as reading:
        chunks = [chunk async for chunk in reading.chunks(Limits())]
        assert reading.info == SourceInfo()
        assert reading.bytes_read == 0
    records = list(itertools.chain.from_iterable(chunks))
    assert max(map(len, chunks)) <= 500
    assert {record.line for record in records} == {None}
    assert values(records) == [{"n": number} for number in range(1_234)]


async def test_bad_records_among_good_ones():
    source = as_source([{"a": 1}, {"a": float("nan")}, "text", None, Person(name="Zoë")])
    _, records = await opened(source)
    assert [record.text is None for record in records] == [False, True, True, True, False]


async def test_chunks_of_long_values():
    items = ({"a": "x" * 200_000} for _ in range(40))
    async with as_source(items).open() as reading:
        sizes = [len(chunk) async for chunk in reading.chunks(Limits())]
    assert max(sizes) <= 6
    assert sum(sizes) == 40


async def test_what_an_iterable_raises_is_passed_on():
    class GoneError(Exception):
        pass

    def broken():
        yield {"a": 1}
        raise GoneError

    async def broken_async():
        yield {"a": 1}
        raise GoneError

    for items in (broken(), broken_async()):
        with pytest.raises(GoneError):
            await opened(as_source(items))


async def test_an_iterator_can_be_read_only_once():
    for items in (iter([{"a": 1}]), people(1)):
        source = as_source(items)
        assert len((await opened(source))[1]) == 1
        with pytest.raises(SourceError, match="already read"):
            await opened(source)
    source = as_source([{"a": 1}])
    assert len((await opened(source))[1] + (await opened(source))[1]) == 2
    assert (await opened(as_source([])))[1] == []


@pytest.mark.parametrize("wrong", [{"a": 1}, "text", b"bytes", Person(name="x"), 7, None])
def test_what_is_no_collection(wrong):
    with pytest.raises(SourceError, match="pass a list of records"):
        as_source(wrong)


async def test_iterables_are_iterated_in_the_event_loop():
    threads = set()

    def items():
        for number in range(600):
            threads.add(threading.current_thread())
            yield {"n": number}

    assert len((await opened(as_source(items())))[1]) == 600
    assert threads == {threading.main_thread()}


async def test_opened_sources_have_what_a_progress_bar_needs():
    reading: OpenedSource
    async with read_file(io.BytesIO(b"a\n1\n")).open() as reading:
        assert reading.info.size == 4
