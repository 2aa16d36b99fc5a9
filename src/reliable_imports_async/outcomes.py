"""What became of a try to process an item: one closed union, `Outcome`.

Beside it: the description of a failure, the two ways in which a try does not come to an outcome,
and the signals that a processor raises.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class FailureKind(StrEnum):
    """Why an item failed, from the point of view of whoever has to act on it."""

    PARSE = "parse"
    """The record could not be read or stored; `raw` holds it as it came."""
    VALIDATION = "validation"
    """The model or `validate_item` rejected the record."""
    DATA = "data"
    """PostgreSQL rejected the data: SQLSTATE classes 22 and 23; or what the item deferred to never
    came."""
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
    """The connection broke three times under this item while the server was well."""
    CRASH = "crash"
    """The item has killed its worker process repeatedly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Everything that is stored about a failed item; texts are already safe to store.

    Attributes:
        kind: Who has to act: see `FailureKind`.
        type: The exception's class name.
        message: Its message, without NUL, capped at 2 KB.
        group: Equal for failures with the same cause, across items and batches.
        sqlstate: PostgreSQL's five-character code, if it came from there.
        constraint: The violated constraint, if PostgreSQL named it.
        table: The table PostgreSQL named.
        column: The column PostgreSQL named.
        detail: PostgreSQL's DETAIL, such as ``Key (dest)=(SJU) is not present …``.
        hint: What probably helps, from PostgreSQL or from this library.
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


@dataclass(frozen=True, slots=True)
class Completed:
    """The item's effects are committed."""

    target_table: str | None = None
    target_id: str | None = None
    processed_data: str | None = None  # JSON text


COMPLETED = Completed()
"""Nothing more is to be said about the item; most are like this."""


@dataclass(frozen=True, slots=True)
class Skip:
    """Returned by `process_item`: nothing had to be done for this item. Its writes stay.

    Attributes:
        reason: Why, for the item's record.
    """

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """The item's effects are rolled back and its failure is stored."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Postponed:
    """The item stays pending and is tried again later.

    Attributes:
        after: Seconds from now, by the database's clock.
        failure: What made the try fail.
    """

    after: float
    failure: Failure


@dataclass(frozen=True, slots=True)
class Deferred:
    """The item's effects are rolled back, and it runs again in the next pass over the batch."""


@dataclass(frozen=True, slots=True)
class Rescheduled:
    """Nothing is stored: the item stays pending until its range is claimed again.

    The batch pauses instead of storing its failure, its key was not known before, or the try that
    asks is out of date.
    """


@dataclass(frozen=True, slots=True)
class FenceLost:
    """Nothing is stored: another worker settled the item first, or a new batch took it over."""


NotCommitted = Failed | Postponed | Deferred
"""What an exception of the item comes to."""

Outcome = Completed | Skip | NotCommitted | Rescheduled | FenceLost


@dataclass(frozen=True, slots=True)
class Conflict:
    """No outcome yet: another transaction got in the way, and the item runs again at once."""

    failure: Failure


class Outage(Exception):
    """No outcome yet: the server, or the way to it, failed under an item.

    Nobody is to blame. What became of the try may be unknown until somebody asks the item's row.

    Attributes:
        failure: Describes the error.
        lost: Whether the item's connection broke; otherwise the server refused a statement.
        by_item: Whether a statement of the item met the error; otherwise no connection was to be
            had for it.
    """

    def __init__(self, failure: Failure, *, lost: bool, by_item: bool = False) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.lost = lost
        self.by_item = by_item


class Retry(Exception):
    """Raised by a processor when another system asks to come back later.

    The try is stored with its due time, nothing waits for it in memory, and it survives a restart.
    After `max_attempts` tries the item fails.

    Args:
        reason: What the other system said.
        after: Seconds to wait; None backs off exponentially with the number of tries.
    """

    def __init__(self, reason: str = "", *, after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after = after


class Defer(Exception):
    """Raised by a processor when the item needs another record of the batch that is not there yet.

    What the item has written is undone, and it runs again, as if for the first time, once all
    others have run; as often as the others get on. In the end it fails with this reason.

    Args:
        reason: What is missing.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
