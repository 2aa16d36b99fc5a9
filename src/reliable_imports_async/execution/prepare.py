"""Reads an item into its model, validates and prepares it, before its transaction.

The item holds no connection meanwhile. Its context and its log go with it into the transaction.
"""

import inspect
from collections.abc import Awaitable, Callable, Sequence
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
    """An item, its context and its log, before and in its transaction.

    Args:
        context: Makes the item's context, once it is needed.

    Attributes:
        item: The item; once it is ready, with its data and the result of `prepare_item`.
        refused: The outcome of an item that cannot be processed; None: it can be.
        seconds: How long validating and preparing took.
        keys: Items that share a key take effect in the order of their numbers.
        ordered: The version of the keys by which the item's range was claimed.
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
        """Note the result of validating and preparing; log lines written so far stay."""
        self.item, self.refused, self.seconds = item, refused, seconds
        self._mark = 0 if self.silent else len(self.log.lines)

    def rewind(self) -> None:
        """Drop the log lines of a transaction that runs again."""
        if not self.silent:
            self.log.truncate(self._mark)

    def leave(self) -> None:
        """Drop what only the processor's code needed, once it has run. Log lines stay."""
        if self._ctx is not None:
            self._ctx._close()  # noqa: SLF001
            if self._ctx._silent:  # noqa: SLF001
                self._ctx = None


async def make_ready(
    prepared: Prepared,
    processor: BaseProcessor[Any],
    reader: ReadingConnection,
    *,
    read: bool,
    seconds: float,
    redact: Redact,
) -> None:
    """Read, validate and prepare an item.

    Args:
        reader: The connection for the processor's queries; it is closed afterwards.
        read: Whether its model has read it already.
        seconds: How long all of this may take.
        redact: Masks secrets in texts that will be stored.

    Raises:
        Outage: The server failed during a query.
    """
    started, item, ctx = perf_counter(), prepared.item, prepared.ctx
    ctx._enter(reader, item)  # noqa: SLF001
    kind, refused = FailureKind.VALIDATION, None
    try:
        if not read:
            await _read(processor, item)
        if processor.overrides("validate_item"):
            await _validate(processor, item, ctx, seconds)
        if processor.overrides("prepare_item"):
            kind = FailureKind.EXCEPTION
            left = started + seconds - perf_counter()
            result = await _limited(processor.prepare_item(item, ctx), left, seconds)
            item = item.having(prepared=result)
    except BaseException as exc:  # noqa: BLE001 - classified, or raised again
        item = prepared.item
        own, broken = tuple(reader.errors), reader.lost
        refused = _refusal(exc, item, processor, kind, redact, own=own, broken=broken)
    finally:
        reader.close()
    prepared.is_ready(item, refused, perf_counter() - started)


def read_into_model(prepared: Prepared, processor: BaseProcessor[Any], *, redact: Redact) -> None:
    """Make an item ready that only its model has to read.

    Nothing waits here, so there is nothing that a time limit could interrupt, and no context is
    made: models do not receive one.

    Args:
        redact: Masks secrets in texts that will be stored.
    """
    try:
        read_data(processor, prepared.item)
    except BaseException as exc:  # noqa: BLE001 - classified, or raised again
        kind = FailureKind.VALIDATION
        prepared.refused = _refusal(exc, prepared.item, processor, kind, redact)


def _refusal(
    raised: BaseException,
    item: ImportBatchItem[Any],
    processor: BaseProcessor[Any],
    kind: FailureKind,
    redact: Redact,
    *,
    own: tuple[BaseException, ...] = (),
    broken: bool = False,
) -> NotCommitted:
    """The outcome that an exception before the transaction means.

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
        own=own,
        broken=broken,
        redact=redact,
        default=kind if isinstance(exc, Exception) else FailureKind.EXCEPTION,
    )
    if isinstance(outcome, Conflict):  # in a query of its own, which is not repeated
        return failed_or_postponed(exc, item, processor, outcome.failure)
    return outcome


async def _read(processor: BaseProcessor[Any], item: ImportBatchItem[Any]) -> None:
    """Read an item's record into its model, in a thread if it is large."""
    if not item.is_large:
        read_data(processor, item)
        return

    def read() -> None:
        try:
            read_data(processor, item)
        except ValidationError as exc:
            raise shortened(exc) from None

    await to_thread.run_sync(read)


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
    return item.having(data=data_of(processor, item.source_data))


def read_data(processor: BaseProcessor[Any], item: ImportBatchItem[Any]) -> None:
    """Read an item's record into the processor's model, in an item that nobody else has yet.

    A copy of each of millions of items would take time, and the garbage collector even more.
    """
    item.__dict__["data"] = data_of(processor, item.source_data)


def data_of(processor: BaseProcessor[Any], source: Any) -> Any:
    """A record as the processor's model, or as it is.

    Raises:
        ValidationError: The model refuses it.
    """
    adapter = processor.model()
    if adapter is None:
        return source
    if processor.null_values or processor.null_values == "":
        nulls = null_values_of(processor)
        source = {
            name: None if isinstance(value, str) and value in nulls else value
            for name, value in source.items()
        }
    return adapter.validator.validate_python(source)


async def _limited(work: Awaitable[Any], left: float, seconds: float) -> Any:
    """Await something for `left` of all the `seconds`.

    Raises:
        ItemTimeout: It took longer, and was cancelled.
    """
    with anyio.move_on_after(left):
        return await work
    raise ItemTimeout(seconds)


async def _validate(
    processor: BaseProcessor[Any], item: ImportBatchItem[Any], ctx: ImportContext, seconds: float
) -> None:
    """Run validate_item; only what it awaits can be interrupted, so only that has a time limit.

    Raises:
        Rejected: It returned anything but a true value.
        ItemTimeout: It took longer than `seconds`.
    """
    valid = processor.validate_item(item, ctx)
    if inspect.isawaitable(valid):
        valid = await _limited(valid, seconds, seconds)
    if not valid:
        also = "; it has to return True for a valid item." if valid is None else "."
        raise Rejected(
            f"validate_item returned {valid!r}.",
            hint="raise ValueError('why') in validate_item to store a reason" + also,
            cli_hint="validate_item can raise ValueError to store a reason" + also,
            web_hint="validate_item can raise ValueError to store a reason" + also,
        )
