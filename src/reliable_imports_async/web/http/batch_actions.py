"""Waiting for a batch on behalf of a client."""

from uuid import UUID

import anyio

from ...models import BatchSummary
from .call import Call

WAIT_SECONDS = 30.0
FIRST_LOOK_SECONDS = 0.02
LONGEST_LOOK_SECONDS = 0.5


async def settled(call: Call, batch_id: UUID) -> BatchSummary:
    """The batch's summary once it has settled, or after 30 seconds as it is then.

    Only the waiting ends when the client leaves; the batch goes on.
    """
    pause = FIRST_LOOK_SECONDS
    with anyio.move_on_after(WAIT_SECONDS):
        while not (await call.manager.get_batch(batch_id)).status.settled:
            await anyio.sleep(pause)
            pause = min(LONGEST_LOOK_SECONDS, pause * 1.5)
    return await call.manager.get_batch_summary(batch_id)
