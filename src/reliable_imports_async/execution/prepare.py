"""An item on its way into a transaction, with the context and the log that belong to it."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from anyio import to_thread
from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from ..errors import Rejected
from ..log_buffer import LogBuffer, LogLine
from ..models import ImportBatchItem
from ..outcomes import FailureKind, NotCommitted
from ..processors.context import ImportContext
from ..processors.processor import BaseProcessor, null_values_of

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
        self.ready: ImportBatchItem[Any] | NotCommitted = item
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

    def is_ready(self, ready: ImportBatchItem[Any] | NotCommitted, seconds: float) -> None:
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


MOST_ERRORS = 100


class NotReady(Exception):
    """An exception on the way to the transaction, with the kind of failure it makes by default."""

    def __init__(self, cause: BaseException, kind: FailureKind) -> None:
        super().__init__(type(cause).__name__)
        self.cause = cause
        self.kind = kind


async def make_ready(
    processor: BaseProcessor[Any],
    item: ImportBatchItem[Any],
    ctx: ImportContext,
    read: ImportBatchItem[Any] | None = None,
) -> ImportBatchItem[Any]:
    """Validate and prepare an item, with no transaction and no item connection held.

    Args:
        read: The item with its data, where somebody has needed that before.

    Raises:
        NotReady: The record was rejected, or the processor raised.
    """
    kind = FailureKind.VALIDATION
    try:
        if read is None:
            read = (
                await _read_aside(processor, item) if item.is_large else with_data(processor, item)
            )
        item = read
        ctx.item = item
        if processor.overrides("validate_item"):
            await _validate(processor, item, ctx)
        if processor.overrides("prepare_item"):
            kind = FailureKind.EXCEPTION
            item = item.having(prepared=await processor.prepare_item(item, ctx))
    except Exception as exc:
        raise NotReady(exc, kind) from exc
    return item


async def _read_aside(
    processor: BaseProcessor[Any], item: ImportBatchItem[Any]
) -> ImportBatchItem[Any]:
    def read() -> ImportBatchItem[Any]:
        try:
            return with_data(processor, item)
        except ValidationError as exc:
            raise shortened(exc) from None

    return await to_thread.run_sync(read)


def shortened(exc: ValidationError) -> ValidationError:
    """A refusal with so many of its errors as anybody will read; there may be 300,000."""
    if exc.error_count() <= MOST_ERRORS:
        return exc
    first = exc.errors(include_url=False)[:MOST_ERRORS]
    return ValidationError.from_exception_data(
        exc.title,
        [
            InitErrorDetails(
                type=PydanticCustomError(one["type"], "{said}", {"said": one["msg"]}),
                loc=one["loc"],
                input=one["input"],
            )
            for one in first
        ],
    )


def with_data(processor: BaseProcessor[Any], item: ImportBatchItem[Any]) -> ImportBatchItem[Any]:
    """The item with its record read into the processor's model."""
    adapter = processor.model()
    if adapter is None:
        return item
    source = item.source_data
    if processor.null_values or processor.null_values == "":
        nulls = null_values_of(processor)
        source = {
            name: None if isinstance(value, str) and value in nulls else value
            for name, value in source.items()
        }
    return item.having(data=adapter.validate_python(source))


async def _validate(
    processor: BaseProcessor[Any], item: ImportBatchItem[Any], ctx: ImportContext
) -> None:
    verdict = processor.validate_item(item, ctx)
    if inspect.isawaitable(verdict):
        verdict = await verdict
    if not verdict:
        also = "; it has to return True for a valid item." if verdict is None else "."
        raise Rejected(
            f"validate_item returned {verdict!r}.",
            hint="raise ValueError('why') in validate_item to store a reason" + also,
            cli_hint="validate_item can raise ValueError to store a reason" + also,
            web_hint="validate_item can raise ValueError to store a reason" + also,
        )
