"""No pattern takes more than linear time: each is tried on its worst text, in two sizes.

The patterns are found by walking the package, so a new one without a worst text fails the suite.
"""

import ast
import importlib
import pkgutil
import re
import time
from collections import deque
from pathlib import Path

import pytest

import reliable_imports_async
from reliable_imports_async.database.guard import examined
from reliable_imports_async.sanitize import glimpse, redact_patterns, redacted, redactor, storable

ROOT = Path(reliable_imports_async.__file__).parent
SIZE = 10_000  # characters; four times as many are tried as well
RATIO = 9  # a linear pattern takes 4 times as long, a quadratic one 16 times
UNMEASURABLE = 0.002  # seconds for the larger size: whatever the ratio, nobody waits


ANCHORED = {  # only ever used with match()
    "screening._KEY",
    "tallying._NAMED",
    "api.bodies._SPACE",
    "sources.json_array._SPACE",
    "sources.json_array._NESTED",
    "sources.json_array._TOP",
    "sources.json_array._IN_STRING",
    "sources.csv_row._UNTIL_CLOSED",
    "cli.text._DURATION",
    "cells._FORMULA",
    "sources.json_extent._IN_STRING",
    "sources.json_extent._BETWEEN",
    "sources.json_extent._SCALAR",
    "sources.signatures._MARKUP",
    "sources.signatures._BZIP2",
    "sources.dialect._SEPARATOR",
    "conversions._DATE",
    "conversions._INSTANT",
    "conversions._LOCAL",
    "conversions._TIME",
    "conversions._TIME_WITH_ZONE",
    "transaction_control._BLOCK",
    "transaction_control._CHARACTERISTICS",
    "transaction_control._CONTROL",
    "transaction_control._LASTING",
    "transaction_control._LOCAL",
    "transaction_control._ROUTINE",
    "transaction_control._SAVEPOINTS",
    "transaction_control._SETS",
    "transaction_control._TEMPORARY",
}

ID = "01234567-89ab-cdef-0123-456789abcdef"

# By module and name: pieces whose repetition makes the pattern try most. The first characters of
# the pattern, without what would complete it, is nearly always the worst.
WORST = {
    "safe_text._URL_HEAD": ("://", "://a", "://:", "a:/"),
    "safe_text._NAMED_PASSWORD": (
        "password ",
        "pwd",
        "pwd=",
        "password='",
        'pwd "= ',
        "passwd:'\"",
    ),
    "safe_text._PASSWORD_NAME": ("passwor", "password_", "pwd_"),
    "safe_text._JSON_NUL": ("\\", "\\\\u000", "a\\"),
    "judgement._VALUES": (
        "'\\",
        "\\'",
        "'",
        '"\\',
        "(",
        "(a",
        "a.",
        "a@",
        "1.",
        "0-",
        "ab cd@",
        "-",
    ),
    "screening._KEY": ("(", "(a", "(a)=(", "(a)=(b)", "Key "),
    "tallying._NAMED": ("(", "(a", "(a)=(", ")=(", "Key "),
    "sources.json_extent._IN_STRING": ("a", "\\", '\\"'),
    "sources.json_extent._BETWEEN": ("a", '"', '"\\', '"a"', "["),
    "sources.json_extent._SCALAR": ("a", "1"),
    "cells._FORMULA": ("'", "='"),
    "records._BRACKET": ('"', '"\\', "\\", "[", "a"),
    "records._EXPONENT": ('"', '"\\', "1", "1.", "1.1", "1e", "-"),
    "records._ESCAPE": ("\\", "\\ud800", "\\ud800\\u", "\\u0000"),
    "sql._NAME": ("-- name: ", "-- name: a ", "\n"),
    "registry._WORD_STARTS": ("A", "aA", "Aa"),
    "api.problems._WORD_STARTS": ("A", "aA", "Aa"),
    "api.receiving._SANE": ("a", "a/", " "),
    "api.bodies._SPACE": (" ", "a"),
    "cli.text._CONTROL": ("a", "\x1b"),
    "cli.text._SURROGATE": ("a", "\ud800"),
    "cli.text._DURATION": ("1", "1 ", " "),
    "transaction_control._PREFILTER": (
        "\n",
        " \n",
        "; ",
        "*/ ",
        " ",
        "\r\n\t",
        "transaction",
        "u&",
    ),
    "transaction_control._COMMENT_EDGE": ("/", "*", "/ *"),
    "transaction_control._SAVEPOINTS": ("RELEAS", "ROLLBAC"),
    "transaction_control._LOCAL": ("SET ", "SET LOCA"),
    "transaction_control._SETS": ("SELECT ", "SELECT INTO ", "SELECT INTO LOCAL ", "CREATE LOCAL "),
    "transaction_control._LASTING": ("DECLARE ", "DECLARE WITH ", "DECLARE WITH HOL "),
    "transaction_control._BLOCK": ("D", "DO_"),
    "transaction_control._TEMPORARY": (
        "CREATE ",
        "CREATE pg_tem",
        "WITH INTO ",
        "SELECT INTO LOCAL ",
    ),
    "transaction_control._DROPPED": (" ", " ON", " ON COMMIT ", " ON COMMIT DRO"),
    "transaction_control._ROUTINE": ("CREATE ", "CREATE OR REPLACE "),
    "transaction_control._SET_CONFIG": ("set", "set_", "set_confi"),
    "transaction_control._SET_LOCALLY": (
        "set_config(",
        "set_config(,",
        "set_config ",
        "(",
        ",",
        ", ",
    ),
    "transaction_control._CALL": (
        "select ",
        "from ",
        "select a",
        "a.",
        "select",
        " ",
        "from from(",
    ),
    "transaction_control._OF_THE_TRANSACTION": ("transaction_", "transaction_read_"),
    "transaction_control._REACHING": ("pg_", "pg_try_advisory_", "dblink_", "u&", "pg_setting"),
    "transaction_control._CONTROL": ("ROLLBACK ", "START ", "PREPARE ", "ROLLBACK WORK "),
    "transaction_control._CHARACTERISTICS": ("set ", "set local ", "transaction_", "set local  "),
    "sources.json_array._SPACE": (" ", "a"),
    "sources.json_array._NESTED": ("a", '"', '"\\', '"a"', "["),
    "sources.json_array._TOP": ("a", '"', '"\\', '"a"', ","),
    "sources.json_array._IN_STRING": ("a", "\\", '\\"'),
    "sources.csv_row._UNTIL_CLOSED": ('"', '""', 'a"'),
    "dashboard.records._KEY": ("(", "(a", "(a)=", "(a)=("),
    "dashboard.shown._INVISIBLE": ("a", "\u200b"),
    "dashboard.records._DISCRIMINATOR": (
        "discriminator '",
        "discriminator 'a",
        "found using ",
        "'",
    ),
    "api.authentication._EVENTS": (
        "/api/batches/",
        f"/api/batches/{ID}",
        f"/api/batches/{ID}/events",
    ),
    "api.calls._ID": ("0", "0-", "01234567-", ID, f"{ID[:-1]}-"),
    "conversions._DATE": ("1", "1-", "2001-01-0"),
    "conversions._LOCAL": ("1", "2001-01-01", "2001-01-01 01:01:01.1"),
    "conversions._INSTANT": ("1", "2001-01-01", "2001-01-01 01:01:01.1", "+01:01"),
    "conversions._TIME": ("1", "01:01:01.1"),
    "conversions._TIME_WITH_ZONE": ("1", "01:01:01.1", "+01:01"),
    "judgement._RAISED_AT": ("a", "a(", "a()", "a() ", "()", ".a", '"'),
    "server_refusals._OURS": ("import_", "pgqueuer", "for ", "import_ ", "schema_"),
    "sources.detection._CASES": ("a", "aA", "1"),
    "sources.detection._CELL": ("a", ","),
    "sources.detection._INSIDE": ("a", "a\xb2", "\xb2", "\u20ac", "a\u20ac"),
    "sources.detection._LINE": ("a", "\n"),
    "sources.detection._LONE": ("a", "a\u3400", "\u3000"),
    "sources.detection._NOT_ASCII": ("a", "\n", "a\n", "\xff"),
    "sources.detection._WORD": ("a", "1"),
    "sources.dialect._QUOTED": ('"', '""', 'a"'),
    "sources.dialect._RETURN": ("\r", "\r\r\n", "\n"),
    "sources.dialect._SEPARATOR": ('"', "sep=", '"sep=,'),
    "sources.formats._LIST": ('"', '"\\', "\\", '\\"', '"\\"', '"a" ', '"a" : ', '"a":[ ', " "),
    "sources.signatures._BZIP2": ("B", "BZh1"),
    "sources.signatures._HTML_TAG": ("<", "<html", "<tabl"),
    "sources.signatures._MARKUP": (" ", "<!--", "<!-->", "<!---->", "<!--a--> ", "<!doctype ", "-"),
    "sql._CLOCK": ("now", "now(", "clock_timestamp", "."),
}


def patterns():
    """Every compiled pattern of the package, by module and name."""
    found = {}
    for module in pkgutil.walk_packages([str(ROOT)], "reliable_imports_async."):
        if module.name.endswith("__main__"):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, re.Pattern) and name.isupper():
                found[f"{module.name.removeprefix('reliable_imports_async.')}.{name}"] = value
    return found


def test_every_pattern_has_a_worst_text():
    assert set(WORST) == set(patterns())


def test_patterns_that_are_not_compiled_stand_nowhere_else():
    """`re.search(text, …)` hides a pattern from the test above; those that remain are fixed texts."""
    calls = {"search", "match", "fullmatch", "sub", "split", "findall", "finditer"}
    known = {
        "cells",
        "openapi",
        "embedded",
        "items",
        "hints",
        "judgement",
    }  # on names of columns, our own
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="re"), attr=attr)) if (
                    attr in calls
                ):
                    assert path.stem in known, f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("name", sorted(WORST))
def test_it_takes_time_in_proportion_to_the_text(name):
    pattern = patterns()[name]
    use = pattern.match if name in ANCHORED else lambda text: deque(pattern.finditer(text), 0)
    for piece in WORST[name]:
        check_linear(use, piece.encode("latin-1") if isinstance(pattern.pattern, bytes) else piece)


@pytest.mark.parametrize(
    "piece",
    ["://", "://:", "a://u:p", "@", "://u:p@", "password='", "pwd ", "pwd='\"", "passwd = ", "x"],
)
@pytest.mark.parametrize(
    "work",
    [
        redact_patterns,
        redactor(["secret", "://"]),
        lambda text: redacted(text, redact_patterns, 1_000_000),
        lambda text: storable(text, 1_000),
        lambda text: glimpse({"a": [text]}, 200),
    ],
    ids=["patterns", "secrets", "redacted", "storable", "glimpse"],
)
def test_so_does_what_uses_them(work, piece):
    check_linear(work, piece)


@pytest.mark.parametrize(
    "piece",
    ["'", "''", "\\'", "E'\\'", "U&'", '"', '""', "/*", "/* */", "--", "$a$", "$", "$a", ";", "\n",
     "begin atomic ", "create function f() begin atomic ", "create function f(begin atomic ", "(",
     "case ", "select f(", "set_config(", "commit", "discard all;", "B'", "x "],
)  # fmt: skip
def test_so_does_reading_sql(piece):
    check_linear(lambda text: examined(f"discard all; {text}"), piece)
    check_linear(lambda text: examined(f"create function f() begin atomic {text}"), piece)


def check_linear(work, piece):
    """Compare two sizes; the best of some attempts, as others use the processor as well."""
    small, large = piece * (SIZE // len(piece)), piece * (4 * SIZE // len(piece))
    measured = []
    for _ in range(5):
        at_small, at_large = seconds(work, small), seconds(work, large)
        if at_large < max(UNMEASURABLE, RATIO * at_small):
            return
        measured.append(at_large / at_small)
    raise AssertionError(f"{piece!r}: 4 times the text took {min(measured):.0f} times as long")


def seconds(work, text):
    began = time.thread_time()
    work(text)
    return time.thread_time() - began
