"""Batches, items, log lines and batch types as people read them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.highlighter import JSONHighlighter
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from .. import exact_json
from ..models import BatchSummary, ImportBatchItem, ItemStatus, LogEntry, LogLevel
from ..outcomes import Failure
from ..safe_text import visible
from ..triage import ItemEdit
from ..wording import counted
from .summaries import STATUS_STYLES
from .text import age, clock, json_text, number, one_line, plain, pretty_json, tail

WIDE = 110  # columns from which a table shows everything
LEVEL_STYLES = {
    LogLevel.DEBUG: "dim",
    LogLevel.INFO: "cyan",
    LogLevel.WARNING: "yellow",
    LogLevel.ERROR: "red",
}
RAW_BYTES = 2_000


@dataclass(frozen=True, slots=True)
class TypeRow:
    """A batch type and who handles it; `schema` is empty where JSON Schema has no words for it."""

    batch_type: str
    processor: str
    schema: dict[str, Any] | None


def batches_table(rows: Sequence[BatchSummary], width: int) -> Table:
    """Batches with their counts; a narrow terminal loses the finer ones."""
    cells = [_batch_cells(row, width) for row in rows]
    table = _table()
    for name in cells[0] if cells else ():
        numeric = name not in {"Batch", "Type", "Status", "From"}
        table.add_column(
            name,
            justify="right" if numeric else "left",
            no_wrap=name not in {"Type", "From"},
            min_width=6 if name == "Type" else None,
            max_width=30 if name == "Type" else None,
        )
    for row in cells:
        table.add_row(*row.values())
    return table


def _batch_cells(row: BatchSummary, width: int) -> dict[str, Text]:
    """The cells of a row by their headers, as many as the width has room for."""
    narrowest = {
        "Batch": (0, Text(tail(row.batch_id), "bold")),
        "Type": (0, _cut(Text(one_line(row.batch_type)))),
        "Status": (0, _status(row.status)),
        "Items": (0, Text(number(row.total_items))),
        "Done": (60, Text(_share(row))),
        "Completed": (WIDE, Text(number(row.completed_items))),
        "Skipped": (WIDE, Text(number(row.skipped_items))),
        "Failed": (0, Text(number(row.failed_items), "red" if row.failed_items else "dim")),
        "Outstanding": (90, _outstanding(row)),
        "Age": (60, Text(age(row.created_at))),
        "From": (70, _cut(Text(_origin(row), "dim"))),
    }
    return {name: cell for name, (least, cell) in narrowest.items() if width >= least}


def _outstanding(row: BatchSummary) -> Text:
    """What is outstanding in the batch's lineage; nothing where nothing ever failed."""
    if not (row.outstanding_items or row.failed_items or row.parent_batch_id):
        return Text("-", "dim")
    return Text(number(row.outstanding_items), "red" if row.outstanding_items else "green")


def items_table(rows: Sequence[ImportBatchItem[Any]], width: int) -> Table:
    """Items with what became of them, and the beginning of their records."""
    table = _table()
    table.add_column("Item", justify="right", no_wrap=True, style="bold")
    table.add_column("Status", no_wrap=True)
    table.add_column("Outcome")
    if width >= WIDE:
        table.add_column("Record", style="dim")
    for row in rows:
        cells: list[RenderableType] = [
            str(row.item_number),
            _status(row.status),
            _cut(_outcome(row)),
        ]
        if width >= WIDE:
            cells.append(_cut(Text(_record_line(row))))
        table.add_row(*cells)
    return table


def types_table(rows: Sequence[TypeRow]) -> Table:
    """Batch types with their processors."""
    table = _table()
    table.add_column("Type", style="bold", overflow="fold")
    table.add_column("Processor", overflow="fold")
    table.add_column("Model", overflow="fold")
    for row in rows:
        model = "-" if row.schema is None else str(row.schema.get("title") or "yes")
        table.add_row(plain(row.batch_type), plain(row.processor), plain(model))
    return table


def item_view(item: ImportBatchItem[Any]) -> Iterator[RenderableType]:
    """Everything about one item but its log."""
    yield _item_headline(item)
    yield Text("Record", "bold")
    yield _indented(_record(item))
    if item.failure is not None:
        yield from _failure(item.failure)
    if item.skip_reason:
        yield _labelled("Skipped", item.skip_reason)
    if item.target_table or item.target_id:
        yield _labelled("Wrote", f"{item.target_table or ''} {item.target_id or ''}".strip())
    if item.processed_data is not None:
        yield Text("Processed data", "bold")
        yield _indented(_highlighted(item.processed_data))
    if item.due_at is not None and item.status is ItemStatus.PENDING:
        yield _labelled("Tried again", clock(item.due_at))
    if item.reprocessed_by is not None:
        yield _labelled("Run again by", f"batch {item.reprocessed_by}")


def edit_line(edit: ItemEdit) -> Text:
    """One change of the record."""
    before = edit.raw if edit.before is None else json_text(edit.before)
    shown = before.decode("utf-8", "backslashreplace") if isinstance(before, bytes) else before
    text = Text.assemble(
        ("Edited ", "bold"),
        (clock(edit.edited_at), "dim"),
        f" by {one_line(edit.actor or 'somebody', 40)}",
    )
    if edit.reason:
        text.append(f": {one_line(edit.reason)}")
    return text.append(f"; before: {one_line(shown or '', 500)}", "dim")


def log_line(line: LogEntry) -> Text:
    """One log line."""
    text = Text.assemble(
        (clock(line.logged_at), "dim"), " ", (f"{line.level:<7}", LEVEL_STYLES[line.level])
    )
    if line.item_number is not None:
        text.append(f" item {line.item_number}", "bold")
    text.append(f" {one_line(line.message, 4_000)}")
    if line.details:
        text.append(f" {json_text(line.details)}", "dim")
    return text


def _item_headline(item: ImportBatchItem[Any]) -> Text:
    text = Text.assemble(
        "Item ",
        (str(item.item_number), "bold"),
        f" of batch {tail(item.batch_id)} · ",
        (item.status.value, f"bold {STATUS_STYLES[item.status]}"),
    )
    if item.attempts:
        text.append(f" · {counted(item.attempts, 'attempt')}")
    if item.source_line is not None:
        text.append(f" · line {item.source_line}")
    if item.item_key is not None:
        text.append(f" · key {one_line(item.item_key, 80)}")
    return text


def _failure(failure: Failure) -> Iterator[RenderableType]:
    parts = (failure.type, failure.sqlstate, failure.constraint)
    title = " ".join(plain(part) for part in parts if part)
    yield Text.assemble(
        (f"Failed ({failure.kind}): ", "bold red"),
        (title, "bold"),
        (f"   group {failure.group}", "dim"),
    )
    if not failure.fields:
        yield _indented(Text(plain(failure.message)))
    for field in failure.fields:
        place, given = plain(field.get("loc", "")), field.get("input")
        found = "" if given is None else f"; it is {visible(plain(given))}"
        yield _indented(Text.assemble((place, "bold"), f": {plain(field.get('msg', ''))}{found}"))
    for label, text in (("Detail", failure.detail), ("Hint", failure.hint)):
        if text and text not in failure.message:
            yield _indented(_labelled(label, text))
    if failure.traceback:
        yield Text("Traceback", "bold")
        yield _indented(Text(plain(failure.traceback).rstrip(), "dim"))


def _outcome(item: ImportBatchItem[Any]) -> Text:
    if item.failure is not None and item.status is ItemStatus.FAILED:
        failure = item.failure
        code = f" {failure.sqlstate}" if failure.sqlstate else ""
        what = one_line(failure.detail or failure.message, 500)
        return Text.assemble((plain(f"{failure.type}{code}"), "red"), f" {what}")
    if item.skip_reason:
        return Text(one_line(item.skip_reason, 500))
    return Text(one_line(f"{item.target_table or ''} {item.target_id or ''}", 500))


def _record_line(item: ImportBatchItem[Any]) -> str:
    if item.raw is not None:
        return one_line(item.raw[:RAW_BYTES].decode("utf-8", "backslashreplace"), 500)
    return one_line(exact_json.write_readable(item.source_data)[:500])


def _record(item: ImportBatchItem[Any]) -> Text:
    if item.raw is None:
        return _highlighted(item.source_data)
    cut = " … (cut; --json has all of it)" if len(item.raw) > RAW_BYTES else ""
    return Text(plain(item.raw[:RAW_BYTES].decode("utf-8", "backslashreplace")) + cut)


def _highlighted(value: object) -> Text:
    text: Text = JSONHighlighter()(Text(pretty_json(value)))
    return text


def _origin(summary: BatchSummary) -> str:
    if summary.parent_batch_id:
        return f"reprocesses {tail(summary.root_batch_id)}"
    return one_line(summary.source_name or "", 200)


def _share(summary: BatchSummary) -> str:
    """How much is settled; 100 % only when all of it is."""
    if not summary.pending_items:
        return "100%"
    return f"{100 * summary.settled_items // summary.total_items}%"


def _status(status: str) -> Text:
    return Text(str(status), STATUS_STYLES[status])


def _labelled(label: str, text: str) -> Text:
    return Text.assemble((f"{label}: ", "bold"), plain(text))


def _cut(text: Text) -> Text:
    """A cell that ends in an ellipsis, and is the first to give way on a narrow terminal."""
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))


def _indented(part: RenderableType) -> Padding:
    return Padding(part, (0, 0, 0, 2), expand=False)
