"""What can be done about failures: run them again, a few first, corrected in a file, edited."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from anyio import to_thread
from typing_extensions import Unpack
from uuid_utils.compat import uuid7

from .loading.options import ThresholdOptions, require_names
from .loading.records import Limits
from .loading.sources import Source, read_file
from .models import BatchStatus, BatchSummary, CorrectedFile, ItemEdit, ItemStatus, Reprocessing
from .processors.registry import Registry
from .processors.thresholds import Thresholds
from .queries import BatchQueries
from .repair.corrections import create_corrected
from .repair.edits import Change, check_edit, edit_item, edit_items
from .repair.reprocess import (
    Canary,
    Continuation,
    Selection,
    Transform,
    create_child,
    rest_of,
    stopped_by,
)
from .settings import Settings
from .store import batches, repairs


class BatchRepairs(BatchQueries):
    """The repairing part of `BatchManager`."""

    settings: Settings
    registry: Registry

    @abstractmethod
    async def process_batch(self, batch_id: UUID) -> BatchSummary:
        """Process a batch to its end."""

    async def reprocess_batch(
        self,
        batch_id: UUID,
        failed_items_only: bool = True,  # noqa: FBT001, FBT002 - the public signature
        *,
        group: str | None = None,
        item_numbers: Sequence[int] | None = None,
        transform: Transform | None = None,
        canary: int | None = None,
        min_success: float = 0.9,
        actor: str | None = None,
    ) -> BatchSummary:
        """Run again what failed, in a new batch linked to this one; return the new summary.

        What succeeded never runs again, however often and concurrently this is called: eligible
        is what failed anywhere in the lineage and nobody has taken up since, and what was left
        pending in a cancelled batch. When nothing is eligible, a reprocessing that is under way
        is joined; otherwise the summary of the lineage's latest batch is returned.

        Args:
            batch_id: Any batch of the lineage; it has come to an end.
            failed_items_only: False deliberately runs every item of this batch again.
            group: Only failures of this group.
            item_numbers: Only these items of this batch.
            transform: Makes the new record from the old one.
            canary: First only so many items, in a batch of their own; the rest, with what failed
                among them, runs when enough of them succeed. Otherwise the summary is the
                canary's, and its `stopped` says why.
            min_success: The share of the canary (0-1) that must succeed.
            actor: Who asks, for the log.

        Raises:
            WrongBatchStatus: The batch is still pending or processing.
            ReprocessRefused: Items were named that cannot run again.
        """
        child = await self.create_reprocessing(
            batch_id,
            failed_items_only,
            group=group,
            item_numbers=item_numbers,
            transform=transform,
            canary=canary,
            min_success=min_success,
            continues=True,
            actor=actor,
        )
        return await self.process_reprocessing(child, transform=transform, actor=actor)

    async def create_reprocessing(
        self,
        batch_id: UUID,
        failed_items_only: bool = True,  # noqa: FBT001, FBT002 - as reprocess_batch
        *,
        group: str | None = None,
        item_numbers: Sequence[int] | None = None,
        transform: Transform | None = None,
        canary: int | None = None,
        min_success: float = 0.9,
        continues: bool = False,
        actor: str | None = None,
    ) -> UUID:
        """The first half of `reprocess_batch`: make the new batch and return its id at once.

        `process_reprocessing` is the other half. When nothing is eligible, the id is that of the
        reprocessing that is in progress, of the lineage's latest batch, or of the batch itself;
        `start_reprocessing` tells which.

        Args:
            continues: Whether whoever finishes a canary that passes, here or in a worker, goes on
                with the rest; else only `process_reprocessing` does. A `transform` is code that
                other processes do not have, so with one it is always `process_reprocessing`.
        """
        started = await self.start_reprocessing(
            batch_id,
            failed_items_only,
            group=group,
            item_numbers=item_numbers,
            transform=transform,
            canary=canary,
            min_success=min_success,
            continues=continues,
            actor=actor,
        )
        return started.batch_id

    async def start_reprocessing(
        self,
        batch_id: UUID,
        failed_items_only: bool = True,  # noqa: FBT001, FBT002 - as reprocess_batch
        *,
        group: str | None = None,
        item_numbers: Sequence[int] | None = None,
        transform: Transform | None = None,
        canary: int | None = None,
        min_success: float = 0.9,
        continues: bool = False,
        actor: str | None = None,
    ) -> Reprocessing:
        """As `create_reprocessing`, and say whether there was anything to reprocess."""
        sample = None if canary is None else Canary(canary, min_success)
        selection = Selection(
            failed_items_only=failed_items_only,
            group=group,
            item_numbers=None if item_numbers is None else tuple(item_numbers),
            transform=transform,
            canary=canary,
        )
        options = sample.options(selection, continues=continues, actor=actor) if sample else {}
        limits = self._limits
        new_id = uuid7()
        child = await create_child(
            self._database, batch_id, selection, limits, actor, options, child_id=new_id
        )
        return Reprocessing(batch_id=child or batch_id, is_new=child == new_id)

    async def process_reprocessing(
        self, batch_id: UUID, *, transform: Transform | None = None, actor: str | None = None
    ) -> BatchSummary:
        """Process a batch that `create_reprocessing` made; after a canary that passes, the rest.

        After a crash, calling it again goes on.

        Args:
            batch_id: What `create_reprocessing` returned.
            transform: The same as there; a canary needs it for the rest.
            actor: Who asks, for the log.
        """
        batch = await self.get_batch(batch_id)
        continues = batch.options.get("canary", {}).get("continues")
        if batch.status is BatchStatus.CANCELLED:  # nothing was left to take out of it
            summary = await self.get_batch_summary(batch_id)
        else:
            summary = await self.process_batch(batch_id)
        options = (await self.get_batch(batch_id)).options
        if "canary" in options and (stopped := stopped_by(options, summary)):
            return replace(summary, stopped=stopped)
        if continues and "rest" in options["canary"]:  # it has run just now, here or elsewhere
            noted = options["canary"]["rest"]
            rest = None if noted is None else UUID(noted)
        else:
            rest = await self.continue_reprocessing(batch_id, transform=transform, actor=actor)
        if rest is None:
            return summary
        if (await self.get_batch(rest)).status.settled:
            return await self.get_batch_summary(rest)
        return await self.process_batch(rest)

    async def continue_reprocessing(
        self, batch_id: UUID, *, transform: Transform | None = None, actor: str | None = None
    ) -> UUID | None:
        """Create the batch of the rest, once a canary has passed; its id, or None.

        None also when there is no rest, or the batch is no canary.
        """
        batch = await self.get_batch(batch_id)
        if "canary" not in batch.options:
            return None
        if batch.options["canary"].get("continues"):
            return await Continuation(self._database, self._limits).after(batch)
        if stopped_by(batch.options, await self.get_batch_summary(batch_id)):
            return None
        selection = rest_of(batch.options, Selection(transform=transform))
        origin = batch.parent_batch_id or batch_id
        rest = await create_child(self._database, origin, selection, self._limits, actor)
        return None if rest == batch_id else rest

    async def set_thresholds(self, batch_id: UUID, **given: Unpack[ThresholdOptions]) -> None:
        """Say how many items of a batch may fail, for everybody who works on it from now on.

        Args:
            batch_id: A batch that is not finished.
            given: max_failures, max_failure_rate, min_processed, as for `create_batch`; None
                leaves one as it is.

        Raises:
            ConfigurationError: One of them cannot work.
            TypeError: There is no such threshold.
        """
        require_names("set_thresholds", given, ThresholdOptions)
        changed = {name: value for name, value in given.items() if value is not None}
        if not changed:
            return
        options = (await self.get_batch(batch_id)).options
        thresholds = Thresholds.of({**options, **changed})
        async with self._database.connection() as conn:
            await batches.set_options(conn, batch_id, thresholds.options())

    async def create_corrected_batch(
        self, batch_id: UUID, file: Any, *, actor: str | None = None
    ) -> CorrectedFile:
        """Take a corrected file of failures back: a new batch of exactly its rows.

        The rows, matched by batch and item number, replace the records of those items; other
        failures are left alone. Rows that name no item, or one that has not failed or is being
        reprocessed, are refused and reported. `process_batch` then runs the new batch.

        Args:
            batch_id: Any batch of the lineage.
            file: What `export_failures` gave, corrected: as for `import_file`, CSV or JSON Lines.
            actor: Who asks, for the log.

        Raises:
            WrongBatchStatus: The batch is still pending or processing.
            SourceError: The file cannot be read, or is no file of failures.
            ReprocessRefused: No row could be taken.
        """
        source = file if isinstance(file, Source) else read_file(file)
        return await create_corrected(self._database, batch_id, source, self._limits, actor)

    async def reprocess_from_file(
        self, batch_id: UUID, file: Any, *, actor: str | None = None
    ) -> BatchSummary:
        """Take a corrected file back and process it; see `create_corrected_batch`."""
        corrected = await self.create_corrected_batch(batch_id, file, actor=actor)
        return await self.process_batch(corrected.batch_id)

    async def update_item_source(
        self,
        batch_id: UUID,
        item_number: int,
        new_data: Mapping[str, Any],
        *,
        reason: str | None = None,
        actor: str | None = None,
        force: bool = False,
    ) -> None:
        """Replace the record of a failed item; the old one stays in its history.

        The item stays failed until it is reprocessed. One that could not be read can be, then.

        Args:
            new_data: The whole new record.
            reason: Why, for the history.
            actor: Who asks, for the history.
            force: Save also what the check refuses: fields that neither the record, the source
                nor the model has, and changed values that the model refuses. The model is asked
                where the processor is registered in this process.

        Raises:
            ItemNotFound: There is no such item.
            EditNotAccepted: A field is unknown, or the model refuses a value.
            EditRefused: It has not failed, is being reprocessed, or the record cannot be stored.
        """
        if not force:
            batch, item = await self.get_batch(batch_id), await self.get_item(batch_id, item_number)
            if item.status is ItemStatus.FAILED and item.reprocessed_by is None:
                known = batch.batch_type in self.registry.batch_types
                processor = self.registry.get(batch.batch_type) if known else None
                columns = batch.source_columns
                await to_thread.run_sync(check_edit, item, new_data, columns, processor)
        await edit_item(
            self._database,
            batch_id,
            item_number,
            new_data,
            self._limits,
            actor=actor,
            reason=reason,
        )

    async def update_item_sources(
        self,
        batch_id: UUID,
        transform: Change,
        *,
        group: str | None = None,
        reason: str | None = None,
        actor: str | None = None,
    ) -> int:
        """Replace the records of failed items by what `transform` makes of them; how many.

        All or none: what `transform` raises leaves everything as it was.

        Args:
            transform: Is given the record, or the raw bytes of one that could not be read;
                returns the new one, or None to leave it.
            group: Only failures of this group.
            reason: Why, for the history.
            actor: Who asks, for the history.

        Raises:
            EditRefused: A new record cannot be stored.
        """
        await self.get_batch(batch_id)
        return await edit_items(
            self._database,
            batch_id,
            transform,
            self._limits,
            group=group,
            actor=actor,
            reason=reason,
        )

    async def item_history(self, batch_id: UUID, item_number: int) -> tuple[ItemEdit, ...]:
        """Who has changed the record of an item, what and when; oldest first."""
        async with self._database.connection() as conn:
            return await repairs.history(conn, batch_id, item_number)

    @property
    def _limits(self) -> Limits:
        return Limits(self.settings.max_record_bytes, self.settings.max_record_depth)
