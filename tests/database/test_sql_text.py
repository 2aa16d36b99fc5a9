"""SQL text is read as PostgreSQL reads it: nothing that ends a transaction gets past, or outlives one unseen."""

import contextlib
import random

import asyncpg
import pytest

from .reach import Trace, examined

# What a text is made of: whatever is glued together, either PostgreSQL refuses it, or we are right.
CONTROL = [
    "COMMIT",
    "END",
    "ABORT",
    "ROLLBACK",
    "COMMIT AND CHAIN",
    "ROLLBACK AND CHAIN",
    "end work",
]
HARMLESS = ["SELECT 1", "SELECT CASE WHEN true THEN 1 END", "SELECT 'x' AS \"end\"", "SELECT $1$"]
LASTING = ["SET application_name = 'left'", "SET/**/application_name TO left"]
GLUE = [
    *(
        "'",
        "''",
        "\\'",
        "E'",
        "e'\\",
        '"',
        '""',
        "U&'",
        "B'",
        "N'",
        "$$",
        "$a$",
        "$a",
        "a$a$",
        "\\",
    ),
    *("/*", "*/", "/**/", "--", "\n", "\r", "--\n", "-", "*", "/", "(", ")", ";", ";;", " ", "\t"),
    *(
        "\f",
        "\v",
        "\u00a0",
        "é",
        "_",
        "1",
        "x",
        ",",
        "SELECT",
        "SELECT 1",
        "DO",
        "DO $$ BEGIN END $$",
    ),
    *(
        "BEGIN",
        "ATOMIC",
        "BEGIN ATOMIC",
        "CASE",
        "END",
        "SAVEPOINT s",
        "ROLLBACK TO s",
        "RELEASE s",
    ),
    *("CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql", "RETURN 1", "SET LOCAL jit = off"),
]
ROUNDS = 1_500


def texts(seed: int):
    """Random texts, of which many are valid and some smuggle something in."""
    chance = random.Random(seed)
    for _ in range(ROUNDS):
        hidden = chance.choice([*CONTROL, *LASTING * 3, *HARMLESS])
        around = [chance.choices(GLUE, k=chance.randrange(5)) for _ in range(2)]
        pieces = [*around[0], chance.choice(["", ";", " ", "\n"]), hidden, chance.choice(["", ";"])]
        yield "".join([*pieces, *around[1]])


@pytest.mark.parametrize("conforming", ["on", "off"])
async def test_whatever_text_ends_a_transaction_is_refused(dsn, conforming):
    """Compared with the server itself: what it did, and what we had said about the text."""
    conn = await asyncpg.connect(dsn, server_settings={"standard_conforming_strings": conforming})
    ended = lasting = 0
    for text in texts(seed=len(conforming)):
        found = examined(text)
        ended_here, lasted = await _effect(conn, text)
        ended += ended_here
        lasting += lasted
        assert found.refused is not None or not ended_here, text
        assert found.refused is not None or found.trace is not Trace.NONE or not lasted, text
    await conn.close()
    assert ended > ROUNDS / 75  # else the texts say nothing
    assert lasting > ROUNDS / 150


async def _effect(conn: "asyncpg.Connection", text: str) -> tuple[bool, bool]:
    """Whether a text ended the transaction that it ran in, and whether it changed the session."""
    await conn.execute("BEGIN; SELECT txid_current()")
    before = await conn.fetchval("SELECT txid_current()")
    # asyncpg has no answer to an empty text.
    with contextlib.suppress(asyncpg.PostgresError, AttributeError):
        await conn.execute(text)
    ended = not conn.is_in_transaction()
    if not ended:
        try:
            ended = await conn.fetchval("SELECT txid_current()") != before
        except asyncpg.InFailedSQLTransactionError:
            ended = False  # nothing of it can commit
        await conn.execute("COMMIT")
    lasted = await conn.fetchval("SHOW application_name") == "left"
    if lasted:
        await conn.execute("RESET application_name")
    return ended, lasted


NOT_REFUSED = [
    "SELECT CASE WHEN a THEN b END FROM t",
    "SELECT 'a; COMMIT; b'",
    'SELECT 1 AS "x; COMMIT"',
    "SELECT $$ ; COMMIT; $$",
    "SELECT $do$ ; COMMIT; $$ ; COMMIT; $do$",
    "SELECT 1 /* ; COMMIT; /* ; COMMIT */ ; COMMIT; */",
    "SELECT 1 -- ; COMMIT",
    "SELECT E'\\'; COMMIT; '",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN a THEN 1 END; END",
    "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$",
    "SAVEPOINT a",
    "ROLLBACK TO a",
    "ROLLBACK WORK TO SAVEPOINT a",
    "INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING",
    "UPDATE t\nSET a = 1",
]


@pytest.mark.parametrize("text", NOT_REFUSED)
def test_what_only_looks_like_it_is_not_refused(text):
    assert examined(text).refused is None


NOTHING_LEFT = [
    "SELECT 1",
    "UPDATE t SET a = 1",
    "UPDATE t\n   SET a = 1",
    "SET LOCAL work_mem = '1GB'",
    "SELECT set_config('app.tenant', $1, true)",
    "SELECT pg_advisory_xact_lock(1)",
    "SELECT pg_try_advisory_xact_lock_shared(1)",
    "CREATE TEMP TABLE staged (LIKE t) ON COMMIT DROP",
    "INSERT INTO temp (a) VALUES (1)",
    "SELECT temp, temporary FROM readings",
    "SET CONSTRAINTS ALL DEFERRED",
    "DECLARE c CURSOR FOR SELECT 1",
    "INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET b = 2",
]


@pytest.mark.parametrize("text", NOTHING_LEFT)
def test_what_ends_with_its_transaction_costs_nothing(text):
    assert examined(text).trace is Trace.NONE
