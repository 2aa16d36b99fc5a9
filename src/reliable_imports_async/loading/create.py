"""Creates a batch from a source: one COPY in one transaction, so that all of it exists or none.

`load` is the way in. It also finds the earlier batch if the same file or the same idempotency key
comes again.
"""

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import IO, Any, Literal
from uuid import UUID

import anyio
import stamina
from uuid_utils.compat import uuid7

from .. import exact_json
from ..database.guard import Connection
from ..database.pool import Database
from ..errors import (
    ConfigurationError,
    DatabaseReadOnly,
    IdempotencyConflict,
    NothingInSource,
    SameFile,
)
from ..failures import is_outage
from ..models import LogLevel
from ..processors.keys import ItemKeys
from ..processors.processor import BaseProcessor
from ..sanitize import storable_json
from ..store import batches, catalog, enqueue, item_keys, logs, ranges
from ..store.batches import NewBatch
from ..store.visibility import Visibility
from . import binary_copy
from .binary_copy import Loaded, Progress
from .columns import check_columns
from .options import BatchOptions, require_columns, require_totals
from .records import Limits
from .sources import OpenedSource, Source

OnSameFile = Literal["refuse", "skip", "force"]

LARGEST_RANGE = 5_000
SMALLEST_RANGE = 20
RANGES_PER_BATCH = 64
SPOOL_IN_MEMORY = 8 * 1024 * 1024
ANALYZE_ABOVE = 10_000
CONFIRM_SECONDS = 30.0


class CreateOptions(BatchOptions, total=False):
    """The keyword arguments of `create_batch`."""

    metadata: Mapping[str, Any] | None
    created_by: str | None
    idempotency_key: str | None
    connection: Connection | None
    on_same_file: OnSameFile
    enqueue: bool
    progress: Progress | None
    visible: Visibility | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The arguments of `create_batch`, and of the code that calls it on behalf of a user."""

    batch_type: str
    processor: BaseProcessor[Any]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    created_by: str | None = None
    idempotency_key: str | None = None
    on_same_file: OnSameFile = "refuse"
    enqueue: bool = False
    allow_empty: bool | None = None
    visible: Visibility | None = None
    on_created: Callable[[Connection, UUID], Awaitable[None]] | None = None
    """Called in the transaction that creates a new batch; it also has to enqueue the batch."""

    @property
    def keys(self) -> ItemKeys | None:
        """The processor's item keys, if it has any."""
        return ItemKeys.of(self.processor)


@dataclass(frozen=True, slots=True)
class Created:
    """The batch that answers a request.

    Attributes:
        batch_id: The batch.
        replayed: Whether an earlier request with the same idempotency key created it.
    """

    batch_id: UUID
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class _Creation:
    """A batch that is being created.

    Attributes:
        request: The arguments of the caller.
        new: The batch.
        metadata: Its metadata, as JSON text.
        options: Its options, as JSON text.
        rows: Its items, as rows for COPY.
        loaded: What is known about the rows; complete when `rows` has ended.
        opened: The source.
    """

    request: Request
    new: NewBatch
    metadata: str
    options: str
    rows: AsyncIterator[bytes]
    loaded: Loaded
    opened: OpenedSource


async def load(
    database: Database,
    connection: Connection | None,
    source: Source,
    request: Request,
    limits: Limits,
    progress: Progress | None = None,
) -> Created:
    """Create a batch from a source, or find the earlier batch of the same file or key.

    Args:
        database: Where to create it.
        connection: Joins the caller's transaction on this connection instead of opening one.
        source: The records.
        request: The arguments of the caller.
        limits: The largest size and depth of a record.
        progress: Called after each chunk of records.

    Raises:
        SameFile: The file was already imported for this batch type.
        IdempotencyConflict: The key was already used with other content.
        SourceError: The source cannot be read at all, is empty, has columns that cannot fit the
            model, or does not add up to its control totals.
    """
    metadata = _json_object(request.metadata, "metadata")
    options = _json_object(request.options, "options")
    batch_id = uuid7()
    async with source.open() as opened:
        require_columns(request.options, opened.info.columns)
        notes = [*opened.info.notes, *check_columns(request.processor, opened.info)]
        new = _new_batch(batch_id, request, opened, notes)
        loaded = Loaded()
        rows = binary_copy.rows(batch_id, opened, limits, loaded, progress, request.keys)
        creation = _Creation(request, new, metadata, options, rows, loaded, opened)
        if source.is_local:
            return await _create(database, connection, creation)
        async with _spooled(rows) as spooled:  # a slow source must not hold a transaction open
            return await _create(database, connection, replace(creation, rows=spooled))


def range_size(total: int) -> int:
    """The number of items in each range of a batch of `total` items."""
    return max(SMALLEST_RANGE, min(LARGEST_RANGE, total // RANGES_PER_BATCH))


def _json_object(values: Mapping[str, Any], name: str) -> str:
    try:
        return storable_json(exact_json.write(dict(values), inf_nan_mode="strings").decode())
    except Exception as exc:
        raise ConfigurationError(
            f"{name} cannot be stored as JSON: {exc}",
            hint="use only values that JSON can represent.",
        ) from exc


def _new_batch(
    batch_id: UUID, request: Request, opened: OpenedSource, notes: Sequence[str]
) -> NewBatch:
    info = opened.info
    return NewBatch(
        id=batch_id,
        batch_type=request.batch_type,
        created_by=request.created_by,
        idempotency_key=request.idempotency_key,
        source_name=info.name,
        source_format=info.format,
        source_size=info.size,
        source_sha256=info.sha256,
        source_columns=info.columns,
        source_encoding=info.encoding,
        notes=tuple(notes),
    )


async def _create(
    database: Database, connection: Connection | None, creation: _Creation
) -> Created:
    if connection is not None:
        if not connection.is_in_transaction():
            raise ConfigurationError(
                "create_batch was given a connection that is not in a transaction.",
                hint="wrap the call in `async with connection.transaction():`.",
            )
        return await _insert_and_enqueue(connection, creation, outside=database)
    try:
        async with database.connection(seconds=None) as conn:
            async with conn.transaction():
                await database.lift_limits(conn)
                created = await _insert_and_enqueue(conn, creation)
            if creation.loaded.total > ANALYZE_ABOVE:
                await catalog.refresh(conn, creation.loaded.total)
            return created
    except Exception as exc:
        # A lost connection says nothing about the COMMIT, so look up the batch on a new one.
        if isinstance(exc, DatabaseReadOnly):
            raise
        if is_outage(exc) and await _committed(database, creation.new.id):
            return Created(creation.new.id)
        raise


async def _committed(database: Database, batch_id: UUID) -> bool:
    """Whether the creation was committed, although its answer was lost."""
    async for attempt in stamina.retry_context(
        on=is_outage, attempts=None, timeout=CONFIRM_SECONDS, wait_initial=0.1, wait_max=2.0
    ):
        with attempt:
            async with database.connection() as conn:
                return await batches.creation_committed(conn, batch_id)
    raise AssertionError  # pragma: no cover - the loop above returns or raises


async def _insert_and_enqueue(
    conn: Connection, creation: _Creation, *, outside: Database | None = None
) -> Created:
    """Insert the batch and, if asked for, enqueue it.

    An earlier batch that is returned instead is enqueued too, unless the caller may see only some
    batches: whoever acts for that user decides whether the user may start it.
    """
    created = await _insert(conn, creation, outside)
    request, is_new = creation.request, created.batch_id == creation.new.id
    if is_new and request.on_created is not None:
        await request.on_created(conn, created.batch_id)
    elif request.enqueue and (is_new or request.visible is None):
        await enqueue.enqueue(conn, created.batch_id)
    return created


async def _insert(conn: Connection, creation: _Creation, outside: Database | None) -> Created:
    """Insert the batch with its items, or find the earlier batch; in the current transaction."""
    request, new, loaded = creation.request, creation.new, creation.loaded
    file = None if request.on_same_file == "force" else new.source_sha256
    if file is not None:  # before the key is looked up: a parallel twin of this request holds it
        await batches.lock_file(conn, new.batch_type, file)
    if replayed := await _same_request(conn, creation):
        return replayed
    if file is not None and (earlier := await _same_file(conn, creation, file, outside)):
        return Created(earlier)
    if not await batches.insert(conn, new, creation.metadata, creation.options):
        return await _require_same_request(conn, creation)
    await binary_copy.copy(conn, creation.rows, keyed=request.keys is not None)
    if not loaded.total and not _may_be_empty(new, request):
        raise NothingInSource(new.source_name)
    new = replace(new, notes=(*new.notes, *creation.opened.late_notes))
    await require_totals(conn, new.id, request.options, loaded.total, len(loaded.unreadable))
    await batches.complete_creation(conn, new, loaded.total, loaded.sha256.digest())
    if loaded.total:
        size, failures = range_size(loaded.total), bool(loaded.unreadable or loaded.unkeyed)
        await ranges.insert(conn, new.id, loaded.total, size, with_failures=failures)
        if request.keys is not None and await request.keys.mark_repeated(conn, new.id, new.id):
            await item_keys.recount_ranges(conn, new.id)
    await _log_creation(conn, new, loaded)
    return Created(new.id)


async def _log_creation(conn: Connection, new: NewBatch, loaded: Loaded) -> None:
    details = {
        "actor": new.created_by,
        "items": loaded.total,
        "unreadable": len(loaded.unreadable),
        "source": new.source_name,
    }
    await logs.insert(conn, new.id, LogLevel.INFO, "batch created", details)
    for note in new.notes:
        await logs.insert(conn, new.id, LogLevel.WARNING, note, {})


def _may_be_empty(new: NewBatch, request: Request) -> bool:
    """Whether there may be no records; by default, an iterable may be empty and a file may not."""
    return new.source_sha256 is None if request.allow_empty is None else request.allow_empty


async def _same_file(
    conn: Connection, creation: _Creation, sha256: str, outside: Database | None
) -> UUID | None:
    """The earlier batch of this file, if it answers the request; only batches the caller may see.

    Args:
        conn: The connection in the creating transaction.
        creation: The batch that is being created.
        sha256: The hash of its file.
        outside: Where to look too: the snapshot of a caller's transaction may be older than a
            batch whose creation this transaction has waited for.

    Raises:
        SameFile: There is an earlier batch, and the request does not say to use it.
    """
    batch_type, visible = creation.new.batch_type, creation.request.visible
    earlier = await batches.find_same_file(conn, batch_type, sha256, visible)
    if earlier is None and outside is not None:
        async with outside.connection() as fresh:
            earlier = await batches.find_same_file(fresh, batch_type, sha256, visible)
    if earlier is None:
        return None
    batch_id, created_at = earlier
    if creation.request.on_same_file == "skip":
        return batch_id
    name = creation.new.source_name or "This file"
    raise SameFile(name, batch_id, f"{created_at:%Y-%m-%d %H:%M}")


async def _same_request(conn: Connection, creation: _Creation) -> Created | None:
    """The earlier batch of the request's idempotency key, if there is one.

    Raises:
        IdempotencyConflict: The earlier request had other content.
    """
    new, key = creation.new, creation.new.idempotency_key
    if key is None or not await batches.find_idempotent(conn, new.created_by, key):
        return None
    return await _require_same_request(conn, creation)


async def _require_same_request(conn: Connection, creation: _Creation) -> Created:
    async for _ in creation.rows:  # reads the source to its end, for its hash
        pass
    new, key = creation.new, creation.new.idempotency_key
    earlier = None if key is None else await batches.find_idempotent(conn, new.created_by, key)
    if key is None or earlier is None:
        raise LookupError(f"batch {new.id} was not inserted, and no earlier batch has its key")
    batch_id, sha256, batch_type = earlier
    if sha256 != creation.loaded.sha256.digest() or batch_type != new.batch_type:
        raise IdempotencyConflict(key, batch_id)
    return Created(batch_id, replayed=True)


@asynccontextmanager
async def _spooled(rows: AsyncIterator[bytes]) -> AsyncIterator[AsyncIterator[bytes]]:
    """Read the source to its end, and give the rows from an unlinked temporary file."""
    with tempfile.SpooledTemporaryFile(max_size=SPOOL_IN_MEMORY) as file:
        async for chunk in rows:
            if file.tell() > SPOOL_IN_MEMORY:
                await anyio.to_thread.run_sync(file.write, chunk)
            else:
                file.write(chunk)
        file.seek(0)
        yield _read(file)


async def _read(file: IO[bytes]) -> AsyncIterator[bytes]:
    while chunk := await anyio.to_thread.run_sync(file.read, 1 << 18):
        yield chunk
