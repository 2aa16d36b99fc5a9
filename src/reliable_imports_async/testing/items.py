"""One record through the engine's own code, inside a savepoint of the caller's transaction."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, cast
from uuid import UUID

import anyio

from .. import exact_json
from ..database.guard import Connection, PooledConnection, Trace
from ..database.pool import Database
from ..errors import ConfigurationError
from ..execution.executor import Executor
from ..execution.prepare import with_data
from ..execution.session import ROUND_TRIP_SECONDS, Outage, Session
from ..failures import parse_failure
from ..loading.records import Limits, StoredRecord, from_value
from ..log_buffer import LogLine
from ..models import BatchStatus, ImportBatch, ImportBatchItem
from ..outcomes import Completed, Failed, Outcome, Skip
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
        item_number: Its number.
        fields: Any other field of `ImportBatchItem`.

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
    """Validate, prepare and process one record; what became of it.

    The effects of a completed or skipped item stay in the caller's transaction, so that a test
    can look at them; those of a failed one are rolled back to a savepoint. Nothing is raised for
    a failing item. The library's own tables are not needed.

    Args:
        processor: A class or an instance; its `on_connection` runs first.
        record: A dict, a model or a dataclass.
        conn: A connection inside a transaction, which the test rolls back.
        metadata: The batch's metadata.
        shared: What ``ctx.shared`` is.
        fields: Other fields of the item, such as ``attempts``.

    Raises:
        ConfigurationError: `conn` is in no transaction.
        NotAProcessor: The processor could not be registered either.
        Exception: The connection broke, which is no verdict on the item.
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
    database = _Borrowed(conn, settings)
    trial = _Trial(batch, instance, database, settings, shared=shared, streak=FailureLimits(None))
    await instance.on_connection(conn)
    async with _Savepoint(database, instance, trial.item_timeout, conn) as savepoint:
        return await trial.run(_item(stored.text, **fields), savepoint)


class _Trial(Executor):
    """The engine's way of an item to its outcome; nothing is stored about it."""

    async def run(self, item: ImportBatchItem[Any], session: Session) -> Outcome:
        try:
            prepared = await self.prepare(item)
            try:
                return await self._outcome(prepared, session)
            finally:
                prepared.leave()
        except Outage as outage:  # the engine would wait for the server; a test has to know
            raise outage.__cause__ or outage from None

    async def _settle(
        self,
        conn: Connection,
        item: ImportBatchItem[Any],
        outcome: Completed | Skip,
        lines: Sequence[LogLine],
    ) -> None:
        """There is no row to settle."""


class _Borrowed(Database):
    """Lends the caller's connection for reading, one at a time, and only for reading."""

    def __init__(self, conn: Connection, settings: Settings) -> None:
        super().__init__(settings)
        self._conn = conn

    def note_trace(self, conn: Connection, trace: Trace) -> None:
        """The session is the caller's."""

    @asynccontextmanager
    async def reading(self, trace: Trace = Trace.NONE) -> AsyncIterator[Connection]:
        async with self._reader, _undone(self._conn):
            # A nested transaction(readonly=True) of asyncpg is a plain savepoint.
            await self._conn.execute("SET TRANSACTION READ ONLY")
            yield self._conn


class _Savepoint(Session):
    """The caller's connection; an item's transaction is a savepoint on it."""

    def __init__(
        self,
        database: Database,
        processor: BaseProcessor[Any],
        item_timeout: float,
        conn: Connection,
    ) -> None:
        super().__init__(database, processor, item_timeout, lambda: False, ROUND_TRIP_SECONDS)
        self._conn = cast("PooledConnection", conn)  # the two have the same methods
        self._connection = self._conn

    async def begin(self) -> PooledConnection:
        self._transaction = self._conn.transaction()
        await self._transaction.start()
        return self._conn

    async def commit(self, *, chain: bool, first: str | None = None) -> None:
        """Refuse what COMMIT would refuse, such as a violated deferred constraint."""
        async with _undone(self._conn):
            await self._conn.execute("SET CONSTRAINTS ALL IMMEDIATE")
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            await transaction.commit()

    async def close(self) -> None:
        """Leave the connection to its owner."""

    async def discard(self) -> None:
        """Roll back: the connection is not ours to terminate."""
        await self.rollback()


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
    """The batch type and the instance; refused if it could not be registered."""
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
