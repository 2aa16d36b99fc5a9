"""The summary of a batch as people read it: counts, causes, and what to do next."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..models import BatchStatus, BatchSummary, FailureGroup
from ..tallying import DryRun
from ..wording import counted
from .text import clock, duration, number, one_line, plain, rate, tail

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
