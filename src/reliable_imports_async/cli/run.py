"""Runs one batch from the command line, with progress, Ctrl-C and a summary at the end."""

import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import nullcontext
from dataclasses import replace
from types import MappingProxyType
from typing import Any
from uuid import UUID

import anyio

from ..errors import AnotherBatchRuns, ReliableImportsError
from ..loading.sources import Source
from ..manager import BatchManager
from ..models import BatchSummary
from ..repair.reprocess import nothing_to_reprocess
from ..runner.dry_run_report import DryRun
from ..wording import counted
from .exit_codes import COMPLETED, SOME_FAILED, Stopped, code_of
from .formatting import number, tail
from .invocation import Invocation
from .progress import Display, display, follow
from .signals import STOPPING, stoppable
from .views import dry_run_view, summary_view

FIND_SECONDS = 0.2
GROUPS_SHOWN = 10

Task = Callable[[], Awaitable[BatchSummary]]


class Run:
    """Runs one batch with a manager.

    Args:
        tolerate: The share of its items that may fail and still count as success.
        processes: How many processes work on it.
    """

    def __init__(
        self,
        cli: Invocation,
        manager: BatchManager,
        *,
        tolerate: float = 0.0,
        processes: int = 1,
    ) -> None:
        self._tolerate = tolerate
        self._processes = processes
        self._cli = cli
        self._manager = manager
        self._display: Display | None = display(cli.output)
        self._began = time.time_ns() // 1_000_000
        self._batch_id: UUID | None = None
        self._root: UUID | None = None

    async def load_and_process(
        self, source: Source, batch_type: str, options: Mapping[str, Any]
    ) -> int:
        """Import a source, and return the exit code."""

        async def task() -> BatchSummary:
            await self._mention_running(batch_type, refuse=True)
            progress = self._display.loading if self._display else None
            self._batch_id = await self._manager.create_batch(
                batch_type, source, created_by=self._cli.actor, progress=progress, **options
            )
            if not self._is_new(self._batch_id):
                self._cli.output.note(f"Already imported, as batch {self._batch_id}.")
            return await self._process(self._batch_id)

        return await self._finish(task)

    async def process(
        self, batch_id: UUID, thresholds: Mapping[str, Any] = MappingProxyType({})
    ) -> int:
        """Process an existing batch, and return the exit code."""
        self._batch_id = batch_id

        async def task() -> BatchSummary:
            batch = await self._manager.get_batch(batch_id)
            await self._mention_running(batch.batch_type, refuse=False)
            return await self._process(batch_id, thresholds)

        return await self._finish(task)

    async def load_and_try(
        self, source: Source, batch_type: str, options: Mapping[str, Any]
    ) -> int:
        """Store a source as a pending batch, dry-run it, and return the exit code."""
        self._batch_id = await self._manager.create_batch(
            batch_type, source, created_by=self._cli.actor, **options
        )
        return await self.try_batch(self._batch_id)

    async def try_batch(self, batch_id: UUID) -> int:
        """Dry-run a pending batch, and return the exit code that a real run would have."""
        self._batch_id = batch_id
        report: DryRun | None = None
        async with stoppable(self._cli.output, "Stopping."):
            report = await self._manager.process_batch(batch_id, dry_run=True)
        if report is None:
            raise Stopped("Nothing was changed.")
        if self._cli.output.json:
            self._cli.output.record(report.as_dict())
        else:
            self._cli.output.show(*dry_run_view(report, self._cli.repeated))
        return SOME_FAILED if report.failed > self._tolerate * report.total_items else COMPLETED

    async def reprocess(
        self, batch_id: UUID, *, everything: bool, selection: Mapping[str, Any]
    ) -> int:
        """Rerun failed items in a new batch, and return the exit code."""
        self._root = (await self._manager.get_batch(batch_id)).root_batch_id

        async def task() -> BatchSummary:
            summary = await self._with_progress(
                self._watch_newest,
                lambda: self._manager.reprocess_batch(
                    batch_id, not everything, actor=self._cli.actor, **selection
                ),
            )
            if not self._is_new(summary.batch_id):
                self._cli.output.note(nothing_to_reprocess(summary))
            return summary

        code = await self._finish(task)
        await self._mention_unreadable(batch_id)
        return code

    async def _mention_running(self, batch_type: str, *, refuse: bool) -> None:
        """Print a note if this batch has to wait for a running batch of the same type.

        Args:
            batch_type: The batch's type.
            refuse: Whether to raise, if the processor's `only_one` is ``"refuse"``.

        Raises:
            AnotherBatchRuns: Another batch runs, and this one is refused before it is stored.
        """
        only_one = self._manager.registry.get(batch_type).only_one
        running = await self._manager.running_batch(batch_type) if only_one else None
        if running in (None, self._batch_id):
            return
        if refuse and only_one == "refuse":
            raise AnotherBatchRuns(batch_type, running)
        self._cli.output.note(
            f"Waiting for batch {running}: only one batch of type {batch_type} runs at a time."
        )

    async def _mention_unreadable(self, batch_id: UUID) -> None:
        if count := await self._manager.unreadable_items(batch_id):
            name = tail(self._root or batch_id)
            verb, pronoun = ("was", "it") if count == 1 else ("were", "them")
            self._cli.output.note(
                f"{counted(count, 'unreadable record')} {verb} not included. "
                f"To correct {pronoun}: "
                f"reliable-imports failures {name} --export bad.csv, edit the file, then "
                f"reliable-imports reprocess {name} --from-file bad.csv{self._cli.repeated}"
            )

    async def _process(
        self, batch_id: UUID, thresholds: Mapping[str, Any] = MappingProxyType({})
    ) -> BatchSummary:
        async def watch(progress: Display) -> None:
            await follow(self._manager, batch_id, progress)

        return await self._with_progress(
            watch,
            lambda: self._manager.process_batch(batch_id, processes=self._processes, **thresholds),
        )

    async def _with_progress(
        self, watch: Callable[[Display], Coroutine[Any, Any, None]], task: Task
    ) -> BatchSummary:
        if self._display is None:
            return await task()
        async with anyio.create_task_group() as group:
            group.start_soon(watch, self._display)
            summary = await task()
            group.cancel_scope.cancel()
        return summary

    async def _watch_newest(self, progress: Display) -> None:
        """Show the progress of the reprocessing as soon as it exists."""
        while (batch_id := await self._reprocessing()) is None:
            await anyio.sleep(FIND_SECONDS)
        await follow(self._manager, batch_id, progress)

    async def _finish(self, task: Task) -> int:
        """Run a task until it ends or is stopped, show its summary, and return the exit code."""
        summary: BatchSummary | None = None
        try:
            with self._display or nullcontext():
                async with stoppable(self._cli.output, STOPPING):
                    summary = await task()
        except Exception:
            if self._batch_id is not None and self._is_new(self._batch_id):
                step = f"reliable-imports process {tail(self._batch_id)}{self._cli.repeated}"
                self._cli.output.note(f"Batch {self._batch_id} is stored. To continue it: {step}")
            raise
        if summary is None:
            raise await self._stopped()
        await show_summary(self._cli, self._manager, summary, groups=GROUPS_SHOWN)
        return code_of(summary, self._tolerate)

    async def _stopped(self) -> Stopped:
        """The report after Ctrl-C."""
        try:
            batch_id = self._batch_id or await self._reprocessing() or await self._loaded()
            if batch_id is None:
                return Stopped("Nothing was imported.")
            summary = await self._manager.get_batch_summary(batch_id)
        except (ReliableImportsError, OSError) as exc:
            hint = "`reliable-imports list` shows the batches; `process` continues a batch."
            return Stopped(f"The batch's status cannot be read: {exc}", hint=hint)
        if self._cli.output.json:
            self._cli.output.record(summary.as_dict())
        return Stopped(
            f"{number(summary.settled_items)} of {counted(summary.total_items, 'item')} done; "
            "nothing is lost.",
            hint=f"continue with: reliable-imports process {tail(batch_id)}{self._cli.repeated}",
        )

    async def _loaded(self) -> UUID | None:
        """The batch that was being created when the command was stopped, if it was committed."""
        async for batch in self._manager.list_batches(limit=20):
            if batch.created_by == self._cli.actor and self._is_new(batch.id):
                return batch.id
        return None

    async def _reprocessing(self) -> UUID | None:
        """The newest batch of the lineage, if this run created it or it is unfinished."""
        if self._root is None:
            return None
        async for batch in self._manager.list_batches(root_batch_id=self._root, limit=1):
            if self._is_new(batch.id) or not batch.status.settled:
                return batch.id
        return None

    def _is_new(self, batch_id: UUID) -> bool:
        """Whether this run may have created the batch; a UUIDv7 begins with its creation time."""
        return batch_id.int >> 80 >= self._began


async def show_summary(
    cli: Invocation, manager: BatchManager, summary: BatchSummary, *, groups: int
) -> None:
    """Show a summary with its failures by cause, their values, and the reasons for skips."""
    if summary.failed_items:
        detailed = await manager.failure_groups(summary.batch_id)
        summary = replace(summary, groups=detailed)
    reasons = await manager.skip_reasons(summary.batch_id) if summary.skipped_items else ()
    unreadable = (
        await manager.unreadable_items(summary.batch_id) if summary.outstanding_items else 0
    )
    if cli.output.json:
        skips = [{"reason": reason, "count": count} for reason, count in reasons]
        cli.output.record(summary.as_dict() | {"skip_reasons": skips})
    else:
        view = summary_view(
            summary, groups, cli.repeated, skip_reasons=reasons, unreadable=unreadable
        )
        cli.output.show(*view)
