"""What can be done about failures: run them again, wholly or a few first."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from .canary import Canary, rest_of, stopped_by
from .models import BatchSummary
from .queries import BatchQueries
from .records import Limits
from .reprocessing import Selection, Transform, create_child
from .settings import Settings


class BatchRepairs(BatchQueries):
    """The repairing part of `BatchManager`."""

    settings: Settings

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
        actor: str | None = None,
    ) -> UUID:
        """The first half of `reprocess_batch`: make the new batch and return its id at once.

        `process_reprocessing` is the other half. When nothing is eligible, the id is that of the
        reprocessing that is under way, of the lineage's latest batch, or of the batch itself.
        """
        sample = None if canary is None else Canary(canary, min_success)
        selection = Selection(
            failed_items_only=failed_items_only,
            group=group,
            item_numbers=None if item_numbers is None else tuple(item_numbers),
            transform=transform,
            canary=canary,
        )
        options = sample.options(selection) if sample else {}
        limits = self._limits
        child = await create_child(self._database, batch_id, selection, limits, actor, options)
        return child or batch_id

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
        summary = await self.process_batch(batch_id)
        batch = await self.get_batch(batch_id)
        if "canary" not in batch.options:
            return summary
        if stopped := stopped_by(batch.options, summary):
            return replace(summary, stopped=stopped)
        selection = rest_of(batch.options, Selection(transform=transform))
        origin = batch.parent_batch_id or batch_id
        rest = await create_child(self._database, origin, selection, self._limits, actor)
        return summary if rest in {None, batch_id} else await self.process_batch(rest)

    @property
    def _limits(self) -> Limits:
        return Limits(self.settings.max_record_bytes, self.settings.max_record_depth)
