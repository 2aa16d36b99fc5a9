"""Exports the outstanding failures of a batch as a file that can be corrected and imported."""

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
PAGE = 100  # records read by one statement; each may be large


class FailureExport:
    """The outstanding failures of one batch, as the chunks of a file.

    No connection is held between the chunks, so a slow reader blocks nothing.
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
        """The chunks of the file; see `BatchManager.export_failures`.

        Raises:
            BatchNotFound: The batch does not exist.
            ConfigurationError: The format is unknown.
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
        """The columns of the source in order, then all other names in the records."""
        columns = dict.fromkeys(batch.source_columns or ())
        async for tries in self._tries(batch):
            async with self._database.connection() as conn:
                columns |= dict.fromkeys(await repairs.keys(conn, tries))
        return tuple(columns)

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
                tries = await repairs.outstanding(
                    conn,
                    batch.id,
                    batch.root_batch_id,
                    group=self._group,
                    after=after,
                    limit=TRIES,
                )
            if tries:
                yield tries
            if len(tries) < TRIES:
                return
            after = tries[-1].item_number


def _header(columns: tuple[str, ...]) -> bytes:
    """The column names.

    A control column comes first, because a program that does not know the byte order mark reads it
    as a part of the first name.
    """
    names = [harmless(name) for name in columns]
    first, *rest = control_names(columns).values()
    return _csv([[first, *names, *rest]])


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
    """One line of JSON; the record is its stored text, so that nothing is lost."""
    control = {
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
    text = json.dumps(control, ensure_ascii=False)[:-1]
    return f'{text}, "record": {record.text or "null"}}}\n'.encode()
