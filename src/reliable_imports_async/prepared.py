"""An item on its way into a transaction, with the context and the log that belong to it."""

from collections.abc import Callable
from typing import Any

from .context import ImportContext, LogBuffer
from .models import ImportBatchItem
from .outcomes import Undone


class Prepared:
    """An item with all that was done for it before its transaction.

    Args:
        begin: Makes the item's context and log, when something first needs them.

    Attributes:
        item: As it was read.
        ready: With its data and what was prepared; or why it cannot be processed.
        mark: How many log lines there were by then; later ones go when the SQL is repeated.
        seconds: How long that took.
    """

    __slots__ = ("_begin", "_begun", "item", "mark", "ready", "seconds")

    def __init__(
        self,
        item: ImportBatchItem[Any],
        begin: Callable[[ImportBatchItem[Any]], tuple[ImportContext, LogBuffer]],
    ) -> None:
        self.item = item
        self.ready: ImportBatchItem[Any] | Undone = item
        self.mark = 0
        self.seconds = 0.0
        self._begin = begin
        self._begun: tuple[ImportContext, LogBuffer] | None = None

    @property
    def ctx(self) -> ImportContext:
        """The item's context."""
        return self._both()[0]

    @property
    def log(self) -> LogBuffer:
        """The item's log lines."""
        return self._both()[1]

    @property
    def silent(self) -> bool:
        """Whether it has no log lines."""
        return self._begun is None or not self._begun[1].lines

    def leave(self) -> None:
        """Its code has run: let go of what only that needed. Log lines stay."""
        if self._begun is not None:
            self._begun[0]._close()  # noqa: SLF001 - the context belongs to this module
            if self.silent:
                self._begun = None

    def _both(self) -> tuple[ImportContext, LogBuffer]:
        if self._begun is None:
            self._begun = self._begin(self.item)
        return self._begun
