"""Item keys: duplicates in a batch, what has not changed, and what must never be skipped wrongly."""

import asyncio
import io
import types
from decimal import Decimal

import pytest
from pydantic import BaseModel, Field

from reliable_imports_async import BaseProcessor, BatchStatus, ItemStatus, Retry, Skip, read_file
from reliable_imports_async.errors import ConfigurationError, ItemKeyRefused, NotAProcessor

from ..store.reach import break_item_keys
from ..support.trying import MODES, processor, run
from .reach import key_text

SHELF = "CREATE TABLE shelf (k text PRIMARY KEY, v text, times integer NOT NULL DEFAULT 1)"
PUT = """INSERT INTO shelf (k, v) VALUES ($1, $2)
         ON CONFLICT (k) DO UPDATE SET v = excluded.v, times = shelf.times + 1"""
KEYS = "SELECT item_key, batch_id, item_number FROM reliable_imports.import_item_keys ORDER BY 1"


async def put(item, ctx):
    """Writes the record's value; a value of "bad" fails, "skip" is skipped."""
    record = item.source_data
    if record["v"] == "bad":
        raise ValueError("a bad value")
    if record["v"] == "skip":
        return Skip("not for us")
    await ctx.execute(PUT, record["k"], record["v"])
    return None


def by_k(self, record):
    return record["k"]


@pytest.fixture(params=list(MODES))
def mode(request, monkeypatch):
    monkeypatch.setattr("tests.support.trying.DEFAULTS", MODES[request.param])
    return request.param


@pytest.fixture(autouse=True)
async def shelf(conn):
    await conn.execute(SHELF)


def made(**attributes):
    """A processor that keeps keys; `item_key` is a method, unlike the functions of `trying`."""
    cls = processor(put, **{"pause_after": None, **attributes})
    return type("TriedProcessor", (cls,), {"item_key": attributes.get("item_key", by_k)})


async def bring(manager, pairs, options=None, **attributes):
    """Import ("key", "value") pairs with a new processor."""
    manager.registry.__init__()
    manager.registry.register(made(**attributes))
    records = [{"k": key, "v": value} for key, value in pairs]
    batch_id = await manager.create_batch("tried", records, **(options or {}))
    return await manager.process_batch(batch_id)


async def stored(manager, summary):
    return [item async for item in manager.list_items(summary.batch_id)]


def counts(summary):
    return summary.completed_items, summary.skipped_items, summary.failed_items


async def shelved(conn):
    return {row["k"]: row["v"] for row in await conn.fetch("SELECT k, v FROM shelf")}


# What a key is


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("A1", "A1"),
        (" A1", " A1"),
        (7, "7"),
        (0, "0"),
        (1.5, "1.5"),
        (Decimal("1.10"), "1.10"),
        (("EWR", 1545), '["EWR","1545"]'),
        (("a,b", "c"), '["a,b","c"]'),
        (("a",), '["a"]'),
        (None, None),
        ("", None),
        ((), None),
        (("a", None), None),
        (("", "b"), None),
        ("é" * 500, "é" * 500),
    ],
)
def test_a_key_is_stored_as_text(key, text):
    assert key_text(key) == text


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (["a"], "returned list"),
        ({"a": 1}, "returned dict"),
        ({"a"}, "returned set"),
        (b"a", "returned bytes"),
        (True, "returned bool"),
        (("a", ["b"]), "returned list"),
        ((("a",), "b"), "returned tuple"),
        (float("nan"), "not finite"),
        (Decimal("Infinity"), "not finite"),
        ("a\0b", "NUL"),
        (("a\0b",), "NUL"),
        ("a\ud800", "half a character"),
        ("é" * 501, "1,002 bytes"),
    ],
)
def test_what_is_no_key_is_refused(key, reason):
    with pytest.raises(ItemKeyRefused, match=reason) as caught:
        key_text(key)
    assert "a text, a number, or a tuple" in caught.value.hint


async def test_keys_are_stored_and_a_record_without_one_is_an_item_like_any_other(manager):
    summary = await bring(manager, [("a", "1"), ("", "2"), ("", "3")], on_duplicate="fail")
    assert counts(summary) == (3, 0, 0)
    assert [item.item_key for item in await stored(manager, summary)] == ["a", None, None]


async def test_a_record_whose_key_cannot_be_used_fails_and_the_others_do_not(manager, conn):
    def item_key(self, record):
        match record["v"]:
            case "type":
                return ["a"]
            case "raise":
                return record["missing"]
            case "nul":
                return "a\0"
            case "long":
                return "a" * 1_001
        return record["k"]

    pairs = [("a", "type"), ("b", "1"), ("c", "raise"), ("d", "nul"), ("e", "long"), ("f", "raise")]
    summary = await bring(manager, pairs, item_key=item_key)
    assert counts(summary) == (1, 0, 5)
    failed = [item for item in await stored(manager, summary) if item.status is ItemStatus.FAILED]
    assert {item.failure.kind for item in failed} == {"validation"}
    assert {item.failure.type for item in failed} == {"ItemKeyRefused"}
    assert failed[1].failure.message == "item_key raised KeyError: 'missing'"
    assert failed[1].failure.group == failed[4].failure.group != failed[0].failure.group
    assert "None for a record without a key" in failed[0].failure.hint
    assert failed[0].source_data == {"k": "a", "v": "type"}  # it can be edited and comes back
    assert await shelved(conn) == {"b": "1"}

    again = await manager.reprocess_batch(summary.batch_id)
    assert counts(again) == (0, 0, 5)
    manager.registry.__init__()
    manager.registry.register(made())  # item_key was corrected
    assert counts(await manager.reprocess_batch(again.batch_id)) == (5, 0, 0)


@pytest.mark.parametrize(
    ("attributes", "match"),
    [
        ({"on_duplicate": "ignore"}, "on_duplicate is 'ignore'"),
        ({"on_duplicate": None}, "on_duplicate is None"),
        ({"skip_unchanged": 1}, "skip_unchanged is 1"),
        ({"only_one": "later"}, "only_one is 'later'"),
        ({"only_one": 1}, "only_one is 1"),
        ({"version": 1.5}, "version is 1.5"),
        ({"version": True}, "version is True"),
        ({"item_key": "k"}, "item_key must be a plain method"),
    ],
)
async def test_a_wrong_declaration_is_refused_at_registration(manager, attributes, match):
    with pytest.raises(NotAProcessor, match=match) as caught:
        manager.registry.register(made(**attributes))
    assert caught.value.hint


async def test_keys_are_needed_for_what_asks_for_them(manager):
    async def item_key(self, record):
        return record["k"]

    for attributes in ({"skip_unchanged": True}, {"on_duplicate": "skip"}):
        with pytest.raises(NotAProcessor, match="but no item_key") as caught:
            manager.registry.register(processor(put, **attributes))
        assert "def item_key" in caught.value.hint
    with pytest.raises(NotAProcessor, match="plain method"):
        manager.registry.register(made(item_key=item_key))


@pytest.mark.parametrize("given", [1, "no", True])
async def test_a_batch_cannot_ask_for_what_its_processor_does_not_do(manager, given):
    manager.registry.register(made())
    with pytest.raises(ConfigurationError, match="skip_unchanged"):
        await manager.create_batch("tried", [], skip_unchanged=given)


# Duplicates in a batch


async def test_the_first_of_a_key_wins_and_others_are_skipped(manager, conn, mode):
    pairs = [("a", "1"), ("b", "1"), ("a", "2"), ("c", "1"), ("a", "3"), ("b", "2")]
    summary = await bring(manager, pairs, on_duplicate="skip")
    assert summary.status is BatchStatus.COMPLETED
    assert counts(summary) == (3, 3, 0)
    items = await stored(manager, summary)
    assert [item.skip_reason for item in items] == [
        None, None, "duplicate of item 1", None, "duplicate of item 1", "duplicate of item 2"
    ]  # fmt: skip
    assert items[2].finished_at is not None
    assert await shelved(conn) == {"a": "1", "b": "1", "c": "1"}
    assert await manager.skip_reasons(summary.batch_id) == (("duplicate of item …", 3),)


async def test_others_of_a_key_fail_in_one_group(manager, conn, mode):
    pairs = [("a", "1"), ("b", "1"), ("a", "2"), ("a", "3")]
    summary = await bring(manager, pairs, on_duplicate="fail")
    assert counts(summary) == (2, 0, 2)
    (group,) = await manager.failure_groups(summary.batch_id)
    assert (group.count, group.kind, group.type) == (2, "validation", "DuplicateKey")
    assert group.values == (("item_key=a", 2),)
    assert group.sample_items == (3, 4)
    assert (await stored(manager, summary))[2].failure.message == "item 1 has the same key"
    second = await bring(manager, [("z", "1"), ("z", "2")], on_duplicate="fail")
    assert second.groups[0].group == group.group  # the same cause, in every batch


async def test_by_default_all_of_a_key_are_processed(manager, conn):
    summary = await bring(manager, [("a", "1"), ("a", "2")], concurrency=1)
    assert counts(summary) == (2, 0, 0)
    assert await shelved(conn) == {"a": "2"}
    assert await conn.fetch(KEYS) == []  # and nothing is remembered unasked


async def test_counts_of_a_batch_of_duplicates_are_right_before_it_is_processed(manager):
    manager.registry.register(made(on_duplicate="skip"))
    records = [{"k": str(n % 100), "v": "1"} for n in range(1_000)]
    batch_id = await manager.create_batch("tried", records)
    before = await manager.get_batch_summary(batch_id)
    assert (before.skipped_items, before.pending_items) == (900, 100)
    assert counts(await manager.process_batch(batch_id)) == (100, 900, 0)


async def test_a_duplicate_stays_one_when_it_is_reprocessed(manager, conn):
    pairs = [("a", "1"), ("a", "2"), ("b", "bad"), ("a", "3")]
    summary = await bring(manager, pairs, on_duplicate="fail")
    assert counts(summary) == (1, 0, 3)
    again = await manager.reprocess_batch(summary.batch_id)
    assert counts(again) == (0, 0, 3)
    assert [item.failure.message for item in await stored(manager, again)][0::2] == [
        "item 1 has the same key",
        "item 1 has the same key",
    ]
    await manager.update_item_source(again.batch_id, 1, {"k": "new", "v": "2"})
    last = await manager.reprocess_batch(again.batch_id, item_numbers=[1, 3])
    assert counts(last) == (1, 0, 1)
    assert await shelved(conn) == {"a": "1", "new": "2"}


async def test_a_corrected_winner_gives_its_key_free(manager, conn):
    summary = await bring(manager, [("a", "bad"), ("a", "2")], on_duplicate="fail")
    assert counts(summary) == (0, 0, 2)
    await manager.update_item_source(summary.batch_id, 1, {"k": "b", "v": "1"})
    assert counts(await manager.reprocess_batch(summary.batch_id)) == (2, 0, 0)
    assert await shelved(conn) == {"a": "2", "b": "1"}


async def test_running_everything_again_skips_the_same_duplicates(manager):
    summary = await bring(manager, [("a", "1"), ("a", "2")], on_duplicate="skip")
    again = await manager.reprocess_batch(summary.batch_id, False)
    assert counts(again) == (1, 1, 0)
    assert (await stored(manager, again))[1].skip_reason == "duplicate of item 1"


# What has not changed


async def test_what_has_not_changed_is_skipped(manager, conn, mode):
    first = await bring(manager, [("a", "1"), ("b", "1")], skip_unchanged=True)
    assert counts(first) == (2, 0, 0)
    pairs = [("a", "1"), ("b", "2"), ("c", "1")]
    second = await bring(manager, pairs, skip_unchanged=True)
    assert counts(second) == (2, 1, 0)
    assert second.status is BatchStatus.COMPLETED
    item = (await stored(manager, second))[0]
    assert item.skip_reason == f"unchanged since item 1 of batch {first.batch_id}"
    assert (item.attempts, item.processed_data) == (1, None)
    assert None not in (item.started_at, item.finished_at)
    assert counts(await bring(manager, pairs, skip_unchanged=True)) == (0, 3, 0)
    assert await conn.fetchval("SELECT times FROM shelf WHERE k = 'a'") == 1
    assert await manager.skip_reasons(second.batch_id) == (
        ("unchanged since item … of batch …", 1),
    )


async def test_the_order_of_names_is_no_change_and_the_scale_of_a_number_is_one(manager):
    manager.registry.register(made(skip_unchanged=True))

    async def bring_text(text):
        source = read_file(io.BytesIO(text.encode()), format="jsonl")
        return counts(await manager.process_batch(await manager.create_batch("tried", source)))

    assert await bring_text('{"k": "a", "v": "1", "n": 1.10}') == (1, 0, 0)
    assert await bring_text('{"n":1.10,   "v": "\\u0031", "k": "a"}') == (0, 1, 0)
    assert await bring_text('{"n":1.1, "v": "1", "k": "a"}') == (1, 0, 0)


async def test_another_version_of_the_processor_imports_all_again(manager):
    pairs = [("a", "1")]
    assert counts(await bring(manager, pairs, skip_unchanged=True)) == (1, 0, 0)
    assert counts(await bring(manager, pairs, skip_unchanged=True, version=2)) == (1, 0, 0)
    assert counts(await bring(manager, pairs, skip_unchanged=True, version="2")) == (0, 1, 0)


async def test_a_batch_can_ask_for_everything_and_so_do_its_reprocessings(manager):
    pairs = [("a", "1"), ("b", "bad")]
    await bring(manager, pairs[:1], skip_unchanged=True)
    everything = {"skip_unchanged": False}
    summary = await bring(manager, pairs, everything, skip_unchanged=True)
    assert counts(summary) == (1, 0, 1)
    child = await manager.create_reprocessing(summary.batch_id)
    assert (await manager.get_batch(child)).options["skip_unchanged"] is False
    assert counts(await bring(manager, pairs[:1], skip_unchanged=True)) == (0, 1, 0)


async def test_running_everything_again_skips_nothing_as_unchanged(manager, conn):
    summary = await bring(manager, [("a", "1"), ("b", "1")], skip_unchanged=True)
    assert counts(await manager.reprocess_batch(summary.batch_id, False)) == (2, 0, 0)
    assert await conn.fetchval("SELECT sum(times) FROM shelf") == 4


async def test_what_failed_or_was_skipped_by_the_processor_is_tried_again(manager, conn, mode):
    for value in ("bad", "skip"):
        await bring(manager, [(value, "1")], skip_unchanged=True)
        for _ in range(2):
            summary = await bring(manager, [(value, value)], skip_unchanged=True)
            assert counts(summary) == (0, int(value == "skip"), int(value == "bad"))
            assert summary.skipped_items == 0 or (
                (await stored(manager, summary))[0].skip_reason == "not for us"
            )
        # what is in the table is still what was completed last
        assert counts(await bring(manager, [(value, "1")], skip_unchanged=True)) == (0, 1, 0)
    assert await shelved(conn) == {"bad": "1", "skip": "1"}


async def test_a_correction_is_processed_and_remembered(manager, conn):
    summary = await bring(manager, [("a", "bad")], skip_unchanged=True)
    await manager.update_item_source(summary.batch_id, 1, {"k": "b", "v": "1"})
    fixed = await manager.reprocess_batch(summary.batch_id)
    assert counts(fixed) == (1, 0, 0)
    assert [tuple(row) for row in await conn.fetch(KEYS)] == [("b", fixed.batch_id, 1)]
    assert counts(await bring(manager, [("b", "1")], skip_unchanged=True)) == (0, 1, 0)


async def test_a_failure_that_came_in_with_a_later_file_is_repaired_by_it(manager):
    failed = await bring(manager, [("a", "bad")], skip_unchanged=True)
    await bring(manager, [("a", "1")], skip_unchanged=True)
    transformed = await manager.reprocess_batch(
        failed.batch_id, transform=lambda record: record | {"v": "1"}
    )
    assert counts(transformed) == (0, 1, 0)
    assert (await manager.get_batch_summary(failed.batch_id)).outstanding_items == 0


async def test_an_older_batch_that_ends_later_leaves_what_it_has_written(manager, conn):
    """What counts is which content was committed last, for that is what is in the table."""
    manager.registry.register(made(skip_unchanged=True))
    older = await manager.create_batch("tried", [{"k": "a", "v": "old"}])
    newer = await manager.create_batch("tried", [{"k": "a", "v": "new"}])
    assert counts(await manager.process_batch(newer)) == (1, 0, 0)
    assert counts(await manager.process_batch(older)) == (1, 0, 0)
    assert await shelved(conn) == {"a": "old"}
    assert counts(await bring(manager, [("a", "new")], skip_unchanged=True)) == (1, 0, 0)
    assert await shelved(conn) == {"a": "new"}


async def test_a_later_item_with_the_same_key_is_never_taken_for_unchanged(manager, conn, mode):
    pairs = [("a", "1"), ("b", "1"), ("a", "2")]
    await bring(manager, pairs, skip_unchanged=True, concurrency=1)
    again = await bring(manager, pairs, skip_unchanged=True, concurrency=1)
    assert counts(again) == (2, 1, 0)  # a is 2 in the table; skipping its item 3 would leave 1
    assert await shelved(conn) == {"a": "2", "b": "1"}


async def test_the_last_of_a_key_in_one_transaction_is_what_is_remembered(manager, conn):
    pairs = [("a", str(n)) for n in range(20)]
    attributes = {"skip_unchanged": True, "commit_interval": 20, "concurrency": 1}
    assert counts(await bring(manager, pairs, **attributes)) == (20, 0, 0)
    assert await shelved(conn) == {"a": "19"}
    assert counts(await bring(manager, [("a", "19")], skip_unchanged=True)) == (0, 1, 0)


async def test_keys_survive_purging(manager, conn):
    summary = await bring(manager, [("a", "1")], skip_unchanged=True)
    await manager.purge(summary.batch_id)
    again = await bring(manager, [("a", "1")], skip_unchanged=True)
    assert counts(again) == (0, 1, 0)
    assert str(summary.batch_id) in (await stored(manager, again))[0].skip_reason


async def test_a_dry_run_says_what_would_be_skipped_and_remembers_nothing(manager, conn):
    await bring(manager, [("a", "1")], skip_unchanged=True)
    before = await conn.fetch(KEYS)
    batch_id = await manager.create_batch(
        "tried", [{"k": "a", "v": "1"}, {"k": "b", "v": "1"}, {"k": "c", "v": "bad"}]
    )
    report = await manager.process_batch(batch_id, dry_run=True)
    assert (report.completed, report.skipped, report.failed) == (1, 1, 1)
    assert await conn.fetch(KEYS) == before
    assert (await manager.get_batch_summary(batch_id)).pending_items == 3
    assert counts(await manager.process_batch(batch_id)) == (1, 1, 1)


async def test_a_retry_and_log_lines_do_not_lose_the_content(manager, conn, mode):
    async def later(item, ctx):
        if item.attempt == 1:
            raise Retry(after=0)
        ctx.info("written")
        return await put(item, ctx)

    manager.registry.register(
        type("TriedProcessor", (processor(later, skip_unchanged=True),), {"item_key": by_k})
    )
    batch_id = await manager.create_batch("tried", [{"k": "a", "v": "1"}, {"k": "b", "v": "1"}])
    assert counts(await manager.process_batch(batch_id)) == (2, 0, 0)
    # those of a set are about the batch
    assert "written" in [line.message async for line in manager.get_logs(batch_id)]
    pairs = [("a", "1"), ("b", "1")]
    assert counts(await bring(manager, pairs, skip_unchanged=True)) == (0, 2, 0)


async def test_what_is_undone_is_not_remembered(manager, conn):
    """The content is written with the item's effects, so a refused COMMIT takes both back."""
    await conn.execute(
        "ALTER TABLE shelf ADD parent text REFERENCES shelf (k) DEFERRABLE INITIALLY DEFERRED"
    )

    async def orphan(item, ctx):
        await ctx.execute("INSERT INTO shelf (k, parent) VALUES ($1, 'nobody')", item.item_key)

    cls = type("TriedProcessor", (processor(orphan, skip_unchanged=True),), {"item_key": by_k})
    manager.registry.register(cls)
    batch_id = await manager.create_batch("tried", [{"k": "a", "v": "1"}])
    assert counts(await manager.process_batch(batch_id)) == (0, 0, 1)
    assert await conn.fetch(KEYS) == []


async def test_two_batches_of_one_type_at_once_agree_with_the_table(manager, conn, mode):
    manager.registry.register(made(skip_unchanged=True))
    values = {name: [{"k": str(n), "v": name} for n in range(60)] for name in ("x", "y")}
    for _ in range(3):
        ids = [await manager.create_batch("tried", values[name]) for name in values]
        async with asyncio.TaskGroup() as group:
            for batch_id in ids:
                group.create_task(manager.process_batch(batch_id))
        held = await shelved(conn)
        mixed = [{"k": key, "v": value} for key, value in held.items()]
        summary = await manager.process_batch(await manager.create_batch("tried", mixed))
        assert counts(summary) == (0, 60, 0)


# Without a method


class Product(BaseModel):
    k: str
    v: str


def declared(**attributes):
    model = attributes.pop("model", Product)
    members = {"table": "shelf", "key": ("k",), "skip_unchanged": True, **attributes}
    base = BaseProcessor[model]
    return types.new_class("TriedProcessor", (base,), exec_body=lambda body: body.update(members))


async def test_a_declared_upsert_takes_its_key(manager, conn):
    cls = declared(on_duplicate="skip")
    manager.registry.register(cls)
    records = [{"k": "a", "v": "1"}, {"k": "a", "v": "2"}, {"k": "b", "v": "1"}]
    summary = await manager.process_batch(await manager.create_batch("tried", records))
    assert counts(summary) == (2, 1, 0)
    assert [item.item_key for item in await stored(manager, summary)] == ['["a"]', '["a"]', '["b"]']
    again = await manager.process_batch(await manager.create_batch("tried", records))
    assert counts(again) == (0, 3, 0)
    assert await manager.skip_reasons(again.batch_id) == (
        ("unchanged since item … of batch …", 2),
        ("duplicate of item …", 1),
    )


async def test_a_declared_key_that_records_call_otherwise_is_refused(manager):
    class Renamed(Product):
        k: str = Field(validation_alias="Key")

    with pytest.raises(NotAProcessor, match="field k has another name") as caught:
        manager.registry.register(declared(model=Renamed))
    assert "def item_key" in caught.value.hint
    manager.registry.register(declared(model=Renamed, item_key=lambda self, record: record["Key"]))


REFUSES_KEYS = "ALTER TABLE reliable_imports.import_item_keys ADD CHECK (false)"


async def test_a_declared_upsert_that_asks_for_nothing_has_no_keys(manager):
    manager.registry.register(declared(skip_unchanged=False))
    summary = await manager.process_batch(
        await manager.create_batch("tried", [{"k": "a", "v": "1"}])
    )
    assert [item.item_key for item in await stored(manager, summary)] == [None]


async def test_a_processor_without_keys_pays_for_none(manager, conn, mode, monkeypatch):
    """No statement about keys is sent for it, and none is written: each would fail."""
    break_item_keys(monkeypatch)
    await conn.execute(REFUSES_KEYS)
    records = [{"k": "a", "v": "1"}, {"k": "a", "v": "bad"}]
    summary = await run(manager, put, records)
    assert counts(summary) == (1, 0, 1)
    assert counts(await manager.reprocess_batch(summary.batch_id)) == (0, 0, 1)
