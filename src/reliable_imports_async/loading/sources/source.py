"""The interface of all sources, and the size of the chunks in which they deliver records."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

from ..records import Limits, StoredRecord

CHUNK_RECORDS = 500
CHUNK_BYTES = 1_048_576

Read: TypeAlias = Callable[[int], bytes]
"""Reads about this many bytes; returns no bytes at the end."""


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What is known about a source before its first record is read.

    Attributes:
        name: The file's name, without folders.
        size: The number of its bytes, before decompression.
        sha256: The hex digest of its bytes, before decompression.
        columns: The column names of a CSV file, in order.
        format: "csv", "tsv", "jsonl" or "json".
        encoding: The codec with which the file is read.
        notes: Notes for the user about how the file is read.
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
        """How many bytes were read, before decompression; 0 if unknown."""
        ...

    @property
    def late_notes(self) -> tuple[str, ...]:
        """Notes for the user that are known when all records were read."""
        ...

    def chunks(self, limits: Limits) -> AsyncIterator[list[StoredRecord]]:
        """The records in order, in lists of about 500 records or 1 MiB of text."""
        ...


@runtime_checkable
class Source(Protocol):
    """Something that records can be read from."""

    @property
    def is_local(self) -> bool:
        """Whether the records are in memory or on disk, so that reading them never waits."""
        ...

    def open(self) -> AbstractAsyncContextManager[OpenedSource]:
        """Open the source for reading.

        Raises:
            SourceError: The source cannot be read at all.
        """
        ...


def in_chunks(records: Iterable[StoredRecord]) -> Iterator[list[StoredRecord]]:
    """Group records into lists of at most CHUNK_RECORDS records and about CHUNK_BYTES bytes."""
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
