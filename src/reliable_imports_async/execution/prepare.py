"""An item on its way into a transaction: read into its model, validated and prepared.

All of that happens with no transaction and no connection of the item's held. The context and the
log that belong to the item go with it.
"""

import inspect
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import anyio
from anyio import to_thread
from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from ..cancellation import ItemTimeout, must_propagate
from ..database.guard import ReadingConnection
from ..errors import Rejected
from ..failures import sound
from ..log_buffer import LogBuffer, LogLine
from ..models import ImportBatchItem
from ..outcomes import Conflict, FailureKind, NotCommitted
from ..processors.context import ImportContext
from ..processors.processor import BaseProcessor, null_values_of
from ..sanitize import Redact
from .attempt import failed_or_postponed, outcome_of

MOST_ERRORS = 100
_NO_LINES: Sequence[LogLine] = ()


class Prepared:
    """An item with all that was done for it before its transaction.

    Args:
        context: Makes the item's context, when something first needs it.

    Attributes:
        item: As it was read; once it is prepared, with its data and what was prepared.
        refused: Why it cannot be processed; None: it can.
        seconds: How long validating and preparing took.
        keys: Of items that share one, the earlier takes effect first.
        ordered: The version of the keys by which its range was claimed.
    """

    __slots__ = ("_context", "_ctx", "_mark", "item", "keys", "ordered", "refused", "seconds")

    def __init__(
        self,
        item: ImportBatchItem[Any],
        context: Callable[[ImportBatchItem[Any]], ImportContext],
    ) -> None:
        self.item = item
        self.refused: NotCommitted | None = None
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

    def is_ready(
        self, item: ImportBatchItem[Any], refused: NotCommitted | None, seconds: float
    ) -> None:
        """What was to be done before the transaction is done; its log lines stay."""
        self.item, self.refused, self.seconds = item, refused, seconds
        self._mark = 0 if self.silent else len(self.log.lines)

    def rewind(self) -> None:
        """The SQL runs again: forget what it logged."""
        if not self.silent:
            self.log.truncate(self._mark)

    def leave(self) -> None:
        """Its code has run: drop what only that needed. Log lines stay."""
        if self._ctx is not None:
            self._ctx._close()  # noqa: SLF001
            if self._ctx._silent:  # noqa: SLF001
                self._ctx = None


async def make_ready(
    prepared: Prepared,
    processor: BaseProcessor[Any],
    reader: ReadingConnection,
    *,
    read: ImportBatchItem[Any] | None,
    seconds: float,
    redact: Redact,
) -> None:
    """Read, validate and prepare an item.

    Args:
        reader: What its code reads through; closed afterwards.
        read: The item with its data, where somebody has needed that before.
        seconds: How long all of it may take.

    Raises:
        Outage: The server failed under a query of the code.
    """
    started, item, ctx = perf_counter(), prepared.item, prepared.ctx
    ctx._enter(reader, item)  # noqa: SLF001
    kind, refused = FailureKind.VALIDATION, None
    try:
        with anyio.move_on_after(seconds) as limit:
            ctx.item = item = await _with_data(processor, item) if read is None else read
            if processor.overrides("validate_item"):
                await _validate(processor, item, ctx)
            if processor.overrides("prepare_item"):
                kind = FailureKind.EXCEPTION
                item = item.having(prepared=await processor.prepare_item(item, ctx))
        if limit.cancelled_caught:
            raise ItemTimeout(seconds)
    except BaseException as exc:  # noqa: BLE001 - classified; what is not the item's is raised
        item = prepared.item
        refused = _refusal(exc, item, processor, reader, kind, redact)
    finally:
        reader.close()
    prepared.is_ready(item, refused, perf_counter() - started)


def _refusal(
    raised: BaseException,
    item: ImportBatchItem[Any],
    processor: BaseProcessor[Any],
    reader: ReadingConnection,
    kind: FailureKind,
    redact: Redact,
) -> NotCommitted:
    """What an exception before the transaction means.

    Raises:
        Outage: The server failed.
    """
    exc = sound(raised)
    if must_propagate(exc):
        raise raised
    outcome = outcome_of(
        exc,
        item,
        processor,
        own=tuple(reader.errors),
        broken=reader.lost,
        redact=redact,
        default=kind if isinstance(exc, Exception) else FailureKind.EXCEPTION,
    )
    if isinstance(outcome, Conflict):  # no transaction of the item's is there to be repeated
        return failed_or_postponed(exc, item, processor, outcome.failure)
    return outcome


async def _with_data(
    processor: BaseProcessor[Any], item: ImportBatchItem[Any]
) -> ImportBatchItem[Any]:
    """The item with its data; a large one is read in a thread."""
    if not item.is_large:
        return with_data(processor, item)

    def read() -> ImportBatchItem[Any]:
        try:
            return with_data(processor, item)
        except ValidationError as exc:
            raise shortened(exc) from None

    return await to_thread.run_sync(read)


def shortened(exc: ValidationError) -> ValidationError:
    """The same with its first errors only; there may be 300,000."""
    if exc.error_count() <= MOST_ERRORS:
        return exc
    first = exc.errors(include_url=False)[:MOST_ERRORS]
    return ValidationError.from_exception_data(
        exc.title,
        [
            InitErrorDetails(
                type=PydanticCustomError(error["type"], "{said}", {"said": error["msg"]}),
                loc=error["loc"],
                input=error["input"],
            )
            for error in first
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
    """Run validate_item.

    Raises:
        Rejected: It returned anything but a true value.
    """
    valid = processor.validate_item(item, ctx)
    if inspect.isawaitable(valid):
        valid = await valid
    if not valid:
        also = "; it has to return True for a valid item." if valid is None else "."
        raise Rejected(
            f"validate_item returned {valid!r}.",
            hint="raise ValueError('why') in validate_item to store a reason" + also,
            cli_hint="validate_item can raise ValueError to store a reason" + also,
            web_hint="validate_item can raise ValueError to store a reason" + also,
        )
