"""What the dashboard asks: overviews whose cost does not grow with the number of items."""

from dataclasses import replace
from uuid import UUID

from .database.pool import Database
from .errors import BatchNotFound
from .models import (
    BatchSummary,
    GroupGlance,
    ItemPreview,
    ItemStatus,
    LogPreview,
    Minute,
    SourceDetails,
    Tick,
)
from .store import previews, summaries
from .store.visibility import Visibility

TIMELINE_SAMPLE = 480
VALUES_SAMPLE = 500


class BatchOverviews:
    """The part of `BatchManager` that gives overviews."""

    _database: Database

    async def batch_overview(self, batch_id: UUID, *, causes: bool = True) -> BatchSummary:
        """Where a batch stands; raises `BatchNotFound`.

        Args:
            causes: Whether to read the failure groups too.
        """
        async with self._database.connection() as conn:
            found = await summaries.progress(conn, [batch_id])
            if not found:
                raise BatchNotFound(batch_id)
            wanted = causes and found[0].failed_items
            groups = await summaries.groups(conn, batch_id) if wanted else ()
        return replace(found[0], groups=groups)

    async def throughput(
        self, *, minutes: int = 60, visible: Visibility | None = None
    ) -> tuple[Minute, ...]:
        """Settled items a minute, oldest first; each batch's items spread over the time it ran.

        Args:
            minutes: How far to look back.
            visible: Which batches count; None for all.
        """
        async with self._database.connection() as conn:
            return tuple(await previews.throughput(conn, minutes, visible))

    async def timeline(self, batch_id: UUID, total_items: int) -> tuple[tuple[Tick, ...], int]:
        """When items of a batch were settled: every n-th of them, and n."""
        step = max(1, -(-total_items // TIMELINE_SAMPLE))
        async with self._database.connection() as conn:
            return tuple(await previews.timeline(conn, batch_id, total_items, step)), step

    async def item_previews(
        self,
        batch_id: UUID,
        *,
        status: ItemStatus | None = None,
        group: str | None = None,
        after: int = 0,
        limit: int = 50,
    ) -> tuple[ItemPreview, ...]:
        """A page of items, shortened; of a status only those ranges are read that have such items.

        Args:
            status: Only items in this status.
            group: Only failures of this group.
            after: Only items with a higher number.
            limit: At most so many.
        """
        async with self._database.connection() as conn:
            found = await previews.previews(
                conn, batch_id, status=status, group=group, after=after, limit=limit
            )
        return tuple(found)

    async def group_glance(
        self, batch_id: UUID, group: str, *, shown: int = 5, sampled: int = VALUES_SAMPLE
    ) -> GroupGlance:
        """The offending values among the first items of a failure group, and its first items.

        Args:
            shown: How many of them.
            sampled: Among how many items to look for values; 0 for none.
        """
        async with self._database.connection() as conn:
            return await previews.group_glance(conn, batch_id, group, sampled, shown)

    async def source_details(self, batch_id: UUID) -> SourceDetails:
        """What is known about a batch's file; raises `BatchNotFound`."""
        async with self._database.connection() as conn:
            found = await previews.source(conn, batch_id)
        if found is None:
            raise BatchNotFound(batch_id)
        return found

    async def latest_logs(
        self, batch_id: UUID, *, before: int | None = None, limit: int = 50
    ) -> tuple[LogPreview, ...]:
        """Log lines of a batch, newest first.

        Args:
            before: Only lines with a lower log_id.
            limit: At most so many.
        """
        async with self._database.connection() as conn:
            return tuple(await previews.latest_logs(conn, batch_id, before, limit))
