"""A corrected file of failures, back to the very items that it came from."""

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
from .csv_cells import changes, found_control_names, original
from .reprocess import insert_child, lineage_transaction, locked

PAGE = 1_000
LARGEST_NUMBER = 2**31 - 1
REFUSED_KEPT = 1_000
REFUSED_SHOWN = 5
BESIDE_BYTES = 64 * 1024  # what an exported row says beside its record


@dataclass(frozen=True, slots=True)
class Row:
    """A row that names an item.

    Attributes:
        cells: Its own columns, of a CSV file.
        text: The whole line, of a JSON Lines file.
    """

    line: int | None
    batch_id: UUID
    item_number: int
    cells: Mapping[str, str]
    record: Mapping[str, Any] | None
    text: str | None

    def refused(self, reason: str) -> RefusedRow:
        """The report about this row."""
        return RefusedRow(line=self.line, item_number=self.item_number, reason=reason)


@dataclass(slots=True)
class Tally:
    """What has become of the rows so far."""

    accepted: int = 0
    unchanged: int = 0
    refused: list[RefusedRow] = field(default_factory=list)
    refused_rows: int = 0
    seen: set[int] = field(default_factory=set)

    def refuse(self, row: RefusedRow) -> None:
        """Note a row that is not taken."""
        self.refused_rows += 1
        if len(self.refused) < REFUSED_KEPT:
            self.refused.append(row)

    def details(self) -> dict[str, Any]:
        """What the log says about the file.

        Raises:
            ReprocessRefused: No row could be taken.
        """
        shown = [str(row) for row in self.refused[:REFUSED_SHOWN]]
        if not self.accepted:
            raise ReprocessRefused(
                f"No row of the file was taken; {self.refused_rows} were refused. "
                + "; ".join(shown),
                hint="export the failures again: the file must hold what failed and is "
                "outstanding.",
            )
        return {
            "unchanged": self.unchanged,
            "refused": self.refused_rows,
            "refused_rows": shown,
        }


async def create_corrected(
    database: Database, batch_id: UUID, source: Source, limits: Limits, actor: str | None
) -> CorrectedFile:
    """The batch in which exactly the rows of a corrected file run.

    Raises:
        BatchNotFound: There is no such batch.
        WrongBatchStatus: The batch has not come to an end yet.
        SourceError: The file cannot be read, or has no item numbers.
        ReprocessRefused: No row of it could be taken.
    """
    child_id = uuid7()
    wide = Limits(
        min(MAX_RECORD_BYTES, 2 * limits.record_bytes + BESIDE_BYTES),
        min(MAX_DEPTH, limits.depth + 1),
    )
    async with source.open() as opened:  # received, so that no slow sender holds the transaction
        rows = _Reader(opened.info.columns, batch_id)
        tally = Tally()
        async with lineage_transaction(database) as conn:
            batch = await locked(conn, batch_id)
            async for records in opened.chunks(wide):
                for page in rows.pages(records, tally):
                    await _take(conn, batch, child_id, page, limits, tally)
            if not tally.accepted:
                raise ReprocessRefused(
                    f"No row of the file was taken; {counted(tally.refused_rows, 'row')} refused. "
                    + "; ".join(str(row) for row in tally.refused[:REFUSED_SHOWN]),
                    hint="export the failures again: the file must hold outstanding failures.",
                )
            file, how = opened.info, {"corrected": opened.info.name, **tally.details()}
            count, none = tally.accepted, dict[str, Any]()
            await insert_child(
                conn, batch, child_id, count, how, actor=actor, options=none, file=file
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
        self._control = None if columns is None else found_control_names(columns)
        if columns is not None and self._control is None:
            raise SourceError(
                "The file has no column _item; its columns are "
                f"{', '.join(map(repr, columns[:20]))}.",
                hint="correct an exported file of failures, and leave its columns _batch and "
                "_item as they are.",
            )

    def pages(self, records: Sequence[StoredRecord], tally: Tally) -> Iterator[list[Row]]:
        """The rows of some records; those that name no item are refused."""
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
            named = values.get("batch_id"), values.get("item_number")
        else:
            beside = {name: values.pop(column, "") for name, column in self._control.items()}
            named = beside["batch"], beside["item"]
        try:
            batch_id = UUID(named[0]) if named[0] else self._batch_id
            number = int(str(named[1]))
            if not 1 <= number <= LARGEST_NUMBER:
                raise ValueError(number)
        except (TypeError, ValueError, AttributeError):
            return RefusedRow(line=record.line, item_number=None, reason="it names no item")
        if self._control is not None:
            cells = {original(name): cell for name, cell in values.items()}
            return Row(record.line, batch_id, number, cells, None, None)
        text = record.text.decode()
        if not isinstance(values.get("record"), dict):
            reason = "its record is no object"
            return RefusedRow(line=record.line, item_number=number, reason=reason)
        return Row(record.line, batch_id, number, {}, values["record"], text)


async def _take(
    conn: Connection,
    batch: ImportBatch,
    child_id: UUID,
    rows: Sequence[Row],
    limits: Limits,
    tally: Tally,
) -> None:
    """Take one page of rows: each with the item it names, if that failed and is outstanding."""
    taken: list[EligibleItem] = []
    texts: list[str] = []
    for row, item in await _matched(conn, batch, rows, tally):
        text, unchanged = _text(row, item, limits)
        if isinstance(text, RefusedRow):
            tally.refuse(text)
            continue
        tally.unchanged += unchanged
        taken.append(item)
        texts.append(text)
    if taken:
        tally.accepted += await reprocessing.take_over_edited(
            conn,
            batch.root_batch_id,
            child_id,
            taken,
            texts,
            change="merge" if rows[0].text is None else "record",
            offset=tally.accepted,
        )


async def _matched(
    conn: Connection, batch: ImportBatch, rows: Sequence[Row], tally: Tally
) -> list[tuple[Row, EligibleItem]]:
    """The rows with the last tries of the items they name; the others are refused."""
    roots = await reprocessing.find_items(
        conn,
        batch.root_batch_id,
        [row.batch_id for row in rows],
        [row.item_number for row in rows],
    )
    able = await reprocessing.eligible(
        conn,
        batch.root_batch_id,
        group=None,
        numbers=list(roots.values()),
        unreadable=True,
        limit=len(rows),
    )
    tries = {item.root_number: item for item in able}
    matched = []
    for place, row in enumerate(rows):
        root = roots.get(place)
        if root is None:
            tally.refuse(row.refused("there is no such item in this import"))
        elif root in tally.seen:
            tally.refuse(row.refused("the file names it more than once"))
        elif root not in tries:
            tally.refuse(row.refused("it has not failed, or is being reprocessed already"))
        else:
            tally.seen.add(root)
            matched.append((row, tries[root]))
    return matched


def _text(row: Row, item: EligibleItem, limits: Limits) -> tuple[str | RefusedRow, bool]:
    """What the row changes, as JSON; and whether that is nothing."""
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
