"""One table of conversions: what a value becomes in a column, the same for every way of writing."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from ipaddress import ip_address
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from asyncpg import Range
from pydantic import BaseModel, SecretStr

from reliable_imports_async import BaseProcessor, BatchManager

REFUSED = "refused"
BERLIN = timezone(timedelta(hours=2))
AWARE = datetime(2026, 6, 1, 12, tzinfo=BERLIN)
NAIVE = AWARE.replace(tzinfo=None)
ID = UUID("12345678-1234-5678-1234-567812345678")


class Colour(StrEnum):
    RED = "red"


class Size(IntEnum):
    BIG = 7


class Mixed(Enum):
    WORD = "red"
    NUMBER = 7


class Inner(BaseModel):
    a: int
    b: str = "x"


@dataclass
class Pair:
    n: int
    word: str


class Text(str):
    pass


TYPES = """
CREATE EXTENSION hstore;
CREATE TYPE mood AS ENUM ('red', 'blue');
CREATE TYPE pair AS (n integer, word text);
CREATE TYPE visit AS (n integer, at timestamptz);
CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
CREATE DOMAIN moment AS timestamptz;
CREATE DOMAIN required AS text NOT NULL;
"""

# Type of the column, value, and what SQL then reads of it as text; REFUSED, also by PostgreSQL.
CASES: list[tuple[str, Any, str | None]] = [
    ("text", "a'b\"c\\d ☃ \n", "a'b\"c\\d ☃ \n"),
    ("text", Text("sub"), "sub"),
    ("text", 12345, "12345"),
    ("text", 2**70, str(2**70)),
    ("text", 1.5, "1.5"),
    ("text", Decimal("1.10"), "1.10"),
    ("text", True, "true"),
    ("text", None, None),
    ("text", Colour.RED, "red"),
    ("text", Mixed.NUMBER, "7"),
    ("text", ID, str(ID)),
    ("text", AWARE, "2026-06-01T12:00:00+02:00"),
    ("text", NAIVE, "2026-06-01T12:00:00"),
    ("text", date(2026, 1, 2), "2026-01-02"),
    ("text", {"a": [1]}, '{"a":[1]}'),
    ("text", Inner(a=1), '{"a":1,"b":"x"}'),
    ("text", ip_address("10.0.0.1"), "10.0.0.1"),
    ("text", b"abc", REFUSED),
    ("text", "nul \0", REFUSED),
    ("text", "half \ud800", REFUSED),
    ("text", SecretStr("s"), REFUSED),
    ("text", object(), REFUSED),
    ("text", timedelta(1), REFUSED),
    ("varchar(3)", "abcd", REFUSED),
    ("varchar(3)", "abc  ", "abc"),  # as the SQL standard has it
    ("char(3)", "ab", "ab"),  # read as text, padding is gone
    ("integer", 5, "5"),
    ("integer", Size.BIG, "7"),
    ("integer", "5", "5"),
    ("integer", " 5 ", "5"),
    ("integer", Decimal("5.0"), "5"),
    ("integer", Decimal("5.5"), REFUSED),
    ("integer", 5.0, REFUSED),
    ("integer", True, REFUSED),
    ("integer", "", REFUSED),
    ("integer", "5.5", REFUSED),
    ("integer", 2**31, REFUSED),
    ("integer", [1], REFUSED),
    ("bigint", 2**62, str(2**62)),
    ("smallint", 2**15, REFUSED),
    ("positive", 5, "5"),
    ("positive", -5, REFUSED),
    ("required", None, REFUSED),
    ("float8", 0.1, "0.1"),
    ("float8", 1e300, "1e+300"),
    ("float8", float("nan"), "NaN"),
    ("float8", float("-inf"), "-Infinity"),
    ("float8", 3, "3"),
    ("float8", Decimal("0.1"), "0.1"),
    ("float8", True, REFUSED),
    ("numeric", Decimal("12345678901234567.890"), "12345678901234567.890"),
    ("numeric", 2**80, str(2**80)),
    ("numeric", 0.1, "0.1"),
    ("numeric", "1.10", "1.10"),
    ("numeric", Decimal("NaN"), "NaN"),
    ("numeric", Decimal("1E+3"), "1000"),
    ("numeric(10, 2)", Decimal("1.005"), "1.01"),  # the column's scale rounds, as in any INSERT
    ("numeric(4, 2)", Decimal(123), REFUSED),
    ("boolean", True, "true"),
    ("boolean", 0, "false"),
    ("boolean", "yes", "true"),
    ("boolean", 2, REFUSED),
    ("boolean", 1.0, REFUSED),
    ("boolean", "perhaps", REFUSED),
    ("timestamptz", AWARE, "2026-06-01 10:00:00+00"),
    ("timestamptz", "2026-06-01T12:00:00+02:00", "2026-06-01 10:00:00+00"),
    ("timestamptz", "2026-06-01 12:00:00.5Z", "2026-06-01 12:00:00.5+00"),
    ("timestamptz", "infinity", "infinity"),
    ("timestamptz", "12026-06-01 12:00Z", REFUSED),
    ("timestamptz", NAIVE, REFUSED),
    ("timestamptz", "2026-06-01T12:00:00", REFUSED),
    ("timestamptz", "2026-06-01", REFUSED),
    ("timestamptz", date(2026, 6, 1), REFUSED),
    ("timestamptz", "now", REFUSED),
    ("timestamptz", "01/02/2026", REFUSED),
    ("timestamptz", 1_750_000_000, REFUSED),
    ("moment", AWARE, "2026-06-01 10:00:00+00"),
    ("moment", NAIVE, REFUSED),
    ("timestamp", NAIVE, "2026-06-01 12:00:00"),
    ("timestamp", date(2026, 6, 1), "2026-06-01 00:00:00"),
    ("timestamp", "2026-06-01 12:00", "2026-06-01 12:00:00"),
    ("timestamp", AWARE, REFUSED),
    ("timestamp", "2026-06-01T12:00:00+02:00", REFUSED),
    ("timestamp", "2026-06-01T12:00:00Z", REFUSED),
    ("date", date(2026, 1, 2), "2026-01-02"),
    ("date", NAIVE.replace(day=2, hour=0), "2026-06-02"),
    ("date", "2026-01-02", "2026-01-02"),
    ("date", "0044-03-15 BC", REFUSED),
    ("date", "12026-01-02", REFUSED),
    ("date", "infinity", "infinity"),
    ("date", NAIVE, REFUSED),
    ("date", AWARE, REFUSED),
    ("date", "2026-01-02T12:00:00", REFUSED),
    ("date", "02.01.2026", REFUSED),
    ("date", "2026-02-30", REFUSED),
    ("date", 20260102, REFUSED),
    ("time", time(1, 2, 3), "01:02:03"),
    ("time", "01:02", "01:02:00"),
    ("time", time(1, 2, tzinfo=UTC), REFUSED),
    ("time", NAIVE, REFUSED),
    ("timetz", time(1, 2, tzinfo=UTC), "01:02:00+00"),
    ("timetz", time(1, 2), REFUSED),
    ("interval", timedelta(days=1, seconds=5), "1 day 00:00:05"),
    ("interval", timedelta(seconds=-1), "-1 days +23:59:59"),
    ("interval", "P1DT2H", "1 day 02:00:00"),
    ("interval", 5, REFUSED),
    ("bytea", b"a\0\xff", "\\x6100ff"),
    ("bytea", memoryview(b"ab"), "\\x6162"),
    ("bytea", "abc", REFUSED),
    ("uuid", ID, str(ID)),
    ("uuid", str(ID).upper(), str(ID)),
    ("uuid", 5, REFUSED),
    ("jsonb", {"a": [1, None, "x"]}, '{"a": [1, null, "x"]}'),
    ("jsonb", [1, 2], "[1, 2]"),
    ("jsonb", "hello", '"hello"'),
    ("jsonb", "123", '"123"'),
    ("jsonb", 12, "12"),
    ("jsonb", True, "true"),
    ("jsonb", None, None),
    ("jsonb", Inner(a=1), '{"a": 1, "b": "x"}'),
    ("jsonb", Pair(1, "x"), '{"n": 1, "word": "x"}'),
    ("jsonb", '{"n": 12345678901234567.890}', '{"n": 12345678901234567.890}'),
    ("jsonb", '{"a": ', REFUSED),
    ("jsonb", float("nan"), REFUSED),
    ("jsonb", {"a": float("inf")}, REFUSED),
    ("jsonb", {"a": "NaN"}, '{"a": "NaN"}'),
    ("jsonb", b"{}", REFUSED),
    ("jsonb", {"a": "\0"}, REFUSED),
    ("json", {"b": 1, "a": 2}, '{"b":1,"a":2}'),  # as it came
    ("text[]", ["a", "b,c", None, '"'], '{a,"b,c",NULL,"\\""}'),
    ("text[]", ("a",), "{a}"),
    ("text[]", [], "{}"),
    ("text[]", "{a,b}", "{a,b}"),
    ("text[]", "a,b", REFUSED),
    ("text[]", {"a": 1}, REFUSED),
    ("integer[]", [[1, 2], [3, 4]], "{{1,2},{3,4}}"),
    ("integer[]", [1.5], REFUSED),
    ("timestamptz[]", [AWARE], '{"2026-06-01 10:00:00+00"}'),
    ("timestamptz[]", [NAIVE], REFUSED),
    ("mood[]", [Colour.RED], "{red}"),
    ("jsonb[]", [{"a": 1}], '{"{\\"a\\": 1}"}'),
    ("jsonb[]", [[1]], REFUSED),
    ("mood", Colour.RED, "red"),
    ("mood", Mixed.WORD, "red"),
    ("mood", "green", REFUSED),
    ("pair", Pair(1, "x y"), '(1,"x y")'),
    ("pair", {"n": 1, "word": None}, "(1,)"),
    ("pair", "(1,x)", "(1,x)"),
    ("pair", [1, "x"], REFUSED),
    ("visit", {"n": 1, "at": AWARE}, REFUSED),
    ("int4range", "[1,5)", "[1,5)"),
    ("int4range", Range(1, 5), "[1,5)"),
    ("tstzrange", Range(AWARE, None), '["2026-06-01 10:00:00+00",)'),
    ("tstzrange", Range(NAIVE, None), REFUSED),
    ("daterange", Range(empty=True), "empty"),
    ("int4multirange", [Range(1, 2), Range(5, 6)], "{[1,2),[5,6)}"),
    ("inet", ip_address("10.0.0.1"), "10.0.0.1/32"),
    ("inet", "nowhere", REFUSED),
    ("hstore", {"a": 'x"\\', "b": None}, '"a"=>"x\\"\\\\", "b"=>NULL'),
    ("hstore", {"a": 1}, REFUSED),
    ("point", "(1,2)", "(1,2)"),
]

KINDS = sorted({kind for kind, _, _ in CASES})


class Given(BaseModel, arbitrary_types_allowed=True):
    id: int
    v: Any


class Writing(BaseProcessor[Given]):
    """Takes its values from here: a record could not hold most of them."""

    key = "id"
    values: list[Any] = []  # noqa: RUF012 - set for each run

    async def prepare_item(self, item, ctx):
        item.data.v = self.values[item.data.id]


class ByItem(Writing):
    batch_type = "item"
    into = ""

    async def process_item(self, item, ctx):
        await ctx.upsert(self.into, vars(item.data), key="id")


class ByInterval(ByItem):
    batch_type = "interval"
    commit_interval = 5


class Declared(Writing):
    batch_type = "declared"


WAYS = (ByItem, ByInterval, Declared)


@pytest.fixture
async def odd_manager(dsn, conn):
    """A pool whose sessions and codecs are as odd as users may have them."""

    async def init(connection):
        for name in ("json", "jsonb", "uuid"):
            await connection.set_type_codec(name, encoder=str, decoder=str, schema="pg_catalog")

    settings = "DateStyle = 'SQL, DMY'; TimeZone = 'Asia/Kathmandu'; IntervalStyle = 'sql_standard'"
    for setting in settings.split("; "):
        await conn.execute(
            f"DO $$ BEGIN EXECUTE format($q$ALTER DATABASE %I SET {setting}$q$, current_database()); END $$"
        )
    async with asyncpg.create_pool(dsn, min_size=1, max_size=5, init=init) as pool:
        async with BatchManager(pool=pool) as manager:
            yield manager


async def stored(manager, conn, way: type[Writing], kind: str, values: list[Any]) -> list[Any]:
    """What a way of writing makes of values: the column as text, or that one was refused."""
    name = f"written_{KINDS.index(kind)}"
    await conn.execute(f"CREATE TABLE {name} (id integer PRIMARY KEY, v {kind})")
    manager.registry.__init__()
    members = {"into": name, "table": name, "values": values}
    manager.registry.register(type(way.__name__, (way,), members))
    records = [{"id": position, "v": None} for position in range(len(values))]
    summary = await manager.process_batch(await manager.create_batch(way.batch_type, records))
    assert summary.pending_items == 0, summary
    assert {group.kind for group in summary.groups} <= {"data"}, summary.groups
    rows = {row["id"]: row["v"] for row in await conn.fetch(f"SELECT id, v::text FROM {name}")}
    items = [item async for item in manager.list_items(summary.batch_id)]
    completed = {item.item_number - 1 for item in items if item.status == "completed"}
    assert completed == rows.keys()
    return [rows.get(position, REFUSED) for position in range(len(values))]


async def differences(manager, dsn, way: type[Writing]) -> list[Any]:
    """The cases that end differently than they should."""
    conn = await asyncpg.connect(dsn)
    await conn.execute("SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET IntervalStyle = postgres")
    await conn.execute(TYPES)
    wrong = []
    for kind in KINDS:
        cases = [(value, expected) for name, value, expected in CASES if name == kind]
        found = await stored(manager, conn, way, kind, [value for value, _ in cases])
        wrong += [
            (kind, value, expected, text)
            for (value, expected), text in zip(cases, found, strict=True)
            if text != expected
        ]
    await conn.close()
    return wrong


@pytest.mark.parametrize("way", WAYS)
async def test_every_way_of_writing_stores_the_same(manager, dsn, way):
    assert await differences(manager, dsn, way) == []


@pytest.mark.long
@pytest.mark.parametrize("way", [ByItem, Declared])
async def test_neither_settings_nor_codecs_change_what_is_stored(odd_manager, dsn, way):
    assert await differences(odd_manager, dsn, way) == []
