"""Errors of PostgreSQL that a user meets before anything is wrong with the data, as our own."""

import re

import asyncpg

from ..errors import RIGHTS_HINT, DatabaseReadOnly, ReliableImportsError, RightsMissing

_OURS = re.compile(r"\b(?:reliable_imports|import_\w+|schema_history|pgqueuer\w*|for database)\b")


def lacks_our_rights(exc: BaseException) -> bool:
    """Whether the role may not use a table of this library, or its schema."""
    return isinstance(exc, asyncpg.InsufficientPrivilegeError) and bool(_OURS.search(str(exc)))


def explained(exc: BaseException) -> ReliableImportsError | None:
    """The same refusal with what to do about it; None where there is nothing to add."""
    if lacks_our_rights(exc):
        return RightsMissing(str(exc))
    if isinstance(exc, asyncpg.ReadOnlySQLTransactionError):
        return DatabaseReadOnly(str(exc))
    return None


def annotate(exc: BaseException) -> None:
    """Give an item's failure the hint about rights, where one of our own statements lacked them."""
    if lacks_our_rights(exc) and not getattr(exc, "__notes__", None):
        exc.add_note(RIGHTS_HINT)
