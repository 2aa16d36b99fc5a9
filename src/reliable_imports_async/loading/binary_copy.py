"""Writes records as rows of the items table by binary COPY, while it reads further records.

The rows are encoded here and not by the driver, so that type codecs of the caller's own pool have
no effect on them.
"""

import hashlib
import struct
from array import array
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias
from uuid import UUID

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from ..database.guard import Connection
from ..failures import parse_failure
from ..outcomes import Failure
from ..processors.keys import ItemKeys
from ..store.item_keys import RecordKeys
from .records import Limits, StoredRecord
from .sources import OpenedSource

Progress = Callable[[int, int, int | None], None]
"""Called while loading with: records so far, bytes read, bytes in total (None if unknown)."""
WRITE_BYTES = 65_536
READ_AHEAD = 3  # chunks that wait while PostgreSQL takes one: 200 kB each as a rule, 1 MiB at most
_COLUMNS = (
    "batch_id",
    "item_number",
    "status",
    "source_data",
    "raw",
    "source_line",
    "error_kind",
    "error_type",
    "error_message",
    "error_group",
)
_FIELDS = len(_COLUMNS)
_KEYED = (*_COLUMNS, "item_key", "lock_key", "error_hint")
_HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_TRAILER = struct.pack(">h", -1)
_NULL = struct.pack(">i", -1)
_START = struct.Struct(">hi16sii")  # number of fields, batch_id, item_number
_PENDING = struct.Struct(">hi16siii7siB")  # the same, status, length and version of the jsonb
_JSONB_VERSION = 1
_AFTER = struct.Struct(">iiqiiii")  # raw, source_line, the four error fields
_AFTER_WITHOUT_LINE = _NULL * 6
_LENGTH = struct.Struct(">i")
_LINE = struct.Struct(">iq")
_PENDING_STATUS = b"\0\0\0\x07pending"
_FAILED_STATUS = b"\0\0\0\x06failed"
_Ahead: TypeAlias = bytes | Exception


@dataclass(slots=True)
class Loaded:
    """The result of reading the records; complete when all of them were read.

    Attributes:
        total: How many records there are.
        unreadable: The item numbers of those that could not be read.
        unkeyed: How many have no usable item key.
        sha256: The hash of their contents.
    """

    total: int = 0
    unreadable: "array[int]" = field(default_factory=lambda: array("i"))
    unkeyed: int = 0
    sha256: "hashlib._Hash" = field(default_factory=hashlib.sha256)


async def copy(conn: Connection, rows: AsyncIterator[bytes], *, keyed: bool = False) -> None:
    """Write rows, and read the next rows while PostgreSQL takes the previous ones.

    Args:
        conn: A connection in a transaction.
        rows: The rows, read in a task of their own; their exceptions are raised here.
        keyed: Whether the rows have the fields of an item key.
    """
    failure: Exception | None = None
    send, receive = anyio.create_memory_object_stream[_Ahead](READ_AHEAD)
    with send, receive:
        async with anyio.create_task_group() as group:
            group.start_soon(_read_ahead, rows, send)
            try:
                await conn.copy_to_table(
                    "import_batch_items",
                    schema_name="reliable_imports",
                    columns=_KEYED if keyed else _COLUMNS,
                    source=_received(receive),
                    format="binary",
                )
            except Exception as exc:  # noqa: BLE001 - raised below, outside of the task group
                failure = exc
            group.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def rows(
    batch_id: UUID,
    opened: OpenedSource,
    limits: Limits,
    loaded: Loaded,
    progress: Progress | None,
    keys: ItemKeys | None,
) -> AsyncIterator[bytes]:
    """The records as rows for COPY, in pieces that are each written to the socket at once."""
    piece = _HEADER
    async for records in opened.chunks(limits):
        if keys is None:
            piece += _encode(batch_id, records, loaded)
        else:
            piece += _encode_keyed(batch_id, records, loaded, keys)
        if len(piece) >= WRITE_BYTES:
            yield piece
            piece = b""
        if progress is not None:
            progress(loaded.total, opened.bytes_read, opened.info.size)
    yield piece + _TRAILER


async def _read_ahead(rows: AsyncIterator[bytes], send: MemoryObjectSendStream[_Ahead]) -> None:
    with send:
        try:
            async for chunk in rows:
                await send.send(chunk)
        except Exception as exc:  # noqa: BLE001 - raised in _received
            await send.send(exc)


async def _received(receive: MemoryObjectReceiveStream[_Ahead]) -> AsyncIterator[bytes]:
    async for chunk in receive:
        if isinstance(chunk, Exception):
            raise chunk
        yield chunk


def _encode(batch_id: UUID, records: Sequence[StoredRecord], loaded: Loaded) -> bytes:
    """One chunk of records as rows for COPY; also counts and hashes the records."""
    parts: list[bytes] = []
    number = loaded.total
    identity = batch_id.bytes
    for text, raw, line, reason in records:
        number += 1
        if text is None:
            parts.append(_START.pack(_FIELDS, 16, identity, 4, number))
            parts.append(_unreadable(raw or b"", line, reason))
            loaded.unreadable.append(number)
            continue
        length = len(text) + 1  # with the version byte of jsonb
        parts += (
            _PENDING.pack(_FIELDS, 16, identity, 4, number, 7, b"pending", length, _JSONB_VERSION),
            text,
            _AFTER_WITHOUT_LINE if line is None else _AFTER.pack(-1, 8, line, -1, -1, -1, -1),
        )
    _count(records, loaded)
    return b"".join(parts)


def _encode_keyed(
    batch_id: UUID, records: Sequence[StoredRecord], loaded: Loaded, keys: ItemKeys
) -> bytes:
    """The same for a processor with item keys, with three more fields."""
    parts: list[bytes] = []
    for number, (text, raw, line, reason) in enumerate(records, loaded.total + 1):
        parts.append(_START.pack(len(_KEYED), 16, batch_id.bytes, 4, number))
        key = RecordKeys(None) if text is None else keys.of_record(text)
        if text is None:
            parts.append(_unreadable(raw or b"", line, reason))
            loaded.unreadable.append(number)
        elif isinstance(key, Failure):
            parts.append(_failed(text, None, line, key))
            loaded.unkeyed += 1
        else:
            json = _field(bytes([_JSONB_VERSION]) + text)
            parts += (_PENDING_STATUS, json, _NULL, _line(line), _NULL * 4)
        parts.append(_key_fields(key))
    _count(records, loaded)
    return b"".join(parts)


def _count(records: Sequence[StoredRecord], loaded: Loaded) -> None:
    loaded.total += len(records)
    contents = [record.text if record.text is not None else record.raw or b"" for record in records]
    loaded.sha256.update(b"\n".join([*contents, b""]))


def _unreadable(raw: bytes, line: int | None, reason: str | None) -> bytes:
    """The fields of an unreadable record, from its status on."""
    return _failed(None, raw, line, parse_failure(reason or "the record cannot be stored"))


def _failed(text: bytes | None, raw: bytes | None, line: int | None, failure: Failure) -> bytes:
    """The fields of a record that is unreadable or has no usable key, from its status on."""
    fields = (failure.kind.value, failure.type, failure.message, failure.group)
    error = b"".join(_field(value.encode()) for value in fields)
    source = _NULL if text is None else _field(bytes([_JSONB_VERSION]) + text)
    return _FAILED_STATUS + source + (_NULL if raw is None else _field(raw)) + _line(line) + error


def _key_fields(key: RecordKeys | Failure) -> bytes:
    """The last three fields of a keyed row: the item key, the lock key, and a failure's hint."""
    if isinstance(key, Failure):
        return _NULL * 2 + _field((key.hint or "").encode())
    return _text(key.key) + _text(key.lock) + _NULL


def _text(text: str | None) -> bytes:
    return _NULL if text is None else _field(text.encode())


def _line(line: int | None) -> bytes:
    return _NULL if line is None else _LINE.pack(8, line)


def _field(data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + data
