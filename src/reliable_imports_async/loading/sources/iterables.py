"""Sources in this process: lists, generators, asynchronous iterables."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from io import IOBase
from typing import TypeAlias

from anyio import to_thread
from pydantic import BaseModel

from ...errors import SourceError
from ..records import Limits, StoredRecord, from_value
from .source import CHUNK_BYTES, CHUNK_RECORDS, Source, SourceInfo, in_chunks

Items: TypeAlias = Iterable[object] | AsyncIterable[object]


def as_source(items: Items | Source) -> Source:
    """Make a source of records: dicts, pydantic models, dataclasses, mappings.

    Args:
        items: A list or another iterable of records, an asynchronous iterable of records, or a
            source (see `read_file`), which is returned as it is. A synchronous iterable runs in
            the event loop, so it must not block.

    Returns:
        A source. Exceptions of the iterable are passed on unchanged.

    Raises:
        SourceError: A single record, a text or a file was passed.
    """
    if isinstance(items, Source):
        return items
    if isinstance(items, str | bytes | bytearray | memoryview | IOBase):
        raise SourceError(
            f"A value of type {type(items).__name__} is not a collection of records.",
            hint="pass a list of records, or read_file(...) for a file.",
        )
    if isinstance(items, Mapping | BaseModel) or not isinstance(items, Iterable | AsyncIterable):
        raise SourceError(
            f"A single {type(items).__name__} is not a collection of records.",
            hint="pass a list of records, e.g. [record].",
        )
    return IterableSource(items)


class IterableSource:
    """A source over an iterable."""

    def __init__(self, items: Items) -> None:
        self.is_local = isinstance(items, list | tuple)
        self._items = items
        self._is_single_use = isinstance(items, Iterator | AsyncIterator)
        self._was_opened = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator["OpenedIterable"]:
        """Begin to iterate.

        Raises:
            SourceError: The iterator was already read.
        """
        if self._is_single_use and self._was_opened:
            raise SourceError(
                f"This {type(self._items).__name__} was already read.",
                hint="create a new one, or pass a list.",
            )
        self._was_opened = True
        yield OpenedIterable(self._items)


class OpenedIterable:
    """An iterable whose records are being read."""

    info = SourceInfo()
    bytes_read = 0
    late_notes: tuple[str, ...] = ()

    def __init__(self, items: Items) -> None:
        self._items = items

    async def chunks(self, limits: Limits) -> AsyncIterator[list[StoredRecord]]:
        """The records in order, in lists of about 500 records or 1 MiB of text."""
        size = 16  # records that are converted together; adapted to their length
        values: list[object] = []
        async for value in self._iterate():
            values.append(value)
            if len(values) >= size:
                for chunk in await to_thread.run_sync(_converted, values, limits):
                    size = _fitting(chunk)
                    yield chunk
                values = []
        for chunk in await to_thread.run_sync(_converted, values, limits):
            yield chunk

    async def _iterate(self) -> AsyncIterator[object]:
        if isinstance(self._items, AsyncIterable):
            async for value in self._items:
                yield value
        else:
            for value in self._items:
                yield value


def _converted(values: list[object], limits: Limits) -> list[list[StoredRecord]]:
    return list(in_chunks(from_value(value, limits=limits) for value in values))


def _fitting(chunk: list[StoredRecord]) -> int:
    """How many records of this length make a chunk."""
    total = sum(len(record.text or record.raw or b"") for record in chunk)
    return max(1, min(CHUNK_RECORDS, CHUNK_BYTES * len(chunk) // max(1, total)))
