"""Everything that can be asked about batches, items and log lines."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from uuid import UUID

import anyio

from .database.pool import Database, PoolUse
from .errors import BatchNotFound, ItemNotFound
from .models import (
    BatchStatus,
    BatchSummary,
    FailureGroup,
    ImportBatch,
    ImportBatchItem,
    ItemStatus,
    ListedBatch,
    LogEntry,
    LogLevel,
)
from .overviews import BatchOverviews
from .repair.export import ExportFormat, FailureExport
from .runner.exclusive import running
from .store import batches, items, logs, metrics, reprocessing, summaries
from .store.metrics import Measurements
from .store.visibility import Visibility, Visible

PAGE = 500
WATCH_SECONDS = 0.5


class BatchQueries(BatchOverviews):
    """The reading half of `BatchManager`."""

    _database: Database

    async def get_batch(self, batch_id: UUID) -> ImportBatch:
        """A batch as its row says; raises `BatchNotFound`."""
        async with self._database.connection() as conn:
            batch = await batches.get(conn, batch_id)
        if batch is None:
            raise BatchNotFound(batch_id)
        return batch

    async def get_batch_summary(self, batch_id: UUID) -> BatchSummary:
        """Where a batch stands: counts, rates and failure groups; raises `BatchNotFound`.

        Costs O(ranges). While a batch runs, its counts are about a second old.
        """
        async with self._database.connection() as conn:
            summary = await summaries.get(conn, batch_id)
        if summary is None:
            raise BatchNotFound(batch_id)
        return summary

    async def batch_progress(self, batch_ids: Sequence[UUID]) -> Mapping[UUID, BatchSummary]:
        """Where several batches stand, in one query of O(ranges); unknown ones are left out.

        Failure groups are not read.
        """
        async with self._database.connection() as conn:
            return {one.batch_id: one for one in await summaries.progress(conn, batch_ids)}

    async def failure_groups(
        self, batch_id: UUID, *, values: int = 10, visible: Visibility | None = None
    ) -> tuple[FailureGroup, ...]:
        """The failed items by cause, largest first, with offending values and first items.

        Args:
            values: How many values and item numbers to show a group.
            visible: Which earlier batches are looked at for the same cause; None for all.
        """
        async with self._database.connection() as conn:
            if await batches.get(conn, batch_id) is None:
                raise BatchNotFound(batch_id)
            found = await summaries.groups(conn, batch_id)
            return await summaries.with_values(conn, batch_id, found, values, visible)

    async def outstanding_failures(
        self, batch_id: UUID, *, values: int = 10, visible: Visibility | None = None
    ) -> tuple[FailureGroup, ...]:
        """What is outstanding in the whole lineage of a batch, by cause.

        Only failures that no later batch has taken up. Each group names the batch in which its
        items stand (`FailureGroup.batch_id`): their numbers are numbers there.

        Args:
            batch_id: Any batch of the lineage.
            values: How many values and item numbers to show a group.
            visible: Which earlier batches are looked at for the same cause; None for all.
        """
        root = (await self.get_batch(batch_id)).root_batch_id
        async with self._database.connection() as conn:
            found = await summaries.outstanding_groups(conn, root, summaries.GROUPS_SHOWN)
            return await summaries.with_values(conn, root, found, values, visible)

    async def running_batch(self, batch_type: str) -> UUID | None:
        """The batch of a type whose processor says `only_one` that runs now; None: none does."""
        holder = await running(self._database, batch_type)
        return None if holder is None else holder.batch_id

    async def skip_reasons(self, batch_id: UUID, *, limit: int = 10) -> tuple[tuple[str, int], ...]:
        """Why items of a batch were skipped and how many, most frequent first.

        Numbers and ids in a reason are taken out. In a batch of more than 100,000 items only the
        first 250 ranges that have skipped items are looked at.
        """
        async with self._database.connection() as conn:
            return tuple(await summaries.skip_reasons(conn, batch_id, limit))

    def export_failures(
        self,
        batch_id: UUID,
        *,
        format: ExportFormat = "csv",  # noqa: A002 - the word that users know
        group: str | None = None,
        byte_order_mark: bool = False,
    ) -> AsyncIterator[bytes]:
        """The outstanding failures of a batch as the chunks of a file; holds no connection.

        Exactly the records that failed in this batch and whose last try, here or in a later batch
        of the lineage, has failed as well; each as it was last tried, with its last error.
        CSV has ``_batch``, the source's columns in their order, then ``_item``, ``_line``,
        ``_group``, ``_error``, ``_detail`` and, for a record that could not be read, ``_raw``; a
        cell that a spreadsheet would run as a formula begins with an apostrophe. JSON Lines are
        lossless: the record stands under ``record``.

        Args:
            format: "csv" or "jsonl".
            group: Only failures of this group.
            byte_order_mark: Begin CSV with the mark by which spreadsheets know that it is UTF-8.

        Raises:
            BatchNotFound, ConfigurationError: With the first chunk.
        """
        export = FailureExport(self._database, batch_id, group)
        return export.chunks(format, mark=byte_order_mark)

    async def unreadable_items(self, batch_id: UUID) -> int:
        """How many records of the lineage could not be read and have not come back corrected.

        Reprocessing leaves them out: only new data can help them.
        """
        root = (await self.get_batch(batch_id)).root_batch_id
        async with self._database.connection() as conn:
            return await reprocessing.unreadable(conn, root)

    async def measure(
        self, bounds: Sequence[float], *, visible: Visibility | None = None
    ) -> Measurements:
        """What monitoring wants to know about all batches; costs O(batches).

        Args:
            bounds: The upper bounds of the buckets for the durations of batches, in seconds.
            visible: Which batches count; None for all.
        """
        async with self._database.connection() as conn:
            return await metrics.measure(conn, bounds, visible)

    async def visible_among(
        self, batch_ids: Sequence[UUID], visible: Visibility
    ) -> frozenset[UUID]:
        """Which of some batches somebody may see."""
        async with self._database.connection() as conn:
            return await batches.visible_among(conn, batch_ids, visible)

    def pool_use(self) -> PoolUse:
        """How many connections this process has, lends and may have."""
        return self._database.use()

    async def lineage(self, batch_id: UUID) -> tuple[BatchSummary, ...]:
        """The root batch and everything that came of reprocessing it, oldest first."""
        return (await self.get_batch_with_lineage(batch_id))[1]

    async def get_batch_with_lineage(
        self, batch_id: UUID
    ) -> tuple[ImportBatch, tuple[BatchSummary, ...]]:
        """A batch as its row says, and its `lineage`; raises `BatchNotFound`."""
        async with self._database.connection() as conn:
            family = {batch.id: batch for batch in await batches.lineage(conn, batch_id)}
            if batch_id not in family:
                raise BatchNotFound(batch_id)
            return family[batch_id], tuple(await summaries.get_many(conn, list(family)))

    async def list_batches(
        self,
        *,
        batch_type: str | None = None,
        status: BatchStatus | None = None,
        root_batch_id: UUID | None = None,
        created_since: datetime | None = None,
        created_before: datetime | None = None,
        before: UUID | None = None,
        search: str | None = None,
        visible: Mapping[str, Visible | bool] | Visibility | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[ListedBatch]:
        """Batches with their counts, newest first, read in pages.

        Args:
            created_since: Only batches created then or later.
            created_before: Only batches created earlier.
            before: Only batches older than this one.
            search: Only batches whose file, type, creator or id has this in it.
            visible: By batch type, which of its batches to list: True, False or `Visible`. A
                type that is not named has no restriction.
            limit: At most so many; None for all.
        """
        left, rules = limit, Visibility.of(visible)
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            async with self._database.connection() as conn:
                page = await batches.page(
                    conn,
                    batch_type=batch_type,
                    status=status,
                    root_batch_id=root_batch_id,
                    created_since=created_since,
                    created_before=created_before,
                    before=before,
                    search=search,
                    visible=rules,
                    limit=size,
                )
                counts = await summaries.progress(conn, [one.id for one in page])
            known = {one.batch_id: one for one in counts}
            for batch in page:
                if batch.id in known:  # else it was purged just now
                    yield ListedBatch.of(batch, known[batch.id])
            if len(page) < size:
                return
            before = page[-1].id
            left = None if left is None else left - len(page)

    async def list_items(
        self,
        batch_id: UUID,
        *,
        status: ItemStatus | None = None,
        group: str | None = None,
        after: int = 0,
        limit: int | None = None,
    ) -> AsyncIterator[ImportBatchItem]:
        """Items in the order of their numbers, read in pages.

        Args:
            status: Only items in this status.
            group: Only failed items of this failure group.
            after: Only items with a higher number.
            limit: At most so many; None for all.
        """
        left = limit
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            async with self._database.connection() as conn:
                page = await items.page(
                    conn, batch_id, status=status, group=group, after=after, limit=size
                )
            for item in page:
                yield item
            if len(page) < size:
                return
            after = page[-1].item_number
            left = None if left is None else left - len(page)

    async def get_item(self, batch_id: UUID, item_number: int) -> ImportBatchItem:
        """One item with everything stored about it; raises `ItemNotFound`."""
        async with self._database.connection() as conn:
            item = await items.get(conn, batch_id, item_number)
        if item is None:
            await self.get_batch(batch_id)
            raise ItemNotFound(batch_id, item_number)
        return item

    async def get_logs(
        self,
        batch_id: UUID,
        *,
        item_number: int | None = None,
        levels: Sequence[LogLevel] | None = None,
        after: int = 0,
        limit: int | None = None,
    ) -> AsyncIterator[LogEntry]:
        """Log lines in the order of writing, read in pages.

        Args:
            item_number: Only lines of this item.
            levels: Only lines of these levels.
            after: Only lines with a higher log_id.
            limit: At most so many; None for all.
        """
        left = limit
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            async with self._database.connection() as conn:
                page = await logs.page(
                    conn,
                    batch_id,
                    item_number=item_number,
                    levels=levels,
                    after=after,
                    limit=size,
                )
            for line in page:
                yield line
            if len(page) < size:
                return
            after = page[-1].log_id
            left = None if left is None else left - len(page)

    async def watch(
        self, batch_id: UUID, *, interval: float = WATCH_SECONDS
    ) -> AsyncIterator[BatchSummary]:
        """Summaries of a batch until nothing more happens by itself; the last one is final.

        Args:
            interval: Seconds between two looks.
        """
        while True:
            summary = await self.get_batch_summary(batch_id)
            yield summary
            if summary.status.settled:
                return
            await anyio.sleep(interval)

    async def wait_for_batch(self, batch_id: UUID, *, timeout: float | None = None) -> BatchSummary:
        """The summary of a batch once it is finished, failed, paused or cancelled.

        Args:
            timeout: Seconds after which TimeoutError is raised; None waits for ever.
        """
        with anyio.fail_after(timeout):
            while not (await self.get_batch(batch_id)).status.settled:
                await anyio.sleep(WATCH_SECONDS)
            return await self.get_batch_summary(batch_id)

    async def find_batch(self, name: str) -> UUID:
        """A batch by its id, by a unique tail of it, or by ``latest`` or ``latest:batch_type``.

        Raises:
            BatchNotFound: None, or more than one, has this name.
        """
        word, _, batch_type = name.partition(":")
        if word == "latest":
            async for batch in self.list_batches(batch_type=batch_type or None, limit=1):
                return batch.id
            raise BatchNotFound(name)
        digits = name.replace("-", "").lower()
        if not digits or set(digits) - set("0123456789abcdef"):
            raise BatchNotFound(name)
        async with self._database.connection() as conn:
            found = await batches.find_by_tail(conn, digits)
        if len(found) != 1:
            raise BatchNotFound(f"{name} (several end like this)" if found else name)
        return found[0]
