"""The savepoints inside a chunk's transaction: one live at a time, and not too many in all."""

from collections.abc import Sequence
from secrets import token_hex

from ..database.guard import Connection, GuardedConnection

ROOM = 60
"""Savepoints that may write in one transaction. Released or not, PostgreSQL keeps at most 64 of
them at hand; with more, every concurrent reader pays."""

_NAME = f"reliable_imports_{token_hex(8)}"  # nobody else's ROLLBACK TO means it
_SET = f"SAVEPOINT {_NAME}"
_KEEP = f"RELEASE SAVEPOINT {_NAME}; SAVEPOINT {_NAME}"
_UNDO = f"ROLLBACK TO SAVEPOINT {_NAME}"


class Savepoints:
    """The savepoint before the current run of items.

    Args:
        seconds: How long each statement may take.
        deferred: Constraints that are asked about after each run; else they would fire at
            COMMIT, and nobody would know whose fault it was.
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
        """Whether the transaction must end before more items run."""
        return self._used >= ROOM

    def admit(self, guarded: GuardedConnection) -> bool:
        """Count the savepoints that a processor made by itself.

        No further items run where a setting was changed, if only for the transaction.

        Returns:
            False where its items cannot share a transaction: it has changed how that works, such
            as its isolation, or handled savepoints by name.
        """
        if guarded.changed_transaction or guarded.names_savepoints:
            return False
        self._used = ROOM if guarded.sets else self._used + guarded.savepoints
        return True

    async def set(self) -> None:
        """The first savepoint of the transaction."""
        await self.conn.execute(_SET, timeout=self._seconds)

    async def keep(self) -> None:
        """Keep what the run did, and begin the next one.

        Raises:
            PostgresError: The run violates a deferred constraint, or left the transaction aborted.
        """
        await self.conn.execute(self._keep, timeout=self._seconds)
        self._used += 1

    async def undo(self) -> None:
        """Undo what the run did."""
        await self.conn.execute(_UNDO, timeout=self._seconds)


class Distance:
    """How many items run between two savepoints: grows while all goes well, halves when not."""

    def __init__(self, first: int, limit: int, factor: float) -> None:
        self._limit = limit
        self._factor = factor
        self.items = min(first, limit)

    def grow(self) -> None:
        """A full run succeeded."""
        self.items = min(self._limit, max(self.items + 1, int(self.items * self._factor)))

    def shrink(self) -> None:
        """A run failed."""
        self.items = max(1, self.items // 2)
