"""`BaseProcessor`, the class that a developer subclasses, and the checks of subclasses and results.

The functions below the class read a processor's declaration: its model, key, commit interval and
the hooks that it overrides.
"""

import inspect
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import fields, is_dataclass
from typing import Any, ClassVar, Generic, get_args, get_origin

from pydantic import BaseModel, TypeAdapter

from .. import exact_json
from ..database.guard import Connection
from ..errors import ConfigurationError, NotAProcessor, ProcessorResultError
from ..models import BatchSummary, ImportBatchItem, T
from ..outcomes import COMPLETED, Completed, Skip
from ..sanitize import storable, storable_json
from ..wording import counted
from .context import ImportContext

DEFAULT_SET_SIZE = 500
ASYNC_HOOKS = (
    "process_item",
    "process_items",
    "prepare_item",
    "on_batch_start",
    "on_connection",
    "check",
    "on_batch_complete",
    "after_batch_complete",
)
RESULT_KEYS = frozenset({"target_table", "target_id", "processed_data"})


class BaseProcessor(Generic[T]):
    """Business logic for one batch type.

    ``class CustomerDataProcessor(BaseProcessor[Customer])`` handles batch type ``customer_data``.
    The type parameter is any type that a pydantic TypeAdapter accepts; each record is validated
    into ``item.data`` first. Without a type parameter, ``item.data`` is ``item.source_data``.

    A subclass has to define `process_item` or `process_items`. One instance processes all items of
    all batches of its type concurrently, so it must not keep state.

    Attributes:
        batch_type: The batch type; derived from the class name if empty.
        null_values: The string or strings that the model sees as None; `source_data` keeps them.
        item_timeout: Seconds for validating and preparing an item, and again for processing it;
            None takes the setting (60).
        hook_timeout: Seconds that each hook of a batch may take (on_batch_start, check,
            on_batch_complete, after_batch_complete); None takes the longer of `item_timeout` and
            the setting `item_timeout` (60).
        concurrency: How many items run at once in one process; None takes the manager's number.
        prepare_concurrency: How many `prepare_item` calls run at once in one process.
        max_attempts: Stored attempts after which `Retry` and `retry_on` fail the item.
        retry_on: Exceptions that mean the same as raising `Retry`.
        defer_on: "foreign_key" if a violated foreign key means the same as raising `Defer`.
        commit_interval: How many items share a transaction; an item that fails is still rolled
            back alone. None means 1, or 500 with `process_items`.
        table: With a model, `key` and no method: the table into which ``item.data`` is upserted.
        key: The column or columns of a unique constraint of `table`.
        pause_after: Consecutive exceptions of one group that pause the batch: an int, None for
            never, or "setting" for the setting (50).
        max_failures: The batch pauses when more items fail; None for no limit.
        max_failure_rate: The batch pauses when a larger share (0 to 1) of its settled items
            failed; None for no limit.
        min_processed: Settled items before the rate is checked.
        on_duplicate: What to do with an item whose `item_key` already occurred earlier in its
            batch: "process", "skip" or "fail".
        skip_unchanged: Whether to skip a record whose key was last completed with the same content.
        version: A part of the content; changing it imports every record again.
        only_one: Whether only one batch of this type runs at a time: a second batch waits (True or
            "wait") or is refused ("refuse").
    """

    batch_type: ClassVar[str] = ""
    null_values: ClassVar[str | Sequence[str]] = ()
    item_timeout: ClassVar[float | None] = None
    hook_timeout: ClassVar[float | None] = None
    concurrency: ClassVar[int | None] = None
    prepare_concurrency: ClassVar[int] = 100
    max_attempts: ClassVar[int] = 5
    retry_on: ClassVar[tuple[type[BaseException], ...]] = ()
    defer_on: ClassVar[str | None] = None
    pause_after: ClassVar[int | str | None] = "setting"
    max_failures: ClassVar[int | None] = None
    max_failure_rate: ClassVar[float | None] = None
    min_processed: ClassVar[int] = 100
    commit_interval: ClassVar[int | None] = None
    table: ClassVar[str] = ""
    key: ClassVar[str | Sequence[str]] = ()
    on_duplicate: ClassVar[str] = "process"
    skip_unchanged: ClassVar[bool] = False
    version: ClassVar[str | int] = ""
    only_one: ClassVar[bool | str] = False

    _adapter: ClassVar[TypeAdapter[Any] | None] = None
    _model: ClassVar[Any] = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        model = _declared_model(cls)
        if model is not None:
            cls._adapter = TypeAdapter(model)
            cls._model = model

    def item_key(self, record: dict[str, Any]) -> object:
        """Return the record's key: a text, a number or a tuple of them; None for no key.

        It receives the stored record, before the model, when the batch is created. If it returns
        anything else, or raises, the item fails.
        """
        return None

    def lock_key(self, record: dict[str, Any]) -> object:
        """Return a key; records with the same key take effect in their order.

        Define it if the writes of items collide on a key that neither `item_key` nor the declared
        `key` covers. The key is a text, a number or a tuple of them; None for a record that needs
        no order. It receives the stored record, before the model, when the batch is created. If it
        returns anything else, or raises, the item fails.
        """
        return None

    def validate_item(self, item: ImportBatchItem[T], ctx: ImportContext) -> object:
        """Return whether the item may be processed; plain or async.

        A falsy value or an exception fails the item with kind validation; the exception's message
        becomes the reason. The database methods of `ctx` can only read here.
        """
        return True

    async def prepare_item(self, item: ImportBatchItem[T], ctx: ImportContext) -> Any:
        """Do the work that needs no transaction: call other systems, parse, compute.

        No connection is held meanwhile, so many items can wait here at once. The returned value is
        ``item.prepared`` in `process_item`, even if that runs more than once.
        """
        return None

    async def process_item(
        self, item: ImportBatchItem[T], ctx: ImportContext
    ) -> Mapping[str, Any] | Skip | None:
        """Write the item's effects through `ctx`, inside the item's own transaction.

        Return a dict with any of target_table, target_id and processed_data, or `Skip(reason)`,
        or None. The writes commit together with the outcome. An exception rolls them back and
        fails the item; `Retry` runs it again later, `Defer` when the other items have run. The
        method may run more than once for an item, so call other systems in `prepare_item`, with
        ``item.idempotency_key``.
        """
        raise NotImplementedError

    async def process_items(
        self, items: Sequence[ImportBatchItem[T]], ctx: ImportContext
    ) -> Sequence[Mapping[str, Any] | Skip | None] | None:
        """Write the effects of many items at once, instead of `process_item`.

        Return the result of each item in order, as from `process_item`, or None if all completed.
        An exception rolls all of them back; smaller sets are then tried, until only the item at
        fault is alone and fails. ``ctx.item`` is None; log lines belong to the batch.
        """
        raise NotImplementedError

    async def on_batch_start(self, ctx: ImportContext) -> None:
        """Run once per batch, before its first item, in its own transaction."""

    def resources(self, ctx: ImportContext) -> AbstractAsyncContextManager[Any]:
        """Open the resources that items share in one process: an HTTP client, a lookup table.

        The context manager is entered once per process that works on the batch, also on resume;
        the value it yields is ``ctx.shared``.
        """
        return nullcontext()

    async def on_connection(self, connection: Connection) -> None:
        """Set up a connection for items: temporary tables, SET. It may run more than once."""

    async def check(self, ctx: ImportContext) -> bool | None:
        """Check the imported data as a whole, in the transaction that finishes the batch.

        If it raises or returns False, the batch ends as failed, with the exception's message as
        the reason. It runs before `on_batch_complete`, also for a reprocessing
        (``ctx.batch.parent_batch_id``), and should only read.
        """
        return None

    async def on_batch_complete(self, summary: BatchSummary, ctx: ImportContext) -> None:
        """Run in the transaction that finishes the batch; its effects happen exactly once.

        If it raises, the batch is failed with that error and stays unfinished; `process_batch`
        then runs only this hook again.
        """

    async def after_batch_complete(self, summary: BatchSummary, ctx: ImportContext) -> None:
        """Run at least once after the batch has finished, for notifications."""

    @classmethod
    def overrides(cls, hook: str) -> bool:
        """Whether a subclass defines this hook."""
        return getattr(cls, hook) is not getattr(BaseProcessor, hook)

    @classmethod
    def model(cls) -> TypeAdapter[Any] | None:
        """The adapter of the declared model, if there is one."""
        return cls._adapter


def can_process(cls: type[BaseProcessor[Any]]) -> bool:
    """Whether a class defines how to process items."""
    return cls.overrides("process_item") or is_set_wise(cls)


def is_set_wise(cls: type[BaseProcessor[Any]]) -> bool:
    """Whether a class processes many items at once, and never uses `process_item`."""
    return cls.overrides("process_items") or is_declared(cls)


def is_declared(cls: type[BaseProcessor[Any]]) -> bool:
    """Whether a class upserts items into its declared table instead of defining a method."""
    return bool(cls.table) and not (cls.overrides("process_item") or cls.overrides("process_items"))


def model_of(cls: type[BaseProcessor[Any]]) -> Any | None:
    """The declared model itself, if there is one."""
    return cls._model


def fields_of(cls: type[BaseProcessor[Any]]) -> tuple[str, ...]:
    """The names of the fields of a class's model; none if it has no model with fields."""
    model = cls._model
    if isinstance(model, type) and issubclass(model, BaseModel):
        return tuple(model.model_fields)
    if isinstance(model, type) and is_dataclass(model):
        return tuple(field.name for field in fields(model))
    return ()


def key_of(processor: BaseProcessor[Any]) -> tuple[str, ...]:
    """The columns of a declared key; a string is one column, not a sequence of letters."""
    return _texts(processor.key)


def null_values_of(processor: BaseProcessor[Any]) -> tuple[str, ...]:
    """The strings that a processor's model sees as None."""
    return _texts(processor.null_values)


def interval_of(processor: BaseProcessor[Any]) -> int:
    """How many items share a transaction."""
    default = DEFAULT_SET_SIZE if is_set_wise(type(processor)) else 1
    return processor.commit_interval or default


def check_processor(processor: BaseProcessor[Any]) -> None:
    """Check that a processor can process items.

    Raises:
        NotAProcessor: `process_item` is missing or not async, or a hook or an attribute is wrong.
    """
    cls = type(processor)
    name = f"{cls.__module__}.{cls.__qualname__}"
    if not can_process(cls):
        raise NotAProcessor(
            f"{name} does not define process_item.",
            hint="write `async def process_item(self, item, ctx)`, or process_items.",
        )
    key = key_of(processor)
    if is_declared(cls) and not (key and set(key) <= set(fields_of(cls))):
        raise NotAProcessor(
            f"{name} declares a table, but no model with the fields of its key.",
            hint="write class YourProcessor(BaseProcessor[YourModel]), with key = 'field' or a "
            "tuple.",
        )
    if cls.defer_on not in (None, "foreign_key"):
        raise NotAProcessor(
            f"{name}.defer_on is {cls.defer_on!r}.",
            hint='use "foreign_key" or None; raise Defer("…") to wait for any other reason.',
        )
    try:
        check_commit_interval(cls.commit_interval)
    except ConfigurationError as exc:
        raise NotAProcessor(f"{name}: {exc.message}", hint=exc.hint) from None
    _check_hooks(cls, name)


def check_commit_interval(value: object) -> None:
    """Check a commit interval; None stands for the processor's own.

    Raises:
        ConfigurationError: It is not a positive whole number.
    """
    whole = isinstance(value, int) and not isinstance(value, bool)
    if value is not None and not (whole and value >= 1):  # type: ignore[operator]  # it is an int
        raise ConfigurationError(
            f"commit_interval is {value!r}.", hint="use a whole number, 1 or more."
        )


def as_outcome(result: object) -> Completed | Skip:
    """The outcome for a value that `process_item` returned.

    Raises:
        ProcessorResultError: It is neither a dict of the known keys, nor Skip, nor None.
    """
    if result is None:
        return COMPLETED
    if isinstance(result, Skip):
        return Skip(storable(str(result.reason), 2_048))
    if not isinstance(result, Mapping):
        raise ProcessorResultError(
            f"process_item returned {type(result).__name__}.",
            hint="return a dict, Skip('reason') or None.",
            cli_hint="the processor has to return a dict, a Skip or None.",
            web_hint="the processor has to return a dict, a Skip or None.",
        )
    if unknown := [key for key in result if key not in RESULT_KEYS]:
        raise ProcessorResultError(
            f"process_item returned unknown keys: {', '.join(map(repr, unknown))}.",
            hint="the keys are target_table, target_id and processed_data; "
            "put everything else into processed_data.",
        )
    return Completed(
        reported_name(result.get("target_table")),
        reported_name(result.get("target_id")),
        _json(result),
    )


def as_outcomes(results: object, count: int) -> list[Completed | Skip]:
    """The outcomes for a value that `process_items` returned for `count` items.

    Raises:
        ProcessorResultError: It is neither None nor a list with one result for each item.
    """
    if results is None:
        return [COMPLETED] * count
    if not isinstance(results, Sequence) or isinstance(results, str):
        raise ProcessorResultError(
            f"process_items returned {type(results).__name__}.",
            hint="return a list with one result for each item, or None.",
        )
    if len(results) != count:
        raise ProcessorResultError(
            f"process_items returned {counted(len(results), 'result')} for "
            f"{counted(count, 'item')}.",
            hint="return one result for each item, in order, or None.",
        )
    return [as_outcome(result) for result in results]


def _declared_model(cls: type[Any]) -> Any | None:
    """The type argument of the nearest ``BaseProcessor[…]`` among the direct bases."""
    for base in getattr(cls, "__orig_bases__", ()):
        if isinstance(get_origin(base), type) and issubclass(get_origin(base), BaseProcessor):
            (model,) = get_args(base)[:1] or (None,)
            return None if model is None or hasattr(model, "__bound__") else model
    return None


def _texts(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _check_hooks(cls: type[BaseProcessor[Any]], name: str) -> None:
    for hook in ASYNC_HOOKS:
        if not inspect.iscoroutinefunction(getattr(cls, hook)):
            raise NotAProcessor(
                f"{name}.{hook} is not async.", hint=f"write `async def {hook}(…)`."
            )
    if inspect.iscoroutinefunction(cls.resources) or inspect.isasyncgenfunction(cls.resources):
        raise NotAProcessor(
            f"{name}.resources does not return an async context manager.",
            hint="decorate an async generator with contextlib.asynccontextmanager.",
        )


def reported_name(value: object) -> str | None:
    """A table or a key that an item reported, as it is stored."""
    return None if value is None else storable(str(value), 1_024)


def _json(result: Mapping[str, Any]) -> str | None:
    value = result.get("processed_data")
    if value is None:
        return None
    try:
        text = exact_json.write(value, inf_nan_mode="strings").decode()
    except Exception as exc:
        raise ProcessorResultError(
            f"processed_data cannot be stored as JSON: {exc}",
            hint="use only values that JSON can represent, pydantic models or dataclasses.",
        ) from exc
    return storable_json(text)
