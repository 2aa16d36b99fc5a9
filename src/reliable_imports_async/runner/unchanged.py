"""Skips the items of a range that have not changed since their key was last completed."""

from ..store import item_keys
from ..store.item_keys import Remembering
from .leases import HeldRange, Leases


async def skip(leases: Leases, remembering: Remembering, held: HeldRange) -> int:
    """Settle the unchanged items of a range as skipped, in one statement; return how many."""
    claimed = held.claimed
    skipped = await leases.retry_until_answered(
        lambda conn: item_keys.skip_unchanged(
            conn, claimed.batch_id, claimed.first_item, claimed.last_item, remembering
        )
    )
    held.counts.skipped += skipped
    return skipped
