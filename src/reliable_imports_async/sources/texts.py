"""Records that are JSON texts already, such as the elements of a request's body."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from anyio import to_thread

from reliable_imports_async.records import Limits, StoredRecord, from_json, from_parsed, from_value

from .source import CHUNK_RECORDS, SourceInfo

AT_ONCE_BYTES = 65_536  # less is converted in the event loop: a thread would cost more


class JsonTexts:
    """A source over JSON texts, kept as they are written, and values that have no text.

    Args:
        records: UTF-8 JSON texts; anything that is not bytes is converted like a record of a list.
        values: What the json module read from the texts, where all are texts: saves reading again.
    """

    at_hand = True

    def __init__(self, records: Sequence[bytes | Any], values: Sequence[Any] | None = None) -> None:
        self._records = records
        self._values = values

    @asynccontextmanager
    async def open(self) -> AsyncIterator["OpenedTexts"]:
        """Begin to iterate; may be repeated."""
        yield OpenedTexts(self._records, self._values)


class OpenedTexts:
    """JSON texts that are being read."""

    info = SourceInfo()
    bytes_read = 0

    def __init__(self, records: Sequence[bytes | Any], values: Sequence[Any] | None) -> None:
        self._records = records
        self._values = values

    async def chunks(self, limits: Limits) -> AsyncIterator[list[StoredRecord]]:
        """The records in their order, in lists of about 500."""
        for start in range(0, len(self._records), CHUNK_RECORDS):
            some = self._records[start : start + CHUNK_RECORDS]
            values = self._values and self._values[start : start + CHUNK_RECORDS]
            if sum(len(one) if isinstance(one, bytes) else 1024 for one in some) <= AT_ONCE_BYTES:
                yield _converted(some, values, limits)
            else:
                yield await to_thread.run_sync(_converted, some, values, limits)


def _converted(
    records: Sequence[bytes | Any], values: Sequence[Any] | None, limits: Limits
) -> list[StoredRecord]:
    if values:
        pairs = zip(records, values, strict=True)
        return [from_parsed(text, value, limits=limits) for text, value in pairs]
    return [
        from_json(one, line=None, limits=limits)
        if isinstance(one, bytes)
        else from_value(one, limits=limits)
        for one in records
    ]
