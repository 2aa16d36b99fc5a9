"""The outstanding failures of a batch as a file, to be corrected and brought back."""

import codecs
import csv
import io
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Iterable
from typing import Literal
from uuid import UUID

from anyio import to_thread

from .. import exact_json
from ..database.pool import Database
from ..errors import BatchNotFound, ConfigurationError
from ..models import ImportBatch
from ..store import batches, repairs
from ..store.repairs import FailedRecord, Try
from .csv_cells import control_names, harmless, shown

ExportFormat = Literal["csv", "jsonl"]

TRIES = 20_000  # found by one statement
PAGE = 100  # records read by one; each may be large


class FailureExport:
    """The failures of one batch that are outstanding, as the chunks of a file.

    No connection is held while the reader takes its time.
    """

    def __init__(self, database: Database, batch_id: UUID, group: str | None) -> None:
        self._database = database
        self._batch_id = batch_id
        self._group = group

    async def chunks(
        self,
        format: ExportFormat,  # noqa: A002 - the word that users know
        *,
        mark: bool = False,
    ) -> AsyncIterator[bytes]:
        """The file, in pieces; see `BatchManager.export_failures`.

        Raises:
            BatchNotFound: There is no such batch.
            ConfigurationError: There is no such format.
        """
        if format not in {"csv", "jsonl"}:
            raise ConfigurationError(
                f"Failures cannot be exported as {format}.", hint="use csv or jsonl."
            )
        async with self._database.connection() as conn:
            batch = await batches.get(conn, self._batch_id)
        if batch is None:
            raise BatchNotFound(self._batch_id)
        if format == "jsonl":
            async for page in self._pages(batch):
                yield await to_thread.run_sync(_lines, batch.id, page)
            return
        columns = await self._columns(batch)
        yield (codecs.BOM_UTF8 if mark else b"") + await to_thread.run_sync(_header, columns)
        async for page in self._pages(batch):
            yield await to_thread.run_sync(_rows, batch.id, columns, page)

    async def _columns(self, batch: ImportBatch) -> tuple[str, ...]:
        """Those of the source in their order, then whatever else the records use."""
        found = dict.fromkeys(batch.source_columns or ())
        async for tries in self._tries(batch):
            async with self._database.connection() as conn:
                found |= dict.fromkeys(await repairs.keys(conn, tries))
        return tuple(found)

    async def _pages(self, batch: ImportBatch) -> AsyncIterator[list[FailedRecord]]:
        async for tries in self._tries(batch):
            for start in range(0, len(tries), PAGE):
                async with self._database.connection() as conn:
                    page = await repairs.read(conn, batch.id, tries[start : start + PAGE])
                yield page

    async def _tries(self, batch: ImportBatch) -> AsyncIterator[list[Try]]:
        after = 0
        while True:
            async with self._database.connection() as conn:
                found = await repairs.outstanding(
                    conn,
                    batch.id,
                    batch.root_batch_id,
                    group=self._group,
                    after=after,
                    limit=TRIES,
                )
            if found:
                yield found
            if len(found) < TRIES:
                return
            after = found[-1].item_number


def _header(columns: tuple[str, ...]) -> bytes:
    """The names; ours comes first, since what does not know the mark takes it for a part of it."""
    names = [harmless(name) for name in columns]
    first, *others = control_names(columns).values()
    return _csv([[first, *names, *others]])


def _rows(batch_id: UUID, columns: tuple[str, ...], page: list[FailedRecord]) -> bytes:
    return _csv(_row(batch_id, columns, record) for record in page)


def _row(batch_id: UUID, columns: tuple[str, ...], record: FailedRecord) -> list[str]:
    values = {} if record.text is None else exact_json.read(record.text)
    code = f" {record.sqlstate}" if record.sqlstate else ""
    raw = "" if record.raw is None else record.raw.decode("utf-8", "backslashreplace")
    return [
        str(batch_id),
        *(shown(values.get(name)) for name in columns),
        str(record.item_number),
        "" if record.line is None else str(record.line),
        record.group,
        harmless(f"{record.type}{code}: {record.message}"),
        harmless(record.detail or ""),
        harmless(raw.replace("\0", "\\x00")),
    ]


def _csv(rows: Iterable[list[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _lines(batch_id: UUID, page: list[FailedRecord]) -> bytes:
    return b"".join(_line(batch_id, record) for record in page)


def _line(batch_id: UUID, record: FailedRecord) -> bytes:
    """One line of JSON; the record is the stored text itself, so that nothing can get lost."""
    beside = {
        "batch_id": str(batch_id),
        "item_number": record.item_number,
        "source_line": record.line,
        "error": {
            "group": record.group,
            "kind": record.kind,
            "type": record.type,
            "message": record.message,
            "sqlstate": record.sqlstate,
            "constraint": record.constraint,
            "detail": record.detail,
        },
        "raw_base64": None if record.raw is None else b64encode(record.raw).decode(),
    }
    text = json.dumps(beside, ensure_ascii=False)[:-1]
    return f'{text}, "record": {record.text or "null"}}}\n'.encode()
