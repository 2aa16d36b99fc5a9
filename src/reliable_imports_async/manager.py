"""BatchManager: the public face; it wires the parts together and decides nothing."""

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self, cast, overload
from uuid import UUID

import asyncpg
from typing_extensions import Unpack

from .cancellation import in_child_task
from .database import migrations
from .database.guard import Connection
from .database.pool import Database
from .errors import BatchNotFound, ConfigurationError, WrongBatchStatus
from .loading import create
from .loading.binary_copy import Progress
from .loading.create import Created, OnSameFile, Request
from .loading.options import (
    BatchOptions,
    ProcessOptions,
    ThresholdOptions,
    require_names,
    stored_options,
)
from .loading.sources import Source, as_source, read_file
from .log_buffer import LogBuffer
from .models import BatchStatus, BatchSummary, ImportBatch, LogLevel
from .processors.processor import check_commit_interval
from .processors.registry import Registry
from .repair.purge import purge_batch, purge_finished
from .repair.reprocess import Continuation
from .repairs import BatchRepairs
from .runner import exclusive
from .runner.dry_run_report import DryRun
from .runner.outbox import HELD, Outbox
from .runner.process import Processing, refuse_stopped
from .settings import Settings
from .store import batches, enqueue, logs
from .store.visibility import Visibility
from .workers.jobs import BatchJobs
from .workers.worker import Worker

READ_OPTIONS = (
    "name", "format", "delimiter", "encoding", "columns", "max_output_bytes", "max_ratio",
)  # fmt: skip

Items = Iterable[Any] | AsyncIterable[Any] | Source


class BatchManager(BatchRepairs):
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

    async def create_or_find_batch(  # noqa: PLR0913 - what create_batch takes, and more
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
        after_create: Mapping[str, Any] | None = None,
        request_sha256: str | None = None,
        **options: Unpack[BatchOptions],
    ) -> Created:
        """The same as `create_batch`; says as well whether an idempotency key was replayed.

        Args:
            after_create: For the REST API: no item runs before `run_after_create` has, with this.
            request_sha256: Kept with the batch for `find_replayed`.
        """
        kept = {} if request_sha256 is None else {"request_sha256": request_sha256}
        request = Request(
            batch_type=batch_type,
            processor=self.registry.get(batch_type),
            metadata=metadata or {},
            options=self._options(batch_type, options, held=after_create is not None) | kept,
            created_by=created_by,
            idempotency_key=idempotency_key,
            on_same_file=on_same_file,
            enqueue=enqueue,
            allow_empty=options.get("allow_empty"),
            visible=visible,
            on_created=self._outbox.on_created(after_create, enqueue=enqueue),
        )
        await self._refuse_another(batch_type, connection, asked=enqueue)
        to, source = (self._database, connection), as_source(items)
        return await create.load(*to, source, request, self._limits, progress)

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
            return await processing.rehearse(batch_id)
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
        await in_child_task(worker.run)

    def _batch_jobs(self, batch_types: Sequence[str], stopping: Callable[[], bool]) -> BatchJobs:
        """What a PgQueuer application of the user's runs."""
        processing = self._open_processing()
        return BatchJobs(self._database, processing, self.settings, batch_types, stopping)

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

    async def add_logs(self, batch_id: UUID, log: LogBuffer) -> None:
        """Store log lines about a batch, and forget them in the buffer."""
        async with self._database.connection() as conn, conn.transaction():
            await logs.insert_lines(conn, batch_id, log.finished())
        log.truncate(0)

    async def check(self) -> str:
        """See that the database answers and has this version's tables; the last migration's name.

        Raises:
            DatabaseUnavailable: The server cannot be reached.
            SchemaError: The database needs `migrate`.
        """
        async with self._database.connection(seconds=self.settings.connect_timeout) as conn:
            await migrations.verify(conn)
        return migrations.migrations()[-1].name

    async def _refuse_another(
        self, batch_type: str, conn: Connection | None = None, *, asked: bool = True
    ) -> None:
        if asked:
            await exclusive.refuse(self._database, self.registry, batch_type, conn)

    def _options(
        self, batch_type: str, given: BatchOptions, *, held: bool = False
    ) -> dict[str, Any]:
        """What every process that works on a batch of this type must know."""
        require_names("create_batch", given, BatchOptions)
        stored = stored_options(self.registry.get(batch_type), given)
        endpoint = self.registry.endpoint(batch_type)
        announced = endpoint.overrides("after_batch_complete")
        return stored | ({"announce": True} if announced else {}) | ({HELD: True} if held else {})

    @property
    def database(self) -> Database:
        """Lends connections; for what the web keeps beside the batches."""
        return self._database

    @property
    def is_open(self) -> bool:
        """Whether the manager can work."""
        return self._processing is not None

    def _open_processing(self) -> Processing:
        if self._processing is None:
            raise ConfigurationError(
                "The manager is not open.",
                hint="use `async with BatchManager(…) as manager:`.",
                cli_hint="",
                web_hint="the server is starting or stopping; try again.",
            )
        return self._processing

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
