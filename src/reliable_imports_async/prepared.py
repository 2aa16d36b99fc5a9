"""An item on its way into a transaction, with the context and the log that belong to it."""

from collections.abc import Callable, Sequence
from typing import Any

from .context import ImportContext, LogBuffer, LogLine
from .models import ImportBatchItem
from .outcomes import Undone

_NO_LINES: Sequence[LogLine] = ()


class Prepared:
    """An item with all that was done for it before its transaction.

    Args:
        context: Makes the item's context, when something first needs it.

    Attributes:
        item: As it was read.
        ready: With its data and what was prepared; or why it cannot be processed.
        seconds: How long that took.
        keys: Of items that share one, the earlier takes effect first.
        ordered: The version of the keys by which its range was claimed.
    """

    __slots__ = ("_context", "_ctx", "_mark", "item", "keys", "ordered", "ready", "seconds")

    def __init__(
        self,
        item: ImportBatchItem[Any],
        context: Callable[[ImportBatchItem[Any]], ImportContext],
    ) -> None:
        self.item = item
        self.ready: ImportBatchItem[Any] | Undone = item
        self.seconds = 0.0
        self.keys: tuple[str, ...] = ()
        self.ordered = 0
        self._context = context
        self._ctx: ImportContext | None = None
        self._mark = 0  # how many log lines there were before the transaction

    @property
    def ctx(self) -> ImportContext:
        """The item's context."""
        if self._ctx is None:
            self._ctx = self._context(self.item)
        return self._ctx

    @property
    def log(self) -> LogBuffer:
        """The item's log lines."""
        return self.ctx._log  # noqa: SLF001 - the context belongs to this module

    @property
    def silent(self) -> bool:
        """Whether it has no log lines."""
        return self._ctx is None or self._ctx._silent  # noqa: SLF001

    @property
    def lines(self) -> Sequence[LogLine]:
        """The log lines to store."""
        return _NO_LINES if self.silent else self.log.finished()

    def is_ready(self, ready: ImportBatchItem[Any] | Undone, seconds: float) -> None:
        """What was to be done before the transaction is done; its log lines stay."""
        self.ready, self.seconds = ready, seconds
        self._mark = 0 if self.silent else len(self.log.lines)

    def rewind(self) -> None:
        """The SQL runs again: forget what it logged."""
        if not self.silent:
            self.log.truncate(self._mark)

    def leave(self) -> None:
        """Its code has run: let go of what only that needed. Log lines stay."""
        if self._ctx is not None:
            self._ctx._close()  # noqa: SLF001
            if self._ctx._silent:  # noqa: SLF001
                self._ctx = None
