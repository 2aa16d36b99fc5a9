"""The savepoints of a chunk's transaction: one at a time, and a limited number in total."""

from collections.abc import Sequence
from secrets import token_hex

from ..database.guard import Connection, GuardedConnection

ROOM = 60
"""How many savepoints of a transaction may write. PostgreSQL caches at most 64 of them, released
or not; beyond that, all concurrent readers get slower."""

_NAME = f"reliable_imports_{token_hex(8)}"  # so that no ROLLBACK TO of user code means it
_SET = f"SAVEPOINT {_NAME}"
_KEEP = f"RELEASE SAVEPOINT {_NAME}; SAVEPOINT {_NAME}"
_UNDO = f"ROLLBACK TO SAVEPOINT {_NAME}"


class Savepoints:
    """The savepoint before the current run of items.

    Args:
        seconds: How long each statement may take.
        deferred: Constraints that are checked after each run. At COMMIT, the item that violated
            them would not be known.
    """

    def __init__(self, conn: Connection, seconds: float, deferred: Sequence[str] = ()) -> None:
        self.conn = conn
        self._seconds = seconds
        names = ", ".join(deferred)
        check = f"SET CONSTRAINTS {names} IMMEDIATE; SET CONSTRAINTS {names} DEFERRED; "
        self._keep = (check if deferred else "") + _KEEP
        self._used = 0

    @property
    def exhausted(self) -> bool:
        """Whether the transaction has to end before further items run."""
        return self._used >= ROOM

    def admit(self, guard: GuardedConnection) -> bool:
        """Count the savepoints that user code has set.

        If it has changed a setting, no further items run in this transaction.

        Returns:
            False if items cannot share the transaction: the code has changed its characteristics,
            such as its isolation level, or handled savepoints by name.
        """
        if guard.changed_transaction or guard.names_savepoints:
            return False
        self._used = ROOM if guard.sets else self._used + guard.savepoints
        return True

    async def set(self) -> None:
        """Set the first savepoint of the transaction."""
        await self.conn.execute(_SET, timeout=self._seconds)

    async def keep(self) -> None:
        """Keep the effects of a run, and set the savepoint before the next run.

        Raises:
            PostgresError: The run violates a deferred constraint, or has aborted the transaction.
        """
        await self.conn.execute(self._keep, timeout=self._seconds)
        self._used += 1

    async def undo(self) -> None:
        """Undo the effects of a run."""
        await self.conn.execute(_UNDO, timeout=self._seconds)


class Distance:
    """How many items run between two savepoints: more after full runs, half after a failed run."""

    def __init__(self, first: int, limit: int, factor: float) -> None:
        self._limit = limit
        self._factor = factor
        self.items = min(first, limit)

    def grow(self) -> None:
        """Note that a full run succeeded."""
        self.items = min(self._limit, max(self.items + 1, int(self.items * self._factor)))

    def shrink(self) -> None:
        """Note that a run failed."""
        self.items = max(1, self.items // 2)
