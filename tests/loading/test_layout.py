"""Where the table in a file is, and what its columns are called."""

import bz2
import gzip
import io
import json
import lzma
import zipfile

import pytest

from reliable_imports_async import read_file
from reliable_imports_async.errors import SourceError

from .reach import Limits


async def opened(data, **options):
    """The columns, the notes, and the records by line."""
    async with read_file(io.BytesIO(data), **options).open() as file:
        records = [record async for chunk in file.chunks(Limits()) for record in chunk]
        found = {
            record.line: json.loads(record.text) if record.text else record.reason
            for record in records
        }
        return file.info.columns, (*file.info.notes, *file.late_notes), found


async def columns_of(text, **options):
    return (await opened(text.encode(), **options))[0]


@pytest.mark.parametrize(
    ("text", "columns", "line"),
    [
        ("id,name\n1,Ann\n2,Bob\n", ("id", "name"), 1),
        (
            "Report\nPeriod: 2026-01\n\nid,name,amount\n1,Ann,10\n2,Bob,20\nTotal,,30\n",
            ("id", "name", "amount"),
            4,
        ),
        ("Report;;\n;;\nid;name;amount\n1;Ann;10\n2;Bob;20\n", ("id", "name", "amount"), 3),
        (
            "Sales, all regions\n\nid;name;amount\n1;Ann;1,5\n2;Bob;2,5\n",
            ("id", "name", "amount"),
            3,
        ),
        (
            "Company;ACME;;\nDate;1.1.2026;;\nid;name;city;total\n1;Ann;Rome;5\n2;Bob;Oslo;6\n",
            ("id", "name", "city", "total"),
            3,
        ),
        ("People\nfirst,last,city\nAnn,Smith,Rome\nBob,Jones,Oslo\n", ("first", "last", "city"), 2),
    ],
)
async def test_the_header_is_found_below_titles(text, columns, line):
    found, notes, records = await opened(text.encode())
    assert found == columns
    assert min(records) == line + 1
    assert any(f"The header is in line {line};" in note for note in notes) == (line > 1)


@pytest.mark.parametrize(
    "text",
    [
        "name\nDoe, John\nRoe, Ann, Dr\n",  # one column, and commas in the text
        "id,name\n1,Ann,x\n2,Bob,y\n",  # a header that is too short
        "a\nb,c\n",
        "country,2019,2020\nItaly,1,2\n",
        "a,b\n,\nx,y\n",
        "key,value\nx,\ny,2\n",
    ],
)
async def test_the_first_line_is_the_header_in_doubt(text):
    assert await columns_of(text, delimiter=",") == tuple(text.split("\n")[0].split(","))


@pytest.mark.parametrize(
    ("options", "columns", "lines"),
    [
        ({"skip_rows": 2}, ("a", "b"), [4, 6]),
        ({"header_row": 3}, ("a", "b"), [4, 6]),
        ({"header_row": 3, "skip_footer": 1}, ("a", "b"), [4]),
        ({"header_row": 3, "comment": "#"}, ("a", "b"), [4, 6]),
        ({"header_row": 3, "columns": ["x", "y"]}, ("x", "y"), [4, 6]),
        ({"skip_rows": 3, "columns": ["x", "y"]}, ("x", "y"), [4, 6]),
        ({"skip_rows": 2, "columns": ["a", "B"]}, ("a", "B"), [4, 6]),
        ({"skip_rows": 2, "skip_footer": 9}, ("a", "b"), []),
    ],
)
async def test_the_caller_says_where_the_table_is(options, columns, lines):
    text = b"t,u\nv,w\na,b\n1,2\n,\n3,4\n"
    found, notes, records = await opened(text, **options)
    assert (found, list(records)) == (columns, lines)
    assert any("1 row without values was skipped." in note for note in notes)


async def test_comments_are_no_records():
    data = b'# made by x\na,b\n#1,2\n3,"#4\n# 5"\n'
    columns, _, records = await opened(data, comment="#")
    assert (columns, list(records)) == (("a", "b"), [4])
    assert records[4] == {"a": "3", "b": "#4\n# 5"}


@pytest.mark.parametrize("comment", ["é", "\ud800", "語", "//"])
async def test_a_comment_that_the_encoding_lacks_marks_nothing(comment):
    _, _, records = await opened(b"a,b\n?,2\n", comment=comment, encoding="cp1251")
    assert records == {2: {"a": "?", "b": "2"}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"skip_rows": -1}, "skip_rows=-1 is not valid."),
        ({"skip_rows": True}, "skip_rows=True is not valid."),
        ({"header_row": 0}, "header_row=0 is not valid."),
        ({"header_row": 10**9}, "header_row=1000000000 is not valid."),
        ({"skip_footer": 1.5}, "skip_footer=1.5 is not valid."),
        ({"header_row": 2, "skip_rows": 2}, "The header cannot be in line 2 if skip_rows is 2."),
        ({"comment": " "}, "' ' cannot mark comments."),
        ({"comment": '"'}, "'\"' cannot mark comments."),
    ],
)
def test_layouts_that_cannot_be(options, message):
    with pytest.raises(SourceError) as caught:
        read_file(io.BytesIO(), **options)
    assert str(caught.value).startswith(message)


def test_unknown_options_are_refused_by_name():
    with pytest.raises(TypeError, match="Did you mean 'header_row'"):
        read_file(io.BytesIO(), header_rows=2)


async def test_names_are_made_usable():
    data = "\ufeff id\u00a0,na\u200bme,name,,x\n1,A,B,,c\n2,A,B,w,c\n".encode()
    columns, notes, records = await opened(data)
    assert columns == ("id", "name", "name_2", "x", "column_4")
    assert records == {
        2: {"id": "1", "name": "A", "name_2": "B", "x": "c"},
        3: {"id": "2", "name": "A", "name_2": "B", "x": "c", "column_4": "w"},
    }
    assert "The header repeats names; the columns were named name_2." in notes
    assert "1 column has values but no name: column_4." in notes


async def test_a_delimiter_at_the_end_of_every_row_is_no_column():
    columns, _, records = await opened(b"id;name\n1;Ann;\n2;Bob;\n")
    assert (columns, records[3]) == (("id", "name"), {"id": "2", "name": "Bob"})
    _, _, records = await opened(b"id;name\n1;Ann;\n2;Bob;x\n", delimiter=";")
    assert records[3] == "line 3: 3 fields, the header has 2"


async def test_quotes_may_be_escaped_by_a_backslash():
    data = b'id,text\n1,"say \\"hi, you\\""\n2,"back\\\\slash"\n3,C:\\new\n'
    _, _, records = await opened(data)
    assert [record["text"] for record in records.values()] == [
        'say "hi, you"', "back\\slash", "C:\\new",
    ]  # fmt: skip
    _, _, records = await opened(b'id,text\n1,"C:\\temp\\"\n')  # usual quotes
    assert records[2]["text"] == "C:\\temp\\"


ROWS = b"id,name\n" + b"".join(b"%d,Ann\n" % number for number in range(1000))


def zipped(**files):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name.replace("__", "."), data)
    return target.getvalue()


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (gzip.compress(ROWS), "x.csv.gz"),
        (bz2.compress(ROWS), "x.csv.bz2"),
        (bz2.compress(ROWS[:500]) + bz2.compress(ROWS[500:]), None),
        (lzma.compress(ROWS), "x.csv.xz"),
        (lzma.compress(ROWS) + lzma.compress(b""), None),
        (zipped(people__csv=ROWS), "x.zip"),
        (zipped(people__csv=ROWS), "called.csv"),
    ],
)
async def test_compressed_files(data, name):
    columns, _, records = await opened(data, name=name)
    assert (columns, len(records)) == (("id", "name"), 1000)


async def test_a_file_in_an_archive():
    data = zipped(a__csv=ROWS, b__json=b'[{"x": 1}]')
    assert (await opened(data, member="a.csv"))[0] == ("id", "name")
    assert (await opened(data, member="b.json"))[2].popitem()[1] == {"x": 1}
    with pytest.raises(SourceError, match=r"ZIP archive that contains a\.csv, b\.json") as caught:
        await opened(data)
    assert "--member a.csv" in caught.value.cli_hint
    with pytest.raises(SourceError, match="no file 'c'"):
        await opened(data, member="c")
    with pytest.raises(SourceError, match="not a ZIP archive"):
        await opened(ROWS, member="c")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (bz2.compress(ROWS)[:-9], "The bzip2 data ends too early"),
        (lzma.compress(ROWS)[:-9], "The xz data ends too early"),
        (bz2.compress(ROWS) + b"garbage", "The bzip2 data is corrupt"),
        (bz2.compress(b"a\n" + b"0" * 20_000_000), "The bzip2 data expands to more than 200"),
        (lzma.compress(b"a\n" + b"0" * 20_000_000), "The xz data expands to more than 200"),
        (zipped(a__csv=b"a\n" + b"0" * 20_000_000), "The ZIP data expands to more than 200"),
        (zipped(a__csv=gzip.compress(ROWS)), "The file is gzip data inside"),
        (zipped(a__csv=ROWS)[:200], "The file is a ZIP archive"),
        (bz2.compress(bz2.compress(ROWS)), "The file is compressed twice"),
    ],
)
async def test_compressed_files_that_cannot_be_read(data, message):
    with pytest.raises(SourceError) as caught:
        await opened(data)
    assert str(caught.value).startswith(message)
