"""Classifies exceptions by a single table, and describes them for storage.

An exception means that its item fails, that the item is repeated, or that the server failed.
"""

import dis
import hashlib
import linecache
import re
import signal
import sysconfig
import traceback
from collections.abc import Iterator
from functools import lru_cache, partial
from inspect import unwrap
from pathlib import Path
from types import CodeType
from typing import Any

import anyio
import asyncpg
import pydantic
import pydantic_core
from pydantic import ValidationError

from .errors import (
    ItemRefused,
    KeyIsNull,
    ProcessorResultError,
    ReliableImportsError,
    TransactionEnded,
)
from .hints import for_fields, for_message
from .outcomes import Conflict, Defer, Failed, Failure, FailureKind, Outage
from .sanitize import LONGEST_SECRET, Redact, glimpse, redact_patterns, redacted, storable, visible

MESSAGE_BYTES = 2_048
DETAIL_BYTES = 2_048
TRACEBACK_BYTES = 16_384
NAME_BYTES = 200
FIELDS_SHOWN = 50
INPUT_CHARACTERS = (
    NAME_BYTES + 2 * LONGEST_SECRET
)  # more than is stored, so that secrets are masked before the cut
FRAMES = 50
GROUP_FRAMES = 3


Meaning = type[Failed] | type[Conflict] | type[Outage]

# The longest matching prefix of the SQLSTATE decides. Conflict and Outage only apply to errors of
# the item's own connection. Errors of other connections are failures of the processor.
SQLSTATES: dict[str, tuple[Meaning, FailureKind]] = {
    "08": (Outage, FailureKind.CONNECTION_LOST),  # connection exception
    "09": (Failed, FailureKind.DATA),  # triggered action exception
    "21": (Failed, FailureKind.DATA),  # cardinality violation: a row twice in one statement
    "22": (Failed, FailureKind.DATA),  # data exception
    "23": (Failed, FailureKind.DATA),  # integrity constraint violation
    "25006": (Outage, FailureKind.CONNECTION_LOST),  # read only: a standby after a failover
    "25P02": (Failed, FailureKind.TRANSACTION),  # an SQL error was swallowed
    "25P03": (Outage, FailureKind.CONNECTION_LOST),  # idle in transaction: session ended
    "25P04": (Outage, FailureKind.CONNECTION_LOST),  # transaction timeout: session ended
    "27": (Failed, FailureKind.DATA),  # triggered data change violation
    "40001": (Conflict, FailureKind.CONFLICT),  # serialization failure
    "40002": (Failed, FailureKind.DATA),  # transaction integrity constraint violation
    "40P01": (Conflict, FailureKind.CONFLICT),  # deadlock
    "42": (Failed, FailureKind.BUG),  # syntax error, missing table, access rule violation
    "44": (Failed, FailureKind.DATA),  # WITH CHECK OPTION of a view
    "53": (Outage, FailureKind.CONNECTION_LOST),  # disk full, out of memory, connections
    "54": (Failed, FailureKind.DATA),  # program limit: an index row that is too large
    "55P03": (Conflict, FailureKind.CONFLICT),  # lock not available
    "57014": (Failed, FailureKind.TIMEOUT),  # query cancelled: a statement timeout
    "57P0": (Outage, FailureKind.CONNECTION_LOST),  # shutdown, crash, cannot connect now
    "58": (Outage, FailureKind.CONNECTION_LOST),  # system error, such as an I/O error
    "P0": (Failed, FailureKind.DATA),  # RAISE, ASSERT, STRICT: code in the database refused
}

# Of the rows with Outage, the states of the whole server. The others are most likely about a single
# statement, such as a missing file or a limit on temporary files.
SERVER_STATES = ("25006", "53100", "53200", "53300", "57P0", "58030")

_FRESH_CONNECTION = (  # the connection's caches or its state machine are at odds with the server
    asyncpg.InvalidCachedStatementError,
    asyncpg.InternalClientError,
)
_LOST = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
)


def classify(
    exc: BaseException,
    *,
    own: tuple[BaseException, ...] = (),
    broken: bool = False,
    default: FailureKind = FailureKind.EXCEPTION,
    redact: Redact = redact_patterns,
) -> Failed | Conflict | Outage:
    """Decide what an exception means for its item.

    Args:
        exc: The exception that the processor, or a statement around it, raised.
        own: The exceptions that the item's own connection raised during this attempt.
        broken: Whether the item's own connection is unusable now.
        default: The kind of a failure that no SQLSTATE and no type of exception decides.
        redact: Masks secrets in texts that will be stored.

    Returns:
        The item fails, it runs again at once, or the server failed. An outage is for the caller to
        raise.
    """
    origin = next((cause for cause in unfold(exc) if any(cause is error for error in own)), None)
    meaning: Meaning
    if broken:
        meaning, kind = Outage, FailureKind.CONNECTION_LOST
    else:
        meaning, kind = _lookup(origin if origin is not None else exc, default)
        if isinstance(origin, _FRESH_CONNECTION):
            meaning = Outage
        if origin is None and meaning is not Failed:
            meaning, kind = Failed, default
    failure = describe(exc, kind=kind, redact=redact)
    if meaning is Outage:
        return Outage(failure, lost=broken, by_item=True)
    return Conflict(failure) if meaning is Conflict else Failed(failure)


def is_outage(exc: BaseException) -> bool:
    """Whether a statement of the library failed because the server or the connection failed."""
    if isinstance(exc, ReliableImportsError):
        return isinstance(exc, ConnectionError)
    if isinstance(exc, asyncpg.PostgresError):
        return isinstance(exc, _FRESH_CONNECTION) or _lookup(exc, FailureKind.BUG)[0] is not Failed
    if isinstance(exc, asyncpg.exceptions.ClientConfigurationError | asyncpg.DataError):
        return False
    return isinstance(exc, _LOST)


def outage(exc: Exception, *, lost: bool, redact: Redact) -> Outage:
    """The outage during which a statement of the library failed.

    Args:
        lost: Whether its connection broke, or did not answer in time.
        redact: Masks secrets in texts that will be stored.
    """
    return Outage(describe(exc, kind=FailureKind.CONNECTION_LOST, redact=redact), lost=lost)


def _lookup(exc: BaseException, default: FailureKind) -> tuple[Meaning, FailureKind]:
    sqlstate = _sqlstate(exc)
    if sqlstate is not None:
        row = next(filter(None, (SQLSTATES.get(sqlstate[:length]) for length in (5, 4, 2))), None)
        if _violates_policy(exc) or (_raised_at(exc) and (row is None or row[0] is Outage)):
            return Failed, FailureKind.DATA  # code in the database refused, whatever its code
        if row is not None:
            return row
    return Failed, next((kind for cls, kind in _KINDS.items() if _holds(exc, cls)), default)


_KINDS: dict[type[BaseException], FailureKind] = {
    ValidationError: FailureKind.VALIDATION,
    KeyIsNull: FailureKind.VALIDATION,
    asyncpg.DataError: FailureKind.DATA,  # asyncpg could not encode an argument
    ItemRefused: FailureKind.DATA,  # the library could not encode a value, or wrote no row
    TransactionEnded: FailureKind.TRANSACTION,
    Defer: FailureKind.DATA,
}


def _holds(exc: BaseException, cls: type[BaseException]) -> bool:
    """Whether an exception is of a class; a signal may also be inside an exception group."""
    candidates = members(exc) if cls is Defer else (exc,)
    return any(isinstance(candidate, cls) for candidate in candidates)


def is_server_state(failure: Failure) -> bool:
    """Whether a failure is about the server as a whole, and not about a statement."""
    return failure.sqlstate is not None and failure.sqlstate.startswith(SERVER_STATES)


def _violates_policy(exc: BaseException) -> bool:
    """Whether row-level security refused a row; missing rights have the same SQLSTATE.

    The name of the server's function distinguishes them, whatever the language of the messages.
    """
    return _sqlstate(exc) == "42501" and _source(exc) == "ExecWithCheckOptions"


def ends_process(exc: BaseException) -> bool:
    """Whether an exception was raised to end the process, and not by the code it interrupted.

    SystemExit, KeyboardInterrupt and GeneratorExit are ordinary failures if code raises them, such
    as by ``sys.exit()``. Those that end the process come from a signal's handler, or are thrown
    into a coroutine that is being closed.
    """
    return any(_comes_from_outside(member) for member in members(exc))


def _comes_from_outside(exc: BaseException) -> bool:
    if isinstance(exc, GeneratorExit):
        return not _is_raised_by_code(exc)
    if isinstance(exc, KeyboardInterrupt):
        interrupted = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        return (interrupted and not _is_raised_by_code(exc)) or _is_raised_by_handler(exc)
    return isinstance(exc, SystemExit) and _is_raised_by_handler(exc)


def _is_raised_by_code(exc: BaseException) -> bool:
    """Whether a raise statement raised it, and not the interpreter at another instruction."""
    last = exc.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    raising = dis.opmap["RAISE_VARARGS"]
    return last is not None and last.tb_frame.f_code.co_code[last.tb_lasti] == raising


def _is_raised_by_handler(exc: BaseException) -> bool:
    """Whether it passed through the frame of a signal's handler."""
    codes = {frame.f_code for frame, _ in traceback.walk_tb(exc.__traceback__)}
    return any(_code(signal.getsignal(number)) in codes for number in signal.valid_signals())


def _code(handler: object) -> CodeType | None:
    """The code of a signal's handler, where it is written in Python."""
    while isinstance(handler, partial):
        handler = handler.func
    return getattr(unwrap(handler), "__code__", None) if callable(handler) else None


def sound(exc: BaseException) -> BaseException:
    """The exception, or a replacement if its own code raises when it is examined."""
    try:
        for cause in unfold(exc):
            isinstance(cause, ReliableImportsError)  # reads __class__
            _sqlstate(cause)
    except BaseException:  # noqa: BLE001 - raised by the code of the exception
        name = storable(type(exc).__name__, NAME_BYTES)
        odd = ProcessorResultError(f"{name} was raised, and reading its attributes raises.")
        return odd.with_traceback(BaseException.__getattribute__(exc, "__traceback__"))
    return exc


def unfold(exc: BaseException) -> Iterator[BaseException]:
    """The exception, the members of groups, and the causes and contexts of each."""
    todo = [exc]
    seen: set[int] = set()
    while todo:
        current = todo.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        if isinstance(current, BaseExceptionGroup):
            todo.extend(current.exceptions)
        inner = (current.__cause__, current.__context__)
        todo.extend(cause for cause in inner if cause is not None)


def members(exc: BaseException) -> Iterator[BaseException]:
    """The exception and, if it is a group, its members."""
    yield exc
    if isinstance(exc, BaseExceptionGroup):
        for member in exc.exceptions:
            yield from members(member)


def describe(
    exc: BaseException,
    *,
    kind: FailureKind,
    redact: Redact = redact_patterns,
) -> Failure:
    """The description of an exception, safe to store. This never raises.

    Args:
        kind: Why the item failed.
        redact: Masks secrets.
    """
    try:
        return _describe(exc, kind, redact)
    except Exception:  # noqa: BLE001 - raised by methods of the exception
        name = storable(type(exc).__name__, NAME_BYTES)
        message = "the exception could not be described"
        return Failure(kind=kind, type=name, message=message, group=_digest(kind, name))


def _describe(exc: BaseException, kind: FailureKind, redact: Redact) -> Failure:
    postgres = next((cause for cause in unfold(exc) if _sqlstate(cause) is not None), None)
    main = _only_member(exc)
    fields = _field_errors(main, redact) if isinstance(main, ValidationError) else ()
    message = visible(redacted(_message(main, fields), redact, MESSAGE_BYTES))
    name = type(main).__name__
    places = _user_places(main)

    def named(attribute: str, limit: int = NAME_BYTES) -> str | None:
        value = getattr(postgres, attribute, None)
        return visible(redacted(str(value), redact, limit)) if value else None

    constraint = named("constraint_name")
    sqlstate = _sqlstate(postgres) if postgres is not None else None
    cause = constraint or _locations(fields) or _cause(postgres, message, places)
    return Failure(
        kind=kind,
        type=storable(name, NAME_BYTES),
        message=message,
        group=_digest(name, sqlstate or "", cause),
        sqlstate=sqlstate,
        constraint=constraint,
        table=named("table_name"),
        column=named("column_name"),
        detail=named("detail", DETAIL_BYTES),
        hint=_hint(main, message, redact) or for_fields(fields) or named("hint", DETAIL_BYTES),
        traceback=_traceback(places, redact),
        fields=fields,
    )


def _sqlstate(exc: BaseException | None) -> str | None:
    """The SQLSTATE of an error of asyncpg, or of another driver with the same attribute."""
    sqlstate = getattr(exc, "sqlstate", None)
    return sqlstate if isinstance(sqlstate, str) and len(sqlstate) == 5 else None


def _only_member(exc: BaseException) -> BaseException:
    """The first exception inside a group, which readers want to see first."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return exc


def _message(exc: BaseException, fields: tuple[dict[str, Any], ...]) -> str:
    if fields:
        return "; ".join(f"{field['loc']}: {field['msg']}" for field in fields[:5])
    if isinstance(exc, ReliableImportsError):
        return exc.message
    alone = getattr(exc, "message", None) if _sqlstate(exc) is not None else None  # no DETAIL
    return str(alone or exc) or type(exc).__name__


def _field_errors(exc: ValidationError, redact: Redact) -> tuple[dict[str, Any], ...]:
    errors = exc.errors(include_url=False, include_context=False)[:FIELDS_SHOWN]
    return tuple(
        {
            "loc": storable(".".join(str(part) for part in error["loc"]), NAME_BYTES),
            "type": error["type"],
            "msg": redacted(error["msg"], redact, MESSAGE_BYTES),
            "input": redacted(glimpse(error.get("input"), INPUT_CHARACTERS), redact, NAME_BYTES),
        }
        for error in errors
    )


def _cause(postgres: BaseException | None, message: str, places: "Places") -> str:
    """The part that failures of the same cause share, if no constraint and no field names it.

    Messages hold values in many forms. They are only used for errors of class 42, whose messages
    name what is missing, and if there is nothing else.
    """
    if postgres is None:
        argument = re.search(r"query argument \$\d+", message)
        at = _raising_lines(places[-GROUP_FRAMES:])
        return f"{at} {argument[0] if argument else ''}" if at else _without_values(message)
    if raised := _raised_at(postgres):
        return raised
    if str(_sqlstate(postgres)).startswith("42") and not _violates_policy(postgres):
        return message
    names = ("schema_name", "table_name", "column_name", "data_type_name", "server_source_function")
    known = [str(getattr(postgres, name, None) or "") for name in names]
    if not any(known):
        return _without_values(message)
    return " ".join([*known, _raising_lines(places[-GROUP_FRAMES:])])


# A line of PostgreSQL's context for RAISE and ASSERT, in any language: function and line number.
_RAISED_AT = re.compile(
    r"(?P<function>[\w.\"$]{1,200}\([^()\n]{0,2000}\))[^\d\n]{1,80}(?P<line>\d+)"
)


def _raised_at(exc: BaseException) -> str:
    """The function and the line at which code in the database raised; empty if it did not.

    PL/pgSQL raises in the server's functions `exec_stmt_raise` and `exec_stmt_assert`.
    """
    if _source(exc) not in ("exec_stmt_raise", "exec_stmt_assert"):
        return ""
    place = _RAISED_AT.search(str(getattr(exc, "context", None) or "")[:4_000])
    return f"{place['function']} {place['line']}" if place else _source(exc)


def _source(exc: BaseException) -> str:
    """The function in the server's source that reported an error."""
    return str(getattr(exc, "server_source_function", None) or "")


def _locations(fields: tuple[dict[str, Any], ...]) -> str:
    """Which fields were invalid and why, without list indices."""
    places = {f"{re.sub(r'[0-9]+', '*', field['loc'])}:{field['type']}" for field in fields}
    return " ".join(sorted(places))


_VALUES = re.compile(
    r"""(?<!\\)'(?:[^'\\]|\\.)*+' | (?<!\\)"(?:[^"\\]|\\.)*+" | \([^()]*+\)
      | \b[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}\b | (?<![\w.+-])[\w.+-]++@[\w.-]++ | [-+]?\d[\d.,:]*+""",
    re.VERBOSE,
)


def _without_values(message: str) -> str:
    """The message without values."""
    return _VALUES.sub("?", message)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode("utf-8", "replace")).hexdigest()[:12]


def _hint(exc: BaseException, message: str, redact: Redact) -> str | None:
    notes = getattr(exc, "__notes__", None)
    if notes:
        return redacted(str(notes[0]), redact, DETAIL_BYTES)
    if isinstance(exc, ReliableImportsError) and exc.web_hint:
        return exc.web_hint  # a stored hint is read in all places
    return for_message(f"{_sqlstate(exc) or ''} {message}")


Places = tuple[tuple[CodeType, int], ...]
"""Lines of code, outermost first, as in a traceback."""

_STANDARD_LIBRARY = sysconfig.get_paths()["stdlib"]
_INSTALLED = ("site-packages", "dist-packages")
_NOT_THE_USERS = (
    "<frozen",
    str(Path(__file__).parent),
    *(
        str(Path(module.__file__ or "/none").parent)
        for module in (anyio, asyncpg, pydantic, pydantic_core)
    ),
)


@lru_cache(maxsize=1024)
def is_users(file: str) -> bool:
    """Whether a file may be the user's: not this library's, a driver's or Python's own."""
    if file.startswith(_NOT_THE_USERS):
        return False
    return not file.startswith(_STANDARD_LIBRARY) or any(name in file for name in _INSTALLED)


def _user_places(exc: BaseException) -> Places:
    """Where an exception passed through the user's code."""
    places = tuple(
        (frame.f_code, line)
        for frame, line in traceback.walk_tb(exc.__traceback__)
        if is_users(frame.f_code.co_filename)
    )
    return places[-FRAMES:]


def _traceback(places: Places, redact: Redact) -> str | None:
    return redacted(_quoted(places), redact, TRACEBACK_BYTES) if places else None


@lru_cache(maxsize=256)
def _quoted(places: Places) -> str:
    """Source lines as in a traceback; cached, because the same error may occur a thousand times."""
    frames = [traceback.FrameSummary(code.co_filename, line, code.co_name) for code, line in places]
    return "".join(traceback.StackSummary.from_list(frames).format())


@lru_cache(maxsize=256)
def _raising_lines(places: Places) -> str:
    """The same without paths and numbers, which differ between machines and versions."""
    return " < ".join(
        f"{Path(code.co_filename).name} {code.co_qualname} "
        f"{linecache.getline(code.co_filename, line).strip() or line}"
        for code, line in reversed(places)
    )


def parse_failure(reason: str) -> Failure:
    """The failure of a record that could not be read or stored."""
    message = storable(reason, MESSAGE_BYTES)
    group = _digest(FailureKind.PARSE, _without_values(message))
    return Failure(kind=FailureKind.PARSE, type="UnreadableRecord", message=message, group=group)


def crash_failure(crashes: int) -> Failure:
    """The failure of an item that has killed so many worker processes."""
    return Failure(
        kind=FailureKind.CRASH,
        type="WorkerCrashed",
        message=f"{crashes} worker processes died while they ran this item",
        group=_digest(FailureKind.CRASH, "WorkerCrashed"),
        hint="check how much memory the item needs, the C code that it runs, and the operating "
        "system's log.",
    )


def duplicate_failure() -> Failure:
    """The failure of an item that has the key of an earlier item of its batch."""
    return Failure(
        kind=FailureKind.VALIDATION,
        type="DuplicateKey",
        message="an earlier item has the same key",
        group=_digest(FailureKind.VALIDATION, "DuplicateKey"),
        hint="correct the key of one of them, then reprocess; an unchanged record fails again.",
    )
