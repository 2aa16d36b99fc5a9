"""Exit codes, and the error messages that exceptions become.

0 completed · 1 some items failed · 2 usage, configuration, not found, conflict
3 database unavailable, schema, unexpected error
4 stopped, paused or cancelled, or another batch of an exclusive type is running
5 the file has no records
"""

import os
import traceback
from typing import Any

import typer
from pydantic import ValidationError

from ..errors import (
    AnotherBatchRuns,
    BatchCancelled,
    BatchPaused,
    DatabaseUnavailable,
    EmbeddedServerError,
    NothingInSource,
    ReliableImportsError,
    SchemaError,
)
from ..failures import is_outage
from ..models import BatchStatus, BatchSummary
from .formatting import plain
from .output import Output

COMPLETED, SOME_FAILED, USAGE, UNAVAILABLE, STOPPED, EMPTY = range(6)

ClickException: Any = typer.BadParameter.__mro__[2]  # typer bundles click, or uses it

_UNAVAILABLE = (DatabaseUnavailable, EmbeddedServerError, SchemaError)


class Stopped(ReliableImportsError):
    """The user stopped the command, or declined."""


class UsageRefused(ReliableImportsError):
    """The arguments of the command are invalid."""


class UnexpectedError(ReliableImportsError):
    """An exception that the command does not expect."""


class ConnectionBroke(ReliableImportsError):
    """The database became unavailable while the command ran."""


def code_of(summary: BatchSummary, tolerate: float = 0.0) -> int:
    """The exit code for the end of a batch.

    Args:
        tolerate: The share of its items that may fail.
    """
    match summary.status:
        case BatchStatus.COMPLETED:
            return COMPLETED
        case BatchStatus.PARTIAL | BatchStatus.FAILED if _tolerable(summary, tolerate):
            return COMPLETED
        case BatchStatus.PARTIAL | BatchStatus.FAILED:
            return SOME_FAILED
        case _:
            return STOPPED


def _tolerable(summary: BatchSummary, tolerate: float) -> bool:
    finished = summary.finished_at is not None and summary.error is None
    return (
        finished and not summary.stopped and summary.failed_items <= tolerate * summary.total_items
    )


def report(exc: BaseException, output: Output) -> int:
    """Print an exception as an error message, and return the exit code."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    if isinstance(exc, typer.Exit):
        return exc.exit_code
    if isinstance(exc, KeyboardInterrupt):
        exc = Stopped("The command was interrupted.")
    error = _as_library_error(exc)
    code = _code(error)
    output.error(error, code)
    if os.environ.get("RELIABLE_IMPORTS_TRACEBACK"):
        text = "".join(traceback.format_exception(exc))
        output.notes.print(output.redact(plain(text)), soft_wrap=True)
    return code


def _code(error: ReliableImportsError) -> int:
    if isinstance(error, BatchPaused | BatchCancelled | AnotherBatchRuns | Stopped):
        return STOPPED
    if isinstance(error, NothingInSource):
        return EMPTY
    if isinstance(error, (*_UNAVAILABLE, UnexpectedError, ConnectionBroke)):
        return UNAVAILABLE
    return USAGE


def _as_library_error(exc: BaseException) -> ReliableImportsError:
    if isinstance(exc, ReliableImportsError):
        return exc
    if isinstance(exc, typer.Abort):
        return Stopped("Nothing was changed.")
    if isinstance(exc, ClickException):
        return _usage_error(exc)
    if isinstance(exc, ValidationError) and exc.title == "Settings":
        return UsageRefused(_settings_message(exc), hint="correct the environment variable.")
    return _as_unexpected(exc)


def _as_unexpected(exc: BaseException) -> ReliableImportsError:
    if isinstance(exc, OSError) and exc.filename is not None:
        return UsageRefused(f"{exc.filename} cannot be used: {exc.strerror or exc}.")
    described = f"{type(exc).__name__}: {exc}"
    if is_outage(exc):
        hint = (
            "check that PostgreSQL is running, then repeat the command; committed items are kept."
        )
        return ConnectionBroke(f"The database became unavailable: {described}", hint=hint)
    hint = "set RELIABLE_IMPORTS_TRACEBACK=1 and repeat the command to see the traceback."
    return UnexpectedError(f"An unexpected error occurred: {described}", hint=hint)


def _usage_error(exc: Any) -> UsageRefused:
    context = getattr(exc, "ctx", None)
    command = context.command_path if context is not None else "reliable-imports"
    return UsageRefused(exc.format_message(), hint=f"run `{command} --help`.")


def _settings_message(exc: ValidationError) -> str:
    problems = [
        f"RELIABLE_IMPORTS_{'_'.join(map(str, error['loc'])).upper()}: {error['msg']}"
        for error in exc.errors(include_input=False, include_url=False)
    ]
    return "A setting is invalid. " + "; ".join(problems)
