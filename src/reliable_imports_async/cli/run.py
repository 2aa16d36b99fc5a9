"""One run of a batch from the command line: progress beside it, Ctrl-C, and what it came to."""

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
from ..runner.dry_run_report import DryRun
from ..wording import counted
from .exit_codes import COMPLETED, SOME_FAILED, Stopped, code_of
from .formatting import number, tail
from .invocation import Invocation
from .progress import Display, display, follow
from .signals import stoppable
from .views import dry_run_view, summary_view

STOPPING = "Stopping: finishing running items. Press Ctrl-C again to quit immediately."
FIND_SECONDS = 0.2
GROUPS_SHOWN = 10

QueuedItem = Callable[[], Awaitable[BatchSummary]]


class Run:
    """Runs one batch with a manager.

    Args:
        tolerate: The share of its items that may fail and still count as success.
    """

    def __init__(self, cli: Invocation, manager: BatchManager, *, tolerate: float = 0.0) -> None:
        self._tolerate = tolerate
        self._cli = cli
        self._manager = manager
        self._shown: Display | None = display(cli.output)
        self._began = time.time_ns() // 1_000_000
        self._batch_id: UUID | None = None
        self._root: UUID | None = None

    async def load_and_process(
        self, source: Source, batch_type: str, options: Mapping[str, Any]
    ) -> int:
        """Import a source; the exit code."""

        async def work() -> BatchSummary:
            await self._mention_running(batch_type, refuse=True)
            progress = self._shown.loading if self._shown else None
            self._batch_id = await self._manager.create_batch(
                batch_type, source, created_by=self._cli.actor, progress=progress, **options
            )
            if not self._is_new(self._batch_id):
                self._cli.output.note(f"Imported before, as batch {self._batch_id}.")
            return await self._process(self._batch_id)

        return await self._to_the_end(work)

    async def process(
        self, batch_id: UUID, thresholds: Mapping[str, Any] = MappingProxyType({})
    ) -> int:
        """Process a batch that exists; the exit code."""
        self._batch_id = batch_id

        async def work() -> BatchSummary:
            batch = await self._manager.get_batch(batch_id)
            await self._mention_running(batch.batch_type, refuse=False)
            return await self._process(batch_id, thresholds)

        return await self._to_the_end(work)

    async def load_and_try(
        self, source: Source, batch_type: str, options: Mapping[str, Any]
    ) -> int:
        """Store a source as a batch, and try it without storing anything else; the exit code."""
        self._batch_id = await self._manager.create_batch(
            batch_type, source, created_by=self._cli.actor, **options
        )
        return await self.try_batch(self._batch_id)

    async def try_batch(self, batch_id: UUID) -> int:
        """Try a pending batch without storing anything; the exit code it would have."""
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
        """Run again what failed, in a new batch; the exit code."""
        self._root = (await self._manager.get_batch(batch_id)).root_batch_id

        async def work() -> BatchSummary:
            summary = await self._beside(
                self._watch_newest,
                lambda: self._manager.reprocess_batch(
                    batch_id, not everything, actor=self._cli.actor, **selection
                ),
            )
            if not self._is_new(summary.batch_id):
                self._cli.output.note(nothing_to_reprocess(summary))
            return summary

        code = await self._to_the_end(work)
        await self._mention_unreadable(batch_id)
        return code

    async def _mention_running(self, batch_type: str, *, refuse: bool) -> None:
        """Say that another batch of the type goes first, where only one may run.

        Raises:
            AnotherBatchRuns: With `refuse`, where its processor does so: nothing is stored then.
        """
        way = self._manager.registry.get(batch_type).only_one
        running = await self._manager.running_batch(batch_type) if way else None
        if running in (None, self._batch_id):
            return
        if refuse and way == "refuse":
            raise AnotherBatchRuns(batch_type, running)
        self._cli.output.note(
            f"Waiting for batch {running}: only one batch of type {batch_type} runs at a time."
        )

    async def _mention_unreadable(self, batch_id: UUID) -> None:
        if count := await self._manager.unreadable_items(batch_id):
            name = tail(self._root or batch_id)
            one = count == 1
            self._cli.output.note(
                f"{counted(count, 'unreadable record')} {'was' if one else 'were'} not included. "
                f"To correct {'it' if one else 'them'}: "
                f"reliable-imports failures {name} --export bad.csv, edit the file, then "
                f"reliable-imports reprocess {name} --from-file bad.csv{self._cli.repeated}"
            )

    async def _process(
        self, batch_id: UUID, thresholds: Mapping[str, Any] = MappingProxyType({})
    ) -> BatchSummary:
        async def watch(shown: Display) -> None:
            await follow(self._manager, batch_id, shown)

        return await self._beside(
            watch, lambda: self._manager.process_batch(batch_id, **thresholds)
        )

    async def _beside(
        self, watch: Callable[[Display], Coroutine[Any, Any, None]], work: QueuedItem
    ) -> BatchSummary:
        """Do the work, and show how far it is meanwhile."""
        if self._shown is None:
            return await work()
        async with anyio.create_task_group() as group:
            group.start_soon(watch, self._shown)
            summary = await work()
            group.cancel_scope.cancel()
        return summary

    async def _watch_newest(self, shown: Display) -> None:
        """Show the reprocessing as soon as there is one."""
        while (batch_id := await self._reprocessing()) is None:
            await anyio.sleep(FIND_SECONDS)
        await follow(self._manager, batch_id, shown)

    async def _to_the_end(self, work: QueuedItem) -> int:
        """Work until the batch has ended or somebody stops us; show where it stands."""
        summary: BatchSummary | None = None
        try:
            with self._shown or nullcontext():
                async with stoppable(self._cli.output, STOPPING):
                    summary = await work()
        except Exception:
            if self._batch_id is not None and self._is_new(self._batch_id):
                step = f"reliable-imports process {tail(self._batch_id)}{self._cli.repeated}"
                self._cli.output.note(f"Batch {self._batch_id} is stored. Go on with: {step}")
            raise
        if summary is None:
            raise await self._stopped()
        await show_summary(self._cli, self._manager, summary, groups=GROUPS_SHOWN)
        return code_of(summary, self._tolerate)

    async def _stopped(self) -> Stopped:
        """What the user wants to know after Ctrl-C."""
        try:
            batch_id = self._batch_id or await self._reprocessing() or await self._loaded()
            if batch_id is None:
                return Stopped("Nothing was imported.")
            summary = await self._manager.get_batch_summary(batch_id)
        except (ReliableImportsError, OSError) as exc:
            hint = "`reliable-imports list` shows what there is; `process` continues a batch."
            return Stopped(f"Where it stands cannot be read: {exc}", hint=hint)
        if self._cli.output.json:
            self._cli.output.record(summary.as_dict())
        return Stopped(
            f"{number(summary.settled_items)} of {counted(summary.total_items, 'item')} settled; "
            "nothing is lost.",
            hint=f"resume with: reliable-imports process {tail(batch_id)}{self._cli.repeated}",
        )

    async def _loaded(self) -> UUID | None:
        """The batch that was created just when we were stopped, if its COMMIT got through."""
        async for batch in self._manager.list_batches(limit=20):
            if batch.created_by == self._cli.actor and self._is_new(batch.id):
                return batch.id
        return None

    async def _reprocessing(self) -> UUID | None:
        """The lineage's newest batch, if it is this run's or unfinished."""
        if self._root is None:
            return None
        async for batch in self._manager.list_batches(root_batch_id=self._root, limit=1):
            if self._is_new(batch.id) or not batch.status.settled:
                return batch.id
        return None

    def _is_new(self, batch_id: UUID) -> bool:
        """Whether the batch was made since this run began; a UUIDv7 starts with its time."""
        return batch_id.int >> 80 >= self._began


async def show_summary(
    cli: Invocation, manager: BatchManager, summary: BatchSummary, *, groups: int
) -> None:
    """A summary with its failures by cause, for each the values that caused them, and skips."""
    if summary.failed_items:
        detailed = await manager.failure_groups(summary.batch_id)
        summary = replace(summary, groups=detailed)
    reasons = await manager.skip_reasons(summary.batch_id) if summary.skipped_items else ()
    left = summary.outstanding_items
    unreadable = await manager.unreadable_items(summary.batch_id) if left else 0
    if cli.output.json:
        skips = [{"reason": reason, "count": count} for reason, count in reasons]
        cli.output.record(summary.as_dict() | {"skip_reasons": skips})
    else:
        view = summary_view(
            summary, groups, cli.repeated, skip_reasons=reasons, unreadable=unreadable
        )
        cli.output.show(*view)


def nothing_to_reprocess(summary: BatchSummary) -> str:
    """Why a reprocessing made no new batch; `summary` is of the lineage's latest one."""
    if not summary.outstanding_items:
        return "Nothing to reprocess: every failure has been completed by a later batch."
    return "Nothing to reprocess: the outstanding records have to be corrected first."
