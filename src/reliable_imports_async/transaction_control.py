"""Finds the commands in SQL text that would end or begin the item's transaction."""

import re
from functools import lru_cache
from typing import NamedTuple

import sqlparse

_SUSPICIOUS = re.compile(
    r"\b(?:commit|end|abort|rollback|begin|start|prepare|discard)\b", re.IGNORECASE
)
_CONTROL = re.compile(
    r"(?:COMMIT|END|ABORT|BEGIN|START\s+TRANSACTION|PREPARE\s+TRANSACTION|DISCARD\s+ALL"
    r"|ROLLBACK(?!\s+(?:WORK\s+|TRANSACTION\s+)?TO\b))\b",
    re.IGNORECASE,
)
_CHARACTERISTICS = re.compile(
    r"\bset\s+(?:local\s+)?transaction|\bset\s+constraints|transaction_(?:isolation|read_only|deferrable)",
    re.IGNORECASE,
)


class Examined(NamedTuple):
    """What SQL text means for the transaction it runs in.

    Attributes:
        refused: The command by which it would end or begin one: COMMIT, ROLLBACK, BEGIN and their
            like. ROLLBACK TO a savepoint is allowed, and so are these words inside strings, names,
            function bodies and CASE … END.
        changes: Whether it may change how its transaction works: isolation, access, constraints.
    """

    refused: str | None
    changes: bool


@lru_cache(maxsize=2048)
def examined(sql: str) -> Examined:
    """SQL text, examined once however often it is sent."""
    return Examined(_transaction_control(sql), _CHARACTERISTICS.search(sql) is not None)


def _transaction_control(sql: str) -> str | None:
    if not _SUSPICIOUS.search(sql):
        return None
    for statement in sqlparse.split(sql):
        text = sqlparse.format(statement, strip_comments=True).lstrip(" \t\r\n;(")
        if found := _CONTROL.match(text):
            return " ".join(found.group().upper().split())
    return None
