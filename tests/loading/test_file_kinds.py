"""What a file may be, by kinds: encodings, layouts, other programs' files, columns, nothing."""

import codecs
import gzip
import io
import itertools
import json
import random
import tarfile
import zipfile
from dataclasses import dataclass
from typing import Annotated

import pydantic
import pytest
from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field, RootModel
from typing_extensions import TypedDict

from reliable_imports_async import BaseProcessor, BatchManager, read_file
from reliable_imports_async.errors import (
    ColumnsRefused,
    ConfigurationError,
    EncodingInDoubt,
    NothingInSource,
    SourceError,
    TotalsDisagree,
)

from ..repair.reach import changes
from .reach import Limits, SourceInfo, check_columns, guessed_encoding, is_plausible

GERMAN = "Müller Jörg Käthe Großmann Weiß Schröder Krüger Jäger Köhler Straße Übergröße schön"
FRENCH = (
    "François Hélène Noël Émile Benoît Jérôme Lefèvre Côté Forêt hôpital château été où élève "
    "première garçon déjà frère sœur chère boîte août Noé français êtes même règle gâteau tête "
    "près très après voilà là être rivière lumière"
)
POLISH = "Łukasz Wałęsa Żółć Gdańsk Kraków Łódź Małgorzata Paweł Michał dziękuję proszę źródło"
CZECH = "Dvořák Novák Šimůnek Čapek Žižka Říha Plzeň Ústí Jiří Tomáš Kateřina Zdeněk příliš kůň"
HUNGARIAN = "István Erzsébet László Győr Szőke Kovács Tóth Szűcs Péter Ágnes Őri árvíztűrő fúrógép"
RUSSIAN = "Иванов Пётр Сергей Смирнова Екатерина Москва улица квартира Дмитрий Ольга заказ оплачено"
JAPANESE = (
    "田中太郎 鈴木花子 東京都 大阪市 北海道 山田 さくら カタカナ コーヒー 株式会社 注文番号 電話"
)
CHINESE = "北京市 上海市 张伟 王芳 李娜 刘洋 陈静 地址 电话 订单 客户 广东省深圳市 我们 中国 公司"
TAIWANESE = (
    "臺北市 高雄市 陳大文 林美玲 張志明 黃淑芬 地址 電話 訂單 客戶 諸葛亮 無此 王者之劍 玩家"
)
KOREAN = (
    "김철수 이영희 박민수 서울특별시 부산광역시 주소 전화번호 주문 고객 회사 대한민국 홍길동 최지우"
)
ENCODINGS = [
    (GERMAN, "cp1252"),
    (FRENCH, "cp1252"),
    (POLISH, "cp1250"),
    (POLISH, "iso8859-2"),
    (CZECH, "cp1250"),
    (CZECH, "iso8859-2"),
    (HUNGARIAN, "cp1250"),
    (RUSSIAN, "cp1251"),
    (RUSSIAN, "koi8-r"),
    (JAPANESE, "shift_jis"),
    (CHINESE, "gb18030"),
    (CHINESE, "gbk"),
    (TAIWANESE, "big5"),
    (KOREAN, "euc_kr"),
    (KOREAN, "cp949"),
]


def table(words: str, rows: int, *, share: float = 1.0, seed: int = 1) -> str:
    """A CSV file with names; `share` of them are words of a language, the others are ASCII."""
    choose = random.Random(seed)
    known, plain = words.split(), ["Smith", "Berlin", "A-17", "open", "no", "Main Street"]

    def name() -> str:
        return choose.choice(known if choose.random() < share else plain)

    lines = [f"{n},{name()} {name()},{name()}" for n in range(rows)]
    return "\n".join(["id,name,city", *lines, ""])


async def opened(data: bytes, **options):
    """What is known about a file, and all its records."""
    async with read_file(io.BytesIO(data), **options).open() as reading:
        chunks = [chunk async for chunk in reading.chunks(Limits())]
    return reading.info, list(itertools.chain.from_iterable(chunks))


async def values(data: bytes, **options):
    """The records; None for one that could not be read."""
    _, records = await opened(data, **options)
    return [None if one.text is None else json.loads(one.text) for one in records]


def rows_of(text: str) -> list[dict[str, str]]:
    header, *lines = text.strip().split("\n")
    return [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]


# Encodings


@pytest.mark.parametrize(("words", "encoding"), ENCODINGS, ids=lambda one: one[:12])
@pytest.mark.parametrize("rows", [60, 2_000])
async def test_an_encoding_is_recognised_and_told(words, encoding, rows):
    text = table(words, rows)
    info, records = await opened(text.encode(encoding))
    assert [json.loads(one.text) for one in records] == rows_of(text)
    (note,) = info.notes
    assert info.encoding in note
    assert any(word in note for word in words.split())


@pytest.mark.parametrize(("words", "encoding"), ENCODINGS, ids=lambda one: one[:12])
@pytest.mark.parametrize("share", [1.0, 0.3, 0.05])
async def test_a_text_is_never_garbled_however_short(words, encoding, share):
    """It is read as it was written, or refused."""
    for rows, seed in itertools.product((3, 10, 30), range(8)):
        data = table(words, rows, share=share, seed=seed).encode(encoding)
        try:
            found, _ = guessed_encoding(io.BytesIO(data).read)
        except EncodingInDoubt:
            continue
        assert _is_the_same(data, found, encoding), (rows, seed, found)


def _is_the_same(data: bytes, found: str, encoding: str) -> bool:
    text = data.decode(encoding)
    by_chance = (
        found == "utf-8" and not data.isascii()
    )  # GBK may be valid UTF-8, in two or so words
    return by_chance or data.decode(found) == text


@pytest.mark.parametrize("words", [GERMAN, FRENCH, RUSSIAN, CHINESE, KOREAN])
@pytest.mark.parametrize("other", ["cp1252", "cp1251", "gb18030"])
async def test_in_a_file_that_is_utf_8_only_the_other_lines_fail(words, other):
    """Good lines far beyond the few bad ones, these at the beginning, in the middle, at the end."""
    text, good = table(words, 300), table(words, 300).encode().split(b"\n")
    foreign = {"cp1252": "Zoë", "cp1251": "Пётр", "gb18030": "张伟"}[other].encode(other)
    for place in (1, 150, 300):
        info, records = await opened(
            b"\n".join([*good[:place], b"900," + foreign + b",x", *good[place:]])
        )
        failed = [one for one in records if one.text is None]
        assert (info.encoding, len(failed)) == ("utf-8", 1)
        assert failed[0].raw == b"900," + foreign + b",x"
        assert (failed[0].line, "not valid utf-8" in failed[0].reason) == (place + 1, True)
        assert [json.loads(one.text) for one in records if one.text] == rows_of(text)
        assert "not valid UTF-8" in info.notes[0]


async def test_a_few_umlauts_of_windows_1252_are_recognised():
    for name in ("Müller", "Grün, hell", "José García", "Weiß", "Große Straße"):
        data = f'id,name\n1,"{name}"\n2,x\n'.encode("cp1252")
        assert (await values(data))[0]["name"] == name


async def test_half_utf_8_and_half_something_else_is_refused_with_both():
    data = table(GERMAN, 40).encode() + table(GERMAN, 200, seed=2).partition("\n")[2].encode(
        "cp1252"
    )
    with pytest.raises(EncodingInDoubt) as caught:
        await opened(data)
    assert caught.value.candidates[0] == "utf-8"
    assert (await values(data, encoding="utf-8"))[0] == rows_of(table(GERMAN, 1))[0]


async def test_the_refusal_shows_how_each_candidate_reads():
    with pytest.raises(EncodingInDoubt) as caught:
        await opened("id,name\n1,Dvořák\n".encode("cp1250"))
    assert {"cp1252", "cp1250"} <= set(caught.value.candidates)
    assert "Dvoøák" in caught.value.message
    assert "Dvořák" in caught.value.message
    assert "encoding=" in caught.value.hint
    assert "--encoding" in caught.value.cli_hint


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
async def test_utf_16_without_a_mark(encoding):
    info, records = await opened("id,name\n1,Müller\n2,Zoë\n".encode(encoding))
    assert [json.loads(one.text)["name"] for one in records] == ["Müller", "Zoë"]
    assert encoding in info.notes[0]


async def test_an_encoding_that_contradicts_the_mark_is_told():
    info, _ = await opened(codecs.BOM_UTF8 + b"id\n1\n", encoding="cp1252")
    assert "byte order mark says utf-8" in info.notes[0]
    info, _ = await opened(codecs.BOM_UTF8 + b"id\n1\n", encoding="utf-8")
    assert info.notes == ()


async def test_umlauts_far_behind_the_beginning_are_found():
    data = b"id,name\n" + b"1,x\n" * 200_000 + "2,Müller\n".encode("cp1252")
    info, records = await opened(data)
    assert json.loads(records[-1].text) == {"id": "2", "name": "Müller"}
    assert "cp1252" in info.notes[0]


def test_what_no_language_writes_is_not_plausible():
    for text in ("MÃ¼ller", "Mьller", "M黮ler", "зАКАЗ", "JŽlŹne", "├bergr"):
        assert not is_plausible(text), text
    for text in (
        GERMAN,
        POLISH,
        RUSSIAN,
        JAPANESE,
        KOREAN,
        "O\u2019Hara l·l 5 m³ iPhone手机 McDonald",
    ):
        assert is_plausible(text), text


# Layouts


ROWS = [{"id": "1", "name": "Ann"}, {"id": "2", "name": "Bob"}, {"id": "3", "name": "Cy"}]
LAYOUTS = {
    "LF": b"id,name\n1,Ann\n2,Bob\n3,Cy\n",
    "CRLF": b"id,name\r\n1,Ann\r\n2,Bob\r\n3,Cy\r\n",
    "CR": b"id,name\r1,Ann\r2,Bob\r3,Cy\r",
    "CR with one LF at the end": b"id,name\r1,Ann\r2,Bob\r3,Cy\n",
    "CR with one LF in the middle": b"id,name\r1,Ann\n2,Bob\r3,Cy\r",
    "CR with one CRLF": b"id,name\r1,Ann\r\n2,Bob\r3,Cy\r",
    "CR CR LF": b"id,name\r\r\n1,Ann\r\r\n2,Bob\r\r\n3,Cy\r\r\n",
    "LF with one CR": b"id,name\n1,Ann\r2,Bob\n3,Cy\n",
    "LF with one CRLF": b"id,name\n1,Ann\r\n2,Bob\n3,Cy",
    "blank lines": b"\n\nid,name\n\n1,Ann\n \n2,Bob\n\t\n3,Cy\n\n",
    "quoted": b'"id","name"\r"1","Ann"\r"2","Bob"\r"3","Cy"\n',
    "a mark written twice": codecs.BOM_UTF8 * 2 + b"id,name\n1,Ann\n2,Bob\n3,Cy\n",
    "UTF-16": "id,name\n1,Ann\n2,Bob\n3,Cy\n".encode("utf-16"),
    "two gzip members": gzip.compress(b"id,name\n1,Ann\n") + gzip.compress(b"2,Bob\n3,Cy\n"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_no_record_disappears_into_the_line_ends(layout):
    assert await values(LAYOUTS[layout]) == ROWS


@pytest.mark.parametrize("newline", ["\n", "\r", "\r\n"])
async def test_line_ends_in_quotes_are_kept(newline):
    for inner in ("\n", "\r", "\r\n", "\r\r\n", "\n\n"):
        data = newline.join(["id,name", f'1,"a{inner}b"', "2,c", ""]).encode()
        assert await values(data) == [{"id": "1", "name": f"a{inner}b"}, {"id": "2", "name": "c"}]


async def test_a_line_end_that_may_be_either_fails_its_row_alone():
    """Is 'An' the name, and 'n' a row; or is the name broken?"""
    _, records = await opened(b"id,name\n1,An\rn\n2,Bob\n")
    assert [one.text is None for one in records] == [True, False]
    assert records[0].raw == b"1,An\rn"
    assert "line 2: a line end outside quotes" in records[0].reason
    _, records = await opened(b"name\nAnn\rBob\nCy\n")
    assert [one.text is None for one in records] == [True, False]


async def test_a_missing_quote_costs_one_row():
    rows = [f"{n},name {n},x" for n in range(1, 3001)]
    for closing in ('"', '",y', 'q",y'):
        broken = [*rows]
        broken[9] = '10,"name 10,x'
        broken[500] = f"501,name 501{closing}"
        _, records = await opened("\n".join(["id,name,z", *broken]).encode())
        failed = [one.line for one in records if one.text is None]
        assert failed[0] == 11
        assert len(failed) <= 2
        assert len(records) == 3000


JSON_SHAPES = {
    "lines": b'{"id":1}\n{"id":2}\n',
    "lines with a mark": codecs.BOM_UTF8 + b'{"id":1}\n{"id":2}\n',
    "lines ended by CR": b'{"id":1}\r{"id":2}\r',
    "one after the other": b'{"id":1}{"id":2}',
    "with spaces": b' {"id":1}  {"id":2} ',
    "with commas": b'{"id":1},\n{"id":2},\n',
    "several a line": b'{"id":1}{"id":2}\n',
    "laid out": b'{\n  "id": 1\n}\n{\n  "id": 2\n}\n',
    "laid out without a line between": b'{\n "id": 1\n}{\n "id": 2\n}',
    "an array": b'[{"id":1},{"id":2}]',
}


@pytest.mark.parametrize("name", ["x.json", "x.jsonl", None])
@pytest.mark.parametrize("shape", JSON_SHAPES)
async def test_json_objects_are_records_in_any_layout(shape, name):
    assert await values(JSON_SHAPES[shape], name=name) == [{"id": 1}, {"id": 2}]


async def test_several_objects_in_a_line_among_others():
    data = b'{"id":1}\n{"id":2}{"id":3}\n{"id":4}\n{"id":5}{"id"\n'
    _, records = await opened(data, name="x.jsonl")
    assert [one.text for one in records] == [
        b'{"id":1}',
        b'{"id":2}',
        b'{"id":3}',
        b'{"id":4}',
        None,
    ]
    assert [one.line for one in records] == [1, 2, 2, 3, 4]


async def test_what_stands_between_objects_fails_visibly():
    _, records = await opened(b'{\n"id": 1\n}\ngarbage\n{\n"id": 2\n} ] {\n"id": 3}', name="x.json")
    assert [one.text and json.loads(one.text) for one in records] == [
        {"id": 1}, None, {"id": 2}, None, {"id": 3}
    ]  # fmt: skip
    assert [one.raw for one in records if one.text is None] == [b"garbage", b"]"]


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"count": 2, "data": [{"id": 1}, {"id": 2}]}, "data"),
        ({"customers": [{"id": 1}]}, "customers"),
        ({"count": 0, "results": []}, "results"),
        ({"response": {"items": [{"id": 1}]}}, "response.items"),
        ({"data": [{"id": n, "note": "x" * 100} for n in range(20_000)]}, "data"),
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
async def test_a_list_within_one_object_is_not_one_record(document, path, indent):
    data = json.dumps(document, indent=indent).encode()
    for name in ("x.json", "x.jsonl", None):
        with pytest.raises(SourceError, match="single object") as caught:
            await opened(data, name=name)
        assert repr(path) in caught.value.message
        assert path in caught.value.cli_hint


async def test_one_object_may_be_one_record():
    for one in ({"id": 1, "tags": ["a"]}, {"id": 1, "list": {"a": 1}}, {"id": 1, "codes": []}):
        assert await values(json.dumps(one, indent=1).encode(), name="x.json") == [one]


# Files of other programs


def _zip(*names: str, mimetype: str = "") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        if mimetype:
            archive.writestr("mimetype", mimetype, zipfile.ZIP_STORED)
        for name in names:
            archive.writestr(name, "id,name\n1,Ann\n" * 50)
    return file.getvalue()


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo("people.csv")
        info.size = 14
        archive.addfile(info, io.BytesIO(b"id,name\n1,Ann\n"))
    return file.getvalue()


OLE = bytes.fromhex("d0cf11e0a1b11ae1")
NOISE = bytes(range(256)) * 20
OTHER_FILES = {
    "Excel workbook (.xlsx)": _zip("[Content_Types].xml", "xl/workbook.xml"),
    "Excel workbook (.xlsb)": _zip("[Content_Types].xml", "xl/workbook.bin"),
    "OpenDocument workbook": _zip(
        "content.xml", mimetype="application/vnd.oasis.opendocument.spreadsheet"
    ),
    "Word document (.docx)": _zip("[Content_Types].xml", "word/document.xml"),
    "old Excel workbook": OLE + NOISE,
    "encrypted Office document": OLE + NOISE + "EncryptedPackage".encode("utf-16-le"),
    "XML Spreadsheet 2003": b'<?xml version="1.0"?>\n<Workbook xmlns="urn:schemas-microsoft-com:'
    b'office:spreadsheet"></Workbook>',
    "PDF": b"%PDF-1.4\n1 0 obj\n<<>>\n",
    "PNG": b"\x89PNG\r\n\x1a\n" + NOISE,
    "JPEG": b"\xff\xd8\xff\xe0" + NOISE,
    "GIF": b"GIF89a" + NOISE,
    "HTML": b"<html>\n<table>\n<tr><td>id</td></tr>\n</table>\n</html>\n",
    "HTML page": b"\n <!DOCTYPE html>\n<html lang=en>",
    "XML file": b'<?xml version="1.0"?>\n<people><person id="1"/></people>',
    "Parquet": b"PAR1\x15\x04" + NOISE,
    "SQLite": b"SQLite format 3\0" + NOISE,
    "tar archive": _tar(),
    "gzip data": gzip.compress(gzip.compress(b"id\n1\n")),
    "7-Zip": b"7z\xbc\xaf\x27\x1c" + NOISE,
    "RAR": b"Rar!\x1a\x07\x01\x00" + NOISE,
    "ELF": b"\x7fELF" + NOISE,
    "Windows": b"MZ\x90\0\x03\0\0\0" + NOISE,
    "RTF": b"{\\rtf1\\ansi Hello}",
    "binary file": random.Random(1).randbytes(5_000),
}


@pytest.mark.parametrize("kind", OTHER_FILES)
@pytest.mark.parametrize("name", ["people.csv", "x.json", None])
async def test_files_of_other_programs_are_refused_by_name(kind, name):
    for data in (OTHER_FILES[kind], gzip.compress(OTHER_FILES[kind])):
        with pytest.raises(SourceError) as caught:
            await opened(data, name=name)
        assert kind in caught.value.message
        assert caught.value.hint
        assert len(caught.value.message) < 300
        assert "\0" not in caught.value.message


@pytest.mark.parametrize(
    "data",
    [b"MZ,name\n1,Ann\n", b"ORC,name\n1,Ann\n", b"PAR1,b\n1,2\n", b"PK,id\n1,2\n", b"a<b,c\n1,2\n"],
)
async def test_a_header_may_begin_like_another_file(data):
    assert len(await values(data)) == 1


async def test_zero_bytes_fail_their_rows_only():
    _, records = await opened(b"id,name\n1,a\n2,b\0c\n3,d\n")
    assert [one.text is None for one in records] == [False, True, False]


async def test_the_separator_line_of_excel_names_the_delimiter():
    for first in (b"sep=;", b'"sep=;"', b"SEP=;"):
        info, records = await opened(first + b"\r\nid;name, first\r\n1;Ann\r\n")
        assert info.columns == ("id", "name, first")
        assert [record.line for record in records] == [3]


# Columns


class Person(BaseModel):
    id: int
    name: str
    phone: str | None = None


class PersonProcessor(BaseProcessor[Person]):
    async def process_item(self, item, ctx):
        pass


def processor_of(model) -> BaseProcessor:
    class Some(BaseProcessor[model]):
        async def process_item(self, item, ctx):
            pass

    return Some()


def checked(model, *columns: str, head: tuple[str, ...] = ()) -> list[str]:
    return check_columns(processor_of(model), SourceInfo(columns=columns, head=head))


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (("id", "Name"), "'Name' for 'name'"),
        (("id", " name"), "' name' for 'name'"),
        (("id", "\ufeffname"), r"'\ufeffname' for 'name'"),
        (("id", "na\u200bme"), r"'na\u200bme' for 'name'"),
        (("id", "nam"), "'nam' for 'name'"),
        (("1", "Ann"), "'id', 'name'"),
    ],
)
def test_a_column_that_is_missing_is_refused_with_the_likeliest(columns, shown):
    with pytest.raises(ColumnsRefused) as caught:
        checked(Person, *columns)
    assert shown in caught.value.message
    assert "Person requires" in caught.value.message
    assert "--columns" in caught.value.cli_hint
    assert "columns=" not in caught.value.web_hint + caught.value.cli_hint
    assert "--columns id,name with a name for each of the 2 fields" in caught.value.cli_hint


@pytest.mark.parametrize("column", ['{"id": 1}', '[{"id": 1', ' {"id": 1'])
def test_json_under_a_name_of_csv_is_recognised(column):
    with pytest.raises(ColumnsRefused) as caught:
        checked(Person, column, ' "name": "Ann"}')
    assert "looks like JSON" in caught.value.hint
    assert "--format jsonl" in caught.value.cli_hint
    assert "`format`" in caught.value.web_hint


def test_columns_that_nothing_takes_are_told():
    assert checked(Person, "id", "name", "phone") == []
    assert checked(Person, "id", "name", "Phone") == [
        "No field of Person reads the column 'Phone'. Similar names: 'Phone' for 'phone'."
    ]
    (note,) = checked(Person, "id", "name", *(f"extra {n}" for n in range(40)))
    assert "and 10 more" in note
    (note, _) = checked(Person, "id", "name", "x y", "X_Y")
    assert "'x y' and 'X_Y' differ only" in note


def test_a_header_further_down_is_pointed_at():
    head = ("Customer report", "Period: 2026-01", "", "id;name;amount", "1;Ann;10")
    with pytest.raises(ColumnsRefused) as caught:
        checked(Person, "Customer report", head=head)
    assert "line 4 of the file looks like the header line: add --header-row 4" in (
        caught.value.cli_hint
    )


class Aliases(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    id: int = Field(alias="ID")
    name: str = Field(validation_alias=AliasChoices("Name", "full name", AliasPath("who", 0)))


class Generated(BaseModel):
    model_config = ConfigDict(alias_generator=str.upper)
    id: int


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    id: int


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    id: int


class Built(BaseModel):
    id: int

    @pydantic.model_validator(mode="before")
    @classmethod
    def _build(cls, values):
        return {"id": values["number"]}


class Cat(BaseModel):
    kind: str
    claws: int


class Dog(BaseModel):
    kind: str
    barks: bool


class Typed(TypedDict):
    id: int


@dataclass
class Plain:
    id: int
    name: str = ""


@pydantic.dataclasses.dataclass
class Checked:
    id: int
    name: str = Field("", alias="Name")


@pytest.mark.parametrize(
    ("model", "columns"),
    [
        (Aliases, ("ID", "Name")),
        (Aliases, ("id", "full name")),
        (Aliases, ("id", "who")),
        (Aliases, ("id", "name")),
        (Generated, ("ID",)),
        (Open, ("id", "more")),
        (Cat | Dog, ("kind", "claws", "barks")),
        (Cat | Dog, ("kind", "claws")),
        (Annotated[Cat, "x"], ("kind", "claws")),
        (Typed, ("id",)),
        (Plain, ("id",)),
        (Checked, ("id", "Name")),
        (RootModel[dict[str, str]], ("anything",)),
        (dict[str, str], ("anything",)),
        (BaseModel, ()),
    ],
)
def test_models_that_the_columns_fit(model, columns):
    assert checked(model, *columns) == []


@pytest.mark.parametrize(
    ("model", "columns"),
    [
        (Aliases, ("ID", "nombre")),
        (Generated, ("id",)),
        (Strict, ("id", "more")),
        (Cat | Dog, ("kind", "wings")),
        (Typed, ("ID",)),
        (Plain, ("name",)),
        (Checked, ("Name",)),
    ],
)
def test_models_that_no_record_could_fit(model, columns):
    with pytest.raises(ColumnsRefused):
        checked(model, *columns)


def test_where_a_validator_builds_the_fields_nobody_knows():
    assert len(checked(Built, "number")) == 2


# With a database


@pytest.fixture
def people(manager: BatchManager) -> BatchManager:
    manager.registry.register(PersonProcessor)
    return manager


def csv(text: str, name: str = "people.csv"):
    return read_file(io.BytesIO(text.encode()), name=name)


async def test_notes_are_in_summary_log_and_dry_run(people):
    batch_id = await people.create_batch("person", csv("id,name,Phone\n1,Ann,5\n"))
    tried = await people.process_batch(batch_id, dry_run=True)
    assert "column 'Phone'" in tried.notes[0]
    summary = await people.process_batch(batch_id)
    assert (summary.ok, summary.source_encoding) == (True, "utf-8")
    assert "column 'Phone'" in summary.notes[0]
    assert summary.as_dict()["notes"] == list(summary.notes)
    logged = [line.message async for line in people.get_logs(batch_id, item_number=None)]
    assert summary.notes[0] in logged


@pytest.mark.parametrize(
    "text", ["", "\ufeff", "id,name\n", "\n\n \n", "[]", "[ ]\n", "{}"[:0] + "\r\n", " \t \n"]
)
async def test_a_file_without_records_is_refused_unless_it_may_be(people, text):
    name = "x.json" if text.startswith("[") else "x.csv"
    with pytest.raises(NothingInSource) as caught:
        await people.create_batch("person", csv(text, name))
    assert f"no records in {name}" in caught.value.message
    assert [batch async for batch in people.list_batches()] == []
    summary = await people.import_file(csv(text, name), "person", allow_empty=True)
    assert (summary.ok, summary.total_items) == (True, 0)


async def test_a_list_without_records_is_fine_unless_it_may_not_be(people):
    assert (await people.process_batch(await people.create_batch("person", []))).ok
    with pytest.raises(NothingInSource):
        await people.create_batch("person", [], allow_empty=False)


async def test_columns_are_compared_before_there_is_a_batch(people):
    with pytest.raises(ColumnsRefused):
        await people.create_batch("person", csv("id,nom\n1,Ann\n"))
    assert [batch async for batch in people.list_batches()] == []


@pytest.mark.parametrize(
    ("expect", "error"),
    [
        ({"sum": {"Id": 3}}, ConfigurationError),
        ({"sum": {"id": 4}}, TotalsDisagree),
        ({"sum": {"name": 0}}, TotalsDisagree),
        ({"count": 3}, TotalsDisagree),
    ],
)
@pytest.mark.parametrize(
    "source", [lambda: csv("id,name\n1,Ann\n2,Bob\n"), lambda: [{"id": 1, "name": "A"}, {"id": 2}]]
)
async def test_totals_are_compared_while_loading(people, expect, error, source):
    with pytest.raises(error):
        await people.create_batch("person", source(), expect=expect)
    assert [batch async for batch in people.list_batches()] == []
    right = await people.create_batch("person", source(), expect={"count": 2, "sum": {"id": "3.0"}})
    assert (await people.get_batch(right)).total_items == 2


@pytest.mark.parametrize("verb", ["create", "import", "process", "dry run", "thresholds"])
async def test_a_misspelt_argument_is_a_type_error(people, verb):
    batch_id = await people.create_batch("person", [{"id": 1, "name": "Ann"}])
    wrong = {"max_failure": 3}
    calls = {
        "create": lambda: people.create_batch("person", [], **wrong),
        "import": lambda: people.import_file(csv("id,name\n1,A\n"), "person", **wrong),
        "process": lambda: people.process_batch(batch_id, **wrong),
        "dry run": lambda: people.process_batch(batch_id, dry_run=True, **wrong),
        "thresholds": lambda: people.set_thresholds(batch_id, **wrong),
    }
    with pytest.raises(TypeError, match=r"'max_failure'.*'max_failures'"):
        await calls[verb]()
    assert len([batch async for batch in people.list_batches()]) == 1


# The way back


def test_what_a_spreadsheet_has_misread_is_no_change():
    record = {"name": "Jörg Weiß", "ort": "Łódź", "größe": "ü"}

    def misread(text: str) -> str:
        return text.encode().decode("latin-1").translate(CP1252)

    cells = {misread(name): misread(value) for name, value in record.items()}
    assert changes(cells, record) == {}
    assert changes(cells | {"name": "Jürg"}, record) == {"name": "Jürg"}
    assert changes({"name": "Müller"}, {"name": "MÃ¼ller"}) == {"name": "Müller"}


CP1252 = {
    code: bytes([code]).decode("cp1252")
    for code in range(128, 160)
    if code not in {0x81, 0x8D, 0x8F, 0x90, 0x9D}
}
