"""Turns PostgreSQL's errors about privileges and read-only servers into the library's errors."""

import re

import asyncpg

from ..errors import RIGHTS_HINT, DatabaseReadOnly, ReliableImportsError, RightsMissing

_OURS = re.compile(r"\b(?:reliable_imports|import_\w+|schema_history|pgqueuer\w*|for database)\b")


def lacks_our_rights(exc: BaseException) -> bool:
    """Whether the role lacks a privilege on the library's schema or tables."""
    return isinstance(exc, asyncpg.InsufficientPrivilegeError) and bool(_OURS.search(str(exc)))


def explained(exc: BaseException) -> ReliableImportsError | None:
    """The library's error for an error of PostgreSQL; None if there is none."""
    if lacks_our_rights(exc):
        return RightsMissing(str(exc))
    if isinstance(exc, asyncpg.ReadOnlySQLTransactionError):
        return DatabaseReadOnly(str(exc))
    return None


def annotate(exc: BaseException) -> None:
    """Add the hint about privileges to an item's error, if a statement of ours lacked them."""
    if lacks_our_rights(exc) and not getattr(exc, "__notes__", None):
        exc.add_note(RIGHTS_HINT)
