"""What has not changed since its key was last completed is skipped, a range in one statement."""

from ..store import item_keys
from ..store.item_keys import Remembering
from .leases import Control, HeldRange


async def skip(control: Control, remembering: Remembering, held: HeldRange) -> int:
    """Settle the unchanged items of a range as skipped; how many."""
    claimed = held.claimed
    skipped = await control.insist(
        lambda conn: item_keys.skip_unchanged(
            conn, claimed.batch_id, claimed.first_item, claimed.last_item, remembering
        )
    )
    held.counts.skipped += skipped
    return skipped
