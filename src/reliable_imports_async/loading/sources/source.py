"""What every source offers, and the size of the chunks in which records travel."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

from reliable_imports_async.loading.records import Limits, StoredRecord

CHUNK_RECORDS = 500
CHUNK_BYTES = 1_048_576

Read: TypeAlias = Callable[[int], bytes]
"""Reads about that many bytes; no bytes at the end."""


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What is known about a source before its first record.

    Attributes:
        name: The file's name, without folders.
        size: Bytes as they came, compressed if they were.
        sha256: Hex digest of the bytes as they came.
        columns: The names of a CSV file's columns, in their order.
        format: "csv", "tsv", "jsonl" or "json".
        encoding: The codec that a file is read with.
        notes: What its owner should know about how it was read.
        head: The first lines of a CSV file.
    """

    name: str | None = None
    size: int | None = None
    sha256: str | None = None
    columns: tuple[str, ...] | None = None
    format: str | None = None
    encoding: str | None = None
    notes: tuple[str, ...] = ()
    head: tuple[str, ...] = field(default=(), compare=False, repr=False)


class OpenedSource(Protocol):
    """A source whose records are being read."""

    @property
    def info(self) -> SourceInfo:
        """What is known about the source."""
        ...

    @property
    def bytes_read(self) -> int:
        """How far reading is, in bytes as stored (see `SourceInfo.size`); 0 when unknown."""
        ...

    def chunks(self, limits: Limits) -> AsyncIterator[list[StoredRecord]]:
        """The records in their order, in lists of about 500 records or 1 MiB of text."""
        ...


@runtime_checkable
class Source(Protocol):
    """Something that records can be read from."""

    @property
    def at_hand(self) -> bool:
        """Whether the records are in memory or on disk, so that reading waits for nobody."""
        ...

    def open(self) -> AbstractAsyncContextManager[OpenedSource]:
        """Open the source for reading.

        Raises:
            SourceError: it cannot be read as a whole.
        """
        ...


def in_chunks(records: Iterable[StoredRecord]) -> Iterator[list[StoredRecord]]:
    """Group records into lists of at most CHUNK_RECORDS, bounded by CHUNK_BYTES as well."""
    chunk: list[StoredRecord] = []
    size = 0
    for record in records:
        chunk.append(record)
        size += len(record.text or record.raw or b"")
        if len(chunk) >= CHUNK_RECORDS or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
