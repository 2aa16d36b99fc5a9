"""Changing the record of a failed item where it lies; the old one is kept."""

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from anyio import to_thread

from . import exact_json
from .database import Database
from .errors import BatchNotFound, EditRefused, ItemNotFound
from .models import ItemStatus
from .records import Limits, from_value
from .store import edits, items, lineage
from .store.edits import FailedItem

Change = Callable[[Any], Mapping[str, Any] | None]

PAGE = 500
ROOT_SECONDS = 10.0
"""How long an edit waits for a reprocessing that is being created: it may take the record."""


async def edit_item(
    database: Database,
    batch_id: UUID,
    item_number: int,
    new_data: Mapping[str, Any],
    limits: Limits,
    *,
    actor: str | None,
    reason: str | None,
) -> None:
    """Replace the record of one failed item.

    Raises:
        BatchNotFound, ItemNotFound: There is no such item.
        EditRefused: It has not failed, is being reprocessed, or the new record cannot be stored.
    """
    text = await to_thread.run_sync(_storable, new_data, item_number, limits)
    async with database.connection() as conn, conn.transaction(isolation="read_committed"):
        known = await lineage.share_root(conn, batch_id, ROOT_SECONDS)
        if known and await edits.lock_failed(conn, batch_id, item_number=item_number):
            await edits.edit(conn, batch_id, [item_number], [text], actor=actor, reason=reason)
            return
        item = await items.get(conn, batch_id, item_number)
    if item is None:
        raise ItemNotFound(batch_id, item_number)
    if item.status is not ItemStatus.FAILED:
        raise EditRefused(f"Item {item_number} is {item.status}; only failed items can be edited.")
    raise EditRefused(
        f"Item {item_number} was taken up by batch {item.reprocessed_by}.",
        hint="edit it in that batch, if it failed again.",
    )


async def edit_items(
    database: Database,
    batch_id: UUID,
    change: Change,
    limits: Limits,
    *,
    group: str | None,
    actor: str | None,
    reason: str | None,
) -> int:
    """Replace the records of failed items by what `change` makes of them, all or none; how many.

    Raises:
        BatchNotFound: There is no such batch.
        EditRefused: A new record cannot be stored, or a reprocessing takes records right now.
    """
    count = after = 0
    async with (
        database.connection(seconds=None) as conn,
        conn.transaction(isolation="read_committed"),
    ):
        if not await lineage.share_root(conn, batch_id, ROOT_SECONDS):
            raise BatchNotFound(batch_id)
        while page := await edits.lock_failed(conn, batch_id, group=group, after=after, limit=PAGE):
            after = page[-1].item_number
            changed = [(one.item_number, _changed(one, change)) for one in page]
            texts = {n: _storable(new, n, limits) for n, new in changed if new is not None}
            await edits.edit(
                conn, batch_id, list(texts), list(texts.values()), actor=actor, reason=reason
            )
            count += len(texts)
    return count


def _changed(item: FailedItem, change: Change) -> Mapping[str, Any] | None:
    return change(item.raw if item.text is None else exact_json.read(item.text))


def _storable(new_data: Mapping[str, Any], item_number: int, limits: Limits) -> str:
    record = from_value(new_data, limits=limits)
    if record.text is None:
        raise EditRefused(
            f"The new record of item {item_number} cannot be stored: {record.reason}",
            hint="nothing was changed.",
        )
    return record.text.decode()
