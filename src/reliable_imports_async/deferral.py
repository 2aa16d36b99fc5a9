"""The next pass over what was deferred: begun by one process, and noted in the batch's log."""

from uuid import UUID

from .guarded import Connection
from .models import LogLevel
from .store import deferrals, logs
from .wording import counted


async def next_pass(conn: Connection, batch_id: UUID, pass_number: int) -> bool:
    """Begin the pass after `pass_number`, unless it is not time, or somebody else has."""
    begun = await deferrals.reopen(conn, batch_id, pass_number)
    if begun is None:
        return False
    items = counted(begun.deferred, "deferred item")
    message = f"pass {begun.number}: {items} again"
    if begun.final:
        message = f"final pass: {items} again, and what still waits fails"
    details = {"pass": begun.number, "deferred": begun.deferred, "final": begun.final}
    await logs.insert(conn, batch_id, LogLevel.INFO, message, details)
    return True
