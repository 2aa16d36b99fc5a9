"""The outcome of an attempt to process an item: one closed union, `Outcome`.

Besides: the description of a failure, the two reasons why an attempt may have no outcome yet, and
the signals that a processor raises.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple


class FailureKind(StrEnum):
    """Why an item failed, from the point of view of the person who has to act."""

    PARSE = "parse"
    """The record could not be read or stored; `raw` holds it unchanged."""
    VALIDATION = "validation"
    """The model or `validate_item` rejected the record."""
    DATA = "data"
    """PostgreSQL rejected the data: SQLSTATE classes 22 and 23; or the record that the item
    deferred to never came."""
    EXCEPTION = "exception"
    """The processor raised."""
    TIMEOUT = "timeout"
    """The item took longer than `item_timeout`."""
    CONFLICT = "conflict"
    """Deadlock, serialization failure or lock timeout, also after being repeated."""
    BUG = "bug"
    """SQLSTATE class 42: a missing table, a misspelt column, a missing privilege."""
    TRANSACTION = "transaction"
    """The processor swallowed an SQL error or ended the transaction itself."""
    CONNECTION_LOST = "connection_lost"
    """The connection broke five times under this item while the server was well."""
    CRASH = "crash"
    """The item has killed its worker process repeatedly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Everything that is stored about a failed item; texts are already safe to store.

    Attributes:
        kind: Why it failed.
        type: The exception's class name.
        message: Its message, without NUL, capped at 2 KB.
        group: Equal for failures with the same cause, across items and batches.
        sqlstate: PostgreSQL's five-character code, if PostgreSQL raised the error.
        constraint: The violated constraint, if PostgreSQL named it.
        table: The table PostgreSQL named.
        column: The column PostgreSQL named.
        detail: PostgreSQL's DETAIL, such as ``Key (dest)=(SJU) is not present …``.
        hint: What probably helps, by PostgreSQL or this library.
        traceback: The user's frames, innermost last, capped at 16 KB.
        fields: Validation: ``{"loc": …, "type": …, "msg": …}`` of each field error.
    """

    kind: FailureKind
    type: str
    message: str
    group: str
    sqlstate: str | None = None
    constraint: str | None = None
    table: str | None = None
    column: str | None = None
    detail: str | None = None
    hint: str | None = None
    traceback: str | None = None
    fields: tuple[dict[str, Any], ...] = field(default=())


class Completed(NamedTuple):  # millions of them: a frozen dataclass takes twice as long to make
    """The item's effects are committed."""

    target_table: str | None = None
    target_id: str | None = None
    processed_data: str | None = None  # JSON text


COMPLETED = Completed()
"""The most frequent outcome: nothing else is stored about the item."""


@dataclass(frozen=True, slots=True)
class Skip:
    """Returned by `process_item`: there was nothing to do for this item. Its writes are kept.

    Attributes:
        reason: Why; stored with the item.
    """

    reason: str = ""


SUCCESSES = (Completed, Skip)
"""The outcomes of items whose effects are committed."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The item's effects are rolled back and its failure is stored."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Postponed:
    """The item's effects are rolled back; it stays pending and runs again later.

    Attributes:
        after: Seconds from now, by the database's clock.
        failure: Why the attempt failed.
    """

    after: float
    failure: Failure


@dataclass(frozen=True, slots=True)
class Deferred:
    """The item's effects are rolled back; it runs again in the next pass over the batch."""


@dataclass(frozen=True, slots=True)
class Rescheduled:
    """Nothing is stored: the item stays pending until its range is claimed again.

    For example, the batch pauses instead of storing a failure, or the item's key was not known.
    """


@dataclass(frozen=True, slots=True)
class FenceLost:
    """Nothing is stored: another worker settled the item first, or a new batch took it over."""


NotCommitted = Failed | Postponed | Deferred
"""The outcomes of an attempt that raised an exception."""

Outcome = Completed | Skip | NotCommitted | Rescheduled | FenceLost


@dataclass(frozen=True, slots=True)
class Conflict:
    """No outcome yet: the attempt conflicted with another transaction, and is repeated at once."""

    failure: Failure


class Outage(Exception):
    """No outcome yet: the server, or the connection to it, failed during an attempt.

    The item is not to blame. Whether the attempt was committed may be unknown until the item's row
    is read under its lock.

    Attributes:
        failure: The description of the error.
        lost: Whether the item's connection broke; otherwise the server refused a statement.
        by_item: Whether a statement of the item failed; otherwise no connection was available.
    """

    def __init__(self, failure: Failure, *, lost: bool, by_item: bool = False) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.lost = lost
        self.by_item = by_item


class Retry(Exception):
    """Raised by a processor if the item should run again later, such as after HTTP 429.

    The retry is stored with its due time. Nothing waits for it in memory, and it survives a
    restart. After `max_attempts` attempts the item fails.

    Args:
        reason: Why; the answer of the other system, for example.
        after: Seconds to wait; None backs off exponentially with the number of attempts.
    """

    def __init__(self, reason: str = "", *, after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after = after


class Defer(Exception):
    """Raised by a processor if the item needs another record of the batch that is not there yet.

    The item's effects are rolled back, and it runs again, as if for the first time, once all other
    items have run. This repeats as long as other items succeed; then the item fails.

    Args:
        reason: What is missing.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
