"""BaseProcessor: the class a developer writes."""

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

USUAL_SET = 500
RESULT_KEYS = frozenset({"target_table", "target_id", "processed_data"})


class BaseProcessor(Generic[T]):
    """Business logic for one batch type.

    ``class CustomerDataProcessor(BaseProcessor[Customer])`` handles batch type ``customer_data``.
    The type parameter is anything a pydantic TypeAdapter takes; each record is validated into
    ``item.data`` before anything else happens. Without it ``item.data`` is ``item.source_data``.

    Only `process_item` is required, or `process_items`. One instance serves all items of all
    batches of its type, concurrently: keep no state on it.

    Attributes:
        batch_type: The batch type; derived from the class name when empty.
        null_values: The string or strings that the model sees as None; `source_data` stays as it
            is.
        item_timeout: Seconds for validating and preparing, and again for processing, an item;
            None takes the setting (60).
        hook_timeout: Seconds that each hook of a batch may take (on_batch_start, check,
            on_batch_complete, after_batch_complete); None takes the longer of `item_timeout` and
            the setting `item_timeout` (60).
        concurrency: Items at once in one process; None takes the manager's.
        prepare_concurrency: `prepare_item` calls at once in one process.
        max_attempts: Stored tries after which `Retry` and `retry_on` fail the item.
        retry_on: Exceptions that mean the same as raising `Retry`.
        defer_on: "foreign_key": a violated foreign key means the same as raising `Defer`.
        commit_interval: Items that share a transaction; a failing one is undone alone all the
            same. None: 1, or 500 with `process_items`.
        table: With a model, `key` and no method: the table into which ``item.data`` is upserted.
        key: The column or columns of a unique constraint of `table`.
        pause_after: Consecutive exceptions of one group that pause the batch: an int, None for
            never, or "setting" for the setting (50).
        max_failures: Failed items beyond which a batch pauses; None for any number.
        max_failure_rate: Their share (0-1) of the items with an outcome; None for any.
        min_processed: Items with an outcome before the rate counts.
        on_duplicate: What happens to an item with the `item_key` of an earlier one of its batch:
            "process", "skip" or "fail".
        skip_unchanged: Skip a record whose key was last completed with the same content.
        version: Belongs to the content: a changed one imports every record again.
        only_one: Run one batch of this type at a time; another one waits (True or "wait"), or is
            refused ("refuse").
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
        """What a record is called: a text, a number or a tuple of them; None for no key.

        It gets the record as it is stored, before any model, when the batch is created. A key of
        another kind, or an exception, fails the item.
        """
        return None

    def lock_key(self, record: dict[str, Any]) -> object:
        """Which records must take effect in their order: those that return the same key.

        For a processor whose writes collide on something that neither `item_key` nor a declared
        `key` names. A text, a number or a tuple of them; None for a record that no other has to
        wait for. It gets the record as it is stored, before any model, when the batch is created.
        A key of another kind, or an exception, fails the item.
        """
        return None

    def validate_item(self, item: ImportBatchItem[T], ctx: ImportContext) -> object:
        """Say whether the item may be processed; plain or async.

        A falsy value fails the item with kind validation, and so does any exception, whose
        message becomes the reason. Database methods of `ctx` only read here.
        """
        return True

    async def prepare_item(self, item: ImportBatchItem[T], ctx: ImportContext) -> Any:
        """Do what needs no transaction: call other systems, parse, compute.

        Runs with no connection held; many items can wait here at once. What it returns is
        ``item.prepared`` in `process_item`, also when that is repeated.
        """
        return None

    async def process_item(
        self, item: ImportBatchItem[T], ctx: ImportContext
    ) -> Mapping[str, Any] | Skip | None:
        """Write the item's effects through `ctx`, inside the item's own transaction.

        Return a dict with any of target_table, target_id and processed_data, or `Skip(reason)`,
        or None. What was written commits together with the outcome. Raising anything rolls it
        back and fails the item; `Retry` tries again later, `Defer` once the others have run. It
        may run more than once for an item, so calls to other systems belong into `prepare_item`,
        with ``item.idempotency_key``.
        """
        raise NotImplementedError

    async def process_items(
        self, items: Sequence[ImportBatchItem[T]], ctx: ImportContext
    ) -> Sequence[Mapping[str, Any] | Skip | None] | None:
        """Write the effects of many items at once; instead of `process_item`.

        Return what `process_item` would, for each item in order, or None when all completed.
        Raising undoes all of it; then a part of the items is tried, until the bad one stands
        alone and fails. ``ctx.item`` is None; log lines belong to the batch.
        """
        raise NotImplementedError

    async def on_batch_start(self, ctx: ImportContext) -> None:
        """Run once per batch, before its first item, in a transaction of its own."""

    def resources(self, ctx: ImportContext) -> AbstractAsyncContextManager[Any]:
        """What items share in one process: an HTTP client, a lookup table.

        Entered once per draining process, also on resume; what it yields is ``ctx.shared``.
        """
        return nullcontext()

    async def on_connection(self, connection: Connection) -> None:
        """Set up a connection taken for items: temporary tables, SET. Must be repeatable."""

    async def check(self, ctx: ImportContext) -> bool | None:
        """Say whether what was imported adds up, in the transaction that finishes the batch.

        When it raises, or returns False, the batch ends failed and says why: name both figures.
        It runs before `on_batch_complete`, for a reprocessing (``ctx.batch.parent_batch_id``)
        as well, and should only read.
        """
        return None

    async def on_batch_complete(self, summary: BatchSummary, ctx: ImportContext) -> None:
        """Run in the transaction that finishes the batch: its effects happen exactly once.

        When it raises, the batch is failed with that error and stays unfinished;
        `process_batch` then runs only this hook again.
        """

    async def after_batch_complete(self, summary: BatchSummary, ctx: ImportContext) -> None:
        """Run after the batch has finished, at least once: for notifications."""

    @classmethod
    def overrides(cls, hook: str) -> bool:
        """Whether a subclass defines this hook."""
        return getattr(cls, hook) is not getattr(BaseProcessor, hook)

    @classmethod
    def model(cls) -> TypeAdapter[Any] | None:
        """The adapter of the declared model, if there is one."""
        return cls._adapter


def _declared_model(cls: type[Any]) -> Any | None:
    """The type argument of the nearest ``BaseProcessor[…]`` among the direct bases."""
    for base in getattr(cls, "__orig_bases__", ()):
        if isinstance(get_origin(base), type) and issubclass(get_origin(base), BaseProcessor):
            (model,) = get_args(base)[:1] or (None,)
            return None if model is None or hasattr(model, "__bound__") else model
    return None


def can_process(cls: type[BaseProcessor[Any]]) -> bool:
    """Whether a class says what happens to an item."""
    return cls.overrides("process_item") or is_set_wise(cls)


def is_set_wise(cls: type[BaseProcessor[Any]]) -> bool:
    """Whether a class takes many items at once; then it never gets one through `process_item`."""
    return cls.overrides("process_items") or is_declared(cls)


def is_declared(cls: type[BaseProcessor[Any]]) -> bool:
    """Whether a class has no method, and its table and key say what happens to its items."""
    return bool(cls.table) and not (cls.overrides("process_item") or cls.overrides("process_items"))


def model_of(cls: type[BaseProcessor[Any]]) -> Any | None:
    """The declared model itself, if there is one."""
    return cls._model


def fields_of(cls: type[BaseProcessor[Any]]) -> tuple[str, ...]:
    """The names of the fields of a class's model; none where it is no model with fields."""
    model = cls._model
    if isinstance(model, type) and issubclass(model, BaseModel):
        return tuple(model.model_fields)
    if isinstance(model, type) and is_dataclass(model):
        return tuple(field.name for field in fields(model))
    return ()


def key_of(processor: BaseProcessor[Any]) -> tuple[str, ...]:
    """The columns of a declared key; a text is one column and not its letters."""
    return _texts(processor.key)


def null_values_of(processor: BaseProcessor[Any]) -> tuple[str, ...]:
    """The strings that a processor's model sees as None."""
    return _texts(processor.null_values)


def _texts(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def interval_of(processor: BaseProcessor[Any]) -> int:
    """How many items share a transaction."""
    usual = USUAL_SET if is_set_wise(type(processor)) else 1
    return processor.commit_interval or usual


def check_processor(processor: BaseProcessor[Any]) -> None:
    """Refuse a processor that could never process an item.

    Raises:
        NotAProcessor: `process_item` is missing or not async, or a hook has the wrong shape.
    """
    cls = type(processor)
    where = f"{cls.__module__}.{cls.__qualname__}"
    if not can_process(cls):
        raise NotAProcessor(
            f"{where} defines no process_item.",
            hint="write `async def process_item(self, item, ctx)`, or process_items.",
        )
    key = key_of(processor)
    if is_declared(cls) and not (key and set(key) <= set(fields_of(cls))):
        raise NotAProcessor(
            f"{where} declares a table without a model that has its key.",
            hint="class YourProcessor(BaseProcessor[YourModel]), with key = 'field' or a tuple.",
        )
    if cls.defer_on not in (None, "foreign_key"):
        raise NotAProcessor(
            f"{where}.defer_on is {cls.defer_on!r}.",
            hint='"foreign_key" is all it can be; raise Defer("…") for any other reason to wait.',
        )
    for name in (
        "process_item",
        "process_items",
        "prepare_item",
        "on_batch_start",
        "on_connection",
        "check",
        "on_batch_complete",
        "after_batch_complete",
    ):
        if not inspect.iscoroutinefunction(getattr(cls, name)):
            raise NotAProcessor(f"{where}.{name} must be `async def`.")
    try:
        check_commit_interval(cls.commit_interval)
    except ConfigurationError as exc:
        raise NotAProcessor(f"{where}: {exc.message}", hint=exc.hint) from None
    if inspect.iscoroutinefunction(cls.resources) or inspect.isasyncgenfunction(cls.resources):
        raise NotAProcessor(
            f"{where}.resources must return an async context manager.",
            hint="decorate an async generator with contextlib.asynccontextmanager.",
        )


def check_commit_interval(value: object) -> None:
    """Refuse a number of items that share a transaction; None stands for the processor's own.

    Raises:
        ConfigurationError: It is no positive whole number.
    """
    whole = isinstance(value, int) and not isinstance(value, bool)
    if value is not None and not (whole and value >= 1):  # type: ignore[operator]  # it is an int
        raise ConfigurationError(
            f"commit_interval is {value!r}.", hint="give a whole number, 1 or more."
        )


def as_outcome(result: object) -> Completed | Skip:
    """What `process_item` returned, checked.

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
        _name(result.get("target_table")), _name(result.get("target_id")), _json(result)
    )


def as_outcomes(results: object, count: int) -> list[Completed | Skip]:
    """What `process_items` returned for so many items, checked.

    Raises:
        ProcessorResultError: It is neither None nor one result for each item.
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
            hint="return one for each item, in their order, or None.",
        )
    return [as_outcome(result) for result in results]


def _name(value: object) -> str | None:
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
            hint="use plain values, pydantic models or dataclasses.",
        ) from exc
    return storable_json(text)
