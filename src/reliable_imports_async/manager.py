"""BatchManager: the public face. Each verb checks its arguments and delegates to a room."""

from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self, TypeVar, cast, overload
from uuid import UUID

import anyio
import asyncpg
from anyio import to_thread
from typing_extensions import Unpack
from uuid_utils.compat import uuid7

from .cancellation import run_in_child_task
from .database import migrations
from .database.guard import Connection
from .database.pool import Database, PoolUse
from .errors import BatchNotFound, ConfigurationError, ItemNotFound, WrongBatchStatus
from .loading import create
from .loading.binary_copy import Progress
from .loading.create import Created, CreateOptions, OnSameFile, Request
from .loading.options import (
    BatchOptions,
    ProcessOptions,
    ThresholdOptions,
    require_names,
    stored_options,
)
from .loading.records import Limits
from .loading.sources import Source, as_source, read_file
from .log_buffer import LogBuffer
from .models import (
    BatchStatus,
    BatchSummary,
    CorrectedFile,
    FailureGroup,
    FailureGroupPreview,
    ImportBatch,
    ImportBatchItem,
    ItemEdit,
    ItemPreview,
    ItemStatus,
    ListedBatch,
    LogEntry,
    LogLevel,
    LogPreview,
    Minute,
    Reprocessing,
    SourceDetails,
    Tick,
)
from .processors.processor import check_commit_interval
from .processors.registry import Registry
from .processors.thresholds import THRESHOLDS, Thresholds
from .repair.corrections import create_corrected
from .repair.edits import Change, check_edit, edit_item, edit_items
from .repair.export import ExportFormat, FailureExport
from .repair.purge import purge_batch, purge_finished
from .repair.reprocess import (
    Continuation,
    ReprocessOptions,
    Selection,
    Transform,
    canary_options,
    create_child,
    rest_of,
    stopped_by,
)
from .runner import exclusive
from .runner.dry_run_report import DryRun
from .runner.outbox import HELD, Outbox
from .runner.process import Processing, refuse_stopped
from .settings import Settings
from .store import (
    batches,
    enqueue,
    items,
    logs,
    metrics,
    previews,
    repairs,
    reprocessing,
    summaries,
)
from .store.metrics import Measurements
from .store.outbox import OutboxHook
from .store.visibility import Visibility, Visible
from .workers import processes as worker_processes
from .workers.child import Job
from .workers.jobs import BatchJobs
from .workers.processes import check_processes, refuse_while_starting
from .workers.worker import Worker

READ_OPTIONS = (
    "name", "format", "delimiter", "encoding", "columns", "max_output_bytes", "max_ratio",
    "skip_rows", "header_row", "skip_footer", "comment", "member",
)  # fmt: skip
PAGE = 500
WATCH_SECONDS = 0.5
TIMELINE_SAMPLE = 480
VALUES_SAMPLE = 500

Items = Iterable[Any] | AsyncIterable[Any] | Source
Row = TypeVar("Row")


class BatchManager:
    """Creates batches, processes them, and reports their results.

    Args:
        database_url: ``postgresql://…``, or ``embedded:`` for a PostgreSQL that this library
            starts itself. Without it the setting RELIABLE_IMPORTS_DATABASE_URL is used.
        pool: A pool of the caller's instead of a URL; it is neither changed nor closed.
        concurrency: Items at once over all batches of this manager; by default 10, or with a
            pool as many as it allows.
        settings: All settings; by default from the environment.

    Attributes:
        registry: The processors: ``manager.registry.discover("myapp.processors")``.
        settings: The settings in force.
    """

    def __init__(
        self,
        database_url: str | None = None,
        *,
        pool: "asyncpg.Pool[Any] | None" = None,
        concurrency: int | None = None,
        settings: Settings | None = None,
    ) -> None:
        if database_url is not None and pool is not None:
            raise ConfigurationError("Pass a URL or a pool, not both.")
        self.settings = Settings.merged(settings, database_url, concurrency)
        self.registry = Registry()
        self._database = Database(self.settings, pool=pool)
        self._outbox: Outbox
        self._continuation: Continuation
        self._processing: Processing | None = None

    @classmethod
    def embedded(cls, database: str = "imports", **options: Any) -> Self:
        """Return a manager on the embedded PostgreSQL, in the database of this name."""
        return cls(f"embedded:{database}", **options)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Connect, verify the schema, and discover the processors that the settings name.

        Opening an open manager changes nothing.

        Raises:
            DatabaseUrlMissing: No database is configured.
            DatabaseUnavailable: The server cannot be reached.
            SchemaMissing, SchemaOutdated, SchemaTooNew: The database needs `migrate`.
        """
        if self.is_open:
            return
        refuse_while_starting()
        await self._database.open()
        try:
            async with self._database.connection(seconds=None) as conn:
                if self._database.embedded:  # the library made it, so the library migrates it
                    await migrations.migrate(conn)
                await migrations.verify(conn)
            for package in self.settings.processors:
                self.registry.discover(package)
        except BaseException:
            await self._database.close()
            raise
        if self._processing is None:  # unless another task has opened it meanwhile
            self._outbox = Outbox(self, self._database, self.settings, self.registry)
            self._continuation = Continuation(self._database, self._limits)
            after = self._continuation.after
            self._processing = Processing(
                self._database, self.settings, self.registry, self._outbox, after
            )

    async def close(self) -> None:
        """Close the pool this manager opened, and leave the embedded server."""
        self._processing = None
        await self._database.close()

    @property
    def is_open(self) -> bool:
        """Whether the manager can work."""
        return self._processing is not None

    async def migrate(self) -> tuple[str, ...]:
        """Bring the schema up to date, and return the names of the applied migrations.

        The manager need not be open.
        """
        opened_here = not self._database.is_open
        if opened_here:
            await self._database.open()
        try:
            async with self._database.connection(seconds=None) as conn:
                return await migrations.migrate(conn)
        finally:
            if opened_here:
                await self._database.close()

    async def check(self) -> str:
        """Check that the database answers and has the tables of this version.

        Returns:
            The name of the last migration.

        Raises:
            DatabaseUnavailable: The server cannot be reached.
            SchemaError: The database needs `migrate`.
        """
        async with self._database.connection(seconds=self.settings.connect_timeout) as conn:
            await migrations.verify(conn)
        return migrations.migrations()[-1].name

    # Creating batches

    async def create_batch(
        self,
        batch_type: str,
        items: Items,
        *,
        metadata: Mapping[str, Any] | None = None,
        created_by: str | None = None,
        idempotency_key: str | None = None,
        connection: Connection | None = None,
        on_same_file: OnSameFile = "refuse",
        enqueue: bool = False,
        progress: Progress | None = None,
        visible: Visibility | None = None,
        **options: Unpack[BatchOptions],
    ) -> UUID:
        """Store records as a new batch, completely or not at all, and return its id.

        Args:
            batch_type: Selects the processor.
            items: Dicts, models, dataclasses, or a file. An unreadable record is a failed item.
            metadata: Any values of the caller; processors read them as ``ctx.metadata``.
            created_by: The user, who also owns the idempotency key.
            idempotency_key: The same key with the same records gives the same batch.
            connection: Joins the transaction that is open on this connection.
            on_same_file: If the file was already imported: "refuse", "skip" (return it) or "force".
            enqueue: Whether a worker processes it; stored in the transaction of the batch.
            progress: Called while loading with the records and bytes read, and the total bytes.
            visible: The batches that the caller may see; only in these the same file counts.
            options: Thresholds, control totals and others; see `BatchOptions`.

        Raises:
            UnknownBatchType, TypeError: No such processor is registered; no such option exists.
            SourceError: The source is unreadable or empty, or differs from its model or totals.
            SameFile, IdempotencyConflict: The file was imported, or the key used, before.
            AnotherBatchRuns: With `enqueue`, if the processor's `only_one` is "refuse".
        """
        created = await self.create_or_find_batch(
            batch_type,
            items,
            metadata=metadata,
            created_by=created_by,
            idempotency_key=idempotency_key,
            connection=connection,
            on_same_file=on_same_file,
            enqueue=enqueue,
            progress=progress,
            visible=visible,
            **options,
        )
        return created.batch_id

    async def create_or_find_batch(
        self,
        batch_type: str,
        items: Items,
        *,
        after_create: Mapping[str, Any] | None = None,
        request_sha256: str | None = None,
        **given: Unpack[CreateOptions],
    ) -> Created:
        """Do the same as `create_batch`, and tell whether an idempotency key was replayed.

        Args:
            batch_type: Selects the processor.
            items: The records.
            after_create: For the REST API: stored for `run_after_create`, which must run before any
                item does.
            request_sha256: Stored with the batch for `find_replayed`.
            given: The keyword arguments of `create_batch`.
        """
        require_names("create_batch", given, CreateOptions)
        connection, enqueue = given.get("connection"), given.get("enqueue", False)
        request = Request(
            batch_type=batch_type,
            processor=self.registry.get(batch_type),
            metadata=given.get("metadata") or {},
            options=self._options(batch_type, given, after_create, request_sha256),
            created_by=given.get("created_by"),
            idempotency_key=given.get("idempotency_key"),
            on_same_file=given.get("on_same_file", "refuse"),
            enqueue=enqueue,
            allow_empty=given.get("allow_empty"),
            visible=given.get("visible"),
            on_created=self._outbox.on_created(after_create, enqueue=enqueue),
        )
        await self._refuse_another(batch_type, connection, asked=enqueue)
        source, progress = as_source(items), given.get("progress")
        return await create.load(
            self._database, connection, source, request, self._limits, progress
        )

    async def find_replayed(
        self, created_by: str | None, idempotency_key: str
    ) -> ImportBatch | None:
        """Return the batch that this user has created with this key, if there is one."""
        async with self._database.connection() as conn:
            found = await batches.find_idempotent(conn, created_by, idempotency_key)
        return None if found is None else await self.get_batch(found[0])

    async def import_file(
        self, file: Any, batch_type: str, *, progress: Progress | None = None, **options: Any
    ) -> BatchSummary:
        """Create a batch from a file, process it, and return the final summary.

        Args:
            file: A path, a binary file, an async iterable of bytes, or a result of `read_file`.
            batch_type: Selects the processor.
            progress: Called while loading.
            options: The options of `read_file` and of `create_batch`.

        Raises:
            TypeError: There is no such option.
            AnotherBatchRuns: Another batch of the type runs, and the processor's `only_one` is
                "refuse".
        """
        reading = {name: options.pop(name) for name in READ_OPTIONS if name in options}
        source = file if isinstance(file, Source) else read_file(file, **reading)
        await self._refuse_another(batch_type)
        batch_id = await self.create_batch(batch_type, source, progress=progress, **options)
        return await self.process_batch(batch_id)

    async def run_after_create(self, batch_id: UUID, hook: Callable[[], Awaitable[None]]) -> bool:
        """Run the hook of a batch created with `after_create`; then the batch can be processed.

        Args:
            batch_id: The batch.
            hook: Calls after_create_batch; its exceptions are raised here.

        Returns:
            False if the hook was not called, because it has run already or the batch is older.
        """
        self._open_processing()
        return await self._outbox.created(batch_id, hook)

    # Processing them

    @overload
    async def process_batch(
        self, batch_id: UUID, *, dry_run: Literal[True], **options: Unpack[ProcessOptions]
    ) -> DryRun: ...

    @overload
    async def process_batch(
        self, batch_id: UUID, *, dry_run: Literal[False] = False, **options: Unpack[ProcessOptions]
    ) -> BatchSummary: ...

    async def process_batch(
        self, batch_id: UUID, *, dry_run: bool = False, **options: Unpack[ProcessOptions]
    ) -> BatchSummary | DryRun:
        """Process a batch in this process until it ends, and return the summary.

        Other processes may work on the same batch. Failed items raise no exception. After a crash,
        call it again to continue. Of a finished batch the summary is returned at once. If the batch
        is paused meanwhile, its status in the summary is `paused`.

        Args:
            batch_id: The batch.
            dry_run: Only try: the effects of each item are rolled back, and the batch stays
                pending. `prepare_item` still runs, and sequences advance. Items that depend on
                each other have the outcome that each, or each chunk, would have alone.
            options: Thresholds and the commit interval; see `ProcessOptions`.

        Raises:
            ConfigurationError: An option has an invalid value.
            BatchNotFound: There is no such batch.
            BatchPaused, BatchCancelled: The batch already has this status.
            AnotherBatchRuns: Another batch of the type runs, and the processor's `only_one` is
                "refuse".
            WrongBatchStatus: A dry run was asked for a batch that is not pending.
            UnknownBatchType: No processor is registered for its type in this process.
            WorkerProcessFailed: Another process has died again and again.
        """
        require_names("process_batch", options, ProcessOptions)
        interval = options.get("commit_interval")
        check_commit_interval(interval)
        processing = self._open_processing()
        count = check_processes(options.get("processes", 1))
        if dry_run:
            if count > 1:
                raise ConfigurationError(
                    "A dry run has one process.",
                    hint="leave out `processes`.",
                    cli_hint="leave out --processes.",
                )
            return await processing.dry_run(batch_id, commit_interval=interval)
        thresholds = {name: options.get(name) for name in THRESHOLDS if name in options}
        await self.set_thresholds(batch_id, **cast("ThresholdOptions", thresholds))
        if count == 1:
            return await processing.process(batch_id, commit_interval=interval)
        job = await self._job_of_children(count)
        beside = worker_processes.on_batches(count - 1, job, interval)
        return await processing.process(batch_id, commit_interval=interval, beside=beside)

    async def _job_of_children(self, count: int) -> Job:
        return await worker_processes.job_of(
            type(self), self._database, self.settings, self.registry, count
        )

    async def _drain(self, batch_id: UUID, commit_interval: int | None) -> None:
        await self._open_processing().drain(batch_id, commit_interval=commit_interval)

    async def enqueue_batch(self, batch_id: UUID) -> None:
        """Pass a batch to workers, on this or other machines; returns at once.

        A batch that is already enqueued or finished is not changed.

        Raises:
            BatchNotFound: There is no such batch.
            BatchPaused, BatchCancelled: The batch has this status.
            AnotherBatchRuns: Another batch of the type runs, and the processor's `only_one` is
                "refuse".
            QueueMissing: The database needs `migrate`.
        """
        async with self._database.connection() as conn, conn.transaction():
            batch = await batches.get(conn, batch_id)
            if batch is not None and batch.status is BatchStatus.PENDING:
                await self._refuse_another(batch.batch_type, conn)
            enqueued = await enqueue.enqueue(conn, batch_id)
            batch = await batches.get(conn, batch_id)
        if batch is None:
            raise BatchNotFound(batch_id)
        if not enqueued:
            refuse_stopped(batch)

    async def run_worker(
        self, batch_types: Sequence[str] | None = None, *, processes: int = 1
    ) -> None:
        """Process enqueued batches until cancelled, together with workers in other processes.

        When it is cancelled, it takes no further items, waits up to the setting `stop_timeout` for
        the running items, and hands back the rest of its ranges.

        Args:
            batch_types: The batch types to process; by default all registered types.
            processes: How many processes work, this one included; each has a pool of its own.

        Raises:
            ConfigurationError: Other processes cannot do this work, for the reason given.
            UnknownBatchType: No processor is registered for one of them.
            WorkerProcessFailed: Another process has died again and again.
            QueueMissing: The database needs `migrate`.
        """
        names = self.registry.batch_types if batch_types is None else tuple(batch_types)
        for name in names:
            self.registry.get(name)
        processing = self._open_processing()
        outbox, continuation = self._outbox, self._continuation
        worker = Worker(self._database, processing, outbox, continuation, self.settings, names)
        count = check_processes(processes)
        if count == 1:
            await run_in_child_task(worker.run)
            return
        job = replace(await self._job_of_children(count), batch_types=names)
        async with worker_processes.beside(count - 1, job):
            await run_in_child_task(worker.run)

    async def pause_batch(
        self, batch_id: UUID, *, reason: str = "paused on request", actor: str | None = None
    ) -> None:
        """Start no further item of a batch. Running items finish, usually within seconds."""
        await self._change(
            batch_id, lambda conn: batches.pause(conn, batch_id, reason), "paused", actor, reason
        )

    async def resume_batch(
        self, batch_id: UUID, *, reason: str | None = None, actor: str | None = None
    ) -> None:
        """End a pause, so that `process_batch` or workers continue. Thresholds start new counts."""

        async def resume(conn: Connection) -> bool:
            enqueued = await batches.resume(conn, batch_id)
            return enqueued is False or (enqueued is True and await enqueue.enqueue(conn, batch_id))

        await self._change(batch_id, resume, "resumed", actor, reason)

    async def cancel_batch(
        self, batch_id: UUID, *, reason: str | None = None, actor: str | None = None
    ) -> None:
        """End a batch for ever. Its pending items can run in a `reprocess_batch`."""
        await self._change(
            batch_id, lambda conn: batches.cancel(conn, batch_id), "cancelled", actor, reason
        )

    async def set_thresholds(self, batch_id: UUID, **given: Unpack[ThresholdOptions]) -> None:
        """Change how many items of a batch may fail, for all processes that work on it.

        Args:
            batch_id: A batch that is not finished.
            given: max_failures, max_failure_rate, min_processed, as for `create_batch`; None
                does not change the threshold.

        Raises:
            ConfigurationError: A threshold has an invalid value.
            TypeError: There is no such threshold.
        """
        require_names("set_thresholds", given, ThresholdOptions)
        changed = {name: value for name, value in given.items() if value is not None}
        if not changed:
            return
        options = (await self.get_batch(batch_id)).options
        thresholds = Thresholds.of({**options, **changed})
        async with self._database.connection() as conn:
            await batches.set_options(conn, batch_id, thresholds.options())

    async def running_batch(self, batch_type: str) -> UUID | None:
        """Return the running batch of a type whose processor has `only_one`; None without one."""
        holder = await exclusive.running(self._database, batch_type)
        return None if holder is None else holder.batch_id

    async def announce_finished(self) -> int:
        """Run the due hooks that belong outside of transactions, and return their number.

        These are after_batch_complete, of processors and of endpoints, and after_create_batch.
        Workers and the API do this every few seconds, and each `process_batch` at its end.
        """
        self._open_processing()
        return await self._outbox.sweep()

    async def keep_announcing(self) -> None:
        """Run the due hooks every few seconds until cancelled, where no worker runs."""
        self._open_processing()
        await self._outbox.keep_sweeping()

    # Asking about them

    async def get_batch(self, batch_id: UUID) -> ImportBatch:
        """Return a batch as it is stored; raises `BatchNotFound`."""
        async with self._database.connection() as conn:
            batch = await batches.get(conn, batch_id)
        if batch is None:
            raise BatchNotFound(batch_id)
        return batch

    async def get_batch_summary(self, batch_id: UUID) -> BatchSummary:
        """Return the counts, rates and failure groups of a batch; raises `BatchNotFound`.

        Costs O(ranges). While a batch runs, its counts are about a second old.
        """
        async with self._database.connection() as conn:
            summary = await summaries.get(conn, batch_id)
        if summary is None:
            raise BatchNotFound(batch_id)
        return summary

    async def batch_progress(self, batch_ids: Sequence[UUID]) -> Mapping[UUID, BatchSummary]:
        """Return the summaries of several batches, in one query of O(ranges), without unknown ones.

        Failure groups are not read.
        """
        async with self._database.connection() as conn:
            found = await summaries.progress(conn, batch_ids)
        return {summary.batch_id: summary for summary in found}

    async def watch(
        self, batch_id: UUID, *, interval: float = WATCH_SECONDS
    ) -> AsyncIterator[BatchSummary]:
        """Yield summaries of a batch until it is settled; the last one is final.

        Args:
            interval: Seconds between two summaries.
        """
        while True:
            summary = await self.get_batch_summary(batch_id)
            yield summary
            if summary.status.settled:
                return
            await anyio.sleep(interval)

    async def wait_for_batch(self, batch_id: UUID, *, timeout: float | None = None) -> BatchSummary:
        """Return the summary of a batch when it is finished, failed, paused or cancelled.

        Args:
            timeout: Seconds after which TimeoutError is raised; None waits for ever.
        """
        with anyio.fail_after(timeout):
            while not (await self.get_batch(batch_id)).status.settled:
                await anyio.sleep(WATCH_SECONDS)
            return await self.get_batch_summary(batch_id)

    async def find_batch(self, name: str) -> UUID:
        """Find a batch by its id, a unique end of it, ``latest`` or ``latest:batch_type``.

        Raises:
            BatchNotFound: No batch, or more than one, has this name.
        """
        word, _, batch_type = name.partition(":")
        if word == "latest":
            async for batch in self.list_batches(batch_type=batch_type or None, limit=1):
                return batch.id
            raise BatchNotFound(name)
        digits = name.replace("-", "").lower()
        if not digits or set(digits) - set("0123456789abcdef"):
            raise BatchNotFound(name)
        async with self._database.connection() as conn:
            found = await batches.find_by_tail(conn, digits)
        if len(found) != 1:
            raise BatchNotFound(f"{name} (several end like this)" if found else name)
        return found[0]

    async def list_batches(
        self,
        *,
        batch_type: str | None = None,
        status: BatchStatus | None = None,
        root_batch_id: UUID | None = None,
        created_since: datetime | None = None,
        created_before: datetime | None = None,
        before: UUID | None = None,
        search: str | None = None,
        visible: Mapping[str, Visible | bool] | Visibility | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[ListedBatch]:
        """Yield batches with their counts, newest first, read in pages.

        Args:
            created_since: Only batches created then or later.
            created_before: Only batches created earlier.
            before: Only batches older than this one.
            search: Only batches whose file, type, creator or id contains this text.
            visible: By batch type, which of its batches to list: True, False or `Visible`. A
                type that is not named has no restriction.
            limit: The largest number of results; None for all.
        """
        rules = Visibility.of(visible)

        def read(
            conn: Connection, last: ImportBatch | None, size: int
        ) -> Awaitable[list[ImportBatch]]:
            return batches.page(
                conn,
                batch_type=batch_type,
                status=status,
                root_batch_id=root_batch_id,
                created_since=created_since,
                created_before=created_before,
                before=before if last is None else last.id,
                search=search,
                visible=rules,
                limit=size,
            )

        async for page in _pages(self._database, read, limit):
            counts = await self.batch_progress([batch.id for batch in page])
            for batch in page:
                if batch.id in counts:  # else it was purged a moment ago
                    yield ListedBatch.of(batch, counts[batch.id])

    async def list_items(
        self,
        batch_id: UUID,
        *,
        status: ItemStatus | None = None,
        group: str | None = None,
        after: int = 0,
        limit: int | None = None,
    ) -> AsyncIterator[ImportBatchItem]:
        """Yield items in the order of their numbers, read in pages.

        Args:
            status: Only items in this status.
            group: Only failed items of this failure group.
            after: Only items with a higher number.
            limit: The largest number of results; None for all.
        """

        def read(
            conn: Connection, last: ImportBatchItem | None, size: int
        ) -> Awaitable[list[ImportBatchItem]]:
            start = after if last is None else last.item_number
            return items.page(conn, batch_id, status=status, group=group, after=start, limit=size)

        async for page in _pages(self._database, read, limit):
            for item in page:
                yield item

    async def get_item(self, batch_id: UUID, item_number: int) -> ImportBatchItem:
        """Return one item with everything stored about it; raises `ItemNotFound`."""
        async with self._database.connection() as conn:
            item = await items.get(conn, batch_id, item_number)
        if item is None:
            await self.get_batch(batch_id)
            raise ItemNotFound(batch_id, item_number)
        return item

    async def get_logs(
        self,
        batch_id: UUID,
        *,
        item_number: int | None = None,
        levels: Sequence[LogLevel] | None = None,
        after: int = 0,
        limit: int | None = None,
    ) -> AsyncIterator[LogEntry]:
        """Yield log lines in the order of writing, read in pages.

        Args:
            item_number: Only lines of this item.
            levels: Only lines of these levels.
            after: Only lines with a higher log_id.
            limit: The largest number of results; None for all.
        """

        def read(conn: Connection, last: LogEntry | None, size: int) -> Awaitable[list[LogEntry]]:
            return logs.page(
                conn,
                batch_id,
                item_number=item_number,
                levels=levels,
                after=after if last is None else last.log_id,
                limit=size,
            )

        async for page in _pages(self._database, read, limit):
            for line in page:
                yield line

    async def add_logs(self, batch_id: UUID, log: LogBuffer) -> None:
        """Store log lines about a batch, and remove them from the buffer."""
        async with self._database.connection() as conn, conn.transaction():
            await logs.insert_lines(conn, batch_id, log.finished())
        log.truncate(0)

    async def skip_reasons(self, batch_id: UUID, *, limit: int = 10) -> tuple[tuple[str, int], ...]:
        """Return the reasons for skipped items with their counts, most frequent first.

        Numbers and ids are removed from the reasons. In a batch of more than 100,000 items only the
        first 250 ranges with skipped items are read.
        """
        async with self._database.connection() as conn:
            return tuple(await summaries.skip_reasons(conn, batch_id, limit))

    async def failure_groups(
        self, batch_id: UUID, *, values: int = 10, visible: Visibility | None = None
    ) -> tuple[FailureGroup, ...]:
        """Return the failed items by cause, largest group first, with offending values.

        Args:
            values: How many values and item numbers each group shows.
            visible: The earlier batches to search for the same cause; None for all.
        """
        async with self._database.connection() as conn:
            if await batches.get(conn, batch_id) is None:
                raise BatchNotFound(batch_id)
            found = await summaries.groups(conn, batch_id)
            return await summaries.with_values(conn, batch_id, found, values, visible)

    async def outstanding_failures(
        self, batch_id: UUID, *, values: int = 10, visible: Visibility | None = None
    ) -> tuple[FailureGroup, ...]:
        """Return the outstanding failures in the whole lineage of a batch, by cause.

        These are the failures that no later batch has taken over. Each group names the batch of its
        items (`FailureGroup.batch_id`); item numbers refer to that batch.

        Args:
            batch_id: Any batch of the lineage.
            values: How many values and item numbers each group shows.
            visible: The earlier batches to search for the same cause; None for all.
        """
        root = (await self.get_batch(batch_id)).root_batch_id
        async with self._database.connection() as conn:
            found = await summaries.outstanding_groups(conn, root, summaries.GROUPS_SHOWN)
            return await summaries.with_values(conn, root, found, values, visible)

    async def unreadable_items(self, batch_id: UUID) -> int:
        """Return how many unreadable records of the lineage have not been corrected yet.

        Reprocessing leaves them out, because they need new data.
        """
        root = (await self.get_batch(batch_id)).root_batch_id
        async with self._database.connection() as conn:
            return await reprocessing.unreadable(conn, root)

    async def lineage(self, batch_id: UUID) -> tuple[BatchSummary, ...]:
        """Return the root batch and all its reprocessing batches, oldest first."""
        return (await self.get_batch_with_lineage(batch_id))[1]

    async def get_batch_with_lineage(
        self, batch_id: UUID
    ) -> tuple[ImportBatch, tuple[BatchSummary, ...]]:
        """Return a batch as it is stored, and its `lineage`; raises `BatchNotFound`."""
        async with self._database.connection() as conn:
            family = {batch.id: batch for batch in await batches.lineage(conn, batch_id)}
            if batch_id not in family:
                raise BatchNotFound(batch_id)
            return family[batch_id], tuple(await summaries.get_many(conn, list(family)))

    # Overviews for pages and monitoring

    async def batch_overview(self, batch_id: UUID, *, causes: bool = True) -> BatchSummary:
        """Return the summary of a batch; raises `BatchNotFound`.

        Args:
            causes: Whether to read the failure groups too.
        """
        async with self._database.connection() as conn:
            found = await summaries.progress(conn, [batch_id])
            if not found:
                raise BatchNotFound(batch_id)
            wanted = causes and found[0].failed_items
            groups = await summaries.groups(conn, batch_id) if wanted else ()
        return replace(found[0], groups=groups)

    async def throughput(
        self, *, minutes: int = 60, visible: Visibility | None = None
    ) -> tuple[Minute, ...]:
        """Return the settled items per minute, oldest minute first.

        The items of a batch are spread evenly over the time in which it ran.

        Args:
            minutes: How many minutes to return.
            visible: The batches that count; None for all.
        """
        async with self._database.connection() as conn:
            return tuple(await previews.throughput(conn, minutes, visible))

    async def timeline(self, batch_id: UUID, total_items: int) -> tuple[tuple[Tick, ...], int]:
        """Return when every n-th item of a batch was settled, and n."""
        step = max(1, -(-total_items // TIMELINE_SAMPLE))
        async with self._database.connection() as conn:
            return tuple(await previews.timeline(conn, batch_id, total_items, step)), step

    async def item_previews(
        self,
        batch_id: UUID,
        *,
        status: ItemStatus | None = None,
        group: str | None = None,
        after: int = 0,
        limit: int = 50,
    ) -> tuple[ItemPreview, ...]:
        """Return a page of shortened items; with a status, only ranges that have it are read.

        Args:
            status: Only items in this status.
            group: Only failures of this group.
            after: Only items with a higher number.
            limit: The largest number of results.
        """
        async with self._database.connection() as conn:
            found = await previews.previews(
                conn, batch_id, status=status, group=group, after=after, limit=limit
            )
        return tuple(found)

    async def failure_group_preview(
        self, batch_id: UUID, group: str, *, shown: int = 5, sampled: int = VALUES_SAMPLE
    ) -> FailureGroupPreview:
        """Return the offending values of a failure group, and its first items.

        Args:
            shown: How many items and values to return.
            sampled: In how many of its first items to look for values; 0 for none.
        """
        async with self._database.connection() as conn:
            return await previews.failure_group_preview(conn, batch_id, group, sampled, shown)

    async def source_details(self, batch_id: UUID) -> SourceDetails:
        """Return what is stored about the file of a batch; raises `BatchNotFound`."""
        async with self._database.connection() as conn:
            found = await previews.source(conn, batch_id)
        if found is None:
            raise BatchNotFound(batch_id)
        return found

    async def latest_logs(
        self, batch_id: UUID, *, before: int | None = None, limit: int = 50
    ) -> tuple[LogPreview, ...]:
        """Return log lines of a batch, newest first.

        Args:
            before: Only lines with a lower log_id.
            limit: The largest number of results.
        """
        async with self._database.connection() as conn:
            return tuple(await previews.latest_logs(conn, batch_id, before, limit))

    async def measure(
        self, bounds: Sequence[float], *, visible: Visibility | None = None
    ) -> Measurements:
        """Return the figures for monitoring, over all batches; costs O(batches).

        Args:
            bounds: The upper bounds of the buckets for the durations of batches, in seconds.
            visible: The batches that count; None for all.
        """
        async with self._database.connection() as conn:
            return await metrics.measure(conn, bounds, visible)

    async def visible_among(
        self, batch_ids: Sequence[UUID], visible: Visibility
    ) -> frozenset[UUID]:
        """Return the ids of those batches that a user may see."""
        async with self._database.connection() as conn:
            return await batches.visible_among(conn, batch_ids, visible)

    def pool_use(self) -> PoolUse:
        """Return how many connections the pool of this process has, uses and may have."""
        return self._database.use()

    # Repairing failures

    async def reprocess_batch(
        self,
        batch_id: UUID,
        failed_items_only: bool = True,  # noqa: FBT001, FBT002 - the public signature
        *,
        group: str | None = None,
        item_numbers: Sequence[int] | None = None,
        transform: Transform | None = None,
        canary: int | None = None,
        min_success: float = 0.9,
        actor: str | None = None,
    ) -> BatchSummary:
        """Run the failed items again, in a new batch linked to this one; return its summary.

        Items that succeeded never run again, however often and concurrently this is called. It
        runs the failed items of the whole lineage that no later batch has taken over, and the
        pending items of a cancelled batch. Without such items, it joins a reprocessing in progress,
        or returns the summary of the latest batch of the lineage.

        Args:
            batch_id: Any batch of the lineage; it must have ended.
            failed_items_only: False runs every item of this batch again.
            group: Only failures of this group.
            item_numbers: Only these items of this batch.
            transform: Makes the new record from the old one.
            canary: Run this many items first, in their own batch. If enough of them succeed, the
                other items run, together with those that failed in the canary. Otherwise the
                summary is that of the canary, and its `stopped` says why.
            min_success: The share of the canary (0-1) that must succeed.
            actor: The user, for the log.

        Raises:
            WrongBatchStatus: The batch is still pending or processing.
            ReprocessRefused: Some of the named items cannot run again.
        """
        child = await self.create_reprocessing(
            batch_id,
            failed_items_only,
            group=group,
            item_numbers=item_numbers,
            transform=transform,
            canary=canary,
            min_success=min_success,
            continues=True,
            actor=actor,
        )
        return await self.process_reprocessing(child, transform=transform, actor=actor)

    async def create_reprocessing(
        self,
        batch_id: UUID,
        failed_items_only: bool = True,  # noqa: FBT001, FBT002 - as reprocess_batch
        **options: Unpack[ReprocessOptions],
    ) -> UUID:
        """The first half of `reprocess_batch`: make the new batch and return its id at once.

        `process_reprocessing` is the other half. When nothing is eligible, the id is that of the
        reprocessing in progress, of the lineage's latest batch, or of the batch itself;
        `start_reprocessing` tells which.

        Args:
            batch_id: Any batch of the lineage.
            failed_items_only: As for `reprocess_batch`.
            options: Those of `reprocess_batch`, and `continues`; see `ReprocessOptions`.

        Raises:
            WrongBatchStatus, ReprocessRefused: As for `reprocess_batch`.
            TypeError: There is no such option.
        """
        return (await self.start_reprocessing(batch_id, failed_items_only, **options)).batch_id

    async def start_reprocessing(
        self,
        batch_id: UUID,
        failed_items_only: bool = True,  # noqa: FBT001, FBT002 - as reprocess_batch
        **options: Unpack[ReprocessOptions],
    ) -> Reprocessing:
        """As `create_reprocessing`, and say whether there was anything to reprocess."""
        require_names("reprocess_batch", options, ReprocessOptions)
        selection = Selection.of(failed_items_only, options)
        new_id = uuid7()
        child = await create_child(
            self._database,
            batch_id,
            selection,
            self._limits,
            options.get("actor"),
            canary_options(selection, options),
            child_id=new_id,
        )
        return Reprocessing(batch_id=child or batch_id, is_new=child == new_id)

    async def process_reprocessing(
        self, batch_id: UUID, *, transform: Transform | None = None, actor: str | None = None
    ) -> BatchSummary:
        """Process a batch of `create_reprocessing`, and after a passed canary the other items.

        After a crash, call it again to continue.

        Args:
            batch_id: The batch that `create_reprocessing` returned.
            transform: The same as there; a canary needs it for the other items.
            actor: The user, for the log.
        """
        batch = await self.get_batch(batch_id)
        continues = batch.options.get("canary", {}).get("continues")
        if batch.status is BatchStatus.CANCELLED:  # none of its items was taken over
            summary = await self.get_batch_summary(batch_id)
        else:
            summary = await self.process_batch(batch_id)
        options = (await self.get_batch(batch_id)).options
        if "canary" in options and (stopped := stopped_by(options, summary)):
            return replace(summary, stopped=stopped)
        if continues and "rest" in options["canary"]:  # this or another process has created it
            noted = options["canary"]["rest"]
            rest = None if noted is None else UUID(noted)
        else:
            rest = await self.continue_reprocessing(batch_id, transform=transform, actor=actor)
        if rest is None:
            return summary
        if (await self.get_batch(rest)).status.settled:
            return await self.get_batch_summary(rest)
        return await self.process_batch(rest)

    async def continue_reprocessing(
        self, batch_id: UUID, *, transform: Transform | None = None, actor: str | None = None
    ) -> UUID | None:
        """Create the batch of the other items after a canary has passed, and return its id.

        Returns:
            None if the canary has not passed, if there are no other items, or if the batch is not a
            canary.
        """
        batch = await self.get_batch(batch_id)
        if "canary" not in batch.options:
            return None
        if batch.options["canary"].get("continues"):
            return await Continuation(self._database, self._limits).after(batch)
        if stopped_by(batch.options, await self.get_batch_summary(batch_id)):
            return None
        selection = rest_of(batch.options, Selection(transform=transform))
        origin = batch.parent_batch_id or batch_id
        rest = await create_child(self._database, origin, selection, self._limits, actor)
        return None if rest == batch_id else rest

    def export_failures(
        self,
        batch_id: UUID,
        *,
        format: ExportFormat = "csv",  # noqa: A002 - the word that users know
        group: str | None = None,
        byte_order_mark: bool = False,
    ) -> AsyncIterator[bytes]:
        """Yield the outstanding failures of a batch as the chunks of a file.

        These are the records that failed in this batch and whose last attempt, in this or a later
        batch of the lineage, failed too. Each has its last values and its last error. No connection
        is held between chunks.

        CSV has ``_batch``, the columns of the source in their order, then ``_item``, ``_line``,
        ``_group``, ``_error``, ``_detail`` and, for unreadable records, ``_raw``. A cell that a
        spreadsheet would run as a formula begins with an apostrophe. JSON Lines are lossless, with
        the record under ``record``.

        Args:
            format: "csv" or "jsonl".
            group: Only failures of this group.
            byte_order_mark: Begin CSV with the mark that tells spreadsheets that it is UTF-8.

        Raises:
            BatchNotFound, ConfigurationError: With the first chunk.
        """
        export = FailureExport(self._database, batch_id, group)
        return export.chunks(format, mark=byte_order_mark)

    async def create_corrected_batch(
        self, batch_id: UUID, file: Any, *, actor: str | None = None
    ) -> CorrectedFile:
        """Create a batch of exactly the rows of a corrected file of failures.

        The rows replace the records of their items, matched by batch and item number; other
        failures do not change. A row is refused and reported if its item does not exist, has not
        failed, or is being reprocessed. Run the new batch with `process_batch`.

        Args:
            batch_id: Any batch of the lineage.
            file: The corrected output of `export_failures`; otherwise as for `import_file`.
            actor: The user, for the log.

        Raises:
            WrongBatchStatus: The batch is still pending or processing.
            SourceError: The file cannot be read, or is not a file of failures.
            ReprocessRefused: All rows were refused.
        """
        source = file if isinstance(file, Source) else read_file(file)
        return await create_corrected(self._database, batch_id, source, self._limits, actor)

    async def reprocess_from_file(
        self, batch_id: UUID, file: Any, *, actor: str | None = None
    ) -> BatchSummary:
        """Create a batch of a corrected file, and process it; see `create_corrected_batch`."""
        corrected = await self.create_corrected_batch(batch_id, file, actor=actor)
        return await self.process_batch(corrected.batch_id)

    async def update_item_source(
        self,
        batch_id: UUID,
        item_number: int,
        new_data: Mapping[str, Any],
        *,
        reason: str | None = None,
        actor: str | None = None,
        force: bool = False,
    ) -> None:
        """Replace the record of a failed item; the old record stays in its history.

        The item stays failed until it is reprocessed. After the edit that is also possible for an
        unreadable record.

        Args:
            new_data: The whole new record.
            reason: The reason, for the history.
            actor: The user, for the history.
            force: Whether to skip the check, which refuses fields that neither the record, the
                source nor the model has, and changed values that the model refuses. The model is
                only known if the processor is registered in this process.

        Raises:
            ItemNotFound: There is no such item.
            EditNotAccepted: A field is unknown, or the model refuses a value.
            EditRefused: It has not failed, is being reprocessed, or the record cannot be stored.
        """
        if not force:
            batch, item = await self.get_batch(batch_id), await self.get_item(batch_id, item_number)
            if item.status is ItemStatus.FAILED and item.reprocessed_by is None:
                known = batch.batch_type in self.registry.batch_types
                processor = self.registry.get(batch.batch_type) if known else None
                columns = batch.source_columns
                await to_thread.run_sync(check_edit, item, new_data, columns, processor)
        await edit_item(
            self._database,
            batch_id,
            item_number,
            new_data,
            self._limits,
            actor=actor,
            reason=reason,
        )

    async def update_item_sources(
        self,
        batch_id: UUID,
        transform: Change,
        *,
        group: str | None = None,
        reason: str | None = None,
        actor: str | None = None,
    ) -> int:
        """Replace the records of failed items by the results of `transform`; return their number.

        If `transform` raises, no record changes.

        Args:
            transform: Is given the record, or the raw bytes of one that could not be read;
                returns the new one, or None to leave it.
            group: Only failures of this group.
            reason: Why, for the history.
            actor: The user, for the history.

        Raises:
            EditRefused: A new record cannot be stored.
        """
        await self.get_batch(batch_id)
        return await edit_items(
            self._database,
            batch_id,
            transform,
            self._limits,
            group=group,
            actor=actor,
            reason=reason,
        )

    async def item_history(self, batch_id: UUID, item_number: int) -> tuple[ItemEdit, ...]:
        """Return who changed the record of an item, when and how, oldest change first."""
        async with self._database.connection() as conn:
            return await repairs.history(conn, batch_id, item_number)

    async def purge(
        self,
        batch_id: UUID | None = None,
        *,
        older_than: timedelta | None = None,
        batch_type: str | None = None,
        actor: str | None = None,
    ) -> int:
        """Delete finished batches with their items and logs, and return their number.

        A batch is deleted with its whole lineage. Rows written by processors are kept.

        Args:
            batch_id: The batch to delete.
            older_than: Or the age of the lineages to delete, since they finished.
            batch_type: With `older_than`, only batches of this type.
            actor: The user, for the log.
        """
        if batch_id is not None and older_than is None:
            return await purge_batch(self._database, batch_id, actor)
        if older_than is not None and batch_id is None:
            before = datetime.now(UTC) - older_than
            return await purge_finished(self._database, before, batch_type, actor)
        raise ConfigurationError("purge needs a batch or older_than, and not both.")

    # Below the verbs

    @property
    def database(self) -> Database:
        """The database; the web stores its sessions there."""
        return self._database

    def _batch_jobs(self, batch_types: Sequence[str], stopping: Callable[[], bool]) -> BatchJobs:
        """What a PgQueuer application of the user's runs."""
        processing = self._open_processing()
        return BatchJobs(self._database, processing, self.settings, batch_types, stopping)

    @property
    def _limits(self) -> Limits:
        return Limits(self.settings.max_record_bytes, self.settings.max_record_depth)

    def _options(
        self,
        batch_type: str,
        given: BatchOptions,
        after_create: Mapping[str, Any] | None,
        request_sha256: str | None,
    ) -> dict[str, Any]:
        """The options of a new batch, for every process that works on it."""
        options = stored_options(self.registry.get(batch_type), given)
        if OutboxHook.ENDPOINT_AFTER_COMPLETE in self.registry.hooks(batch_type):
            options["announce"] = True
        if after_create is not None:
            options[HELD] = True
        if request_sha256 is not None:
            options["request_sha256"] = request_sha256
        return options

    def _open_processing(self) -> Processing:
        if self._processing is None:
            raise ConfigurationError(
                "The manager is not open.",
                hint="use `async with BatchManager(…) as manager:`.",
                cli_hint="",
                web_hint="the server is starting or stopping; try again.",
            )
        return self._processing

    async def _refuse_another(
        self, batch_type: str, conn: Connection | None = None, *, asked: bool = True
    ) -> None:
        if asked:
            await exclusive.refuse(self._database, self.registry, batch_type, conn)

    async def _change(
        self,
        batch_id: UUID,
        statement: Callable[[Connection], Awaitable[bool]],
        verb: str,
        actor: str | None,
        reason: str | None,
    ) -> None:
        """A change of status and its log line, in one transaction."""
        async with self._database.connection() as conn, conn.transaction():
            if await statement(conn):
                details = {"actor": actor, "reason": reason}
                await logs.insert(conn, batch_id, LogLevel.INFO, f"batch {verb}", details)
                return
            batch = await batches.get(conn, batch_id)
        if batch is None:
            raise BatchNotFound(batch_id)
        raise WrongBatchStatus(batch_id, batch.status, verb)


async def _pages(
    database: Database,
    read: Callable[[Connection, Row | None, int], Awaitable[list[Row]]],
    limit: int | None,
) -> AsyncIterator[list[Row]]:
    """Pages of rows until one is short or the limit is reached; no connection is held in between.

    Args:
        read: Is given a connection, the last row so far, and how many rows to read.
        limit: Rows in all; None for no limit.
    """
    last, remaining = None, limit
    while remaining is None or remaining > 0:
        size = PAGE if remaining is None else min(PAGE, remaining)
        async with database.connection() as conn:
            page = await read(conn, last, size)
        yield page
        if len(page) < size:
            return
        last = page[-1]
        remaining = None if remaining is None else remaining - len(page)
