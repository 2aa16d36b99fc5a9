"""Reads the items of a held range that are still to be run."""

from typing import Any

from ..models import ImportBatch, ImportBatchItem
from ..store import items
from ..store.items import PendingRow
from .leases import HeldRange, Leases

Items = list[ImportBatchItem[Any]]


class PendingItems:
    """The pending items of a range, page by page.

    Attributes:
        ended: Whether the last page was read.
    """

    def __init__(self, leases: Leases, batch: ImportBatch, held: HeldRange) -> None:
        self._leases = leases
        self._batch = batch
        self._held = held
        self._first = held.claimed.first_item
        self.ended = False

    async def rows(self, size: int) -> list[PendingRow]:
        """The rows of the next `size` pending items or fewer."""
        claimed, first = self._held.claimed, self._first
        rows = await self._leases.retry_until_answered(
            lambda conn: items.pending_rows(conn, claimed.batch_id, first, claimed.last_item, size)
        )
        self._first = rows[-1][0] + 1 if rows else claimed.last_item + 1
        self.ended = self._first > claimed.last_item
        return rows

    async def page(self, size: int) -> Items:
        """The next items that run now, out of `size` pending items or fewer."""
        batch, rows = self._batch, await self.rows(size)
        return self._held.to_run(await items.read_rows(rows, batch.id, batch.root_batch_id))


async def read_undue(leases: Leases, batch: ImportBatch, held: HeldRange) -> Items:
    """The items of a range that are to be retried, but not yet: later items of their keys wait."""
    claimed = held.claimed
    return await leases.retry_until_answered(
        lambda conn: items.read_undue(
            conn, claimed.batch_id, batch.root_batch_id, claimed.first_item, claimed.last_item
        )
    )
