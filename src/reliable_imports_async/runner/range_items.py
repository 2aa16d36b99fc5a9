"""Reads the items of a held range that are still to be run."""

from typing import Any

import anyio

from ..models import ImportBatch, ImportBatchItem
from ..store import items
from ..store.items import PendingRow
from .leases import HeldRange, Leases

Items = list[ImportBatchItem[Any]]


class PendingItems:
    """The pending items of a range, page by page."""

    def __init__(self, leases: Leases, batch: ImportBatch, held: HeldRange) -> None:
        self._leases = leases
        self._batch = batch
        self._held = held
        self._first = held.claimed.first_item
        self._fetching = anyio.Lock()
        self._ahead: list[PendingRow] | None = None

    @property
    def ended(self) -> bool:
        """Whether the last page was read."""
        return self._ahead is None and self._first > self._held.claimed.last_item

    async def rows(self, size: int) -> list[PendingRow]:
        """The rows of the next `size` pending items or fewer."""
        async with self._fetching:
            if self._ahead is None:
                return await self._fetch(size)
            rows, self._ahead = self._ahead, None
            return rows

    async def fetch_ahead(self, size: int) -> None:
        """Fetch the next page already, beside what is done with the last."""
        async with self._fetching:
            if self._ahead is None and not self.ended:
                self._ahead = await self._fetch(size)

    async def _fetch(self, size: int) -> list[PendingRow]:
        claimed, first = self._held.claimed, self._first
        rows = await self._leases.retry_until_answered(
            lambda conn: items.pending_rows(conn, claimed.batch_id, first, claimed.last_item, size)
        )
        self._first = rows[-1][0] + 1 if rows else claimed.last_item + 1
        return rows

    async def page(self, size: int) -> Items:
        """The next items that run now, out of `size` pending items or fewer."""
        return await self.to_run(await self.rows(size))

    async def to_run(self, rows: list[PendingRow]) -> Items:
        """The items of a page that run now."""
        batch = self._batch
        return self._held.to_run(await items.read_rows(rows, batch.id, batch.root_batch_id))


async def read_undue(leases: Leases, batch: ImportBatch, held: HeldRange) -> Items:
    """The items of a range that are to be retried, but not yet: later items of their keys wait."""
    claimed = held.claimed
    return await leases.retry_until_answered(
        lambda conn: items.read_undue(
            conn, claimed.batch_id, batch.root_batch_id, claimed.first_item, claimed.last_item
        )
    )
