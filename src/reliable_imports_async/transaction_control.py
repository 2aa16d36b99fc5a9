"""Reads SQL text as PostgreSQL's lexer does: does it end the transaction, or outlive it?

A statement is told by its first words, so strings, quoted names, comments and function bodies have
to be skipped exactly as the server skips them. The parsers that can be had either follow other
rules (nested comments, dollar quotes, backslashes) or have a licence that this library cannot take.
"""

import re
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

LONGEST_REMEMBERED = 8_192  # characters; a longer text is likely to have its values in it

# Where a statement may begin: at the start, behind a semicolon, a comment or a line's end.
_PREFILTER = re.compile(
    r"(?:(?:\A|;|\*/)\s*|[\r\n][^\S\r\n]*)(?:commit|end|abort|rollback|begin|start|prepare|discard|savepoint"
    r"|release|set|reset|listen|unlisten|load|deallocate|declare|do)\b"
    r"|\b(?:temp|temporary)\b|set_config|advisory|pg_temp|pg_settings|dblink_connect"
    r"|transaction_|u&\"",
    re.IGNORECASE,
)
_WORD = r"[A-Za-z_\u0080-\U0010ffff][A-Za-z0-9_$\u0080-\U0010ffff]*"
_TAG = r"\$(?:[A-Za-z_\u0080-\U0010ffff][A-Za-z0-9_\u0080-\U0010ffff]*)?\$"
_STANDARD = r"'[^']*+(?:''[^']*+)*+(?:'|\Z)"
_ESCAPED = r"'[^'\\]*+(?:(?:''|\\.)[^'\\]*+)*+(?:'|\\?\Z)"  # without an end, it is all that follows


def _lexer(string: str) -> re.Pattern[str]:
    """What a text consists of, where a plain string looks like `string`."""
    return re.compile(
        rf"(?P<comment>--[^\r\n]*|/\*)|[eE](?P<escaped>{_ESCAPED})|[bBxX](?P<bits>{_STANDARD})"
        rf"|[uU]&(?P<unicode>{_STANDARD})|(?P<string>{string})|(?P<name>\"(?:[^\"]|\"\")*+(?:\"|\Z))"
        rf"|(?P<word>{_WORD})|(?P<tag>{_TAG})|(?P<end>;)|(?P<blank>[ \t\r\n\f\v]+)|(?P<other>.)",
        re.DOTALL,
    )


_READINGS = _lexer(_STANDARD), _lexer(_ESCAPED)
"""With `standard_conforming_strings` and without."""
_COMMENT_EDGE = re.compile(r"/\*|\*/")

_CONTROL = re.compile(
    r"(?:COMMIT|END|ABORT|BEGIN|START TRANSACTION|PREPARE TRANSACTION|DISCARD ALL"
    r"|ROLLBACK(?! (?:WORK |TRANSACTION )?TO\b))\b",
    re.IGNORECASE,
)
_SAVEPOINTS = re.compile(r"(?:SAVEPOINT|RELEASE|ROLLBACK)\b", re.IGNORECASE)
_CHARACTERISTICS = re.compile(
    r"SET (?:LOCAL )?TRANSACTION\b|SET CONSTRAINTS\b|SET .*\btransaction_", re.IGNORECASE
)
_LOCAL = re.compile(r"SET (?:LOCAL|TRANSACTION|CONSTRAINTS)\b", re.IGNORECASE)
_SETS = re.compile(
    r"SET\b|CREATE (?:LOCAL |GLOBAL )?TEMP(?:ORARY)?\b|SELECT\b.* INTO (?:LOCAL |GLOBAL )?TEMP",
    re.IGNORECASE | re.DOTALL,
)
_LASTING = re.compile(
    r"(?:SET|RESET|LISTEN|UNLISTEN|LOAD|PREPARE|DEALLOCATE|DISCARD)\b|DECLARE\b.* WITH HOLD\b",
    re.IGNORECASE | re.DOTALL,
)
_BLOCK = re.compile(r"DO\b", re.IGNORECASE)
_TEMPORARY = re.compile(
    r"CREATE (?:OR REPLACE )?(?:LOCAL |GLOBAL )?TEMP(?:ORARY)?\b"
    r"|CREATE\b.* pg_temp|(?:SELECT|WITH)\b.* INTO (?:LOCAL |GLOBAL )?TEMP(?:ORARY)?\b",
    re.IGNORECASE | re.DOTALL,
)
_DROPPED = re.compile(r" ON COMMIT DROP\b", re.IGNORECASE)
_ROUTINE = re.compile(r"CREATE (?:OR REPLACE )?(?:FUNCTION|PROCEDURE)\b", re.IGNORECASE)

# Functions by which a query reaches beyond its transaction; a quoted name is one as well.
_SET_CONFIG = re.compile(r"set_config", re.IGNORECASE)
_SET_LOCALLY = re.compile(r"set_config\s*\([^()]*,\s*(?:true|'t')\s*\)", re.IGNORECASE)
_CALL = re.compile(r"\bcall\b|\b(?:select|from|perform)\s+[\w.\"]+\s*\(", re.IGNORECASE)
_OF_THE_TRANSACTION = re.compile(r"transaction_(?:isolation|read_only|deferrable)", re.IGNORECASE)
_REACHING = re.compile(
    r"pg_(?:try_)?advisory_(?:un)?lock|dblink_connect|pg_settings|\bu&\"", re.IGNORECASE
)


class Trace(IntEnum):
    """What user code leaves on a connection, beyond its transaction."""

    NONE = 0
    POSSIBLE = 1  # perhaps in the server's session, by code that is not seen
    SESSION = 2  # in the server's session: a reset removes it
    DRIVER = 3  # in the driver's object as well: the connection is not used again


class Examined(NamedTuple):
    """What SQL text means for the transaction and the session that it runs in.

    Attributes:
        refused: The command by which it would end or begin a transaction: COMMIT, ROLLBACK, BEGIN
            and their like.
        changes: Whether it may change how its transaction works: isolation, access, constraints.
        savepoints: Whether it handles savepoints by name; those of others are among them.
        sets: Whether it changes a setting or makes a temporary table, if only for its transaction.
        trace: What it may leave behind.
        calls: Whether it calls a function or procedure, in whose text anything may stand.
    """

    refused: str | None = None
    changes: bool = False
    savepoints: bool = False
    sets: bool = False
    trace: Trace = Trace.NONE
    calls: bool = False


HARMLESS = Examined()
_CALLING = Examined(calls=True)


def examined(sql: str) -> Examined:
    """SQL text, examined once however often it is sent."""
    return _remembered(sql) if len(sql) <= LONGEST_REMEMBERED else _examine(sql)


def _examine(sql: str) -> Examined:
    if not _PREFILTER.search(sql):
        return _CALLING if _CALL.search(sql) else HARMLESS
    # Which of the two holds is a setting that may change at any time: what either forbids is.
    readings = _READINGS if "\\" in sql else _READINGS[:1]
    statements = [one for lexer in readings for one in _statements(sql, lexer)]
    refused = next((found for one in statements if (found := _CONTROL.match(one))), None)
    configures = len(_SET_CONFIG.findall(sql))
    lasting = configures > len(_SET_LOCALLY.findall(sql)) or _REACHING.search(sql) is not None
    lasting = lasting or any(_outlives(one) for one in statements)
    unseen = any(_BLOCK.match(one) for one in statements)
    return Examined(
        refused=None if refused is None else refused.group().upper(),
        changes=any(_CHARACTERISTICS.match(one) for one in statements)
        or _OF_THE_TRANSACTION.search(sql) is not None,
        savepoints=any(_SAVEPOINTS.match(one) for one in statements),
        sets=configures > 0 or lasting or unseen or any(_SETS.match(one) for one in statements),
        trace=Trace.SESSION if lasting else Trace.POSSIBLE if unseen else Trace.NONE,
        calls=_CALL.search(sql) is not None,
    )


_remembered = lru_cache(maxsize=2048)(_examine)


def _outlives(statement: str) -> bool:
    """Whether what a statement does is still there after its transaction."""
    if _TEMPORARY.match(statement):
        return _DROPPED.search(statement) is None
    return _LASTING.match(statement) is not None and _LOCAL.match(statement) is None


def _statements(sql: str, lexer: re.Pattern[str]) -> list[str]:
    """The statements of a text, their words a blank apart; strings and comments are left out."""
    statements: list[str] = []
    words: list[str] = []
    depth = 0  # in the body of a routine, whose statements are none of this text's
    opened = 0  # parentheses
    position = 0
    while (token := lexer.match(sql, position)) is not None:
        position = token.end()
        match token.lastgroup:
            case "comment":
                position = _behind(sql, position) if token.group() == "/*" else position
            case "tag":
                closing = sql.find(token.group(), position)
                position = len(sql) if closing < 0 else closing + len(token.group())
                words.append("''")
            case "word":
                words.append(token.group())
                depth = _depth(words, depth, opened)
            case "end" if depth == 0:
                statements.append(" ".join(words))
                words, opened = [], 0
            case "other":
                words.append(token.group())
                opened += {"(": 1, ")": -1}.get(token.group(), 0)
            case "name":  # only this one is looked for
                words.append("pg_temp" if token.group() == '"pg_temp"' else '""')
            case "string" | "escaped" | "bits" | "unicode":
                words.append("''")
            case _:
                pass
    return [*statements, " ".join(words)]


def _behind(sql: str, position: int) -> int:
    """Where a comment ends that began before `position`; comments nest."""
    depth = 1
    while depth and (edge := _COMMENT_EDGE.search(sql, position)) is not None:
        position = edge.end()
        depth += 1 if edge.group() == "/*" else -1
    return len(sql) if depth else position


def _depth(words: list[str], depth: int, opened: int) -> int:
    """How deep in BEGIN ATOMIC … END of a routine's body the last word is."""
    word = words[-1].upper()
    if depth:
        return depth + (word == "CASE") - (word == "END")
    if word != "ATOMIC" or len(words) < 2 or words[-2].upper() != "BEGIN":
        return 0
    return int(opened <= 0 and _ROUTINE.match(" ".join(words[:4])) is not None)
