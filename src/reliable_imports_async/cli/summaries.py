"""The summary of a batch as people read it: counts, causes, and what to do next."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..models import BatchStatus, BatchSummary, FailureGroup
from ..outcomes import FailureKind
from ..tallying import DryRun
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
) -> Iterator[RenderableType]:
    """The parts of a summary.

    Args:
        groups: How many failure groups to show.
        repeated: The global options that the next command must repeat.
        skip_reasons: Why items were skipped, and how many.
    """
    yield _headline(summary)
    yield _indented(_counts(summary))
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
    if step := _next_step(summary, repeated):
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
    if summary.outstanding_items != summary.failed_items:
        parts.append((summary.outstanding_items, "of them outstanding", "red"))
    if summary.pending_items:
        parts.append((summary.pending_items, "pending", "cyan"))
    if summary.deferred_items:
        parts.append((summary.deferred_items, "of them deferred", "cyan"))
    text = Text()
    for count, word, style in parts:
        text.append(f"{number(count)} {word}", style if count else "dim").append("   ")
    return text.append(f"of {number(summary.total_items)}")


def _origin(summary: BatchSummary) -> Text:
    words = [f"id {summary.batch_id}"]
    if summary.source_name:
        words.append(f"from {one_line(summary.source_name, 80)}")
    if summary.created_by:
        words.append(f"by {one_line(summary.created_by, 40)}")
    if summary.parent_batch_id:
        words.append(f"again for {tail(summary.parent_batch_id)}")
    return Text("   ".join(words), "dim")


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
    if group.values:
        text.append(f"\n{_values(group.values)}")
    else:
        text.append(f"\n{one_line(group.message, MESSAGE_LENGTH)}")
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
    return words + (
        f"; seen before in {number(before)} batch{'es'[: 2 * (before > 1)]}" if before else ""
    )


def _values(values: tuple[tuple[str, int], ...]) -> str:
    """``Key (dest): SJU 486, BQN 93``, or the values as they are when their keys differ."""
    split = [(one_line(value, 60).partition("="), count) for value, count in values]
    keys = {key for (key, _, _), _ in split}
    if len(keys) == 1:
        return f"Key ({keys.pop()}): " + ", ".join(
            f"{value} {number(count)}" for (_, _, value), count in split
        )
    return ", ".join(f"{''.join(parts)} {number(count)}" for parts, count in split)


def _next_step(summary: BatchSummary, repeated: str) -> str | None:
    name = tail(summary.batch_id)
    process = f"reliable-imports process {name}{repeated}"
    reprocess = f"reliable-imports reprocess {name}{repeated}"
    export = f"reliable-imports failures {name} --export bad.csv"
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
        case BatchStatus.PARTIAL | BatchStatus.FAILED if _unreadable(summary):
            step = f"{export}, correct it, then: {reprocess} --from-file bad.csv"
        case BatchStatus.PARTIAL | BatchStatus.FAILED if summary.outstanding_items:
            step = f"correct the cause, then: {reprocess}"
        case BatchStatus.FAILED if not summary.failed_items:
            step = "compare it with where it came from; everything in it was imported."
        case BatchStatus.PARTIAL | BatchStatus.FAILED:
            step = "nothing; later batches have completed what failed here."
    return step


def _unreadable(summary: BatchSummary) -> bool:
    """Whether all that failed could not be read, so that running it again would change nothing."""
    return bool(summary.groups) and all(one.kind == FailureKind.PARSE for one in summary.groups)


def _indented(part: RenderableType) -> Padding:
    return Padding(part, (0, 0, 0, 2), expand=False)
