"""Batches, items, failures and log lines as people read them in a terminal."""

from collections.abc import Iterable, Iterator, Sequence
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
    """A batch type, its processor, and the JSON Schema of its model.

    Attributes:
        batch_type: The batch type.
        processor: The full name of the processor's class.
        schema: None without a model; empty if JSON Schema cannot describe the model.
    """

    batch_type: str
    processor: str
    schema: dict[str, Any] | None


def summary_view(
    summary: BatchSummary,
    groups: int,
    repeated: str = "",
    *,
    skip_reasons: Sequence[tuple[str, int]] = (),
    unreadable: int = 0,
) -> Iterator[RenderableType]:
    """The parts of a batch's summary, from its headline to the next step.

    Args:
        groups: How many failure groups to show.
        repeated: The global options that the next command must repeat.
        skip_reasons: The reasons for skips, each with its number of items.
        unreadable: How many of the outstanding records could not be read.
    """
    yield _headline(summary)
    yield _indented(_counts(summary))
    if outstanding := _still_outstanding(summary):
        yield _indented(outstanding)
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
            command = f"reliable-imports show {tail(summary.batch_id)}"
            yield _indented(Text(f"… and more causes: {command}", "dim"))
    if step := _next_step(summary, unreadable, repeated):
        yield Text.assemble(("Next: ", "bold cyan"), step)
    elif _fixed_later(summary):
        yield Text("Nothing left to do: all failures were fixed by later batches.", "green")


def dry_run_view(report: DryRun, repeated: str = "") -> Iterator[RenderableType]:
    """The result of a dry run.

    Args:
        repeated: The global options that the next command must repeat.
    """
    yield Text.assemble(
        "Dry run of batch ",
        (tail(report.batch_id), "bold"),
        f" · {plain(report.batch_type)} · nothing was changed ({report.seconds:.1f} s)",
    )
    optional = (
        (report.skipped, "would be skipped"),
        (report.retried, "would be retried"),
        (report.deferred, "would be deferred"),
    )
    parts = [
        f"{number(report.completed)} would complete",
        *(f"{number(count)} {words}" for count, words in optional if count),
        f"{number(report.failed)} would fail",
    ]
    yield _indented(Text(f"{counted(report.total_items, 'item')}: {', '.join(parts)}"))
    for table in report.tables:
        changes = (
            f"{number(table.inserted)} inserted, {number(table.updated)} updated, "
            f"{number(table.deleted)} deleted"
        )
        yield _indented(Text(f"{plain(table.table)}: {changes}"))
    for note in report.notes:
        yield _indented(Text(note, "dim"))
    if report.groups:
        yield Text("Would fail, by cause", "bold")
        yield _indented(groups_view(report.groups))
    step = f"reliable-imports process {tail(report.batch_id)}{repeated}"
    yield Text.assemble(("Next: ", "bold cyan"), f"to process the batch: {step}")


def outstanding_view(
    summary: BatchSummary, groups: Sequence[FailureGroup]
) -> Iterator[RenderableType]:
    """The outstanding records of a lineage, by the batch they are in and then by cause."""
    source = f" ({one_line(summary.source_name, 80)})" if summary.source_name else ""
    yield Text.assemble(
        (counted(summary.outstanding_items, "outstanding record"), "bold red"),
        " of import ",
        (tail(summary.root_batch_id), "bold"),
        source,
    )
    shown = 0
    for batch_id in dict.fromkeys(group.batch_id for group in groups):
        own = [group for group in groups if group.batch_id == batch_id]
        shown += sum(group.count for group in own)
        if batch_id is not None and batch_id != summary.root_batch_id:
            yield Text(f"In reprocessing {tail(batch_id)}, by cause", "bold")
        else:
            yield Text("By cause", "bold")
        yield _indented(groups_view(own))
    if (pending := summary.outstanding_items - shown) > 0:
        text = f"{counted(pending, 'record')} pending in a reprocessing or a cancelled batch"
        yield Text(text, "dim")


def groups_view(groups: Sequence[FailureGroup]) -> Table:
    """Failures by cause: their number, their values and the time they were seen."""
    return _by_count(((group.count, _cause(group)) for group in groups), "red")


def batches_table(rows: Sequence[BatchSummary], width: int) -> Table:
    """Batches with their counts; a narrow terminal shows fewer columns."""
    lines = [_batch_columns(row, width) for row in rows]
    table = _table()
    for name in lines[0] if lines else ():
        numeric = name not in {"Batch", "Type", "Status", "From"}
        table.add_column(
            name,
            justify="right" if numeric else "left",
            no_wrap=name not in {"Type", "From"},
            min_width=6 if name == "Type" else None,
            max_width=30 if name == "Type" else None,
        )
    for line in lines:
        table.add_row(*line.values())
    return table


def items_table(rows: Sequence[ImportBatchItem[Any]], width: int) -> Table:
    """Items with their outcomes and the beginning of their records."""
    table = _table()
    table.add_column("Item", justify="right", no_wrap=True, style="bold")
    table.add_column("Status", no_wrap=True)
    table.add_column("Outcome")
    if width >= WIDE:
        table.add_column("Record", style="dim")
    for row in rows:
        record = [_cut(Text(_record_line(row)))] if width >= WIDE else []
        table.add_row(str(row.item_number), _status(row.status), _cut(_outcome(row)), *record)
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
    """Everything about one item except its log."""
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
        yield _labelled("Next attempt", clock(item.due_at))
    if item.reprocessed_by is not None:
        yield _labelled("Rerun by", f"batch {item.reprocessed_by}")


def edit_line(edit: ItemEdit) -> Text:
    """One edit of the record."""
    before = edit.raw if edit.before is None else json_text(edit.before)
    shown = before.decode("utf-8", "backslashreplace") if isinstance(before, bytes) else before
    text = Text.assemble(
        ("Edited ", "bold"),
        (clock(edit.edited_at), "dim"),
        f" by {one_line(edit.actor or 'an unknown user', 40)}",
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
    """``5 items: 2 completed, 3 failed``; only skipped and pending items are left out if none."""
    parts = [Text(f"{number(summary.completed_items)} completed", "green")]
    if summary.skipped_items:
        parts.append(Text(f"{number(summary.skipped_items)} skipped", "blue"))
    parts.append(_failed(summary))
    if summary.pending_items:
        deferred = f" ({number(summary.deferred_items)} deferred)" if summary.deferred_items else ""
        parts.append(Text(f"{number(summary.pending_items)} pending{deferred}", "cyan"))
    return Text(f"{counted(summary.total_items, 'item')}: ").append(Text(", ").join(parts))


def _failed(summary: BatchSummary) -> Text:
    failed = number(summary.failed_items)
    if not summary.failed_items:
        return Text("0 failed", "dim")
    if not _fixed_later(summary):
        return Text(f"{failed} failed", "red")
    fixed = "fixed since" if summary.failed_items == 1 else f"all {failed} fixed since"
    return Text(f"{failed} failed at first, {fixed}", "green")


def _fixed_later(summary: BatchSummary) -> bool:
    """Whether items of the batch failed, and later batches fixed all of them."""
    return summary.failed_items > 0 and summary.outstanding_items == 0


def _still_outstanding(summary: BatchSummary) -> Text | None:
    """How much is outstanding in the whole lineage, unless the batch's own counts say it."""
    outstanding, is_root = summary.outstanding_items, summary.parent_batch_id is None
    if is_root and outstanding in (0, summary.failed_items):
        return None
    place = "" if is_root else f" in import {tail(summary.root_batch_id)}"
    if outstanding == 0:
        return Text(f"Nothing is outstanding{place}", "green")
    verb = "is" if outstanding == 1 else "are"
    return Text(f"{counted(outstanding, 'record')} {verb} still outstanding{place}", "red")


def _origin(summary: BatchSummary) -> Text:
    words = [f"id {summary.batch_id}"]
    if summary.source_name:
        words.append(f"from {one_line(summary.source_name, 80)}")
    if summary.created_by:
        words.append(f"by {one_line(summary.created_by, 40)}")
    if summary.parent_batch_id:
        words.append(f"reprocesses {tail(summary.root_batch_id)}")
    return Text("   ".join(words), "dim")


def _note(text: str) -> Text:
    return Text.assemble(("Note: ", "bold yellow"), one_line(text, NOTE_LENGTH))


def _reasons(skip_reasons: Sequence[tuple[str, int]]) -> Table:
    texts = (
        (count, Text(one_line(reason, MESSAGE_LENGTH) or "no reason given"))
        for reason, count in skip_reasons
    )
    return _by_count(texts, "blue")


def _by_count(rows: Iterable[tuple[int, Text]], style: str) -> Table:
    """Texts, each behind its count in the given style."""
    grid = Table.grid(padding=(0, 2), pad_edge=False)
    grid.add_column(justify="right", style=style, no_wrap=True)
    grid.add_column(overflow="fold")
    for count, text in rows:
        grid.add_row(number(count), text)
    return grid


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
            step = f"fix the cause, then: reliable-imports resume {name} && {process}"
        case BatchStatus.FAILED if summary.finished_at is None:
            step = f"fix the hook that failed, then: {process}"
        case BatchStatus.CANCELLED if summary.outstanding_items or summary.pending_items:
            step = f"to run the items that have not completed: {reprocess}"
        case _ if 0 < summary.outstanding_items <= unreadable:
            step = f"{export}, correct the file, then: {reprocess} --from-file bad.csv"
        case BatchStatus.PARTIAL | BatchStatus.FAILED if summary.outstanding_items:
            step = f"fix the cause, then: {reprocess}"
        case BatchStatus.FAILED if not summary.failed_items:
            step = "compare the import with its source; all of its items were imported."
        case BatchStatus.COMPLETED if summary.outstanding_items:
            step = f"fix the cause of the remaining failures, then: {reprocess}"
    return step


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
    """When these items failed, and how many earlier batches had failures of the same cause."""
    words = f"failed {clock(first)[:19]}"
    if last - first >= timedelta(seconds=1):
        words += f" to {clock(last)[:19]}"
    return words + (f"; seen before in {counted(before, 'batch')}" if before else "")


def _values(group: FailureGroup) -> str:
    """``Key (dest): SJU 486, BQN 93``; each value with its key if the keys differ."""
    split = [(one_line(value, 60).partition("="), count) for value, count in group.values]
    keys = {key for (key, _, _), _ in split}
    if len(keys) == 1:
        label = "Values" if group.sqlstate is None else f"Key ({keys.pop()})"
        return f"{label}: " + ", ".join(
            f"{value} {number(count)}" for (_, _, value), count in split
        )
    return ", ".join(f"{''.join(parts)} {number(count)}" for parts, count in split)


def _batch_columns(row: BatchSummary, width: int) -> dict[str, Text]:
    """The texts of a row by column name, for the columns that the width has room for."""
    columns = {
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
    return {name: text for name, (min_width, text) in columns.items() if width >= min_width}


def _outstanding(row: BatchSummary) -> Text:
    """The number of outstanding records in the batch's lineage; ``-`` if nothing ever failed."""
    if not (row.outstanding_items or row.failed_items or row.parent_batch_id):
        return Text("-", "dim")
    return Text(number(row.outstanding_items), "red" if row.outstanding_items else "green")


def _short_origin(summary: BatchSummary) -> str:
    if summary.parent_batch_id:
        return f"reprocesses {tail(summary.root_batch_id)}"
    return one_line(summary.source_name or "", 200)


def _share(summary: BatchSummary) -> str:
    """The share of items that are done; 100 % only if all of them are."""
    if not summary.pending_items:
        return "100%"
    return f"{100 * summary.settled_items // summary.total_items}%"


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
        location, given = plain(field.get("loc", "")), field.get("input")
        value = "" if given is None else f"; the value is {visible(plain(given))}"
        message = f": {plain(field.get('msg', ''))}{value}"
        yield _indented(Text.assemble((location, "bold"), message))
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
        message = one_line(failure.detail or failure.message, 500)
        return Text.assemble((plain(f"{failure.type}{code}"), "red"), f" {message}")
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
    cut = " … (cut; --json shows all of it)" if len(item.raw) > RAW_BYTES else ""
    return Text(plain(item.raw[:RAW_BYTES].decode("utf-8", "backslashreplace")) + cut)


def _highlighted(value: object) -> Text:
    text: Text = JSONHighlighter()(Text(pretty_json(value)))
    return text


def _status(status: str) -> Text:
    return Text(str(status), STATUS_STYLES[status])


def _labelled(label: str, text: str) -> Text:
    return Text.assemble((f"{label}: ", "bold"), plain(text))


def _cut(text: Text) -> Text:
    """A text that is cut with an ellipsis, and shrinks first on a narrow terminal."""
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _indented(part: RenderableType) -> Padding:
    return Padding(part, (0, 0, 0, 2), expand=False)


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
