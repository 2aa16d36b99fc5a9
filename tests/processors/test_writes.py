"""What is reported as completed is in the table: counted, keyed, and possible at all."""

from dataclasses import dataclass
from datetime import datetime

import asyncpg
import pytest
from pydantic import BaseModel

from reliable_imports_async import BaseProcessor, BatchStatus
from reliable_imports_async.errors import ConfigurationError

COUNT = 40


class Row(BaseModel):
    id: str | None
    name: str | None = None


class Writing(BaseProcessor[Row]):
    null_values = ""  # one text, not a tuple of them
    key = "id"


class ByItem(Writing):
    batch_type = "item"

    async def process_item(self, item, ctx):
        await ctx.upsert("c", item.data.model_dump(), key=self.key)


class ByInterval(ByItem):
    batch_type = "interval"
    commit_interval = 7


class Declared(Writing):
    batch_type = "declared"
    table = "c"


class DeclaredAlone(Declared):
    batch_type = "declared_alone"
    commit_interval = 1


WAYS = (ByItem, ByInterval, Declared, DeclaredAlone)


async def load(manager, way, records):
    manager.registry.__init__()
    manager.registry.register(way)
    return await manager.process_batch(await manager.create_batch(way.batch_type, records))


def records(count: int = COUNT) -> list[dict[str, str]]:
    return [{"id": f"k{n}", "name": f"name {n}"} for n in range(count)]


async def completed(manager, summary) -> set[str]:
    items = [item async for item in manager.list_items(summary.batch_id)]
    return {item.source_data["id"] for item in items if item.status == "completed"}


SUPPRESS = """
CREATE FUNCTION suppress() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN IF NEW.name LIKE '%3' THEN RETURN NULL; END IF; RETURN NEW; END$$;
"""
SUPPRESSING = {
    "insert": "CREATE TRIGGER t BEFORE INSERT ON c FOR EACH ROW EXECUTE FUNCTION suppress()",
    "update": "CREATE TRIGGER t BEFORE UPDATE ON c FOR EACH ROW EXECUTE FUNCTION suppress();"
    "INSERT INTO c SELECT 'k' || n, 'old' FROM generate_series(0, 39) n",
}


@pytest.mark.parametrize("when", SUPPRESSING)
@pytest.mark.parametrize("way", WAYS)
async def test_an_item_whose_row_is_suppressed_fails(manager, conn, way, when):
    await conn.execute("CREATE TABLE c (id text PRIMARY KEY, name text)")
    await conn.execute(SUPPRESS + SUPPRESSING[when])
    summary = await load(manager, way, records())
    rows = await conn.fetch("SELECT id FROM c WHERE name <> 'old'")
    written = {row["id"] for row in rows}
    assert await completed(manager, summary) == written
    assert len(written) == COUNT - 4
    (group,) = summary.groups
    assert (group.kind, group.type, group.count) == ("data", "NotWritten", 4)
    assert "trigger" in group.hint
    assert summary.status is BatchStatus.PARTIAL


@pytest.mark.parametrize("way", WAYS)
async def test_a_partition_counts_what_it_writes(manager, conn, way):
    await conn.execute(
        "CREATE TABLE c (id text PRIMARY KEY, name text) PARTITION BY HASH (id);"
        "CREATE TABLE c0 PARTITION OF c FOR VALUES WITH (MODULUS 2, REMAINDER 0);"
        "CREATE TABLE c1 PARTITION OF c FOR VALUES WITH (MODULUS 2, REMAINDER 1);"
        + SUPPRESS
        + SUPPRESSING["insert"].replace("ON c ", "ON c0 ")
    )
    summary = await load(manager, way, records())
    written = {row["id"] for row in await conn.fetch("SELECT id FROM c")}
    assert await completed(manager, summary) == written
    assert summary.completed_items + summary.failed_items == COUNT


@pytest.mark.parametrize("way", WAYS)
async def test_a_row_without_its_key_is_bad_data(manager, conn, way):
    await conn.execute("CREATE TABLE c (id text UNIQUE, name text)")
    given = [{"id": "a", "name": "x"}, {"id": "", "name": "y"}, {"id": "", "name": "z"}]
    for _ in range(2):
        summary = await load(manager, way, given)
        assert (summary.completed_items, summary.failed_items) == (1, 2)
        (group,) = summary.groups
        assert (group.kind, group.type) == ("validation", "KeyIsNull")
    assert await conn.fetchval("SELECT count(*) FROM c") == 1


@pytest.mark.parametrize("way", WAYS)
async def test_where_nulls_are_equal_there_is_one_row_without_a_key(manager, conn, way):
    if await conn.fetchval("SHOW server_version_num") < "150000":
        pytest.skip("NULLS NOT DISTINCT came with PostgreSQL 15")
    await conn.execute("CREATE TABLE c (id text UNIQUE NULLS NOT DISTINCT, name text)")
    for name in "xyz":
        summary = await load(manager, way, [{"id": "", "name": name}])
        assert summary.ok
        assert (await manager.get_item(summary.batch_id, 1)).target_id is None
    rows = [tuple(row) for row in await conn.fetch("SELECT id, name FROM c")]
    assert rows == [(None, "z")]


NEEDED = {
    "citext": "CREATE EXTENSION citext",
    "collation": "CREATE COLLATION folding"
    " (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
}
KEYS = {
    "citext": ("id citext PRIMARY KEY", ["Abc", "aBC", "x"]),
    "collation": ("id text COLLATE folding PRIMARY KEY", ["Abc", "aBC", "x"]),
    "char(n)": ("id char(5) PRIMARY KEY", ["ab", "ab   ", "x"]),
    "number": ("id numeric(6, 2) PRIMARY KEY", ["1.0", "1.00", "2"]),
    "uuid": ("id uuid PRIMARY KEY", ["a" * 32, "A" * 32, "b" * 32]),
    "lower": ("id text PRIMARY KEY", ["same", "other", "same"]),
}


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("way", [ByInterval, Declared, DeclaredAlone])
async def test_keys_that_only_postgresql_takes_for_equal(manager, conn, way, kind):
    try:
        await conn.execute(NEEDED.get(kind, "SELECT 1"))
    except asyncpg.FeatureNotSupportedError as exc:
        pytest.skip(f"this server has no {kind}: {exc}")
    column, keys = KEYS[kind]
    await conn.execute(f"CREATE TABLE c ({column}, name text)")
    given = [{"id": key, "name": str(place)} for place, key in enumerate(keys)]
    summary = await load(manager, type(way.__name__, (way,), {"concurrency": 1}), given)
    assert summary.completed_items == 3, summary.groups
    names = {row["name"] for row in await conn.fetch("SELECT name FROM c")}
    assert names == {"1", "2"}  # of two equal ones the last wins


async def test_a_key_of_one_column_needs_no_tuple(manager, conn):
    class PairProcessor(Declared):
        batch_type = "pair"
        key = ["id"]  # noqa: RUF012 - a user wrote it like this
        on_duplicate = "skip"

    class OneProcessor(PairProcessor):
        batch_type = "one"
        key = "id"

    await conn.execute("CREATE TABLE c (id text PRIMARY KEY, name text)")
    for way in (PairProcessor, OneProcessor):
        summary = await load(manager, way, records(3) + records(1))
        assert (summary.completed_items, summary.skipped_items) == (3, 1)


UNUSABLE = {
    "nothing": ("CREATE TABLE other ()", "The table c does not exist"),
    "view": ("CREATE TABLE t (id text PRIMARY KEY, name text); CREATE VIEW c AS TABLE t", "a view"),
    "rule": (
        "CREATE TABLE c (id text PRIMARY KEY, name text);"
        "CREATE RULE r AS ON INSERT TO c DO INSTEAD NOTHING",
        "has rules",
    ),
    "column": ("CREATE TABLE c (id text PRIMARY KEY)", "has no column name"),
    "generated": (
        "CREATE TABLE c (id text PRIMARY KEY, name text GENERATED ALWAYS AS ('x') STORED)",
        "itself fills name",
    ),
    "identity": (
        "CREATE TABLE c (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text)",
        "itself fills id",
    ),
    "not null": (
        "CREATE TABLE c (id text PRIMARY KEY, name text, born date NOT NULL)",
        "needs a value for born",
    ),
    "no key": ("CREATE TABLE c (id text, name text)", "has no unique constraint on (id)"),
    "wider key": ("CREATE TABLE c (id text, name text, UNIQUE (id, name))", "has no unique"),
    "partial": (
        "CREATE TABLE c (id text, name text); CREATE UNIQUE INDEX i ON c (id) WHERE name > ''",
        "i covers only some of the rows",
    ),
    "expression": (
        "CREATE TABLE c (id text, name text); CREATE UNIQUE INDEX i ON c (lower(id))",
        "has no unique constraint on (id)",
    ),
    "deferrable": (
        "CREATE TABLE c (id text CONSTRAINT k UNIQUE DEFERRABLE, name text)",
        "k is deferrable",
    ),
    "invalid": (
        "CREATE TABLE c (id text, name text); CREATE UNIQUE INDEX i ON c (id);"
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'i'::regclass",
        "i is invalid",
    ),
}


@pytest.mark.parametrize("why", UNUSABLE)
async def test_what_a_declared_table_needs_is_checked_before_the_first_item(manager, conn, why):
    ddl, reason = UNUSABLE[why]
    await conn.execute(ddl)
    summary = await load(manager, Declared, records(3))
    assert (summary.status, summary.pending_items) == (BatchStatus.PAUSED, 3)
    assert reason in summary.pause_reason
    assert "Hint: " in summary.pause_reason


USABLE = {
    "identity by default": "id text PRIMARY KEY, name text, n int GENERATED BY DEFAULT AS IDENTITY",
    "default": "id text PRIMARY KEY, name text, n int NOT NULL DEFAULT 5",
    "generated": "id text PRIMARY KEY, name text, n int GENERATED ALWAYS AS (5) STORED NOT NULL",
    "serial": "n serial, id text PRIMARY KEY, name text",
    "included": "id text, name text, UNIQUE (id) INCLUDE (name)",
}


@pytest.mark.parametrize("how", USABLE)
async def test_tables_that_fill_their_other_columns_are_fine(manager, conn, how):
    await conn.execute(f"CREATE TABLE c ({USABLE[how]})")
    assert (await load(manager, Declared, records(3))).ok


async def test_a_trigger_may_fill_what_the_model_lacks(manager, conn):
    await conn.execute(
        "CREATE TABLE c (id text PRIMARY KEY, name text, n int NOT NULL);"
        "CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN NEW.n := 1; RETURN NEW; END$$;"
        "CREATE TRIGGER t BEFORE INSERT ON c FOR EACH ROW EXECUTE FUNCTION fill()"
    )
    assert (await load(manager, Declared, records(3))).ok


async def test_on_connection_says_where_the_table_is(manager, conn):
    class ElsewhereProcessor(Declared):
        batch_type = "elsewhere"

        async def on_connection(self, connection):
            await connection.execute("SET search_path = elsewhere")

    await conn.execute(
        "CREATE SCHEMA elsewhere; CREATE TABLE elsewhere.c (id text PRIMARY KEY, name text)"
    )
    assert (await load(manager, ElsewhereProcessor, records(3))).ok
    assert await conn.fetchval("SELECT count(*) FROM elsewhere.c") == 3


async def test_a_column_added_meanwhile_is_found(manager, conn):
    class GrowingProcessor(BaseProcessor):
        batch_type = "growing"
        concurrency = 1

        async def process_item(self, item, ctx):
            if item.item_number == 2:
                await conn.execute("ALTER TABLE grown ADD COLUMN b text")
            await ctx.upsert("grown", item.source_data, key="a")

    await conn.execute("CREATE TABLE grown (a text PRIMARY KEY)")
    summary = await load(
        manager, GrowingProcessor, [{"a": "1"}, {"a": "2", "b": "x"}, {"a": "3", "c": "?"}]
    )
    assert (summary.completed_items, [group.sqlstate for group in summary.groups]) == (2, ["42703"])


async def test_an_upsert_names_its_key(manager):
    class KeylessProcessor(BaseProcessor):
        batch_type = "keyless"

        async def process_item(self, item, ctx):
            await ctx.upsert("c", {"a": 1}, key=item.source_data["key"])

    summary = await load(manager, KeylessProcessor, [{"key": "b"}, {"key": []}])
    assert {group.type for group in summary.groups} == {ConfigurationError.__name__}


@dataclass(slots=True)
class Slotted:
    id: str
    tags: list[str]
    at: datetime


async def test_a_dataclass_with_slots_is_a_model_too(manager, conn):
    class SlottedProcessor(BaseProcessor[Slotted]):
        batch_type = "slotted"
        table = "slotted"
        key = "id"

    await conn.execute("CREATE TABLE slotted (id text PRIMARY KEY, tags text[], at timestamptz)")
    given = [{"id": "a", "tags": ["x", "y"], "at": "2026-01-02T03:04:05+01:00"}]
    assert (await load(manager, SlottedProcessor, given)).ok
    row = await conn.fetchrow("SELECT * FROM slotted")
    assert (row["tags"], row["at"].hour) == (["x", "y"], 2)


@pytest.mark.parametrize("text", ["NaN", "Infinity is no number", "back\\u0000slash", "☃"])
async def test_texts_that_look_like_trouble_are_stored_as_they_are(manager, conn, text):
    await conn.execute("CREATE TABLE c (id text PRIMARY KEY, name text)")
    for way in WAYS:
        assert (await load(manager, way, [{"id": way.batch_type, "name": text}])).ok
    assert {row["name"] for row in await conn.fetch("SELECT name FROM c")} == {text}
