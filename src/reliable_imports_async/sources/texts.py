"""Records that are at hand already, such as the elements of a request's body."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from anyio import to_thread

from reliable_imports_async.records import Limits, StoredRecord, from_value

from .source import CHUNK_RECORDS, SourceInfo

AT_ONCE = 20  # so few are converted in the event loop: a thread would cost more


class JsonRecords:
    """A source over records that are ready to be stored, and values that are not.

    Args:
        records: Anything that is not a `StoredRecord` is converted like a record of a list.
    """

    at_hand = True

    def __init__(self, records: Sequence[StoredRecord | Any]) -> None:
        self._records = records

    @asynccontextmanager
    async def open(self) -> AsyncIterator["OpenedRecords"]:
        """Begin to iterate; may be repeated."""
        yield OpenedRecords(self._records)


class OpenedRecords:
    """Records that are being read."""

    info = SourceInfo()
    bytes_read = 0

    def __init__(self, records: Sequence[StoredRecord | Any]) -> None:
        self._records = records

    async def chunks(self, limits: Limits) -> AsyncIterator[list[StoredRecord]]:
        """The records in their order, in lists of about 500."""
        for start in range(0, len(self._records), CHUNK_RECORDS):
            some = self._records[start : start + CHUNK_RECORDS]
            if sum(type(one) is not StoredRecord for one in some) <= AT_ONCE:
                yield _stored(some, limits)
            else:
                yield await to_thread.run_sync(_stored, some, limits)


def _stored(records: Sequence[StoredRecord | Any], limits: Limits) -> list[StoredRecord]:
    return [one if type(one) is StoredRecord else from_value(one, limits=limits) for one in records]
