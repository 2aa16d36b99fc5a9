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
from .processors.thresholds import Thresholds
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
from .workers.jobs import BatchJobs
from .workers.worker import Worker

READ_OPTIONS = (
    "name", "format", "delimiter", "encoding", "columns", "max_output_bytes", "max_ratio",
)  # fmt: skip
PAGE = 500
WATCH_SECONDS = 0.5
TIMELINE_SAMPLE = 480
VALUES_SAMPLE = 500

Items = Iterable[Any] | AsyncIterable[Any] | Source
Row = TypeVar("Row")


class BatchManager:
    """Creates batches, processes them, and says what became of them.

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
        """A manager on the embedded PostgreSQL, in the database of this name."""
        return cls(f"embedded:{database}", **options)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Connect, verify the schema, and discover the processors that the settings name.

        Opening what is open already changes nothing.

        Raises:
            DatabaseUrlMissing: No database is configured.
            DatabaseUnavailable: The server cannot be reached.
            SchemaMissing, SchemaOutdated, SchemaTooNew: The database needs `migrate`.
        """
        if self.is_open:
            return
        await self._database.open()
        try:
            async with self._database.connection(seconds=None) as conn:
                if self._database.embedded:  # made by us, so migrated by us
                    await migrations.migrate(conn)
                await migrations.verify(conn)
            for package in self.settings.processors:
                self.registry.discover(package)
        except BaseException:
            await self._database.close()
            raise
        if self._processing is None:  # and nobody else was faster
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
        """Bring the schema up to date; the names of the migrations applied. Works unopened."""
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
        """See that the database answers and has this version's tables; the last migration's name.

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
        """Store records as a new batch, whole or not at all, and return its id.

        Args:
            batch_type: Names the processor.
            items: Dicts, models, dataclasses; or a file. What cannot be stored is a failed item.
            metadata: The caller's own; processors read it as ``ctx.metadata``.
            created_by: Who asks, and owns the key.
            idempotency_key: The same key with the same records gives the same batch.
            connection: Joins the transaction that is open on this connection.
            on_same_file: When it came before for this type: "refuse", "skip" (that batch), "force".
            enqueue: Have a worker process it; decided with the batch, in one transaction.
            progress: Called while loading with records, bytes read and bytes in all.
            visible: What the caller may see; the same file in another batch does not count.
            options: Thresholds, control totals and others; see `BatchOptions`.

        Raises:
            UnknownBatchType, TypeError: It has no processor here; there is no such option.
            SourceError: The source cannot be read, is empty, or fits neither model nor totals.
            SameFile, IdempotencyConflict: The file came before; the key did, with other records.
            AnotherBatchRuns: With `enqueue`, of a type whose `only_one` is "refuse".
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
        """The same as `create_batch`; says as well whether an idempotency key was replayed.

        Args:
            batch_type: Names the processor.
            items: The records.
            after_create: For the REST API: no item runs before `run_after_create` has, with this.
            request_sha256: Kept with the batch for `find_replayed`.
            given: What `create_batch` takes by name.
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
        """The batch that this user has created with this key, if there is one."""
        async with self._database.connection() as conn:
            found = await batches.find_idempotent(conn, created_by, idempotency_key)
        return None if found is None else await self.get_batch(found[0])

    async def import_file(
        self, file: Any, batch_type: str, *, progress: Progress | None = None, **options: Any
    ) -> BatchSummary:
        """Create a batch from a file and process it; the final summary.

        Args:
            file: A path, a binary file, an async iterable of bytes, or what `read_file` returned.
            batch_type: Names the processor.
            progress: Called while loading.
            options: Those of `read_file` and of `create_batch`.

        Raises:
            TypeError: There is no such option.
            AnotherBatchRuns: Another of its type does, and its processor says "refuse".
        """
        reading = {name: options.pop(name) for name in READ_OPTIONS if name in options}
        source = file if isinstance(file, Source) else read_file(file, **reading)
        await self._refuse_another(batch_type)
        batch_id = await self.create_batch(batch_type, source, progress=progress, **options)
        return await self.process_batch(batch_id)

    async def run_after_create(self, batch_id: UUID, hook: Callable[[], Awaitable[None]]) -> bool:
        """Run after_create_batch of a batch created with `after_create`; then it may be processed.

        Args:
            batch_id: What `create_batch` returned.
            hook: Calls it; what it raises is raised here.

        Returns:
            False when it is not to be run: the batch is an earlier one, or somebody has run it.
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
        """Process a batch here, beside others who do, until it ends; return the summary.

        Failed items raise nothing. After a crash, calling it again resumes; a finished batch is
        returned as it is. When the batch is paused meanwhile, the summary says so.

        Args:
            batch_id: The batch.
            dry_run: Only try: each item meets the database as it is, and is rolled back; the
                batch stays pending. `prepare_item` still runs, and sequences advance; items that
                depend on each other get the verdict they would have alone.
            options: Thresholds and the commit interval; see `ProcessOptions`.

        Raises:
            ConfigurationError: One of the options cannot work.
            BatchNotFound: There is no such batch.
            BatchPaused, BatchCancelled: It was so before the call.
            AnotherBatchRuns: Another of its type does, and its processor says "refuse".
            WrongBatchStatus: A dry run of a batch that is not pending.
            UnknownBatchType: Its processor is not registered here.
        """
        require_names("process_batch", options, ProcessOptions)
        interval = options.get("commit_interval")
        check_commit_interval(interval)
        processing = self._open_processing()
        if dry_run:
            return await processing.dry_run(batch_id)
        thresholds = {name: one for name, one in options.items() if name != "commit_interval"}
        await self.set_thresholds(batch_id, **cast("ThresholdOptions", thresholds))
        return await processing.process(batch_id, commit_interval=interval)

    async def enqueue_batch(self, batch_id: UUID) -> None:
        """Have workers process a batch, here or on other machines; returns at once.

        A batch that is enqueued or finished already stays as it is.

        Raises:
            BatchNotFound: There is no such batch.
            BatchPaused, BatchCancelled, AnotherBatchRuns: It is so.
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

    async def run_worker(self, batch_types: Sequence[str] | None = None) -> None:
        """Process enqueued batches until cancelled, beside the workers of other processes.

        Cancelled, it takes nothing more, waits up to the setting `stop_timeout` for the items
        that run, and hands back what is left.

        Args:
            batch_types: Only these; by default all that are registered.

        Raises:
            UnknownBatchType: No processor is registered for one of them.
            QueueMissing: The database needs `migrate`.
        """
        names = self.registry.batch_types if batch_types is None else tuple(batch_types)
        for name in names:
            self.registry.get(name)
        processing = self._open_processing()
        outbox, rests = self._outbox, self._continuation
        worker = Worker(self._database, processing, outbox, rests, self.settings, names)
        await run_in_child_task(worker.run)

    async def pause_batch(
        self, batch_id: UUID, *, reason: str = "paused on request", actor: str | None = None
    ) -> None:
        """Start no further item of a batch; running ones settle. Takes effect within seconds."""
        await self._change(
            batch_id, lambda conn: batches.pause(conn, batch_id, reason), "paused", actor, reason
        )

    async def resume_batch(
        self, batch_id: UUID, *, reason: str | None = None, actor: str | None = None
    ) -> None:
        """Undo a pause; `process_batch` then continues, or workers do. Thresholds count anew."""

        async def resume(conn: Connection) -> bool:
            enqueued = await batches.resume(conn, batch_id)
            return enqueued is False or (enqueued is True and await enqueue.enqueue(conn, batch_id))

        await self._change(batch_id, resume, "resumed", actor, reason)

    async def cancel_batch(
        self, batch_id: UUID, *, reason: str | None = None, actor: str | None = None
    ) -> None:
        """End a batch for good; what has not started stays pending, for `reprocess_batch`."""
        await self._change(
            batch_id, lambda conn: batches.cancel(conn, batch_id), "cancelled", actor, reason
        )

    async def set_thresholds(self, batch_id: UUID, **given: Unpack[ThresholdOptions]) -> None:
        """Say how many items of a batch may fail, for everybody who works on it from now on.

        Args:
            batch_id: A batch that is not finished.
            given: max_failures, max_failure_rate, min_processed, as for `create_batch`; None
                leaves one as it is.

        Raises:
            ConfigurationError: One of them cannot work.
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
        """The batch of a type whose processor says `only_one` that runs now; None: none does."""
        holder = await exclusive.running(self._database, batch_type)
        return None if holder is None else holder.batch_id

    async def announce_finished(self) -> int:
        """Run the hooks outside of transactions that are due and that nobody ran; how many.

        These are after_batch_complete, of processors and of endpoints, and after_create_batch. A
        worker and the API do so every few seconds, and each `process_batch` at its end.
        """
        self._open_processing()
        return await self._outbox.sweep()

    async def keep_announcing(self) -> None:
        """The same every few seconds until cancelled, where no worker runs."""
        self._open_processing()
        await self._outbox.keep_sweeping()

    # Asking about them

    async def get_batch(self, batch_id: UUID) -> ImportBatch:
        """A batch as its row says; raises `BatchNotFound`."""
        async with self._database.connection() as conn:
            batch = await batches.get(conn, batch_id)
        if batch is None:
            raise BatchNotFound(batch_id)
        return batch

    async def get_batch_summary(self, batch_id: UUID) -> BatchSummary:
        """Where a batch stands: counts, rates and failure groups; raises `BatchNotFound`.

        Costs O(ranges). While a batch runs, its counts are about a second old.
        """
        async with self._database.connection() as conn:
            summary = await summaries.get(conn, batch_id)
        if summary is None:
            raise BatchNotFound(batch_id)
        return summary

    async def batch_progress(self, batch_ids: Sequence[UUID]) -> Mapping[UUID, BatchSummary]:
        """Where several batches stand, in one query of O(ranges); unknown ones are left out.

        Failure groups are not read.
        """
        async with self._database.connection() as conn:
            return {one.batch_id: one for one in await summaries.progress(conn, batch_ids)}

    async def watch(
        self, batch_id: UUID, *, interval: float = WATCH_SECONDS
    ) -> AsyncIterator[BatchSummary]:
        """Summaries of a batch until nothing more happens by itself; the last one is final.

        Args:
            interval: Seconds between two looks.
        """
        while True:
            summary = await self.get_batch_summary(batch_id)
            yield summary
            if summary.status.settled:
                return
            await anyio.sleep(interval)

    async def wait_for_batch(self, batch_id: UUID, *, timeout: float | None = None) -> BatchSummary:
        """The summary of a batch once it is finished, failed, paused or cancelled.

        Args:
            timeout: Seconds after which TimeoutError is raised; None waits for ever.
        """
        with anyio.fail_after(timeout):
            while not (await self.get_batch(batch_id)).status.settled:
                await anyio.sleep(WATCH_SECONDS)
            return await self.get_batch_summary(batch_id)

    async def find_batch(self, name: str) -> UUID:
        """A batch by its id, by a unique tail of it, or by ``latest`` or ``latest:batch_type``.

        Raises:
            BatchNotFound: None, or more than one, has this name.
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
        """Batches with their counts, newest first, read in pages.

        Args:
            created_since: Only batches created then or later.
            created_before: Only batches created earlier.
            before: Only batches older than this one.
            search: Only batches whose file, type, creator or id has this in it.
            visible: By batch type, which of its batches to list: True, False or `Visible`. A
                type that is not named has no restriction.
            limit: At most so many; None for all.
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
        """Items in the order of their numbers, read in pages.

        Args:
            status: Only items in this status.
            group: Only failed items of this failure group.
            after: Only items with a higher number.
            limit: At most so many; None for all.
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
        """One item with everything stored about it; raises `ItemNotFound`."""
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
        """Log lines in the order of writing, read in pages.

        Args:
            item_number: Only lines of this item.
            levels: Only lines of these levels.
            after: Only lines with a higher log_id.
            limit: At most so many; None for all.
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
        """Store log lines about a batch, and forget them in the buffer."""
        async with self._database.connection() as conn, conn.transaction():
            await logs.insert_lines(conn, batch_id, log.finished())
        log.truncate(0)

    async def skip_reasons(self, batch_id: UUID, *, limit: int = 10) -> tuple[tuple[str, int], ...]:
        """Why items of a batch were skipped and how many, most frequent first.

        Numbers and ids in a reason are taken out. In a batch of more than 100,000 items only the
        first 250 ranges that have skipped items are looked at.
        """
        async with self._database.connection() as conn:
            return tuple(await summaries.skip_reasons(conn, batch_id, limit))

    async def failure_groups(
        self, batch_id: UUID, *, values: int = 10, visible: Visibility | None = None
    ) -> tuple[FailureGroup, ...]:
        """The failed items by cause, largest first, with offending values and first items.

        Args:
            values: How many values and item numbers to show a group.
            visible: Which earlier batches are looked at for the same cause; None for all.
        """
        async with self._database.connection() as conn:
            if await batches.get(conn, batch_id) is None:
                raise BatchNotFound(batch_id)
            found = await summaries.groups(conn, batch_id)
            return await summaries.with_values(conn, batch_id, found, values, visible)

    async def outstanding_failures(
        self, batch_id: UUID, *, values: int = 10, visible: Visibility | None = None
    ) -> tuple[FailureGroup, ...]:
        """What is outstanding in the whole lineage of a batch, by cause.

        Only failures that no later batch has taken up. Each group names the batch in which its
        items stand (`FailureGroup.batch_id`): their numbers are numbers there.

        Args:
            batch_id: Any batch of the lineage.
            values: How many values and item numbers to show a group.
            visible: Which earlier batches are looked at for the same cause; None for all.
        """
        root = (await self.get_batch(batch_id)).root_batch_id
        async with self._database.connection() as conn:
            found = await summaries.outstanding_groups(conn, root, summaries.GROUPS_SHOWN)
            return await summaries.with_values(conn, root, found, values, visible)

    async def unreadable_items(self, batch_id: UUID) -> int:
        """How many records of the lineage could not be read and have not come back corrected.

        Reprocessing leaves them out: only new data can help them.
        """
        root = (await self.get_batch(batch_id)).root_batch_id
        async with self._database.connection() as conn:
            return await reprocessing.unreadable(conn, root)

    async def lineage(self, batch_id: UUID) -> tuple[BatchSummary, ...]:
        """The root batch and everything that came of reprocessing it, oldest first."""
        return (await self.get_batch_with_lineage(batch_id))[1]

    async def get_batch_with_lineage(
        self, batch_id: UUID
    ) -> tuple[ImportBatch, tuple[BatchSummary, ...]]:
        """A batch as its row says, and its `lineage`; raises `BatchNotFound`."""
        async with self._database.connection() as conn:
            family = {batch.id: batch for batch in await batches.lineage(conn, batch_id)}
            if batch_id not in family:
                raise BatchNotFound(batch_id)
            return family[batch_id], tuple(await summaries.get_many(conn, list(family)))

    # Overviews for pages and monitoring

    async def batch_overview(self, batch_id: UUID, *, causes: bool = True) -> BatchSummary:
        """Where a batch stands; raises `BatchNotFound`.

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
        """Settled items a minute, oldest first; each batch's items spread over the time it ran.

        Args:
            minutes: How far to look back.
            visible: Which batches count; None for all.
        """
        async with self._database.connection() as conn:
            return tuple(await previews.throughput(conn, minutes, visible))

    async def timeline(self, batch_id: UUID, total_items: int) -> tuple[tuple[Tick, ...], int]:
        """When items of a batch were settled: every n-th of them, and n."""
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
        """A page of items, shortened; of a status only those ranges are read that have such items.

        Args:
            status: Only items in this status.
            group: Only failures of this group.
            after: Only items with a higher number.
            limit: At most so many.
        """
        async with self._database.connection() as conn:
            found = await previews.previews(
                conn, batch_id, status=status, group=group, after=after, limit=limit
            )
        return tuple(found)

    async def failure_group_preview(
        self, batch_id: UUID, group: str, *, shown: int = 5, sampled: int = VALUES_SAMPLE
    ) -> FailureGroupPreview:
        """The offending values among the first items of a failure group, and its first items.

        Args:
            shown: How many of them.
            sampled: Among how many items to look for values; 0 for none.
        """
        async with self._database.connection() as conn:
            return await previews.failure_group_preview(conn, batch_id, group, sampled, shown)

    async def source_details(self, batch_id: UUID) -> SourceDetails:
        """What is known about a batch's file; raises `BatchNotFound`."""
        async with self._database.connection() as conn:
            found = await previews.source(conn, batch_id)
        if found is None:
            raise BatchNotFound(batch_id)
        return found

    async def latest_logs(
        self, batch_id: UUID, *, before: int | None = None, limit: int = 50
    ) -> tuple[LogPreview, ...]:
        """Log lines of a batch, newest first.

        Args:
            before: Only lines with a lower log_id.
            limit: At most so many.
        """
        async with self._database.connection() as conn:
            return tuple(await previews.latest_logs(conn, batch_id, before, limit))

    async def measure(
        self, bounds: Sequence[float], *, visible: Visibility | None = None
    ) -> Measurements:
        """What monitoring wants to know about all batches; costs O(batches).

        Args:
            bounds: The upper bounds of the buckets for the durations of batches, in seconds.
            visible: Which batches count; None for all.
        """
        async with self._database.connection() as conn:
            return await metrics.measure(conn, bounds, visible)

    async def visible_among(
        self, batch_ids: Sequence[UUID], visible: Visibility
    ) -> frozenset[UUID]:
        """Which of some batches somebody may see."""
        async with self._database.connection() as conn:
            return await batches.visible_among(conn, batch_ids, visible)

    def pool_use(self) -> PoolUse:
        """How many connections this process has, lends and may have."""
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
        """Run again what failed, in a new batch linked to this one; return the new summary.

        What succeeded never runs again, however often and concurrently this is called: eligible
        is what failed anywhere in the lineage and nobody has taken up since, and what was left
        pending in a cancelled batch. When nothing is eligible, a reprocessing that is under way
        is joined; otherwise the summary of the lineage's latest batch is returned.

        Args:
            batch_id: Any batch of the lineage; it has come to an end.
            failed_items_only: False deliberately runs every item of this batch again.
            group: Only failures of this group.
            item_numbers: Only these items of this batch.
            transform: Makes the new record from the old one.
            canary: First only so many items, in a batch of their own; the rest, with what failed
                among them, runs when enough of them succeed. Otherwise the summary is the
                canary's, and its `stopped` says why.
            min_success: The share of the canary (0-1) that must succeed.
            actor: Who asks, for the log.

        Raises:
            WrongBatchStatus: The batch is still pending or processing.
            ReprocessRefused: Items were named that cannot run again.
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
        """Process a batch that `create_reprocessing` made; after a canary that passes, the rest.

        After a crash, calling it again goes on.

        Args:
            batch_id: What `create_reprocessing` returned.
            transform: The same as there; a canary needs it for the rest.
            actor: Who asks, for the log.
        """
        batch = await self.get_batch(batch_id)
        continues = batch.options.get("canary", {}).get("continues")
        if batch.status is BatchStatus.CANCELLED:  # nothing was left to take out of it
            summary = await self.get_batch_summary(batch_id)
        else:
            summary = await self.process_batch(batch_id)
        options = (await self.get_batch(batch_id)).options
        if "canary" in options and (stopped := stopped_by(options, summary)):
            return replace(summary, stopped=stopped)
        if continues and "rest" in options["canary"]:  # it has run just now, here or elsewhere
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
        """Create the batch of the rest, once a canary has passed; its id, or None.

        None also when there is no rest, or the batch is no canary.
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
        """The outstanding failures of a batch as the chunks of a file; holds no connection.

        Exactly the records that failed in this batch and whose last try, here or in a later batch
        of the lineage, has failed as well; each as it was last tried, with its last error.
        CSV has ``_batch``, the source's columns in their order, then ``_item``, ``_line``,
        ``_group``, ``_error``, ``_detail`` and, for a record that could not be read, ``_raw``; a
        cell that a spreadsheet would run as a formula begins with an apostrophe. JSON Lines are
        lossless: the record stands under ``record``.

        Args:
            format: "csv" or "jsonl".
            group: Only failures of this group.
            byte_order_mark: Begin CSV with the mark by which spreadsheets know that it is UTF-8.

        Raises:
            BatchNotFound, ConfigurationError: With the first chunk.
        """
        export = FailureExport(self._database, batch_id, group)
        return export.chunks(format, mark=byte_order_mark)

    async def create_corrected_batch(
        self, batch_id: UUID, file: Any, *, actor: str | None = None
    ) -> CorrectedFile:
        """Take a corrected file of failures back: a new batch of exactly its rows.

        The rows, matched by batch and item number, replace the records of those items; other
        failures are left alone. Rows that name no item, or one that has not failed or is being
        reprocessed, are refused and reported. `process_batch` then runs the new batch.

        Args:
            batch_id: Any batch of the lineage.
            file: What `export_failures` gave, corrected: as for `import_file`, CSV or JSON Lines.
            actor: Who asks, for the log.

        Raises:
            WrongBatchStatus: The batch is still pending or processing.
            SourceError: The file cannot be read, or is no file of failures.
            ReprocessRefused: No row could be taken.
        """
        source = file if isinstance(file, Source) else read_file(file)
        return await create_corrected(self._database, batch_id, source, self._limits, actor)

    async def reprocess_from_file(
        self, batch_id: UUID, file: Any, *, actor: str | None = None
    ) -> BatchSummary:
        """Take a corrected file back and process it; see `create_corrected_batch`."""
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
        """Replace the record of a failed item; the old one stays in its history.

        The item stays failed until it is reprocessed. One that could not be read can be, then.

        Args:
            new_data: The whole new record.
            reason: Why, for the history.
            actor: Who asks, for the history.
            force: Save also what the check refuses: fields that neither the record, the source
                nor the model has, and changed values that the model refuses. The model is asked
                where the processor is registered in this process.

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
        """Replace the records of failed items by what `transform` makes of them; how many.

        All or none: what `transform` raises leaves everything as it was.

        Args:
            transform: Is given the record, or the raw bytes of one that could not be read;
                returns the new one, or None to leave it.
            group: Only failures of this group.
            reason: Why, for the history.
            actor: Who asks, for the history.

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
        """Who has changed the record of an item, what and when; oldest first."""
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
        """Delete finished batches with everything about them; how many.

        A batch is deleted with its whole lineage. What processors wrote stays.

        Args:
            batch_id: One batch.
            older_than: Or all whose lineage finished so long ago.
            batch_type: With `older_than`, only of this type.
            actor: Who asks, for the log.
        """
        if (batch_id is None) == (older_than is None):
            raise ConfigurationError("purge needs a batch or older_than, and not both.")
        if batch_id is not None:
            return await purge_batch(self._database, batch_id, actor)
        assert older_than is not None  # noqa: S101 - checked above
        before = datetime.now(UTC) - older_than
        return await purge_finished(self._database, before, batch_type, actor)

    # Below the verbs

    @property
    def database(self) -> Database:
        """Lends connections; for what the web keeps beside the batches."""
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
