"""What an exception means for its item, and what of it is stored: never a secret."""

import asyncio
import logging
import re
import traceback
from collections.abc import AsyncIterator, Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated
from urllib.parse import quote
from uuid import UUID

import asyncpg
import pytest
from pydantic import (
    AwareDatetime,
    BaseModel,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    create_model,
)

from reliable_imports_async import BaseProcessor, BatchManager, FailureKind, Settings
from reliable_imports_async.cancellation import ItemTimeout
from reliable_imports_async.errors import DatabaseUnavailable, TransactionEnded
from reliable_imports_async.failures import (
    SQLSTATES,
    classify,
    describe,
    is_outage,
    parse_failure,
)
from reliable_imports_async.outcomes import Conflict, Failed, Outage
from reliable_imports_async.sanitize import password_of, redact_patterns, redactor, storable

from ..support.trying import only_item, run

FAIL, REPEAT, WAIT = Failed, Conflict, Outage
LOST, CONFLICT, DATA = FailureKind.CONNECTION_LOST, FailureKind.CONFLICT, FailureKind.DATA

# Code, what it means from the item's own connection, and its row; None is the default.
ROWS = [
    ("08006", WAIT, LOST, "08"),
    ("09000", FAIL, DATA, "09"),
    ("21000", FAIL, DATA, "21"),
    ("22P02", FAIL, DATA, "22"),
    ("22001", FAIL, DATA, "22"),
    ("23505", FAIL, DATA, "23"),
    ("23514", FAIL, DATA, "23"),
    ("25006", WAIT, LOST, "25006"),
    ("25P02", FAIL, FailureKind.TRANSACTION, "25P02"),
    ("25P03", WAIT, LOST, "25P03"),
    ("25P04", WAIT, LOST, "25P04"),
    ("25001", FAIL, FailureKind.EXCEPTION, None),
    ("40001", REPEAT, CONFLICT, "40001"),
    ("40P01", REPEAT, CONFLICT, "40P01"),
    ("27000", FAIL, DATA, "27"),
    ("40002", FAIL, DATA, "40002"),
    ("42P01", FAIL, FailureKind.BUG, "42"),
    ("42501", FAIL, FailureKind.BUG, "42"),
    ("44000", FAIL, DATA, "44"),
    ("53100", WAIT, LOST, "53"),
    ("53300", WAIT, LOST, "53"),
    ("54000", FAIL, DATA, "54"),
    ("55P03", REPEAT, CONFLICT, "55P03"),
    ("55006", FAIL, FailureKind.EXCEPTION, None),
    ("57014", FAIL, FailureKind.TIMEOUT, "57014"),
    ("57P01", WAIT, LOST, "57P0"),
    ("57P03", WAIT, LOST, "57P0"),
    ("57P05", WAIT, LOST, "57P0"),
    ("58030", WAIT, LOST, "58"),
    ("P0001", FAIL, DATA, "P0"),
    ("XX000", FAIL, FailureKind.EXCEPTION, None),
]


def error(sqlstate: str, message: str = "refused", **fields: str) -> asyncpg.PostgresError:
    """An error as asyncpg makes it from the server's answer."""
    made = asyncpg.PostgresError.new({"C": sqlstate, "M": message, **fields})
    assert isinstance(made, asyncpg.PostgresError)
    return made


def test_every_row_of_the_table_is_tried() -> None:
    assert {row for *_, row in ROWS} - {None} == set(SQLSTATES)


@pytest.mark.parametrize(("code", "action", "kind", "row"), ROWS)
def test_an_error_of_the_own_connection(code, action, kind, row) -> None:
    exc = error(code)
    meaning = classify(exc, own=(exc,))
    assert (type(meaning), meaning.failure.kind) == (action, kind)
    assert meaning.failure.sqlstate == code
    assert is_outage(exc) is (action is not FAIL)


@pytest.mark.parametrize(("code", "action", "kind", "row"), ROWS)
def test_the_same_error_from_elsewhere_is_the_processors(code, action, kind, row) -> None:
    meaning = classify(error(code), own=(error(code),))
    expected = kind if action is FAIL else FailureKind.EXCEPTION
    assert (type(meaning), meaning.failure.kind) == (FAIL, expected)


@pytest.mark.parametrize("exc", [error("23505"), ValueError("no"), TimeoutError(), OSError("gone")])
def test_on_a_broken_connection_nobodys_item_fails(exc: Exception) -> None:
    meaning = classify(exc, broken=True)
    assert (type(meaning), meaning.failure.kind) == (WAIT, LOST)


def wrapped(exc: Exception, how: str) -> Exception:
    """The exception as a processor may pass it on."""
    if how == "group":
        return ExceptionGroup("several", [ExceptionGroup("inner", [exc])])
    try:
        try:
            raise exc
        except Exception as inner:
            if how == "cause":
                raise RuntimeError("import failed") from inner
            raise RuntimeError("import failed")  # noqa: B904 - without a cause on purpose
    except RuntimeError as outer:
        return outer


@pytest.mark.parametrize("how", ["group", "cause", "context"])
def test_a_wrapped_conflict_is_still_a_conflict(how: str) -> None:
    exc = error("40001")
    assert type(classify(wrapped(exc, how), own=(exc,))) is REPEAT


@pytest.mark.parametrize(
    ("exc", "kind"),
    [
        (asyncpg.DataError("invalid input for query argument $1: 'x'"), DATA),
        (TransactionEnded(), FailureKind.TRANSACTION),
        (ConnectionError("the supplier's API"), FailureKind.EXCEPTION),
        (asyncpg.InterfaceError("cannot perform operation"), FailureKind.EXCEPTION),
    ],
)
def test_errors_without_a_code_fail_their_item(exc: Exception, kind: FailureKind) -> None:
    meaning = classify(exc, own=(exc,))
    assert (type(meaning), meaning.failure.kind) == (FAIL, kind)


@pytest.mark.parametrize(
    "exc",
    [
        asyncpg.InvalidCachedStatementError("cached plan must not change result type"),
        asyncpg.InternalClientError("got result for unknown protocol state 3"),
    ],
)
def test_a_stale_connection_is_replaced(exc: Exception) -> None:
    assert type(classify(exc, own=(exc,))) is WAIT
    assert type(classify(exc)) is FAIL
    assert is_outage(exc)


@pytest.mark.parametrize(
    ("exc", "outage"),
    [
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (asyncpg.InterfaceError("connection is closed"), True),
        (DatabaseUnavailable("db:5432/shop", "refused"), True),
        (TransactionEnded(), False),
        (asyncpg.DataError("invalid input"), False),
        (ValueError(), False),
    ],
)
def test_outages_of_our_own_statements(exc: Exception, outage: bool) -> None:
    assert is_outage(exc) is outage


class Address(BaseModel):
    zip: int


class Customer(BaseModel):
    age: int
    addresses: list[Address] = []


def rejection(record: object) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Customer).validate_python(record)
    return caught.value


def group(exc: BaseException) -> str:
    return describe(exc, kind=FailureKind.EXCEPTION).group


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ValueError("row 17 of 'a.csv'"), ValueError("row 18 of 'b.csv'")),
        (ValueError("no user joe@example.org"), ValueError("no user ann@example.com")),
        (KeyError("sku-1"), KeyError("sku-2")),
        (
            error("23505", "duplicate", n="orders_pkey", D="Key (id)=(1) already exists."),
            error("23505", "duplicate", n="orders_pkey", D="Key (id)=(2) already exists."),
        ),
        (
            error("22P02", 'invalid input syntax for type integer: "x"'),
            error("22P02", 'invalid input syntax for type integer: "a \\"y\\""'),
        ),
        (rejection({"age": "old"}), rejection({"age": "young"})),
        (
            rejection({"age": 1, "addresses": [{"zip": "x"}]}),
            rejection({"age": 1, "addresses": [{"zip": 1}, {"zip": "y"}]}),
        ),
    ],
)
def test_one_cause_with_different_values_is_one_group(one: Exception, other: Exception) -> None:
    assert group(one) == group(other)


def test_different_causes_are_different_groups() -> None:
    causes = [
        ValueError("no price"),
        ValueError("no stock"),
        TypeError("no price"),
        error("23505", "duplicate", n="orders_pkey"),
        error("23505", "duplicate", n="orders_number_key"),
        error("23503", "duplicate", n="orders_pkey"),
        error("42P01", 'relation "orders" does not exist'),
        error("42P01", 'relation "customers" does not exist'),
        rejection({"age": "old"}),
        rejection({}),
    ]
    assert len({group(exc) for exc in causes}) == len(causes)
    assert parse_failure("line 7 is no JSON").group == parse_failure("line 8 is no JSON").group
    assert parse_failure("line 7 is no JSON").group != parse_failure("line 7 is too long").group


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


class Strange(Exception):
    sqlstate = 42
    __notes__ = 7  # type: ignore[assignment]


@pytest.mark.parametrize(
    "exc",
    [
        Mute(),
        Strange("strange"),
        ValueError("NUL \x00 and \ud800 alone"),
        ValueError("x" * 3_000_000),
        ValueError("ü" * 3_000_000),
        ExceptionGroup("m" * 3_000_000, [Mute(), ValueError("\udfff")]),
        type("N" * 3_000_000, (Exception,), {})(),
        error("23505", "\x00" * 9_000, D="\ud800" * 9_000, n="n" * 9_000),
    ],
    ids=lambda exc: type(exc).__name__[:20],
)
async def test_whatever_is_raised_can_be_described_and_stored(exc: Exception, conn) -> None:
    found = describe(exc, kind=FailureKind.EXCEPTION)
    for text in (found.type, found.message, found.detail, found.constraint, found.traceback):
        assert await conn.fetchval("SELECT $1::text", text) == text
        assert len((text or "").encode()) <= 16_384
    assert len(found.message.encode()) <= 2_048


def test_only_the_users_frames_are_kept() -> None:
    with pytest.raises(ValueError, match="a coroutine was expected") as caught:
        asyncio.run(None)  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError) as own:
        _ = 1 / 0
    assert "runners.py" in "".join(traceback.format_exception(caught.value))
    assert "runners.py" not in (describe(caught.value, kind=DATA).traceback or "")
    assert "_ = 1 / 0" in (describe(own.value, kind=DATA).traceback or "")


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("postgresql://joe:s3cret@db/shop", "postgresql://joe:***@db/shop"),
        ("redis://:s3cret@cache and host", "redis://:***@cache and host"),
        ("password=s3cret host=db", "password=*** host=db"),
        ('{"Password": "s3 cret", "n": 1}', '{"Password": ***, "n": 1}'),
        ("pwd: 's3 cret'", "pwd: ***"),
        ("https://example.org:8080/path", "https://example.org:8080/path"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_what_looks_like_a_password_is_masked(text: str, safe: str) -> None:
    assert redact_patterns(text) == safe


def test_a_known_secret_is_masked_however_it_is_spelt() -> None:
    secret = "p/a s?w@rd"
    assert password_of(f"postgresql://joe:{quote(secret, safe='')}@db/shop") == secret
    redact = redactor([secret])
    for spelling in (secret, quote(secret), quote(secret, safe="")):
        assert redact(f"it was {spelling}.") == "it was ***."
    assert redactor(["abc"])("abc is too short to be one") == "abc is too short to be one"
    assert password_of("postgresql://db/shop") is password_of("http://[broken") is None


@pytest.mark.parametrize("limit", range(12, 24))
def test_a_cut_text_keeps_its_limit_in_bytes(limit: int) -> None:
    assert len(storable("ü\x00" * 50, limit).encode()) <= limit


# What a beginner does first, and what the stored failure tells them to do instead.


@pytest.mark.parametrize(
    ("sql", "args", "hint"),
    [
        ("INSERT INTO goods (sku) VALUES (%s)", ("a",), r"placeholders are \$1, \$2, …, not %s"),
        ("INSERT INTO goods (sku, price) VALUES ($1, $2)", (("a", 1),), r"one by one|separate"),
        ("INSERT INTO goods (sku, price) VALUES ($1, $2)", ("a", "1"), "declare a model"),
        ("INSERT INTO goods (sku, made) VALUES ($1, $2)", ("a", "2026-01-01"), "declare a model"),
        ("INSERT INTO goods (sku, at) VALUES ($1, $2)", ("a", "2026-01-01"), "declare a model"),
        ("INSERT INTO goods (sku, paid) VALUES ($1, $2)", ("a", "1.50"), None),
        ("INSERT INTO goods (sku, parent) VALUES ($1, $2)", ("a", "b"), "refers to does not exist"),
    ],
    ids=["percent", "tuple", "int", "date", "timestamp", "numeric", "reference"],
)
async def test_a_beginners_mistake_is_stored_with_its_remedy(
    manager: BatchManager, conn, sql: str, args: tuple[object, ...], hint: str | None
) -> None:
    await conn.execute(
        "CREATE TABLE goods (sku text PRIMARY KEY, price int, made date, at timestamptz, "
        "paid numeric, parent text REFERENCES goods)"
    )

    async def process_item(item, ctx):
        await ctx.execute(sql, *args)

    failure = (await only_item(manager, await run(manager, process_item))).failure
    if hint is None:
        assert failure is None
        return
    assert failure is not None
    assert re.search(hint, failure.hint or ""), (failure.message, failure.hint)


@pytest.mark.parametrize(
    ("kind", "value", "hint"),
    [
        (date, "03/04/2025", "2025-04-03"),
        (date, "3.4.2025", "2025-04-03"),
        (datetime, "03.04.2025 14:30", "2025-04-03T14:30:00"),
        (AwareDatetime, "2025-04-03T14:30:00", "with a time zone"),
        (time, "half past two", "14:30:00"),
        (timedelta, "2 hours", "PT1H30M"),
        (Decimal, "1.234,56", r"1234\.56"),
        (Decimal, "1 234.56", r"1234\.56"),
        (Decimal, "\u20ac 5", "currency"),
        (float, "1,5", r"1234\.56"),
        (int, "12\u200b5", "invisible"),
        (int, 2.5, "Decimal"),
        (bool, "ja", "true, false"),
        (UUID, "123", "3fa85f64"),
        (str, 123, "coerce_numbers_to_str"),
        (list[int], "1;2", "JSON"),
        (int, "", "null_values"),
        (int | None, "", "null_values"),
        (date, None, "no value"),
        (str, None, "no value"),
        (Decimal, "NaN", "NaN and infinity"),
        (Annotated[str, StringConstraints(min_length=1)], "", None),
        (Annotated[int, Field(gt=5)], 3, None),
    ],
    ids=str,
)
def test_a_value_that_a_model_refuses_is_stored_with_its_remedy(
    kind: object, value: object, hint: str | None
) -> None:
    model = create_model("Record", wanted=(kind, ...), optional=(int, 1))
    with pytest.raises(ValidationError) as refused:
        model.model_validate({"wanted": value})
    failure = describe(refused.value, kind=FailureKind.VALIDATION)
    if hint is None:
        assert failure.hint is None
    else:
        assert re.search(hint, failure.hint or ""), (failure.message, failure.hint)


def test_a_missing_field_and_the_second_of_two_have_a_remedy() -> None:
    model = create_model("Record", short=(Annotated[int, Field(gt=5)], ...), paid=(Decimal, ...))
    for record, hint in ({"short": 1, "paid": "1,5"}, "1234.56"), ({"short": 9}, "no value"):
        with pytest.raises(ValidationError) as refused:
            model.model_validate(record)
        assert hint in (describe(refused.value, kind=FailureKind.VALIDATION).hint or "")


@pytest.mark.parametrize(
    ("exc", "hint"),
    [
        (asyncpg.SerializationError("could not serialize access"), "lower concurrency"),
        (asyncpg.DeadlockDetectedError("deadlock detected"), "lower concurrency"),
        (asyncpg.LockNotAvailableError("canceling statement due to lock timeout"), "pg_locks"),
        (
            asyncpg.QueryCanceledError("canceling statement due to statement timeout"),
            "increase statement_timeout",
        ),
        (asyncpg.QueryCanceledError("canceling statement due to user request"), None),
        (ItemTimeout(0.5), "item_timeout"),
    ],
    ids=lambda one: type(one).__name__,
)
def test_waiting_in_vain_is_stored_with_its_remedy(exc: Exception, hint: str | None) -> None:
    described = describe(exc, kind=FailureKind.EXCEPTION).hint
    assert (hint is None) is (described is None)
    assert (hint or "") in (described or "")


async def test_a_swallowed_error_is_stored_with_its_remedy(manager: BatchManager) -> None:
    async def process_item(item, ctx):
        try:
            await ctx.execute("SELECT 1/0")
        except asyncpg.DivisionByZeroError:
            await ctx.execute("SELECT 1")

    failure = (await only_item(manager, await run(manager, process_item))).failure
    assert failure is not None
    assert failure.kind is FailureKind.TRANSACTION
    assert "ctx.savepoint" in (failure.hint or "")


async def test_a_forgotten_return_is_stored_with_its_remedy(manager: BatchManager) -> None:
    async def process_item(item, ctx): ...

    def validate_item(item, ctx): ...

    summary = await run(manager, process_item, validate_item=validate_item)
    failure = (await only_item(manager, summary)).failure
    assert failure is not None
    assert failure.kind is FailureKind.VALIDATION
    assert "return True for a valid item" in (failure.hint or "")


# The canary: a password that must appear nowhere.

CANARY = "CANARY-pw"


@pytest.fixture
async def canary_dsn(dsn: str, conn, server: Callable[[str], str]) -> AsyncIterator[str]:
    """The URL of the test's database as a user with a password."""
    role = f"canary_{await conn.fetchval('SELECT current_database()')}"
    await conn.execute(f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD '{CANARY}'")
    scheme, _, rest = dsn.partition("://")
    place = rest.partition("/")[0].rpartition("@")[2]
    yield f"{scheme}://{role}:{CANARY}@{place}/{rest.partition('/')[2]}"
    await conn.execute(f"DROP ROLE {role}")


def whole(exc: BaseException) -> str:
    """All that a log or a terminal would show of an exception."""
    return "".join(traceback.format_exception(exc)) + repr(exc) + str(exc)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://joe:{CANARY}@127.0.0.1:1/shop",
        f"postgresql://joe:{CANARY}@nowhere.invalid/shop",
        f"postgresql://joe:{CANARY}@[broken/shop",
        f"postgresql://joe:{CANARY}@host:port/shop",
        f"postgresql://joe:{CANARY}@/shop?host=/nowhere",
        f"postgresql:///shop?host=/nowhere&user=joe&password={CANARY}",
        f"mysql://joe:{CANARY}@host/shop",
        f"host=db user=joe password={CANARY}",
    ],
)
async def test_a_url_that_does_not_work_is_reported_without_its_password(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    manager = BatchManager(url, settings=Settings(connect_timeout=2))
    with pytest.raises((ValueError, ConnectionError)) as caught:
        await manager.open()
    shown = whole(caught.value) + caplog.text + repr(manager) + repr(manager.settings)
    assert CANARY not in shown


async def test_settings_do_not_show_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELIABLE_IMPORTS_DATABASE_URL", f"postgresql://joe:{CANARY}@db/shop")
    settings = Settings()
    assert CANARY not in repr(settings) + str(settings) + settings.model_dump_json()
    monkeypatch.setenv("RELIABLE_IMPORTS_CONCURRENCY", "many")
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert CANARY not in whole(caught.value)


class LeakyProcessor(BaseProcessor):
    """Puts its database's URL wherever a processor can put text."""

    url = ""

    async def process_item(self, item, ctx):
        ctx.info(f"connecting to {self.url}", url=self.url, password=CANARY)
        match item.item_number:
            case 1:
                raise ValueError(self.url)
            case 2:
                raise RuntimeError(f"login failed: {CANARY}") from ValueError(self.url)
            case 3:
                await ctx.execute(f"SELECT '{CANARY}'::integer")
            case 4:
                await ctx.execute(f"DO $$ BEGIN RAISE 'x' USING DETAIL = '{CANARY}'; END $$")
            case 5:
                Customer.model_validate({"age": self.url})
            case 6:
                exc = ValueError("refused")
                exc.add_note(f"the URL was {self.url}")
                raise exc

    async def on_batch_complete(self, summary, ctx):
        raise ConnectionError(self.url)


async def test_the_password_is_stored_and_logged_nowhere(
    canary_dsn: str, conn, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    LeakyProcessor.url = canary_dsn
    async with BatchManager(canary_dsn, concurrency=2) as manager:
        manager.registry.register(LeakyProcessor)
        batch_id = await manager.create_batch("leaky", [{"n": number} for number in range(7)])
        summary = await manager.process_batch(batch_id)
        assert (summary.failed_items, summary.error is None) == (6, False)
        shown = repr(manager) + repr(manager.settings) + repr(summary)
        shown += repr(await manager.failure_groups(batch_id))
    stored = "".join([await _stored(conn, table) for table in ("batches", "batch_items", "logs")])
    logged = "".join(f"{record.getMessage()}{vars(record)}" for record in caplog.records)
    assert "***" in stored
    assert "connecting to" in logged
    assert CANARY not in stored
    assert CANARY not in shown
    assert CANARY not in logged + caplog.text


async def _stored(conn, table: str) -> str:
    """Every column of every row of a table, as one text."""
    rows = await conn.fetch(f"SELECT t::text AS line FROM reliable_imports.import_{table} t")
    return "\n".join(row["line"] for row in rows)
