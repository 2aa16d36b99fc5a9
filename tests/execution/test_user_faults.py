"""What a user's code raises, returns and lets PostgreSQL say: confined to its item, and no more."""

import asyncio
import itertools
import random
import signal
import sys
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from pydantic import BaseModel

from reliable_imports_async import BaseProcessor, BatchStatus, FailureKind, ItemStatus, Retry
from reliable_imports_async.failures import describe, ends_process, sound
from reliable_imports_async.outcomes import Failure

from ..runner.reach import (
    LOSSES,
    REFUSALS,
    STATE_REFUSALS,
    STUCK_REFUSALS,
    Outages,
    longest_pause_of_slots,
)
from ..support.trying import LEDGER, MODES, PATIENCE, insert, only_item, run, written
from .reach import Outage


@pytest.fixture
async def ledger(conn):
    """The table into which `insert` writes, on a connection."""
    await conn.execute(LEDGER)
    return conn


BAD = 2  # the number of the item that is at fault


def raised(cause: Any) -> BaseException:
    """What a function raises, with its traceback."""
    try:
        cause()
    except BaseException as exc:  # noqa: BLE001 - whichever it is
        return exc
    raise AssertionError("nothing was raised")


def throw(exc: BaseException) -> None:
    raise exc


# Exits: the code's own fail the item, those of a signal end the process.


class Loop:
    """Stands for whoever installs a method as a signal's handler."""

    def on_signal(self, task: object, number: int, frame: object) -> None:
        raise KeyboardInterrupt


def by_signal(handler: Any) -> None:
    """The exception of a handler, raised in the midst of other code."""
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        signal.raise_signal(signal.SIGUSR1)
        while True:  # the handler runs at the interpreter's next step
            pass
    except BaseException as exc:
        exc.outside = ends_process(exc)  # type: ignore[attr-defined]
        raise
    finally:
        signal.signal(signal.SIGUSR1, before)


def interrupted() -> None:
    """What Ctrl-C raises where nobody has installed a handler."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        signal.raise_signal(signal.SIGINT)
        while True:
            pass
    except BaseException as exc:
        exc.outside = ends_process(exc)  # type: ignore[attr-defined]
        raise
    finally:
        signal.signal(signal.SIGINT, before)


def closed() -> None:
    """What a coroutine meets that is closed while it waits."""

    async def waits() -> None:
        try:
            await asyncio.Future()
        except BaseException as exc:
            seen.append(exc)
            raise

    seen: list[BaseException] = []
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        coroutine = waits()
        coroutine.send(None)
        coroutine.close()
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    seen[0].outside = ends_process(seen[0])  # type: ignore[attr-defined]
    raise seen[0]


OWN_EXITS = {
    "sys.exit": lambda: sys.exit(3),
    "SystemExit": lambda: throw(SystemExit()),
    "KeyboardInterrupt": lambda: throw(KeyboardInterrupt()),
    "GeneratorExit": lambda: throw(GeneratorExit()),
    "group": lambda: throw(BaseExceptionGroup("several", [raised(lambda: sys.exit(1))])),
}


@pytest.mark.parametrize("cause", OWN_EXITS.values(), ids=list(OWN_EXITS))
def test_an_exit_of_the_code_itself_is_told_apart(cause: Any) -> None:
    assert not ends_process(raised(cause))


@pytest.mark.parametrize(
    "cause",
    [
        lambda: by_signal(lambda *_: sys.exit(0)),
        lambda: by_signal(partial(Loop().on_signal, None)),
        interrupted,
        closed,
    ],
    ids=["handler", "partial", "Ctrl-C", "closed"],
)
def test_an_exit_from_outside_is_told_apart(cause: Any) -> None:
    assert raised(cause).outside  # type: ignore[attr-defined]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stage", ["process_item", "validate_item", "prepare_item"])
@pytest.mark.parametrize("cause", OWN_EXITS.values(), ids=list(OWN_EXITS))
async def test_an_exit_of_the_items_code_fails_the_item(
    manager, ledger, mode, stage, cause
) -> None:
    def at(item):
        if item.item_number == BAD:
            cause()

    async def process_item(item, ctx):
        await insert(item, ctx)
        if stage == "process_item":
            at(item)

    async def earlier(item, ctx):
        at(item)
        return True

    more = {} if stage == "process_item" else {stage: earlier}
    summary = await run(manager, process_item, 3, **MODES[mode], **more)
    assert (summary.completed_items, summary.failed_items) == (2, 1)
    assert await written(ledger) == [1, 3]


async def test_an_exit_in_item_key_fails_the_item(manager, ledger) -> None:
    def item_key(record):
        return record["n"] if record["n"] != BAD else sys.exit(1)

    summary = await run(manager, insert, 3, item_key=item_key)
    assert (summary.completed_items, summary.failed_items) == (2, 1)


# Our own evaluation of what is raised and returned.


class Secretive(Exception):
    @property
    def sqlstate(self) -> str:
        raise RuntimeError("do not look")


class Chameleon(Exception):
    @property
    def __class__(self):  # type: ignore[override]
        raise RuntimeError("do not ask")


class LateRetry(Retry):
    @property
    def after(self) -> float:  # type: ignore[override]
        raise RuntimeError("nobody knows")

    @after.setter
    def after(self, value: object) -> None: ...


class Odd:
    def __repr__(self) -> str:
        raise RuntimeError("no")


ODD = {
    "property": lambda: throw(Secretive("quota")),
    "class": lambda: throw(Chameleon("quota")),
    "grouped": lambda: throw(ExceptionGroup("two", [Secretive("quota")])),
    "retry text": lambda: throw(Retry("later", after="soon")),  # type: ignore[arg-type]
    "retry nan": lambda: throw(Retry("later", after=float("nan"))),
    "retry bool": lambda: throw(Retry("later", after=True)),
    "retry object": lambda: throw(Retry("later", after=Odd())),  # type: ignore[arg-type]
    "retry property": lambda: throw(LateRetry("later")),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("cause", ODD.values(), ids=list(ODD))
async def test_what_cannot_be_examined_fails_its_item_only(manager, ledger, mode, cause) -> None:
    async def process_item(item, ctx):
        await insert(item, ctx)
        if item.item_number == BAD:
            cause()

    summary = await run(manager, process_item, 3, **MODES[mode])
    assert (summary.completed_items, summary.failed_items) == (2, 1)
    assert await written(ledger) == [1, 3]


def test_an_exception_that_is_in_order_stays_itself() -> None:
    exc = raised(lambda: throw(ValueError("no")))
    assert sound(exc) is exc


@pytest.mark.parametrize(
    "after", [float("inf"), 10**400, 1e300, Decimal("1e40")], ids=["inf", "int", "float", "decimal"]
)
async def test_a_retry_in_the_far_future_is_stored(manager, conn, after) -> None:
    stored = asyncio.Event()

    async def process_item(item, ctx):
        stored.set()
        raise Retry("much later", after=after)

    task = asyncio.create_task(run(manager, process_item))
    await stored.wait()
    due = "SELECT due_at > clock_timestamp() + interval '300 days' FROM "
    async with asyncio.timeout(PATIENCE):
        while not await conn.fetchval(due + "reliable_imports.import_batch_items"):
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])


async def test_a_retry_that_was_due_yesterday_is_due_now(manager) -> None:
    tries: list[int] = []

    async def process_item(item, ctx):
        tries.append(1)
        if len(tries) < 2:
            raise Retry("late", after=-86_400)

    assert (await run(manager, process_item)).completed_items == 1


# Bad data never pauses a batch: nothing that PostgreSQL says about a row counts as a bug.

REFUSALS_OF_DATA = {
    "row-level security": (
        "CREATE TABLE rows (n int CHECK (true), t text); ALTER TABLE rows ENABLE ROW LEVEL SECURITY;"
        "ALTER TABLE rows FORCE ROW LEVEL SECURITY; CREATE POLICY p ON rows USING (true) "
        "WITH CHECK (n % 10 = 0); CREATE ROLE {role}; GRANT ALL ON rows TO {role}",
        "SET LOCAL ROLE {role}; INSERT INTO rows VALUES ({n}); RESET ROLE",
    ),
    "trigger raises": ("", "INSERT INTO rows VALUES ({n})"),
    "trigger raises a code": ("USING ERRCODE = 'XX123'", "INSERT INTO rows VALUES ({n})"),
    "trigger raises 53100": ("USING ERRCODE = '53100'", "INSERT INTO rows VALUES ({n})"),
    "assertion": (
        "CREATE TABLE rows (n int)",
        "DO $$ BEGIN ASSERT {n} % 10 = 0, 'only tens'; END $$",
    ),
    "no data found": (
        "CREATE TABLE rows (n int)",
        "DO $$ DECLARE found int; BEGIN SELECT 1 INTO STRICT found WHERE {n} % 10 = 0; END $$",
    ),
    "check option": (
        "CREATE TABLE base (n int); "
        "CREATE VIEW rows AS SELECT n FROM base WHERE n % 10 = 0 WITH CHECK OPTION",
        "INSERT INTO rows VALUES ({n})",
    ),
    "index row": (
        "CREATE TABLE rows (n int, t text); CREATE INDEX ON rows (t)",
        "INSERT INTO rows SELECT {n}, CASE WHEN {n} % 10 = 0 THEN '' ELSE "
        "(SELECT string_agg(md5(g::text), '') FROM generate_series(1, 400) g) END",
    ),
    "a row twice": (
        "CREATE TABLE rows (n int PRIMARY KEY)",
        "INSERT INTO rows SELECT {n} FROM generate_series(0, least({n} % 10, 1)) "
        "ON CONFLICT (n) DO UPDATE SET n = EXCLUDED.n",
    ),
}
TRIGGER = """CREATE TABLE rows (n int);
    CREATE FUNCTION {role}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.n % 10 <> 0 THEN RAISE EXCEPTION 'customer % is barred', chr(64 + NEW.n) {using}; END IF;
    RETURN NEW; END $$;
    CREATE TRIGGER barred BEFORE INSERT ON rows FOR EACH ROW EXECUTE FUNCTION {role}()"""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", REFUSALS_OF_DATA)
async def test_bad_data_never_pauses_a_batch(manager, ledger, mode, kind) -> None:
    ddl, insertion = REFUSALS_OF_DATA[kind]
    role = f"importer_{await ledger.fetchval('SELECT current_database()')}"
    if kind.startswith("trigger"):
        ddl = TRIGGER.format(role=role, using=ddl)
    try:
        await ledger.execute(ddl.replace("{role}", role))

        async def process_item(item, ctx):
            await ctx.execute(insertion.format(role=role, n=item.source_data["n"]))

        summary = await run(manager, process_item, 30, pause_after=3, **MODES[mode])
    finally:
        if kind == "row-level security":
            await ledger.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    assert (summary.status, summary.completed_items) == (BatchStatus.PARTIAL, 3)
    assert [(group.kind, group.count) for group in summary.groups] == [(FailureKind.DATA, 27)]


async def test_a_missing_privilege_is_still_a_bug(manager, conn) -> None:
    role = f"nobody_{await conn.fetchval('SELECT current_database()')}"
    await conn.execute(f"CREATE TABLE rows (n int); CREATE ROLE {role}")
    try:

        async def process_item(item, ctx):
            await ctx.execute(f"SET LOCAL ROLE {role}; INSERT INTO rows VALUES (1)")

        summary = await run(manager, process_item, 30, concurrency=1)
    finally:
        await conn.execute(f"DROP ROLE {role}")
    assert summary.status is BatchStatus.PAUSED
    assert {group.kind for group in summary.groups} == {FailureKind.BUG}


async def test_a_role_that_is_left_in_force_is_named_by_the_hint(manager, conn) -> None:
    role = f"left_{await conn.fetchval('SELECT current_database()')}"
    await conn.execute(f"CREATE ROLE {role}")
    try:

        async def process_item(item, ctx):
            await ctx.execute(f"SET LOCAL ROLE {role}")

        item = await only_item(manager, await run(manager, process_item))
    finally:
        await conn.execute(f"DROP ROLE {role}")
    assert "RESET ROLE" in item.failure.hint


# One item cannot hold its batch.

MISSING_FILE = "SELECT pg_read_file('/nonexistent/file-of-this-item.csv')"


@pytest.mark.parametrize("mode", MODES)
async def test_an_error_that_only_one_item_meets_again_and_again_fails_it(
    manager, ledger, mode, monkeypatch
) -> None:
    longest_pause_of_slots(monkeypatch, 0.01)

    async def process_item(item, ctx):
        if item.item_number == BAD:
            await ctx.execute(MISSING_FILE)
        await insert(item, ctx)

    async with asyncio.timeout(PATIENCE):
        summary = await run(manager, process_item, 5, **MODES[mode])
    assert (summary.completed_items, summary.failed_items) == (4, 1)
    assert (summary.groups[0].kind, summary.groups[0].sqlstate) == (FailureKind.EXCEPTION, "58P01")


def refusal(sqlstate: str, *, lost: bool = False, by_item: bool = True) -> Outage:
    failure = Failure(
        kind=FailureKind.CONNECTION_LOST, type="X", message="no", group="g", sqlstate=sqlstate
    )
    return Outage(failure, lost=lost, by_item=by_item)


# SQLSTATE, connection lost, met by the item, server healthy, others succeed -> tries until it
# fails, and until the batch is stuck; None for never.
OUTAGES = [
    ("58P01", False, True, True, False, REFUSALS, None),
    ("53400", False, True, True, True, REFUSALS, None),
    ("08001", False, True, True, True, REFUSALS, None),
    ("53100", False, True, True, True, STATE_REFUSALS, None),
    ("53100", False, True, True, False, None, STUCK_REFUSALS),
    ("53200", False, True, True, False, None, STUCK_REFUSALS),
    ("57P01", False, True, True, True, STATE_REFUSALS, None),
    ("53100", False, True, False, True, None, None),
    ("58P01", False, True, False, True, None, None),
    ("53300", False, False, True, True, None, None),
    ("58P01", False, False, True, True, None, None),
    ("08006", True, True, True, True, LOSSES, None),
    ("08006", True, True, False, True, None, None),
    ("25006", False, True, True, False, LOSSES, None),
]


@pytest.mark.parametrize(
    "case", OUTAGES, ids=lambda case: f"{case[0]}-{''.join(str(int(flag)) for flag in case[1:5])}"
)
def test_when_an_item_is_to_blame_for_its_outages(case: tuple[Any, ...]) -> None:
    sqlstate, lost, by_item, healthy, others, fails, stuck = case
    settled = 0
    outages = Outages(None, lambda: settled)
    failed_at = stuck_at = None
    for count in range(1, STUCK_REFUSALS + 5):
        settled += others
        outages.add(refusal(sqlstate, lost=lost, by_item=by_item), healthy=healthy)
        failed_at = failed_at or (count if outages.poison else None)
        stuck_at = stuck_at or (count if outages.stuck else None)
    assert (failed_at, stuck_at) == (fails, stuck)


def test_outages_of_different_kinds_do_not_add_up() -> None:
    """An item that had to wait for the disk, and is cut off then, is not to blame."""
    kinds = [("53100", False, STATE_REFUSALS), ("58P01", False, REFUSALS), ("08006", True, LOSSES)]
    due = [(code, lost) for code, lost, fails in kinds for _ in range(fails - 1)]
    for order in (due, due[::-1], random.Random(1).sample(due, len(due))):
        outages = Outages(None, itertools.count().__next__)
        for sqlstate, lost in order:
            outages.add(refusal(sqlstate, lost=lost), healthy=True)
            assert outages.poison is None


@pytest.mark.parametrize(
    "cause",
    [OSError("the tunnel is closed"), TimeoutError("too slow"), RuntimeError("no license")],
    ids=lambda exc: type(exc).__name__,
)
@pytest.mark.parametrize("hook", ["on_connection", "resources"])
async def test_an_error_of_what_items_share_ends_the_call(manager, ledger, hook, cause) -> None:
    async def on_connection(connection):
        raise cause

    def resources(ctx):
        raise cause

    attributes = {hook: {"on_connection": on_connection, "resources": resources}[hook]}
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(type(cause), match=str(cause)):
            await run(manager, insert, 3, **attributes)
    states = "SELECT DISTINCT status FROM reliable_imports.import_batch_items"
    assert await ledger.fetchval(states) == ItemStatus.PENDING


# Failure groups rest on what is steady.


async def test_one_cause_is_one_group_whatever_its_messages_say(manager, conn) -> None:
    await conn.execute(TRIGGER.format(role="barred_by_name", using=""))

    class Refused(Exception):
        pass

    async def process_item(item, ctx):
        name = "".join(chr(97 + int(digit)) for digit in str(item.item_number))
        match item.item_number % 3:
            case 0:
                raise Refused(f"no supplier called {name} is known in {name}land")
            case 1:
                await ctx.execute("INSERT INTO rows VALUES ($1)", 10 * item.item_number + 1)
            case 2:
                raise Refused("the supplier " + name + " is barred")

    summary = await run(manager, process_item, 150, pause_after=None)
    assert sorted(group.count for group in summary.groups) == [50, 50, 50]


async def test_two_lines_of_one_function_in_the_database_are_two_causes(manager, conn) -> None:
    await conn.execute(
        """CREATE FUNCTION checked(n int) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
        IF n % 2 = 0 THEN
            RAISE EXCEPTION 'refused %', n;
        END IF;
        RAISE EXCEPTION 'refused %', n;
        END $$"""
    )

    async def process_item(item, ctx):
        await ctx.execute("SELECT checked($1)", item.item_number)

    summary = await run(manager, process_item, 10)
    assert [group.count for group in summary.groups] == [5, 5]


def fails(reason: str) -> None:
    raise ValueError(reason)


def test_who_calls_what_raises_belongs_to_the_cause() -> None:
    def no_price(what: str) -> None:
        fails(f"no price of {what}")

    def no_stock(what: str) -> None:
        fails(f"no stock of {what}")

    def group(cause: Any, what: str) -> str:
        return describe(raised(lambda: cause(what)), kind=FailureKind.EXCEPTION).group

    assert group(no_price, "tea") == group(no_price, "coffee") != group(no_stock, "tea")


def test_characters_that_nobody_sees_are_shown() -> None:
    failure = describe(ValueError("no customer 'Ann\u200b\xa0Lee'"), kind=FailureKind.EXCEPTION)
    assert failure.message == r"no customer 'Ann\u200b\xa0Lee'"
    assert describe(ValueError("Müller 日本"), kind=FailureKind.EXCEPTION).message == "Müller 日本"


async def test_the_values_that_a_model_refused_are_counted(manager) -> None:
    class Row(BaseModel):
        total: int

    class RowProcessor(BaseProcessor[Row]):
        async def process_item(self, item, ctx): ...

    manager.registry.register(RowProcessor)
    given = ["many"] * 3 + ["n/a"] * 2 + ["1"]
    batch_id = await manager.create_batch("row", [{"total": total} for total in given])
    await manager.process_batch(batch_id)
    (group,) = await manager.failure_groups(batch_id)
    assert group.values == (("total='many'", 3), ("total='n/a'", 2))
