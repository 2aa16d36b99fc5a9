"""A dry run: the processor runs for every item, and every transaction is rolled back."""

from collections.abc import AsyncIterator, Sequence
from time import perf_counter
from typing import Any, cast

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from ..cancellation import must_propagate
from ..database.guard import (
    Connection,
    GuardedConnection,
    PooledConnection,
    ReadingConnection,
    Trace,
)
from ..database.pool import Database
from ..errors import BatchNotFound, DatabaseUnavailable, WrongBatchStatus
from ..execution.attempt import Attempt
from ..execution.chunk import Abandoned, ChunkExecutor
from ..execution.chunk_progress import ChunkProgress, SuspectKeys
from ..execution.executor import Executor, repeated
from ..execution.prepare import Prepared
from ..execution.savepoints import Savepoints
from ..execution.session import Session
from ..models import BatchStatus, ImportBatch, ImportBatchItem
from ..outcomes import Conflict, Failed, Outage, Outcome, Rescheduled, Skip
from ..processors.context import ImportContext
from ..processors.processor import BaseProcessor, interval_of
from ..processors.thresholds import FailureLimits
from ..settings import Settings
from ..store import batches, catalog, item_keys, items, summaries
from ..store.catalog import Rows, Tables
from .dry_run_report import ITEMS_OF_A_GROUP, DryRun, Tally

PAGE = 500
ITEMS_IN_A_TRANSACTION = 100
WITH_BATCH_START = 1_000  # because on_batch_start runs again in each transaction
ALONE = "each item was tried alone: items that depend on each other may end differently together"
CHUNKS = (
    "each chunk was tried alone: items that depend on items of other chunks may end differently"
)
SAVEPOINT = "SAVEPOINT reliable_imports_item"
ROLLBACK = "ROLLBACK TO SAVEPOINT reliable_imports_item"

Waiting = MemoryObjectReceiveStream[list[ImportBatchItem[Any]]]


class TrialRun:
    """A dry run of a batch, in this process alone; it claims no ranges and stores nothing.

    Args:
        commit_interval: Items that share a transaction; None: as the processor says.
    """

    def __init__(
        self,
        batch: ImportBatch,
        processor: BaseProcessor[Any],
        database: Database,
        settings: Settings,
        commit_interval: int | None,
    ) -> None:
        self._batch = batch
        self._processor = processor
        self._database = database
        self._settings = settings
        self._chunk_size = commit_interval or interval_of(processor)
        self._starts = processor.overrides("on_batch_start") and batch.started_at is None

    async def run(self) -> DryRun:
        """Try every pending item. Must run in a child task, as draining must.

        Raises:
            WrongBatchStatus: The batch is being processed, or has been.
            DatabaseUnavailable: The server failed.
        """
        if self._batch.status is not BatchStatus.PENDING:
            raise WrongBatchStatus(self._batch.id, self._batch.status, "tried in a dry run")
        started = perf_counter()
        tally, tables = await self._prepared()
        context = ImportContext(self._batch, ReadingConnection(self._database.reading))
        context.dry_run = True
        async with self._processor.resources(context) as shared:
            executor = Executor(
                self._batch,
                self._processor,
                self._database,
                self._settings,
                shared=shared,
                limits=FailureLimits(None),
            )
            executor.dry_run = True
            try:
                await self._run_slots(executor, tally, tables)
            except* Outage as outages:
                raise DatabaseUnavailable("the dry run", str(outages.exceptions[0])) from None
        await self._still_pending()
        return tally.report(tables.names, perf_counter() - started, notes=self._notes())

    async def _still_pending(self) -> None:
        """Refuse a batch if a part of it has been processed meanwhile."""
        async with self._database.connection() as conn:
            batch = await batches.get(conn, self._batch.id)
        if batch is None:
            raise BatchNotFound(self._batch.id)
        if batch.status is not BatchStatus.PENDING:
            raise WrongBatchStatus(batch.id, batch.status, "tried in a dry run")

    def _notes(self) -> list[str]:
        """Notes for the readers of the report."""
        prepares = self._processor.overrides("prepare_item")
        called = ["prepare_item ran for each item, including its calls to other systems"]
        tried = ALONE if self._chunk_size == 1 else CHUNKS
        return [*(called if prepares else []), "sequences have advanced", tried]

    async def _prepared(self) -> tuple[Tally, Tables]:
        async with self._database.connection() as conn:
            summary = await summaries.get(conn, self._batch.id)
            if summary is None:
                raise BatchNotFound(self._batch.id)
            unreadable = await summaries.with_values(
                conn, self._batch.id, summary.groups, ITEMS_OF_A_GROUP
            )
            return Tally(self._batch, summary, unreadable), await catalog.tables(conn)

    async def _run_slots(self, executor: Executor, tally: Tally, tables: Tables) -> None:
        limit = min(self._processor.concurrency or 1_000, self._database.concurrency)
        slots = 1 if self._starts else limit  # other connections do not see what it creates
        room = 2 * slots if self._chunk_size == 1 else 0
        send, receive = anyio.create_memory_object_stream[list[ImportBatchItem[Any]]](room)
        async with anyio.create_task_group() as group, receive, send:
            for _ in range(slots):
                group.start_soon(self._slot, executor, receive.clone(), tally, tables)
            chunk: list[ImportBatchItem[Any]] = []
            async for item in self._pending(executor, tally):
                chunk.append(item)
                if len(chunk) == self._chunk_size:
                    await send.send(chunk)
                    chunk = []
            if chunk:
                await send.send(chunk)

    async def _pending(
        self, executor: Executor, tally: Tally
    ) -> AsyncIterator[ImportBatchItem[Any]]:
        """The items to try; unchanged items are counted as skipped instead."""
        first, last = 1, self._batch.total_items
        root = self._batch.root_batch_id
        while first <= last:
            async with self._database.connection() as conn:
                page = await items.read_pending(conn, self._batch.id, root, first, last, PAGE)
                same: frozenset[int] = frozenset()
                if page and (skipping := executor.skipping) is not None:
                    end = page[-1].item_number
                    same = await item_keys.find_unchanged(
                        conn, self._batch.id, first, end, skipping
                    )
            for item in page:
                if item.item_number in same:
                    tally.count(item, Skip("unchanged"), {})
                else:
                    yield item
            if not page:
                return
            first = page[-1].item_number + 1

    async def _slot(
        self, executor: Executor, receive: Waiting, tally: Tally, tables: Tables
    ) -> None:
        async with executor.session(lambda: False) as session, receive:
            transaction = TrialTransaction(executor, session, tables, starts=self._starts)
            chunks = TrialChunks(executor, self._chunk_size, tables, starts=self._starts)
            async for waiting in receive:
                prepared = [await executor.prepare(item) for item in waiting]
                if len(prepared) > 1:
                    await transaction.leave()
                    prepared = await self._try_together(chunks, prepared, session, tally)
                for each in prepared:
                    outcome, rows = await transaction.run(each)
                    tally.count(each.item, outcome, rows)
                    each.leave()
                if receive.statistics().current_buffer_used == 0:
                    await transaction.leave()  # no transaction waits for items

    async def _try_together(
        self, chunks: "TrialChunks", prepared: list[Prepared], session: Session, tally: Tally
    ) -> list[Prepared]:
        """Try the items of a chunk in one transaction; returns the items without outcomes."""
        outcomes = await chunks.execute(prepared, session, AllMayStart())
        tally.add_rows(chunks.take_rows())
        left = []
        for each in prepared:
            outcome = outcomes.get(each.item.item_number)
            if outcome is None or isinstance(outcome, Rescheduled):
                left.append(each)
            else:
                tally.count(each.item, outcome, {})
                each.leave()
        return left


class AllMayStart:
    """Says that every item may start, because a dry run is neither paused nor cancelled."""

    def __call__(self, prepared: Prepared) -> bool:
        """Whether an item may start."""
        return True

    def count(self, items: Sequence[Prepared]) -> int:
        """How many of these items may start."""
        return len(items)


class CountingSavepoints(Savepoints):
    """Savepoints that count the rows changed by each run that is kept.

    Args:
        oids: The tables whose changed rows are counted.

    Attributes:
        rows: The rows changed, one entry for each run.
    """

    def __init__(
        self, conn: Connection, seconds: float, deferred: Sequence[str], oids: Sequence[int]
    ) -> None:
        super().__init__(conn, seconds, deferred)
        self._oids = oids
        self._before: Rows = {}  # as counted before the current run
        self.rows: list[Rows] = []

    async def set(self) -> None:
        """Set the first savepoint of the transaction."""
        await super().set()
        self._before = await catalog.rows_changed(self.conn, self._oids)

    async def keep(self) -> None:
        """Keep the effects of a run, and count them."""
        await super().keep()
        after = await catalog.rows_changed(self.conn, self._oids)
        self.rows.append(_difference(self._before, after))
        self._before = after

    async def undo(self) -> None:
        """Undo the effects of a run, which PostgreSQL's counts still hold."""
        await super().undo()
        self._before = await catalog.rows_changed(self.conn, self._oids)


class TrialChunks(ChunkExecutor):
    """Runs chunks as a real run does, but rolls each back where that would store it.

    Args:
        tables: The tables whose changed rows are counted.
        starts: Whether on_batch_start runs first, in each transaction.
    """

    def __init__(self, executor: Executor, size: int, tables: Tables, *, starts: bool) -> None:
        super().__init__(executor, size, SuspectKeys())
        self._oids = list(tables.names)
        self._starts = starts
        self._rows: list[Rows] = []

    def take_rows(self) -> list[Rows]:
        """The rows that the last chunk would have changed."""
        rows, self._rows = self._rows, []
        return rows

    def _new_savepoints(
        self, conn: Connection, seconds: float, deferred: Sequence[str]
    ) -> Savepoints:
        return CountingSavepoints(conn, seconds, deferred, self._oids)

    async def _begin(self, conn: Connection, prepared: Sequence[Prepared]) -> ChunkProgress:
        if self._starts:
            trace = await start_batch(self._executor, conn)
            self._executor.database.note_trace(conn, trace)
        return await super()._begin(conn, prepared)

    async def _store(self, progress: ChunkProgress, session: Session) -> dict[int, Outcome]:
        await session.leave(plain=True)
        self._rows += cast("CountingSavepoints", progress.savepoints).rows
        return {number: done.outcome for number, done in progress.certain().items()}

    async def _settle_alone(self, abandoned: Abandoned, session: Session) -> dict[int, Outcome]:
        return {}


class TrialTransaction:
    """A transaction that is rolled back in the end, with items tried in it one by one.

    The effects of each are undone by a savepoint, so that each meets the database as it is.

    Args:
        tables: The tables whose changed rows are counted.
        starts: Whether on_batch_start runs first, in the transaction.
    """

    def __init__(
        self, executor: Executor, session: Session, tables: Tables, *, starts: bool
    ) -> None:
        self._executor = executor
        self._tables = tables
        self._oids = list(tables.names)
        self._starts = starts
        self._size = WITH_BATCH_START if starts else ITEMS_IN_A_TRANSACTION
        self._session = session
        self._conn: PooledConnection | None = None
        self._before: Rows | None = None
        self._changed: Rows = {}  # by the last item
        self._trace = Trace.NONE  # of on_batch_start
        self._tried = 0

    async def run(self, prepared: Prepared) -> tuple[Outcome, Rows]:
        """The outcome that an item would have, and the rows it would have changed.

        Raises:
            Outage: The server failed.
        """
        if prepared.refused is not None:
            return prepared.refused, {}
        outcome = await repeated(lambda: self._transact(prepared))
        if isinstance(outcome, Conflict):
            outcome = Failed(outcome.failure)
        return outcome, self._changed

    async def leave(self) -> None:
        """Roll the transaction back."""
        if self._conn is not None:
            self._executor.database.note_trace(self._conn, self._trace)
        self._conn, self._before, self._tried = None, None, 0
        if not await self._session.rollback():
            await self._session.discard()

    async def _transact(self, prepared: Prepared) -> Outcome | Conflict:
        """Try an item once."""
        prepared.rewind()
        self._changed = {}
        conn, before = await self._begin()
        attempt = Attempt(self._session, conn)
        with attempt as guard:
            prepared.ctx._enter(guard, prepared.item)  # noqa: SLF001
            outcome = await self._executor.invoker.call(
                prepared.item, prepared.ctx, self._session.limit
            )
            attempt.finish()
            if self._tables.deferrable:
                await conn.execute("SET CONSTRAINTS ALL IMMEDIATE")
            self._before = await catalog.rows_changed(conn, self._oids)
            await conn.execute(ROLLBACK)
            self._changed = _difference(before, self._before)
        if attempt.raised is not None:
            await attempt.conclude(attempt.raised)
            return await self._undo(attempt.raised, attempt, prepared)
        self._tried += 1
        return outcome

    async def _begin(self) -> tuple[PooledConnection, Rows]:
        """The connection, at the savepoint, and the rows changed so far."""
        traced = self._conn is not None and self._executor.database.has_trace(self._conn)
        if traced or self._tried >= self._size:
            await self.leave()
        if self._conn is None:
            self._conn = await self._session.begin()
            if self._executor.database.pooled:
                await self._executor.database.configure_transaction(
                    self._conn, self._executor.item_timeout
                )
            if self._starts:
                self._trace = await start_batch(self._executor, self._conn)
            await self._conn.execute(SAVEPOINT)
        if self._before is None:
            self._before = await catalog.rows_changed(self._conn, self._oids)
        return self._conn, self._before

    async def _undo(
        self, exc: BaseException, attempt: Attempt, prepared: Prepared
    ) -> Outcome | Conflict:
        """Undo an item, and return the outcome that its exception means."""
        lost = self._session.lost
        self._before = None  # counts hold what was rolled back
        if lost or not attempt.undisturbed:
            self._conn = None
            await self._session.discard()
        elif self._conn is not None and not must_propagate(exc):
            await self._conn.execute(ROLLBACK)
        if must_propagate(exc):
            raise exc
        return self._executor.outcome_of(exc, prepared.item, own=attempt.own, broken=lost)


async def start_batch(executor: Executor, conn: Connection) -> Trace:
    """Run on_batch_start, because items may need what it creates; returns its trace."""
    guard = GuardedConnection(conn)
    ctx = ImportContext(executor.batch, guard)
    ctx.dry_run = True
    try:
        await executor.processor.on_batch_start(ctx)
    finally:
        guard.close()
    if guard.sets:  # a real run has items in other sessions
        await executor.database.reset_settings(conn)
    return guard.trace


def _difference(before: Rows, after: Rows) -> Rows:
    """The rows changed between two counts."""
    nothing = (0, 0, 0)
    changed = {}
    for oid, counts in after.items():
        earlier = before.get(oid, nothing)
        changed[oid] = (
            counts[0] - earlier[0],
            counts[1] - earlier[1],
            counts[2] - earlier[2],
        )
    return changed
