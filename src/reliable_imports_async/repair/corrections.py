"""Creates a batch from a corrected export: each row goes back to the item it came from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from .. import exact_json
from ..database.guard import Connection
from ..database.pool import Database
from ..errors import ReprocessRefused, SourceError
from ..loading.records import MAX_DEPTH, MAX_RECORD_BYTES, Limits, StoredRecord, from_value
from ..loading.sources import Source
from ..models import CorrectedFile, ImportBatch, RefusedRow
from ..store import reprocessing
from ..store.reprocessing import EligibleItem
from ..wording import counted
from .csv_cells import changes, original, read_control_names
from .reprocess import insert_child, lineage_transaction, locked

PAGE = 1_000
LARGEST_NUMBER = 2**31 - 1
REFUSED_KEPT = 1_000
REFUSED_SHOWN = 5
CONTROL_BYTES = 64 * 1024  # of an exported row, in addition to its record


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a corrected file.

    Attributes:
        line: The line of the file.
        batch_id: The batch of its item.
        item_number: The number of its item.
        cells: The cells of a CSV row, without the control columns.
        record: The record of a JSON line.
        text: The whole JSON line.
    """

    line: int | None
    batch_id: UUID
    item_number: int
    cells: Mapping[str, str]
    record: Mapping[str, Any] | None
    text: str | None

    def refused(self, reason: str) -> RefusedRow:
        """The report that this row is refused."""
        return RefusedRow(line=self.line, item_number=self.item_number, reason=reason)


@dataclass(slots=True)
class Tally:
    """Counts the accepted and the refused rows."""

    accepted: int = 0
    unchanged: int = 0
    refused: list[RefusedRow] = field(default_factory=list)
    refused_rows: int = 0
    seen: set[int] = field(default_factory=set)

    def refuse(self, row: RefusedRow) -> None:
        """Count a refused row."""
        self.refused_rows += 1
        if len(self.refused) < REFUSED_KEPT:
            self.refused.append(row)

    def details(self) -> dict[str, Any]:
        """The details for the log of the batch.

        Raises:
            ReprocessRefused: No row was accepted.
        """
        shown = [str(row) for row in self.refused[:REFUSED_SHOWN]]
        if not self.accepted:
            raise ReprocessRefused(
                f"No row of the file was accepted; {counted(self.refused_rows, 'row')} refused. "
                + "; ".join(shown),
                hint="export the failures again: the file must contain outstanding failures.",
            )
        return {
            "unchanged": self.unchanged,
            "refused": self.refused_rows,
            "refused_rows": shown,
        }


async def create_corrected(
    database: Database, batch_id: UUID, source: Source, limits: Limits, actor: str | None
) -> CorrectedFile:
    """Create the batch that runs exactly the rows of a corrected file.

    Raises:
        BatchNotFound: The batch does not exist.
        WrongBatchStatus: The batch has not ended yet.
        SourceError: The file cannot be read, or has no item numbers.
        ReprocessRefused: No row of the file was accepted.
    """
    child_id = uuid7()
    wide = Limits(
        min(MAX_RECORD_BYTES, 2 * limits.record_bytes + CONTROL_BYTES),
        min(MAX_DEPTH, limits.depth + 1),
    )
    async with source.open() as opened:  # received first: a slow client must not hold a transaction
        rows = _Reader(opened.info.columns, batch_id)
        tally = Tally()
        async with lineage_transaction(database) as conn:
            batch = await locked(conn, batch_id)
            async for records in opened.chunks(wide):
                for page in rows.pages(records, tally):
                    await _take_over(conn, batch, child_id, page, limits, tally)
            details = {"corrected": opened.info.name, **tally.details()}
            await insert_child(
                conn,
                batch,
                child_id,
                tally.accepted,
                details,
                actor=actor,
                options={},
                file=opened.info,
            )
    return CorrectedFile(
        batch_id=child_id,
        accepted=tally.accepted,
        unchanged=tally.unchanged,
        refused=tuple(tally.refused),
        refused_rows=tally.refused_rows,
    )


class _Reader:
    """Turns the records of an exported file into rows that name their items."""

    def __init__(self, columns: Sequence[str] | None, batch_id: UUID) -> None:
        self._batch_id = batch_id
        self._control = None if columns is None else read_control_names(columns)
        if columns is not None and self._control is None:
            raise SourceError(
                "The file has no column _item; its columns are "
                f"{', '.join(map(repr, columns[:20]))}.",
                hint="correct an exported file of failures, and leave its columns _batch and "
                "_item unchanged.",
            )

    def pages(self, records: Sequence[StoredRecord], tally: Tally) -> Iterator[list[Row]]:
        """The rows of some records; rows without an item number are refused."""
        rows = []
        for record in records:
            row = self._row(record)
            if isinstance(row, RefusedRow):
                tally.refuse(row)
            else:
                rows.append(row)
        for start in range(0, len(rows), PAGE):
            yield rows[start : start + PAGE]

    def _row(self, record: StoredRecord) -> Row | RefusedRow:
        if record.text is None:
            return RefusedRow(line=record.line, item_number=None, reason=record.reason or "")
        values: dict[str, Any] = exact_json.read(record.text.decode())
        if self._control is None:
            batch, item = values.get("batch_id"), values.get("item_number")
        else:
            control = {name: values.pop(column, "") for name, column in self._control.items()}
            batch, item = control["batch"], control["item"]
        try:
            batch_id = UUID(batch) if batch else self._batch_id
            number = int(str(item))
            if not 1 <= number <= LARGEST_NUMBER:
                raise ValueError(number)
        except (TypeError, ValueError, AttributeError):
            return RefusedRow(line=record.line, item_number=None, reason="it has no item number")
        if self._control is not None:
            cells = {original(name): cell for name, cell in values.items()}
            return Row(record.line, batch_id, number, cells, None, None)
        text = record.text.decode()
        if not isinstance(values.get("record"), dict):
            reason = "its record is not an object"
            return RefusedRow(line=record.line, item_number=number, reason=reason)
        return Row(record.line, batch_id, number, {}, values["record"], text)


async def _take_over(
    conn: Connection,
    batch: ImportBatch,
    child_id: UUID,
    rows: Sequence[Row],
    limits: Limits,
    tally: Tally,
) -> None:
    """Move the items of a page of rows into the child, if they failed and are outstanding."""
    accepted: list[EligibleItem] = []
    texts: list[str] = []
    for row, item in await _matched(conn, batch, rows, tally):
        text, unchanged = _text(row, item, limits)
        if isinstance(text, RefusedRow):
            tally.refuse(text)
            continue
        tally.unchanged += unchanged
        accepted.append(item)
        texts.append(text)
    if accepted:
        tally.accepted += await reprocessing.take_over_edited(
            conn,
            batch.root_batch_id,
            child_id,
            accepted,
            texts,
            change="merge" if rows[0].text is None else "record",
            offset=tally.accepted,
        )


async def _matched(
    conn: Connection, batch: ImportBatch, rows: Sequence[Row], tally: Tally
) -> list[tuple[Row, EligibleItem]]:
    """The rows with the latest attempts of their items; all other rows are refused."""
    roots = await reprocessing.find_items(
        conn,
        batch.root_batch_id,
        [row.batch_id for row in rows],
        [row.item_number for row in rows],
    )
    eligible = await reprocessing.eligible(
        conn,
        batch.root_batch_id,
        group=None,
        numbers=list(roots.values()),
        unreadable=True,
        limit=len(rows),
    )
    by_root = {item.root_number: item for item in eligible}
    matched = []
    for position, row in enumerate(rows):
        root = roots.get(position)
        if root is None:
            tally.refuse(row.refused("there is no such item in this import"))
        elif root in tally.seen:
            tally.refuse(row.refused("the file contains it more than once"))
        elif root not in by_root:
            tally.refuse(row.refused("it has not failed, or is already being reprocessed"))
        else:
            tally.seen.add(root)
            matched.append((row, by_root[root]))
    return matched


def _text(row: Row, item: EligibleItem, limits: Limits) -> tuple[str | RefusedRow, bool]:
    """The changes of a row as JSON, and whether there are none."""
    before = None if item.text is None else exact_json.read(item.text)
    if row.text is not None:
        after, text = row.record, row.text
    else:
        changed = changes(row.cells, before)
        if before is None and not any(changed.values()):
            return row.refused("it could not be read, and its columns are still empty"), False
        after = {**(before or {}), **changed}
        text = exact_json.write(changed, inf_nan_mode="constants").decode()
    stored = from_value(after, limits=limits)
    if stored.text is None:
        return row.refused(stored.reason or "it cannot be stored"), False
    return text, exact_json.same(after, before)
