"""One table decides what an exception means for its item: fail it, repeat it, or wait."""

import asyncio
import hashlib
import re
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from pathlib import Path
from types import CodeType
from typing import Any

import anyio
import asyncpg
from pydantic import ValidationError

from .errors import ReliableImportsError, TransactionEnded
from .outcomes import Defer, Failure, FailureKind
from .safe_text import Redact, redact_patterns, storable

MESSAGE_BYTES = 2_048
DETAIL_BYTES = 2_048
TRACEBACK_BYTES = 16_384
NAME_BYTES = 200
FIELDS_SHOWN = 50
FRAMES = 50


class Action(Enum):
    """What happens to the item."""

    FAIL = auto()
    REPEAT = auto()  # the same item again at once: a conflict between transactions
    WAIT = auto()  # nobody's fault: back off, reconnect, go on


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an exception means for its item."""

    action: Action
    failure: Failure


# The longest matching prefix of the SQLSTATE decides. The rows with WAIT and REPEAT hold only for
# errors of the item's own connection; from elsewhere they are the processor's business.
SQLSTATES: dict[str, tuple[Action, FailureKind]] = {
    "08": (Action.WAIT, FailureKind.CONNECTION_LOST),  # connection exception
    "22": (Action.FAIL, FailureKind.DATA),  # data exception
    "23": (Action.FAIL, FailureKind.DATA),  # integrity constraint violation
    "25006": (Action.WAIT, FailureKind.CONNECTION_LOST),  # read only: a standby after a failover
    "25P02": (Action.FAIL, FailureKind.TRANSACTION),  # an SQL error was swallowed
    "25P03": (Action.WAIT, FailureKind.CONNECTION_LOST),  # idle in transaction: session ended
    "25P04": (Action.WAIT, FailureKind.CONNECTION_LOST),  # transaction timeout: session ended
    "40001": (Action.REPEAT, FailureKind.CONFLICT),  # serialization failure
    "40P01": (Action.REPEAT, FailureKind.CONFLICT),  # deadlock
    "42": (Action.FAIL, FailureKind.BUG),  # syntax error, missing table, access rule violation
    "53": (Action.WAIT, FailureKind.CONNECTION_LOST),  # disk full, out of memory, connections
    "55P03": (Action.REPEAT, FailureKind.CONFLICT),  # lock not available
    "57014": (Action.FAIL, FailureKind.TIMEOUT),  # query cancelled: a statement timeout
    "57P0": (Action.WAIT, FailureKind.CONNECTION_LOST),  # shutdown, crash, cannot connect now
    "58": (Action.WAIT, FailureKind.CONNECTION_LOST),  # system error, such as an I/O error
}

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


def judge(
    exc: BaseException,
    *,
    own: tuple[BaseException, ...] = (),
    broken: bool = False,
    default: FailureKind = FailureKind.EXCEPTION,
    redact: Redact = redact_patterns,
) -> Judgement:
    """Decide what an exception means for its item.

    Args:
        exc: What the processor, or a statement around it, raised.
        own: The exceptions that the item's own connection raised during this try.
        broken: Whether the item's own connection is unusable now.
        default: The kind of a failure that no SQLSTATE decides.
        redact: Masks secrets in texts that will be stored.
    """
    origin = next((one for one in unfold(exc) if any(one is mine for mine in own)), None)
    if broken:
        lost = FailureKind.CONNECTION_LOST
        return Judgement(Action.WAIT, describe(exc, kind=lost, redact=redact))
    action, kind = _lookup(origin if origin is not None else exc, default)
    if isinstance(origin, _FRESH_CONNECTION):
        action = Action.WAIT
    if origin is None and action is not Action.FAIL:
        action, kind = Action.FAIL, default
    return Judgement(action, describe(exc, kind=kind, redact=redact))


def is_outage(exc: BaseException) -> bool:
    """Whether one of our own statements failed because the server or the way to it did."""
    if isinstance(exc, ReliableImportsError):
        return isinstance(exc, ConnectionError)
    if isinstance(exc, asyncpg.PostgresError):
        return (
            isinstance(exc, _FRESH_CONNECTION)
            or _lookup(exc, FailureKind.BUG)[0] is not Action.FAIL
        )
    if isinstance(exc, asyncpg.exceptions.ClientConfigurationError | asyncpg.DataError):
        return False
    return isinstance(exc, _LOST)


def _lookup(exc: BaseException, default: FailureKind) -> tuple[Action, FailureKind]:
    sqlstate = _sqlstate(exc)
    if sqlstate is not None:
        for length in (5, 4, 2):
            if row := SQLSTATES.get(sqlstate[:length]):
                return row
    if isinstance(exc, asyncpg.DataError):
        return Action.FAIL, FailureKind.DATA  # asyncpg could not encode an argument
    if isinstance(exc, ValidationError):
        return Action.FAIL, FailureKind.VALIDATION
    if isinstance(exc, TransactionEnded):
        return Action.FAIL, FailureKind.TRANSACTION
    if any(isinstance(one, Defer) for one in members(exc)):
        return Action.FAIL, FailureKind.DATA
    return Action.FAIL, default


def unfold(exc: BaseException) -> Iterator[BaseException]:
    """The exception, the members of groups, and what each was explicitly raised from."""
    todo = [exc]
    seen: set[int] = set()
    while todo:
        one = todo.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, BaseExceptionGroup):
            todo.extend(one.exceptions)
        todo.extend(inner for inner in (one.__cause__, one.__context__) if inner is not None)


def members(exc: BaseException) -> Iterator[BaseException]:
    """The exception, and what an exception group holds."""
    yield exc
    if isinstance(exc, BaseExceptionGroup):
        for one in exc.exceptions:
            yield from members(one)


def describe(
    exc: BaseException,
    *,
    kind: FailureKind,
    redact: Redact = redact_patterns,
) -> Failure:
    """The storable description of an exception. It cannot itself fail."""
    try:
        return _describe(exc, kind, redact)
    except Exception:  # noqa: BLE001 - an exception whose own methods raise still gets a record
        name = storable(type(exc).__name__, NAME_BYTES)
        message = "the exception could not be described"
        return Failure(kind=kind, type=name, message=message, group=_digest(kind, name))


def _describe(exc: BaseException, kind: FailureKind, redact: Redact) -> Failure:
    postgres = next((one for one in unfold(exc) if _sqlstate(one) is not None), None)
    main = _only_member(exc)
    fields = _field_errors(main, redact) if isinstance(main, ValidationError) else ()
    message = storable(redact(_message(main, fields)), MESSAGE_BYTES)
    name = type(main).__name__

    def named(attribute: str, limit: int = NAME_BYTES) -> str | None:
        value = getattr(postgres, attribute, None)
        return storable(redact(str(value)), limit) if value else None

    constraint = named("constraint_name")
    sqlstate = _sqlstate(postgres) if postgres is not None else None
    cause = constraint or _locations(fields) or _without_values(message, sqlstate)
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
        hint=_hint(main, message, redact) or named("hint", DETAIL_BYTES),
        traceback=user_frames(main, redact),
        fields=fields,
    )


def _sqlstate(exc: BaseException | None) -> str | None:
    """The SQLSTATE of an error of asyncpg, or of another driver that names it the same way."""
    sqlstate = getattr(exc, "sqlstate", None)
    return sqlstate if isinstance(sqlstate, str) and len(sqlstate) == 5 else None


def _only_member(exc: BaseException) -> BaseException:
    """The first leaf of an exception group: what a reader wants to see first."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return exc


def _message(exc: BaseException, fields: tuple[dict[str, Any], ...]) -> str:
    if fields:
        return "; ".join(f"{one['loc']}: {one['msg']}" for one in fields[:5])
    if isinstance(exc, ReliableImportsError):
        return exc.message
    alone = getattr(exc, "message", None) if _sqlstate(exc) is not None else None  # no DETAIL
    return str(alone or exc) or type(exc).__name__


def _field_errors(exc: ValidationError, redact: Redact) -> tuple[dict[str, Any], ...]:
    errors = exc.errors(include_url=False, include_context=False)[:FIELDS_SHOWN]
    return tuple(
        {
            "loc": storable(".".join(str(part) for part in one["loc"]), NAME_BYTES),
            "type": one["type"],
            "msg": storable(redact(one["msg"]), MESSAGE_BYTES),
            "input": storable(redact(repr(one.get("input"))), NAME_BYTES),
        }
        for one in errors
    )


def _locations(fields: tuple[dict[str, Any], ...]) -> str:
    """Where a model was violated and how, with list indices taken out."""
    places = {f"{re.sub(r'[0-9]+', '*', one['loc'])}:{one['type']}" for one in fields}
    return " ".join(sorted(places))


_VALUES = re.compile(
    r"""'(?:[^'\\]|\\.)*' | "(?:[^"\\]|\\.)*" | \([^()]*\)
      | \b[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}\b | \b\S+@\S+\b | [-+]?\d[\d.,:]*""",
    re.VERBOSE,
)


def _without_values(message: str, sqlstate: str | None) -> str:
    """The message with its values taken out; names in an SQL error of class 42 are the cause."""
    if sqlstate is not None and sqlstate.startswith("42"):
        return message
    return _VALUES.sub("?", message)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode("utf-8", "replace")).hexdigest()[:12]


_HINTS = (
    (r'syntax error at or near "%"', "placeholders are $1, $2, …, not %s."),
    (
        r"invalid input for query argument \$\d+: .*(?:str|expected a date|toordinal|isoformat)",
        "the column is not text: the processor has to convert the value, or declare a model and "
        "use the model's value.",
    ),
    (
        r"current transaction is aborted",
        "the processor caught an earlier SQL error and went on: it has to run that statement "
        "inside a savepoint (`ctx.savepoint`).",
    ),
    (
        r"another operation is in progress",
        "the processor has to wait for each statement before the next, and must not start tasks.",
    ),
)


def _hint(exc: BaseException, message: str, redact: Redact) -> str | None:
    notes = getattr(exc, "__notes__", None)
    if notes:
        return storable(redact(str(notes[0])), DETAIL_BYTES)
    if isinstance(exc, ReliableImportsError) and exc.web_hint:
        return exc.web_hint  # read in every place: in the words that fit all of them
    return next((hint for pattern, hint in _HINTS if re.search(pattern, message, re.DOTALL)), None)


_NOT_THE_USERS = (
    "<frozen",
    str(Path(__file__).parent),
    *(str(Path(module.__file__ or "/none").parent) for module in (anyio, asyncio, asyncpg)),
)


def user_frames(exc: BaseException, redact: Redact = redact_patterns) -> str | None:
    """The frames of the traceback that are neither this library's nor the driver's."""
    places = tuple(
        (frame.f_code, line)
        for frame, line in traceback.walk_tb(exc.__traceback__)
        if not frame.f_code.co_filename.startswith(_NOT_THE_USERS)
    )
    return storable(redact(_quoted(places[-FRAMES:])), TRACEBACK_BYTES) if places else None


@lru_cache(maxsize=256)
def _quoted(places: tuple[tuple[CodeType, int], ...]) -> str:
    """Source lines as a traceback shows them; the same error often comes a thousand times."""
    frames = [traceback.FrameSummary(code.co_filename, line, code.co_name) for code, line in places]
    return "".join(traceback.StackSummary.from_list(frames).format())


def parse_failure(reason: str) -> Failure:
    """The failure of a record that could not be read or stored."""
    message = storable(reason, MESSAGE_BYTES)
    group = _digest(FailureKind.PARSE, _without_values(message, None))
    return Failure(kind=FailureKind.PARSE, type="UnreadableRecord", message=message, group=group)


def crash_failure(crashes: int) -> Failure:
    """An item has killed this many worker processes."""
    return Failure(
        kind=FailureKind.CRASH,
        type="WorkerCrashed",
        message=f"{crashes} worker processes died while they ran this item",
        group=_digest(FailureKind.CRASH, "WorkerCrashed"),
        hint="check how much memory the item needs, the C code that it runs, and the operating "
        "system's log.",
    )


def duplicate_failure() -> Failure:
    """An item has the key of an earlier one of its batch."""
    return Failure(
        kind=FailureKind.VALIDATION,
        type="DuplicateKey",
        message="an earlier item has the same key",
        group=_digest(FailureKind.VALIDATION, "DuplicateKey"),
        hint="correct the key of one of them, then reprocess; an unchanged record fails again.",
    )
