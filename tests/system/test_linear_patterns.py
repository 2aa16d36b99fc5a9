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
from reliable_imports_async.sanitize import glimpse, redact_patterns, redacted, redactor, storable

from ..database.reach import examined

ROOT = Path(reliable_imports_async.__file__).parent
SIZE = 10_000  # characters; four times as many are tried as well
RATIO = 9  # a linear pattern takes 4 times as long, a quadratic one 16 times
UNMEASURABLE = 0.002  # seconds for the larger size: whatever the ratio, nobody waits


ANCHORED = {  # only ever used with match()
    "execution.chunk_progress._KEY",
    "runner.dry_run_report._NAMED",
    "web.http.bodies._SPACE",
    "loading.sources.json_records._SPACE",
    "loading.sources.json_records._NESTED",
    "loading.sources.json_records._TOP",
    "loading.sources.json_records._IN_STRING",
    "loading.sources.csv_records._UNTIL_CLOSED",
    "loading.sources.csv_records._UNTIL_CLOSED_ESCAPED",
    "loading.sources.layout._NUMERIC",
    "cli.formatting._DURATION",
    "repair.csv_cells._FORMULA",
    "loading.sources.json_records._BETWEEN",
    "loading.sources.json_records._SCALAR",
    "loading.sources.signatures._MARKUP",
    "loading.sources.csv_dialect._SEPARATOR",
    "database.conversions._DATE",
    "database.conversions._INSTANT",
    "database.conversions._LOCAL",
    "database.conversions._TIME",
    "database.conversions._TIME_WITH_ZONE",
    "database.guard._BLOCK",
    "database.guard._CHARACTERISTICS",
    "database.guard._CONTROL",
    "database.guard._LASTING",
    "database.guard._LOCAL",
    "database.guard._ROUTINE",
    "database.guard._SAVEPOINTS",
    "database.guard._SETS",
    "database.guard._TEMPORARY",
}

ID = "01234567-89ab-cdef-0123-456789abcdef"

# By module and name: pieces whose repetition makes the pattern try most. The first characters of
# the pattern, without what would complete it, is nearly always the worst.
WORST = {
    "sanitize._URL_HEAD": ("://", "://a", "://:", "a:/"),
    "sanitize._NAMED_PASSWORD": (
        "password ",
        "pwd",
        "pwd=",
        "password='",
        'pwd "= ',
        "passwd:'\"",
    ),
    "sanitize._PASSWORD_NAME": ("passwor", "password_", "pwd_"),
    "sanitize._JSON_NUL": ("\\", "\\\\u000", "a\\"),
    "failures._VALUES": (
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
    "execution.chunk_progress._KEY": ("(", "(a", "(a)=(", "(a)=(b)", "Key "),
    "runner.dry_run_report._NAMED": ("(", "(a", "(a)=(", ")=(", "Key "),
    "loading.sources.json_records._IN_STRING": ("a", "\\", '\\"'),
    "loading.sources.json_records._BETWEEN": ("a", '"', '"\\', '"a"', "["),
    "loading.sources.json_records._SCALAR": ("a", "1"),
    "repair.csv_cells._FORMULA": ("'", "='"),
    "loading.records._BRACKET": ('"', '"\\', "\\", "[", "a"),
    "loading.records._EXPONENT": ('"', '"\\', "1", "1.", "1.1", "1e", "-"),
    "loading.records._ESCAPE": ("\\", "\\ud800", "\\ud800\\u", "\\u0000"),
    "database.statements._NAME": ("-- name: ", "-- name: a ", "\n"),
    "processors.registry._WORD_STARTS": ("A", "aA", "Aa"),
    "web.http.problems._WORD_STARTS": ("A", "aA", "Aa"),
    "web.http.middleware._VALID_ID": ("a", "a/", " "),
    "web.http.bodies._SPACE": (" ", "a"),
    "cli.formatting._CONTROL": ("a", "\x1b"),
    "cli.formatting._SURROGATE": ("a", "\ud800"),
    "cli.formatting._DURATION": ("1", "1 ", " "),
    "database.guard._PREFILTER": (
        "\n",
        " \n",
        "; ",
        "*/ ",
        " ",
        "\r\n\t",
        "transaction",
        "u&",
    ),
    "database.guard._COMMENT_EDGE": ("/", "*", "/ *"),
    "database.guard._SAVEPOINTS": ("RELEAS", "ROLLBAC"),
    "database.guard._LOCAL": ("SET ", "SET LOCA"),
    "database.guard._SETS": ("SELECT ", "SELECT INTO ", "SELECT INTO LOCAL ", "CREATE LOCAL "),
    "database.guard._LASTING": ("DECLARE ", "DECLARE WITH ", "DECLARE WITH HOL "),
    "database.guard._BLOCK": ("D", "DO_"),
    "database.guard._TEMPORARY": (
        "CREATE ",
        "CREATE pg_tem",
        "WITH INTO ",
        "SELECT INTO LOCAL ",
    ),
    "database.guard._DROPPED": (" ", " ON", " ON COMMIT ", " ON COMMIT DRO"),
    "database.guard._ROUTINE": ("CREATE ", "CREATE OR REPLACE "),
    "database.guard._SET_CONFIG": ("set", "set_", "set_confi"),
    "database.guard._SET_LOCALLY": (
        "set_config(",
        "set_config(,",
        "set_config ",
        "(",
        ",",
        ", ",
    ),
    "database.guard._CALL": (
        "select ",
        "from ",
        "select a",
        "a.",
        "select",
        " ",
        "from from(",
    ),
    "database.guard._OF_THE_TRANSACTION": ("transaction_", "transaction_read_"),
    "database.guard._REACHING": ("pg_", "pg_try_advisory_", "dblink_", "u&", "pg_setting"),
    "database.guard._CONTROL": ("ROLLBACK ", "START ", "PREPARE ", "ROLLBACK WORK "),
    "database.guard._CHARACTERISTICS": ("set ", "set local ", "transaction_", "set local  "),
    "loading.sources.json_records._SPACE": (" ", "a"),
    "loading.sources.json_records._NESTED": ("a", '"', '"\\', '"a"', "["),
    "loading.sources.json_records._TOP": ("a", '"', '"\\', '"a"', ","),
    "loading.sources.csv_records._UNTIL_CLOSED": ('"', '""', 'a"'),
    "loading.sources.csv_records._UNTIL_CLOSED_ESCAPED": ('"', '""', "\\", '\\"', '\\a"'),
    "loading.sources.csv_records._UNESCAPE": ('"', "\\", '\\"'),
    "loading.sources.layout._NUMERIC": (" ", "1", "1 ", "1.", "-", "1e1", "1/1/1 "),
    "web.dashboard.record_fields._KEY": ("(", "(a", "(a)=", "(a)=("),
    "web.dashboard.filters._INVISIBLE": ("a", "\u200b"),
    "web.dashboard.record_fields._DISCRIMINATOR": (
        "discriminator '",
        "discriminator 'a",
        "found using ",
        "'",
    ),
    "web.http.authentication._EVENTS": (
        "/api/batches/",
        f"/api/batches/{ID}",
        f"/api/batches/{ID}/events",
    ),
    "web.http.call._ID": ("0", "0-", "01234567-", ID, f"{ID[:-1]}-"),
    "database.conversions._DATE": ("1", "1-", "2001-01-0"),
    "database.conversions._LOCAL": ("1", "2001-01-01", "2001-01-01 01:01:01.1"),
    "database.conversions._INSTANT": ("1", "2001-01-01", "2001-01-01 01:01:01.1", "+01:01"),
    "database.conversions._TIME": ("1", "01:01:01.1"),
    "database.conversions._TIME_WITH_ZONE": ("1", "01:01:01.1", "+01:01"),
    "failures._RAISED_AT": ("a", "a(", "a()", "a() ", "()", ".a", '"'),
    "database.server_errors._OURS": ("import_", "pgqueuer", "for ", "import_ ", "schema_"),
    "loading.sources.charset._CASES": ("a", "aA", "1"),
    "loading.sources.charset._VALUE": ("a", ","),
    "loading.sources.charset._INSIDE": ("a", "a\xb2", "\xb2", "\u20ac", "a\u20ac"),
    "loading.sources.charset._LINE": ("a", "\n"),
    "loading.sources.charset._LONE": ("a", "a\u3400", "\u3000"),
    "loading.sources.charset._NOT_ASCII": ("a", "\n", "a\n", "\xff"),
    "loading.sources.charset._WORD": ("a", "1"),
    "loading.sources.csv_dialect._QUOTED": ('"', '""', 'a"'),
    "loading.sources.csv_dialect._RETURN": ("\r", "\r\r\n", "\n"),
    "loading.sources.csv_dialect._SEPARATOR": ('"', "sep=", '"sep=,'),
    "loading.sources.json_file._LIST": (
        '"',
        '"\\',
        "\\",
        '\\"',
        '"\\"',
        '"a" ',
        '"a" : ',
        '"a":[ ',
        " ",
    ),
    "loading.sources.signatures._HTML_TAG": ("<", "<html", "<tabl"),
    "loading.sources.signatures._MARKUP": (
        " ",
        "<!--",
        "<!-->",
        "<!---->",
        "<!--a--> ",
        "<!doctype ",
        "-",
    ),
    "database.statements._CLOCK": ("now", "now(", "clock_timestamp", "."),
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
        "csv_cells",
        "openapi",
        "embedded",
        "items",
        "hints",
        "failures",
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
