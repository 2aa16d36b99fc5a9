"""Log lines commit with their item, failing ones included, and no text is too bad to be stored."""

import pytest

from reliable_imports_async import FailureKind, LogLevel, Skip

from ..support.trying import LEDGER, insert, only_item, run, written
from .reach import let_everything_through

NUL_AND_SURROGATE = "a\x00b\udcffc\ud800"


class Unspeakable(Exception):
    """Its own text raises."""

    def __str__(self):
        raise RuntimeError("no text")


@pytest.fixture(autouse=True)
async def ledger(conn):
    await conn.execute(LEDGER)


async def lines_of(manager, summary, number=1):
    return [line async for line in manager.get_logs(summary.batch_id, item_number=number)]


@pytest.mark.parametrize("fails", [False, True])
async def test_log_lines_are_stored_whatever_becomes_of_the_item(manager, fails):
    async def process_item(item, ctx):
        ctx.debug("below the threshold")
        ctx.info("begun", step=1, price=1.5, missing=None)
        ctx.warning("careful")
        ctx.error("bad, but not fatal")
        if fails:
            raise ValueError("over")

    lines = await lines_of(manager, await run(manager, process_item))

    assert [line.level for line in lines] == [LogLevel.INFO, LogLevel.WARNING, LogLevel.ERROR]
    assert lines[0].details == {"step": 1, "price": 1.5, "missing": None}
    assert lines[1].details is None


async def test_a_hundred_lines_an_item_are_kept(manager):
    async def process_item(item, ctx):
        for number in range(250):
            ctx.info(f"line {number}")

    lines = await lines_of(manager, await run(manager, process_item))

    assert len(lines) == 101
    assert lines[99].message == "line 99"
    assert lines[100].message.startswith("150 more log lines were dropped")


@pytest.mark.parametrize("letter", ["x", "€", "\x00", "😀"])
async def test_sixty_four_kilobytes_an_item_are_kept(manager, conn, letter):
    async def process_item(item, ctx):
        for _ in range(60):
            ctx.info(letter * 4_000, more=letter * 1_000)

    summary = await run(manager, process_item)

    stored = await conn.fetchval(
        "SELECT sum(octet_length(message) + octet_length(coalesce(details::text, '')))"
        " FROM reliable_imports.import_logs WHERE item_number = 1"
    )
    assert summary.ok
    assert 30_000 < stored <= 65_536 + 100


DETAILS = [
    {"text": NUL_AND_SURROGATE},
    {"number": float("nan"), "other": float("inf")},
    {"object": object(), "raw": b"\xff\x00"},
    {"password": "hunter22", "db_password": "hunter22"},
    {"note": 'the password: hunter22", he said', "pwd": 12},
    {"dsn": "postgresql://u:hunter22@h/db", "list": [{"password": "hunter22"}]},
    {"long": "x" * 1_000_000},
    {"backslashes": "\\u0000 \\\\u0000 \\"},
]


async def test_no_detail_is_too_bad_to_be_stored(manager, conn):
    async def process_item(item, ctx):
        await insert(item, ctx)
        ctx.info(NUL_AND_SURROGATE, **DETAILS[item.item_number - 1])

    summary = await run(manager, process_item, len(DETAILS))

    assert summary.ok
    for number, details in enumerate(DETAILS, 1):
        [line] = await lines_of(manager, summary, number)
        assert line.message.startswith("a\\x00b")
        assert set(line.details) <= {*details, "cut", "unreadable"}
        assert "hunter22" not in str(line)


async def test_lines_of_a_repeated_try_count_once(manager):
    tries = []

    async def process_item(item, ctx):
        tries.append(1)
        for number in range(90):
            ctx.info(f"{number}" + "x" * 600)
        if len(tries) < 4:
            await ctx.execute("DO $$ BEGIN RAISE EXCEPTION '' USING ERRCODE = '40001'; END $$")

    lines = await lines_of(manager, await run(manager, process_item))

    assert len(tries) == 4
    assert len(lines) == 90
    assert lines[0].message.startswith("0x")


RAISED = [
    (ValueError(NUL_AND_SURROGATE), "a\\x00b\\udcffc\\ud800"),
    (ValueError("a\x00\udcff" * 1_000_000), "a\\x00\\udcff" * 20),
    (ValueError("€" * 1_000_000), "€" * 600),
    (Unspeakable(), "the exception could not be described"),
    (type("N" * 5_000, (Exception,), {})("n"), "n"),
    (KeyError(), "KeyError"),
]


@pytest.mark.parametrize("where", ["process_item", "validate_item", "prepare_item"])
async def test_no_error_is_too_bad_to_be_stored(manager, where):
    async def failing(item, ctx):
        raise RAISED[item.item_number - 1][0]

    async def passing(item, ctx):
        return True

    summary = await run(manager, **{"process_item": passing, where: failing}, items=len(RAISED))

    expected = FailureKind.VALIDATION if where == "validate_item" else FailureKind.EXCEPTION
    stored = [item.failure async for item in manager.list_items(summary.batch_id)]
    for failure, (_, message) in zip(stored, RAISED, strict=True):
        assert failure.message.startswith(message)
        assert len(failure.message.encode()) <= 2_048
        assert failure.kind is expected


async def test_what_postgresql_will_not_have_is_stored_as_a_constant_text(manager, monkeypatch):
    let_everything_through(monkeypatch)

    async def process_item(item, ctx):
        raise ValueError(NUL_AND_SURROGATE)

    item = await only_item(manager, await run(manager, process_item))

    assert (item.failure.type, item.failure.kind) == ("Unstorable", FailureKind.EXCEPTION)


async def test_results_are_stored_safely(manager):
    async def process_item(item, ctx):
        data = {"text": "a\x00", "number": float("inf")}
        return {"target_id": NUL_AND_SURROGATE, "processed_data": data}

    item = await only_item(manager, await run(manager, process_item))

    assert item.target_id == "a\\x00b\\udcffc\\ud800"
    assert item.processed_data == {"text": "a\\x00", "number": "Infinity"}


async def test_a_skip_keeps_its_writes_and_its_reason(manager, conn):
    async def process_item(item, ctx):
        await insert(item, ctx)
        return Skip(NUL_AND_SURROGATE)

    summary = await run(manager, process_item)
    item = await only_item(manager, summary)

    assert (summary.skipped_items, summary.ok) == (1, True)
    assert item.skip_reason == "a\\x00b\\udcffc\\ud800"
    assert await written(conn) == [1]
