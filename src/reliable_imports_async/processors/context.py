"""`ImportContext`: a processor's access to the database, the batch and the log."""

import logging
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import Any

import asyncpg

from ..database.guard import GuardedConnection, ReadingConnection
from ..database.upsert_sql import check_key, naming_statement, row_text, upsert_statement
from ..errors import ContextClosed, KeyIsNull, NotWritten, ProcessorError
from ..log_buffer import LEVELS, LogBuffer, LogMethods
from ..models import ImportBatch, ImportBatchItem, LogLevel
from ..store.catalog import Catalog, Columns, nulls_are_equal

logger = logging.getLogger("reliable_imports_async")

Upserting = Callable[[ImportBatchItem[Any] | None, tuple[str, ...], Mapping[str, Any]], None]
"""Called before each upsert with the item, the columns of the key and the values."""

READ_ONLY_HERE = "the processor can only read here; it has to write in process_item."
_NO_CHANGES: Mapping[str, Any] = MappingProxyType({})


class ImportContext(LogMethods):
    """Database access, logging and the batch, for one item or one batch hook.

    Attributes:
        batch: The batch.
        item: The item; None in a batch hook.
        metadata: The metadata of the batch; read-only, see `set_metadata`.
        shared: The value that the processor's `resources` yielded.
        dry_run: Whether everything will be rolled back in the end.
        changes: The metadata that `set_metadata` has set in this hook.
    """

    __slots__ = (
        "_catalog",
        "_database",
        "_log_buffer",
        "_new_log",
        "_of_items",
        "_upserting",
        "batch",
        "changes",
        "dry_run",
        "item",
        "shared",
    )

    def __init__(
        self,
        batch: ImportBatch,
        database: GuardedConnection | ReadingConnection | None,
        *,
        item: ImportBatchItem[Any] | None = None,
        shared: Any = None,
        log: LogBuffer | None = None,
        new_log: Callable[[], LogBuffer] = LogBuffer,
        of_items: bool = False,
        catalog: Catalog | None = None,
    ) -> None:
        self._catalog = catalog or Catalog()
        self._of_items = of_items  # the context of a whole set
        self._upserting: Upserting | None = None
        self.batch = batch
        self.item = item
        self.shared = shared
        self.dry_run = False
        self._database = database
        self._log_buffer = log
        self._new_log = new_log  # called when first needed: few items log anything
        self.changes = _NO_CHANGES

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The batch's metadata, including changes made in this hook."""
        if self.changes:
            return MappingProxyType({**self.batch.metadata, **self.changes})
        return self.batch.metadata

    def set_metadata(self, **values: Any) -> None:
        """Add to the batch's metadata, in the transaction of this batch hook.

        Raises:
            ProcessorError: It was called for an item; items run concurrently, so they must not
                share state.
        """
        if self.item is not None or self._of_items:
            raise ProcessorError(
                "set_metadata can be called only in on_batch_start and on_batch_complete.",
                hint="the processor has to return data about a single item as processed_data.",
            )
        self.changes = {**self.changes, **values}

    @property
    def connection(self) -> GuardedConnection:
        """The item's asyncpg connection, inside its transaction.

        Raises:
            ProcessorError: There is no transaction yet (in validate_item and prepare_item).
            ContextClosed: The item is already settled.
        """
        match self._session:
            case GuardedConnection() as guard:
                return guard
            case ReadingConnection():
                raise ProcessorError(
                    "There is no item transaction here.",
                    hint="use ctx.fetch, fetchrow or fetchval to read, and write in process_item.",
                    web_hint=READ_ONLY_HERE,
                    cli_hint=READ_ONLY_HERE,
                )

    # The next five return the connection's coroutine instead of awaiting it in their own, because
    # they are called for every item, often several times.

    def execute(self, sql: str, *args: Any) -> Coroutine[Any, Any, str]:
        """Run a statement; return PostgreSQL's command tag, such as ``UPDATE 1``."""
        return self._session.execute(sql, *args)

    def executemany(self, sql: str, args: Sequence[Sequence[Any]]) -> Coroutine[Any, Any, None]:
        """Run a statement once for each sequence of arguments."""
        return self._session.executemany(sql, args)

    def fetch(self, sql: str, *args: Any) -> Coroutine[Any, Any, list[asyncpg.Record]]:
        """Run a query and return its rows."""
        return self._session.fetch(sql, *args)

    def fetchrow(self, sql: str, *args: Any) -> Coroutine[Any, Any, asyncpg.Record | None]:
        """Run a query and return its first row, or None."""
        return self._session.fetchrow(sql, *args)

    execute_one = fetchrow

    def fetchval(self, sql: str, *args: Any) -> Coroutine[Any, Any, Any]:
        """Run a query and return the first value of its first row, or None."""
        return self._session.fetchval(sql, *args)

    async def upsert(
        self, table: str, values: Mapping[str, Any], *, key: str | Sequence[str]
    ) -> asyncpg.Record:
        """Insert one row, or update the row with the same key; return it.

        Args:
            table: The table, optionally with its schema.
            values: Column names and values; docs/processors.md lists the values for each type.
            key: The column or columns of a unique constraint, all among `values`.

        Raises:
            ValueRefused: A value does not fit its column, such as a naive datetime in a
                timestamptz.
            KeyIsNull: A column of the key is NULL.
            NotWritten: A trigger suppressed the row.
            ConfigurationError: The key is not among the values.
        """
        key = (key,) if isinstance(key, str) else tuple(key)
        check_key(table, values, key)
        if self._upserting is not None:  # items of one key have an order
            self._upserting(self.item, key, values)
        session = self._session
        columns = await self._columns(table, values)
        nulls = [name for name in key if values[name] is None]
        if nulls and not await nulls_are_equal(session, table, key):
            raise KeyIsNull(table, nulls)
        written = tuple(columns[name] for name in values)
        sql = upsert_statement(table, written, key, returning=True)
        row = await session.fetchrow(sql, f"[{row_text(table, written, values)}]")
        if row is None:
            raise NotWritten(table)
        return row

    async def _columns(self, table: str, names: Collection[str]) -> Columns:
        """The columns of a table; PostgreSQL reports the error if one of `names` does not exist."""
        session = self._session
        columns = await self._catalog.columns(session, table)
        if any(name not in columns for name in names):
            await session.fetch(naming_statement(table, names))
            self._catalog.forget(table)  # the columns were added in the meantime
            columns = await self._catalog.columns(session, table)
        return columns

    def savepoint(self) -> AbstractAsyncContextManager[None]:
        """``async with ctx.savepoint():`` rolls back the statements inside it if it raises."""
        return self._session.savepoint()

    @property
    def _log(self) -> LogBuffer:
        if self._log_buffer is None:
            self._log_buffer = self._new_log()
        return self._log_buffer

    @property
    def _silent(self) -> bool:
        return self._log_buffer is None or not self._log_buffer.lines

    @property
    def _session(self) -> GuardedConnection | ReadingConnection:
        if self._database is None:
            raise ContextClosed
        return self._database

    def _write(self, level: LogLevel, message: str, details: Mapping[str, Any]) -> None:
        self._log.add(level, message, details)
        if logger.isEnabledFor(LEVELS[level]):
            extra = {
                "batch_id": str(self.batch.id),
                "item_number": self.item.item_number if self.item is not None else None,
                "details": self._log.readable(details),
            }
            logger.log(LEVELS[level], "%s", self._log.redact(message), extra=extra)

    def _enter(
        self, database: GuardedConnection | ReadingConnection | None, item: ImportBatchItem[Any]
    ) -> None:
        """Move to the next phase of the same item."""
        self._database = database
        self.item = item

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
        self._database = None
