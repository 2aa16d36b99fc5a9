"""Shows progress: as a bar on a terminal, as lines with --verbose elsewhere, or not at all."""

from time import monotonic
from types import TracebackType
from typing import Protocol, Self
from uuid import UUID

import anyio
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

from ..failures import is_outage
from ..manager import BatchManager
from ..models import BatchSummary
from ..wording import counted
from .formatting import duration_left, number, rate
from .output import Output

LINE_SECONDS = 10.0
OUTAGE_SECONDS = 1.0


class Display(Protocol):
    """Shows the progress of a run."""

    def loading(self, records: int, bytes_read: int, bytes_in_all: int | None) -> None:
        """Show how much of a source has been read."""
        ...

    def processing(self, summary: BatchSummary) -> None:
        """Show how many items are done."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def display(output: Output) -> Display | None:
    """The display that suits these streams; None for no progress."""
    if output.animated:
        return Bar(output)
    return Lines(output) if output.verbose else None


async def follow(manager: BatchManager, batch_id: UUID, progress: Display) -> None:
    """Show the progress of a batch until it ends or is paused; wait while the database is away."""
    while True:
        try:
            async for summary in manager.watch(batch_id):
                progress.processing(summary)
            return
        except Exception as exc:
            if not is_outage(exc):
                raise
        await anyio.sleep(OUTAGE_SECONDS)


class Lines:
    """Prints one line every ten seconds."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._printed = float("-inf")

    def loading(self, records: int, bytes_read: int, bytes_in_all: int | None) -> None:
        """Show how many records were read."""
        share = f" ({bytes_read / bytes_in_all:.0%})" if bytes_in_all else ""
        self._print(f"{counted(records, 'record')} loaded{share}")

    def processing(self, summary: BatchSummary) -> None:
        """Show how many items are done."""
        share = summary.settled_items / summary.total_items if summary.total_items else 1.0
        self._print(
            f"{number(summary.settled_items)} of {counted(summary.total_items, 'item')} done "
            f"({share:.0%}), {number(summary.failed_items)} failed"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        pass

    def _print(self, text: str) -> None:
        if monotonic() - self._printed >= LINE_SECONDS:
            self._printed = monotonic()
            self._output.note(text)


class Bar:
    """One bar for both phases; it disappears before the summary is shown."""

    def __init__(self, output: Output) -> None:
        self._progress = Progress(
            SpinnerColumn(style="cyan"),
            TextColumn("{task.description}", style="bold"),
            BarColumn(bar_width=None, complete_style="cyan", finished_style="green"),
            _Share(),
            _Count(),
            _Rate(),
            _Left(),
            _Failed(),
            console=output.notes,
            expand=True,
            transient=True,
        )
        self._task = self._progress.add_task("Reading", total=None, count=0, failed=0, all="")
        self._processing = False

    def loading(self, records: int, bytes_read: int, bytes_in_all: int | None) -> None:
        """Move the bar by the bytes read."""
        self._progress.update(
            self._task,
            description="Loading",
            completed=bytes_read,
            total=bytes_in_all or None,
            count=records,
        )

    def processing(self, summary: BatchSummary) -> None:
        """Move the bar by the items that are done."""
        settled, total = summary.settled_items, summary.total_items
        if not self._processing:  # items settled by an earlier run do not count for the rate
            self._processing = True
            self._progress.remove_task(self._task)
            self._task = self._progress.add_task(
                "Processing", completed=settled, total=total, count=0, failed=0, all=""
            )
        self._progress.update(
            self._task,
            completed=settled,
            total=total,
            count=settled,
            all=f"/{number(total)}",
            failed=summary.failed_items,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._progress.stop()


class _Share(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.total is None else f"{task.percentage:>3.0f}%", "cyan")


class _Count(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{number(task.fields['count'])}{task.fields['all']}")


class _Rate(ProgressColumn):
    """Records or items per second since the phase began."""

    def render(self, task: Task) -> Text:
        speed = task.speed
        if speed and task.completed and task.description == "Loading":
            speed *= task.fields["count"] / task.completed  # the bar moves by bytes
        return Text(f"{rate(speed)}/s" if speed else "", "dim")


class _Left(ProgressColumn):
    def render(self, task: Task) -> Text:
        seconds = task.time_remaining
        return Text("" if seconds is None else duration_left(seconds), "dim")


class _Failed(ProgressColumn):
    def render(self, task: Task) -> Text:
        failed = task.fields["failed"]
        return Text(f"{number(failed)} failed" if failed else "", "bold red")
