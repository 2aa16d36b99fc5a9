"""The summary of a batch as people read it: counts, causes, and what to do next."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.highlighter import JSONHighlighter
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from .. import exact_json
from ..models import (
    BatchStatus,
    BatchSummary,
    FailureGroup,
    ImportBatchItem,
    ItemEdit,
    ItemStatus,
    LogEntry,
    LogLevel,
)
from ..outcomes import Failure
from ..runner.dry_run_report import DryRun
from ..sanitize import visible
from ..wording import counted
from .formatting import (
    age,
    clock,
    duration,
    json_text,
    number,
    one_line,
    plain,
    pretty_json,
    rate,
    tail,
)

STATUS_STYLES = {
    "pending": "cyan",
    "processing": "cyan",
    "completed": "green",
    "skipped": "blue",
    "partial": "yellow",
    "failed": "red",
    "paused": "magenta",
    "cancelled": "magenta",
}
MESSAGE_LENGTH = 300
NOTE_LENGTH = 2_000


def summary_view(
    summary: BatchSummary,
    groups: int,
    repeated: str = "",
    *,
    skip_reasons: Sequence[tuple[str, int]] = (),
    unreadable: int = 0,
) -> Iterator[RenderableType]:
    """The parts of a summary.

    Args:
        groups: How many failure groups to show.
        repeated: The global options that the next command must repeat.
        skip_reasons: Why items were skipped, and how many.
        unreadable: How many of the outstanding records could not be read.
    """
    yield _headline(summary)
    yield _indented(_counts(summary))
    if standing := _standing(summary):
        yield _indented(standing)
    yield _indented(_origin(summary))
    for note in summary.notes:
        yield _note(note)
    for label, reason in (
        ("Paused", summary.pause_reason),
        ("Error", summary.error),
        ("Stopped", summary.stopped),
    ):
        if reason:
            yield Text.assemble((f"{label}: ", "bold red"), plain(reason))
    if any(reason for reason, _ in skip_reasons):
        yield Text("Skipped, by reason", "bold")
        yield _indented(_reasons(skip_reasons))
    if summary.groups:
        yield Text("Failed, by cause", "bold")
        yield _indented(groups_view(summary.groups[:groups]))
        if len(summary.groups) > groups:
            more = f"… and more causes: reliable-imports show {tail(summary.batch_id)}"
            yield _indented(Text(more, "dim"))
    if step := _next_step(summary, unreadable, repeated):
        yield Text.assemble(("Next: ", "bold cyan"), step)


def dry_run_view(report: DryRun, repeated: str = "") -> Iterator[RenderableType]:
    """What a batch would come to.

    Args:
        repeated: The global options that the next command must repeat.
    """
    yield Text.assemble(
        "Dry run of batch ",
        (tail(report.batch_id), "bold"),
        f" · {plain(report.batch_type)} · nothing has changed ({report.seconds:.1f} s)",
    )
    waiting = f"{number(report.deferred)} be deferred   " if report.deferred else ""
    yield _indented(
        Text(
            f"{number(report.completed)} would complete   {number(report.skipped)} be skipped   "
            f"{number(report.failed)} fail   {number(report.retried)} be retried   "
            f"{waiting}of {number(report.total_items)}"
        )
    )
    for table in report.tables:
        rows = f"{number(table.inserted)} inserted, {number(table.updated)} updated, "
        text = f"{plain(table.table)}: {rows}{number(table.deleted)} deleted"
        yield _indented(Text(text))
    for note in report.notes:
        yield _indented(Text(note, "dim"))
    if report.groups:
        yield Text("Would fail, by cause", "bold")
        yield _indented(groups_view(report.groups))
    step = f"reliable-imports process {tail(report.batch_id)}{repeated}"
    yield Text.assemble(("Next: ", "bold cyan"), f"for real: {step}")


def _headline(summary: BatchSummary) -> Text:
    status = summary.status
    text = Text.assemble(
        "Batch ",
        (tail(summary.batch_id), "bold"),
        f" · {plain(summary.batch_type)} · ",
        (status.value, f"bold {STATUS_STYLES[status]}"),
    )
    if summary.duration is not None:
        text.append(f" {'in' if summary.finished_at else 'for'} {duration(summary.duration)}")
        if summary.finished_at and summary.items_per_second:
            text.append(f" ({rate(summary.items_per_second)} items/s)")
    return text


def _counts(summary: BatchSummary) -> Text:
    parts = [
        (summary.completed_items, "completed", "green"),
        (summary.skipped_items, "skipped", "blue"),
        (summary.failed_items, "failed", "red"),
    ]
    if summary.pending_items:
        parts.append((summary.pending_items, "pending", "cyan"))
    if summary.deferred_items:
        parts.append((summary.deferred_items, "of them deferred", "cyan"))
    text = Text()
    for count, word, style in parts:
        text.append(f"{number(count)} {word}", style if count else "dim").append("   ")
    return text.append(f"of {number(summary.total_items)}")


def _standing(summary: BatchSummary) -> Text | None:
    """What is outstanding in the whole lineage, where the batch's own counts do not tell."""
    left, of_child = summary.outstanding_items, summary.parent_batch_id is not None
    place = f" in the import {tail(summary.root_batch_id)}" if of_child else ""
    if left == 0:
        if not of_child and not summary.failed_items:
            return None
        return Text(
            f"Nothing is outstanding{place}: later batches completed every failure.", "green"
        )
    if not of_child and left == summary.failed_items:
        return None
    verb = "is" if left == 1 else "are"
    return Text(f"{counted(left, 'record')} {verb} outstanding{place}", "red")


def _origin(summary: BatchSummary) -> Text:
    words = [f"id {summary.batch_id}"]
    if summary.source_name:
        words.append(f"from {one_line(summary.source_name, 80)}")
    if summary.created_by:
        words.append(f"by {one_line(summary.created_by, 40)}")
    if summary.parent_batch_id:
        words.append(f"reprocesses {tail(summary.root_batch_id)}")
    return Text("   ".join(words), "dim")


def outstanding_view(
    summary: BatchSummary, groups: Sequence[FailureGroup]
) -> Iterator[RenderableType]:
    """What is outstanding in a lineage: by the batch that the items stand in, then by cause."""
    source = f" ({one_line(summary.source_name, 80)})" if summary.source_name else ""
    yield Text.assemble(
        (counted(summary.outstanding_items, "outstanding record"), "bold red"),
        " of the import ",
        (tail(summary.root_batch_id), "bold"),
        source,
    )
    shown = 0
    for batch_id in dict.fromkeys(group.batch_id for group in groups):
        own = [group for group in groups if group.batch_id == batch_id]
        shown += sum(group.count for group in own)
        if batch_id is not None and batch_id != summary.root_batch_id:
            yield Text(f"In its reprocessing {tail(batch_id)}, by cause", "bold")
        else:
            yield Text("By cause", "bold")
        yield _indented(groups_view(own))
    if (rest := summary.outstanding_items - shown) > 0:
        text = f"{counted(rest, 'record')} waiting in a reprocessing, or left by a cancelled batch"
        yield Text(text, "dim")


def groups_view(groups: Sequence[FailureGroup]) -> Table:
    """Failures by cause: how many, which values, since when."""
    grid = Table.grid(padding=(0, 2), pad_edge=False)
    grid.add_column(justify="right", style="red", no_wrap=True)
    grid.add_column(overflow="fold")
    for group in groups:
        grid.add_row(number(group.count), _cause(group))
    return grid


def _note(text: str) -> Text:
    return Text.assemble(("Note: ", "bold yellow"), one_line(text, NOTE_LENGTH))


def _reasons(skip_reasons: Sequence[tuple[str, int]]) -> Table:
    grid = Table.grid(padding=(0, 2), pad_edge=False)
    grid.add_column(justify="right", style="blue", no_wrap=True)
    grid.add_column(overflow="fold")
    for reason, count in skip_reasons:
        grid.add_row(number(count), Text(one_line(reason, MESSAGE_LENGTH) or "no reason given"))
    return grid


def _cause(group: FailureGroup) -> Text:
    text = Text.assemble((plain(group.title), "bold"), (f"   group {group.group}", "dim"))
    if group.sqlstate is None or not group.values:
        text.append(f"\n{one_line(group.message, MESSAGE_LENGTH)}")
    if group.values:
        text.append(f"\n{_values(group)}")
    if group.hint:
        text.append(f"\nHint: {one_line(group.hint, MESSAGE_LENGTH)}", "cyan")
    if group.sample_items:
        numbers = ", ".join(str(item) for item in group.sample_items[:3])
        text.append(f"\ne.g. item{'s' if len(group.sample_items) > 1 else ''} {numbers}", "dim")
    if group.first_seen is not None and group.last_seen is not None:
        text.append(f"\n{_seen(group.first_seen, group.last_seen, group.seen_before)}", "dim")
    return text


def _seen(first: datetime, last: datetime, before: int | None) -> str:
    """When these items failed, and in how many batches others did by the same cause."""
    words = f"failed {clock(first)[:19]}"
    if last - first >= timedelta(seconds=1):
        words += f" to {clock(last)[:19]}"
    return words + (f"; seen before in {counted(before, 'batch')}" if before else "")


def _values(group: FailureGroup) -> str:
    """``Key (dest): SJU 486, BQN 93``, or the values with their keys when these differ."""
    split = [(one_line(value, 60).partition("="), count) for value, count in group.values]
    keys = {key for (key, _, _), _ in split}
    if len(keys) == 1:
        label = "Values" if group.sqlstate is None else f"Key ({keys.pop()})"
        return f"{label}: " + ", ".join(
            f"{value} {number(count)}" for (_, _, value), count in split
        )
    return ", ".join(f"{''.join(parts)} {number(count)}" for parts, count in split)


def _next_step(summary: BatchSummary, unreadable: int, repeated: str) -> str | None:
    name, root = tail(summary.batch_id), tail(summary.root_batch_id)
    process = f"reliable-imports process {name}{repeated}"
    reprocess = f"reliable-imports reprocess {root}{repeated}"
    export = f"reliable-imports failures {root} --export bad.csv"
    step: str | None = None
    match summary.status:
        case BatchStatus.PENDING | BatchStatus.PROCESSING:
            step = process
        case BatchStatus.PAUSED:
            step = f"remove the cause, then: reliable-imports resume {name} && {process}"
        case BatchStatus.FAILED if summary.finished_at is None:
            step = f"correct the hook, then: {process}"
        case BatchStatus.CANCELLED if summary.outstanding_items or summary.pending_items:
            step = f"to run what has not completed: {reprocess}"
        case _ if 0 < summary.outstanding_items <= unreadable:
            step = f"{export}, correct the file, then: {reprocess} --from-file bad.csv"
        case BatchStatus.PARTIAL | BatchStatus.FAILED if summary.outstanding_items:
            step = f"correct the cause, then: {reprocess}"
        case BatchStatus.FAILED if not summary.failed_items:
            step = "compare it with where it came from; everything in it was imported."
        case BatchStatus.PARTIAL | BatchStatus.FAILED:
            step = "nothing left to do; later batches completed every failure."
        case BatchStatus.COMPLETED if summary.outstanding_items:
            step = f"correct the cause of the other failures, then: {reprocess}"
    return step


def _indented(part: RenderableType) -> Padding:
    return Padding(part, (0, 0, 0, 2), expand=False)


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
        "From": (70, _cut(Text(_short_origin(row), "dim"))),
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


def _short_origin(summary: BatchSummary) -> str:
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
