"""Finds the commands in SQL text that would end or begin the item's transaction."""

import re
from functools import lru_cache

import sqlparse

from .errors import TransactionControlRefused

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


def refuse_transaction_control(sql: str) -> None:
    """Raise `TransactionControlRefused` for COMMIT, ROLLBACK, BEGIN and their like.

    ROLLBACK TO a savepoint is allowed, and so are these words inside strings, names, function
    bodies and CASE … END.
    """
    if command := _transaction_control(sql):
        raise TransactionControlRefused(command)


@lru_cache(maxsize=2048)
def changes_transaction(sql: str) -> bool:
    """Whether the text may change how its transaction works: isolation, access, constraints."""
    return _CHARACTERISTICS.search(sql) is not None


@lru_cache(maxsize=2048)
def _transaction_control(sql: str) -> str | None:
    if not _SUSPICIOUS.search(sql):
        return None
    for statement in sqlparse.split(sql):
        text = sqlparse.format(statement, strip_comments=True).lstrip(" \t\r\n;(")
        if found := _CONTROL.match(text):
            return " ".join(found.group().upper().split())
    return None
