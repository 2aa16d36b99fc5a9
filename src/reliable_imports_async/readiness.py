"""What happens to an item before its transaction: the model, validate_item, prepare_item."""

import inspect
from typing import Any

from anyio import to_thread
from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from .context import ImportContext
from .errors import Rejected
from .models import ImportBatchItem
from .outcomes import FailureKind
from .processors import BaseProcessor, null_values_of

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
