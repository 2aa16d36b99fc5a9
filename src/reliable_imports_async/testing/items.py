"""Runs a record through the engine's own code, inside a savepoint of the caller's transaction."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

import anyio
import asyncpg

from .. import exact_json
from ..cancellation import TimeLimit, must_propagate
from ..database.guard import Connection, Trace, is_lost
from ..database.pool import Database
from ..errors import ConfigurationError
from ..execution.attempt import Attempt
from ..execution.executor import Executor, repeated
from ..execution.prepare import Prepared, with_data
from ..execution.session import ROUND_TRIP_SECONDS
from ..failures import parse_failure
from ..loading.records import Limits, StoredRecord, from_value
from ..models import BatchStatus, ImportBatch, ImportBatchItem
from ..outcomes import Conflict, Failed, Outage, Outcome
from ..processors.processor import BaseProcessor
from ..processors.registry import Registry
from ..processors.thresholds import FailureLimits
from ..settings import Settings

BATCH_ID = UUID("00000000-0000-7000-8000-000000000000")

AnyProcessor = BaseProcessor[Any] | type[BaseProcessor[Any]]


def make_item(
    record: object,
    *,
    processor: AnyProcessor | None = None,
    item_number: int = 1,
    **fields: Any,
) -> ImportBatchItem[Any]:
    """An item as a processor sees it; dates and decimals in its record have become JSON.

    Args:
        record: A dict, a model or a dataclass.
        processor: Reads the record into its model, as ``item.data``.
        item_number: The item's number.
        fields: Other fields of `ImportBatchItem`.

    Raises:
        pydantic.ValidationError: The model does not accept the record.
        ConfigurationError: The record cannot be stored as JSON.
    """
    stored = _stored(record, Settings())
    if stored.text is None:
        raise ConfigurationError(f"The record cannot be stored: {stored.reason}.")
    item = _item(stored.text, item_number=item_number, **fields)
    return item if processor is None else with_data(_checked(processor)[1], item)


async def run_item(
    processor: AnyProcessor,
    record: object,
    *,
    conn: Connection,
    metadata: Mapping[str, Any] | None = None,
    shared: Any = None,
    **fields: Any,
) -> Outcome:
    """Validate, prepare and process one record, and return its outcome.

    The effects of a completed or skipped item stay in the caller's transaction, so that a test
    can check them. The effects of a failed item are rolled back to a savepoint, and nothing is
    raised. The library's own tables are not needed.

    Args:
        processor: A class or an instance; its `on_connection` runs first.
        record: A dict, a model or a dataclass.
        conn: A connection inside a transaction, which the test rolls back.
        metadata: The batch's metadata.
        shared: The value of ``ctx.shared``.
        fields: Other fields of the item, such as ``attempts``.

    Raises:
        ConfigurationError: `conn` is not in a transaction.
        NotAProcessor: The processor could not be registered.
        Exception: The connection broke; the item has no outcome.
    """
    if not conn.is_in_transaction():
        raise ConfigurationError(
            "run_item needs a connection that is inside a transaction.",
            hint="wrap the test in `async with conn.transaction():`, or roll back at its end.",
        )
    settings = Settings()
    batch_type, instance = _checked(processor)
    stored = _stored(record, settings)
    if stored.text is None:
        return Failed(parse_failure(stored.reason or ""))
    batch = _batch(batch_type, metadata or {})
    database, limits = _Borrowed(conn, settings), FailureLimits(None)
    executor = Executor(batch, instance, database, settings, shared=shared, limits=limits)
    await instance.on_connection(conn)
    try:
        return await _run(executor, _item(stored.text, **fields), conn)
    except Outage as outage:
        raise outage.__cause__ or outage from None


async def _run(executor: Executor, item: ImportBatchItem[Any], conn: Connection) -> Outcome:
    """Take an item to its outcome as the engine does, but store nothing about it.

    Raises:
        Outage: The connection broke. The engine would wait for the server.
    """
    prepared = await executor.prepare(item)
    try:
        with TimeLimit() as limit:
            outcome = prepared.refused or await repeated(
                lambda: _transact(executor, prepared, conn, limit)
            )
    finally:
        prepared.leave()
    if isinstance(outcome, Conflict):
        return executor.after_conflicts(item, outcome.failure)
    return outcome


async def _transact(
    executor: Executor, prepared: Prepared, conn: Connection, limit: TimeLimit
) -> Outcome | Conflict:
    """Run the item's transaction: a savepoint, with the checks of COMMIT at its end."""
    prepared.rewind()
    savepoint = conn.transaction()
    await savepoint.start()
    item, ctx, attempt = prepared.item, prepared.ctx, Attempt(None, conn)
    with attempt as guard:
        ctx._enter(guard, item)  # noqa: SLF001
        outcome = await executor.invoker.call(item, ctx, limit)
        attempt.finish()
        async with _undone(conn):  # constraints stay deferred for the caller
            await conn.execute("SET CONSTRAINTS ALL IMMEDIATE")
        await savepoint.commit()
    if attempt.raised is None:
        return outcome
    await attempt.conclude(attempt.raised)
    undone = await _roll_back(savepoint)
    if must_propagate(attempt.raised):
        raise attempt.raised
    broken = is_lost(conn) or (attempt.undisturbed and not undone)
    return executor.outcome_of(attempt.raised, item, own=attempt.own, broken=broken)


async def _roll_back(savepoint: "asyncpg.transaction.Transaction") -> bool:
    """Roll back to a savepoint; False: the connection did not answer, or has no transaction."""
    with anyio.move_on_after(ROUND_TRIP_SECONDS, shield=True):
        try:
            await savepoint.rollback()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        return True
    return False


class _Borrowed(Database):
    """Lends the caller's connection, to one reader at a time, and only for reading."""

    def __init__(self, conn: Connection, settings: Settings) -> None:
        super().__init__(settings)
        self._conn = conn

    @asynccontextmanager
    async def reading(self, trace: Trace = Trace.NONE) -> AsyncIterator[Connection]:
        async with self._reader, _undone(self._conn):
            # A nested transaction(readonly=True) of asyncpg is a plain savepoint.
            await self._conn.execute("SET TRANSACTION READ ONLY")
            yield self._conn


@asynccontextmanager
async def _undone(conn: Connection) -> AsyncIterator[None]:
    """A savepoint that is rolled back in any case, with the settings made in it."""
    savepoint = conn.transaction()
    await savepoint.start()
    try:
        yield
    finally:
        with anyio.fail_after(ROUND_TRIP_SECONDS, shield=True):
            await savepoint.rollback()


def _checked(processor: AnyProcessor) -> tuple[str, BaseProcessor[Any]]:
    """The batch type and the instance of a processor.

    Raises:
        NotAProcessor: It could not be registered.
    """
    registry = Registry()
    batch_type = registry.register(processor)
    return batch_type, registry.get(batch_type)


def _stored(record: object, settings: Settings) -> StoredRecord:
    limits = Limits(settings.max_record_bytes, settings.max_record_depth)
    return from_value(record, limits=limits)


def _item(text: bytes, **fields: Any) -> ImportBatchItem[Any]:
    source = exact_json.read(text.decode())
    usual = {"batch_id": BATCH_ID, "item_number": 1, "source_data": source, "data": source}
    return ImportBatchItem(**{**usual, **fields})


def _batch(batch_type: str, metadata: Mapping[str, Any]) -> ImportBatch:
    now = datetime.now(UTC)
    return ImportBatch(
        id=BATCH_ID,
        batch_type=batch_type,
        status=BatchStatus.PROCESSING,
        parent_batch_id=None,
        root_batch_id=BATCH_ID,
        created_by=None,
        metadata=MappingProxyType(dict(metadata)),
        options={},
        source_name=None,
        source_columns=None,
        total_items=1,
        pause_reason=None,
        error=None,
        created_at=now,
        started_at=now,
        finished_at=None,
    )
