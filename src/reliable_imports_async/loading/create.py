"""From a source to a batch: one COPY in one transaction; the batch exists whole or not at all."""

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
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


class CreateOptions(BatchOptions, total=False):
    """Everything that `create_batch` takes by name, with the same meaning."""

    metadata: Mapping[str, Any] | None
    created_by: str | None
    idempotency_key: str | None
    connection: Connection | None
    on_same_file: OnSameFile
    enqueue: bool
    progress: Progress | None
    visible: Visibility | None


LARGEST_RANGE = 500
SMALLEST_RANGE = 20
RANGES_PER_BATCH = 64
SPOOL_IN_MEMORY = 8 * 1024 * 1024
ANALYZE_ABOVE = 10_000
ASK_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the caller of `create_batch` asked for."""

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
    """Called in the transaction that creates a new batch; it enqueues the batch, if that is due."""

    @property
    def keys(self) -> ItemKeys | None:
        """The keys that the processor gives to records, if it does."""
        return ItemKeys.of(self.processor)


@dataclass(frozen=True, slots=True)
class Created:
    """The batch that a request has led to.

    Attributes:
        batch_id: The batch.
        replayed: Whether an earlier request with the same idempotency key has created it.
    """

    batch_id: UUID
    replayed: bool = False


async def load(
    database: Database,
    connection: Connection | None,
    source: Source,
    request: Request,
    limits: Limits,
    progress: Progress | None = None,
) -> Created:
    """Create a batch from a source, or find the one that is already there.

    Args:
        connection: Joins the caller's transaction instead of opening one.
        progress: Called after each chunk of records.

    Raises:
        SameFile: The file was imported before for this batch type.
        IdempotencyConflict: The key was used with other content.
        SourceError: The source as a whole cannot be read, is empty, has columns that can never
            fit, or does not add up to its control totals.
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
        if source.at_hand:
            return await _create(
                database, connection, new, (metadata, options), rows, loaded, request
            )
        async with _spooled(rows) as spooled:  # nobody's slowness may hold a transaction open
            return await _create(
                database, connection, new, (metadata, options), spooled, loaded, request
            )


async def _create(  # noqa: PLR0917 - the creation's whole input, passed once
    database: Database,
    connection: Connection | None,
    new: NewBatch,
    texts: tuple[str, str],
    rows: AsyncIterator[bytes],
    loaded: Loaded,
    request: Request,
) -> Created:
    if connection is not None:
        if not connection.is_in_transaction():
            raise ConfigurationError(
                "create_batch was given a connection that is in no transaction.",
                hint="wrap the call in `async with connection.transaction():`.",
            )
        return await _insert_and_enqueue(
            connection, new, texts, rows, loaded, request, outside=database
        )
    try:
        async with database.connection(seconds=None) as conn:
            async with conn.transaction():
                await database.lift_limits(conn)
                created = await _insert_and_enqueue(conn, new, texts, rows, loaded, request)
            if loaded.total > ANALYZE_ABOVE:
                await catalog.refresh(conn, loaded.total)
            return created
    except Exception as exc:
        # A lost connection says nothing about the COMMIT: ask, on a new one.
        if isinstance(exc, DatabaseReadOnly):
            raise
        if is_outage(exc) and await _committed(database, new.id):
            return Created(new.id)
        raise


async def _committed(database: Database, batch_id: UUID) -> bool:
    """Whether a creation whose answer was lost has committed after all."""
    async for attempt in stamina.retry_context(
        on=is_outage, attempts=None, timeout=ASK_SECONDS, wait_initial=0.1, wait_max=2.0
    ):
        with attempt:
            async with database.connection() as conn:
                return await batches.creation_committed(conn, batch_id)
    raise AssertionError  # pragma: no cover - the loop above never ends by itself


async def _insert_and_enqueue(
    conn: Connection,
    new: NewBatch,
    texts: tuple[str, str],
    rows: AsyncIterator[bytes],
    loaded: Loaded,
    request: Request,
    *,
    outside: Database | None = None,
) -> Created:
    """The batch and, if asked for, its jobs.

    An earlier batch that is returned instead is enqueued as well, but not for a caller who may not
    see everything: who asks in whose name decides whether that caller may start it.
    """
    created = await _insert(conn, new, texts, rows, loaded, request, outside=outside)
    is_new = created.batch_id == new.id
    if is_new and request.on_created is not None:
        await request.on_created(conn, new.id)
    elif request.enqueue and (is_new or request.visible is None):
        await enqueue.enqueue(conn, created.batch_id)
    return created


async def _insert(
    conn: Connection,
    new: NewBatch,
    texts: tuple[str, str],
    rows: AsyncIterator[bytes],
    loaded: Loaded,
    request: Request,
    *,
    outside: Database | None,
) -> Created:
    """Everything that creates a batch, inside one transaction."""
    checks_file = new.source_sha256 is not None and request.on_same_file != "force"
    if checks_file:  # before the key is looked at: the twin of this request holds this lock
        await batches.lock_file(conn, new.batch_type, new.source_sha256 or "")
    if await _is_key_taken(conn, new):
        return await _same_request(conn, new, rows, loaded)
    if checks_file and (earlier := await _same_file(conn, new, request, outside)):
        return Created(earlier)
    if not await batches.insert(conn, new, *texts):
        return await _same_request(conn, new, rows, loaded)
    await binary_copy.copy(conn, rows, keyed=request.keys is not None)
    if not loaded.total and not _may_be_empty(new, request):
        raise NothingInSource(new.source_name)
    await require_totals(conn, new.id, request.options, loaded.total, len(loaded.unreadable))
    await batches.complete_creation(conn, new, loaded.total, loaded.sha256.digest())
    if loaded.total:
        size, failures = range_size(loaded.total), bool(loaded.unreadable or loaded.unkeyed)
        await ranges.insert(conn, new.id, loaded.total, size, with_failures=failures)
        if request.keys is not None and await request.keys.mark_repeated(conn, new.id, new.id):
            await item_keys.recount_ranges(conn, new.id)
    details = {
        "actor": new.created_by,
        "items": loaded.total,
        "unreadable": len(loaded.unreadable),
        "source": new.source_name,
    }
    await logs.insert(conn, new.id, LogLevel.INFO, "batch created", details)
    for note in new.notes:
        await logs.insert(conn, new.id, LogLevel.WARNING, note, {})
    return Created(new.id)


async def _is_key_taken(conn: Connection, new: NewBatch) -> bool:
    """Whether the idempotency key has its batch: then it does not matter who has the file."""
    key = new.idempotency_key
    return key is not None and bool(await batches.find_idempotent(conn, new.created_by, key))


def _may_be_empty(new: NewBatch, request: Request) -> bool:
    """Whether there may be no records: by default in a list, and not in a file."""
    return new.source_sha256 is None if request.allow_empty is None else request.allow_empty


def range_size(total: int) -> int:
    """Items in a range of a batch of `total`."""
    return max(SMALLEST_RANGE, min(LARGEST_RANGE, total // RANGES_PER_BATCH))


async def _same_file(
    conn: Connection, new: NewBatch, request: Request, outside: Database | None
) -> UUID | None:
    """The earlier batch made from this file, when it is to be used instead.

    One that the caller may not see is as if it were not there.

    Args:
        outside: Where to look as well: the snapshot of a caller's transaction may be older than
            a batch whose creation this one has waited for.
    """
    batch_type, sha256 = new.batch_type, new.source_sha256
    assert sha256 is not None  # noqa: S101 - checked by the caller
    earlier = await batches.find_same_file(conn, batch_type, sha256, request.visible)
    if earlier is None and outside is not None:
        async with outside.connection() as fresh:
            earlier = await batches.find_same_file(fresh, batch_type, sha256, request.visible)
    if earlier is None:
        return None
    if request.on_same_file == "skip":
        return earlier[0]
    raise SameFile(new.source_name or "This file", earlier[0], f"{earlier[1]:%Y-%m-%d %H:%M}")


async def _same_request(
    conn: Connection, new: NewBatch, rows: AsyncIterator[bytes], loaded: Loaded
) -> Created:
    """The batch behind an idempotency key, if this request has the same content."""
    async for _ in rows:  # reads the source to its end, for the hash
        pass
    assert new.idempotency_key is not None  # noqa: S101 - only a key can be taken
    found = await batches.find_idempotent(conn, new.created_by, new.idempotency_key)
    assert found is not None  # noqa: S101 - the insert has just met it
    batch_id, sha256, batch_type = found
    if sha256 != loaded.sha256.digest() or batch_type != new.batch_type:
        raise IdempotencyConflict(new.idempotency_key, batch_id)
    return Created(batch_id, replayed=True)


@asynccontextmanager
async def _spooled(rows: AsyncIterator[bytes]) -> AsyncIterator[AsyncIterator[bytes]]:
    """The same rows from an unlinked temporary file, once the source has ended."""
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


def _json_object(values: Mapping[str, Any], name: str) -> str:
    try:
        return storable_json(exact_json.write(dict(values), inf_nan_mode="strings").decode())
    except Exception as exc:
        raise ConfigurationError(
            f"{name} cannot be stored as JSON: {exc}", hint="use plain values."
        ) from exc
