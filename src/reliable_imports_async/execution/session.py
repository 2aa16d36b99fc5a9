"""The connection a slot keeps across items; dropped when anything but a plain failure happens."""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import anyio
import asyncpg

from ..cancellation import TimeLimit
from ..database.guard import Connection, GuardedConnection, PooledConnection, Trace, drop, is_lost
from ..database.pool import Database
from ..errors import PoolerUnsupported, TransactionEnded
from ..failures import is_outage, outage
from ..outcomes import Outage
from ..processors.processor import BaseProcessor

ROUND_TRIP_SECONDS = 10.0


class Session:
    """One connection for one item at a time, taken when first needed.

    Between two items that follow each other closely the transaction is chained: COMMIT AND CHAIN
    ends one and begins the next in the same round trip.

    Args:
        more: Whether a further item is waiting, so that chaining pays.

    Attributes:
        limit: Bounds what items take, between entering and leaving.
    """

    def __init__(
        self,
        database: Database,
        processor: BaseProcessor[Any],
        item_timeout: float,
        more: Callable[[], bool],
        commit_timeout: float,
    ) -> None:
        self._database = database
        self._processor = processor
        self._item_timeout = item_timeout
        self._connection: PooledConnection | None = None
        self._transaction: asyncpg.transaction.Transaction | None = None
        self._commit_timeout = commit_timeout
        self._undone = False  # the transaction is to be rolled back, and nobody has done it yet
        self.limit = TimeLimit()
        self._settings: Any = None  # of the connection's, what the server reports by itself
        self._clean: Sequence[str] = ()
        self.more = more

    async def __aenter__(self) -> Self:
        self.limit.__enter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.limit.__exit__(exc_type, exc, traceback)
        with anyio.CancelScope(shield=True):
            await self.close()

    async def begin(self) -> PooledConnection:
        """A connection in a transaction in which nothing has happened.

        Raises:
            Outage: None can be had now.
        """
        if self._undone and not await self.rollback():
            await self.discard()
        if self.lost:
            await self.discard()
        elif self._connection is not None and self._database.has_trace(self._connection):
            await self.close()  # what an item has left in the session is not for the next one
        connection = self._connection or await self._take()
        if connection.is_in_transaction() is not (self._transaction is not None):
            # A trace of a cancelled BEGIN, or of a transaction that somebody else has ended:
            # asyncpg and the server disagree, and what is sent next may silently be lost.
            await self.discard()
            connection = await self._take()
        if self._transaction is None:
            transaction = self._database.transaction(connection)
            try:
                with anyio.fail_after(ROUND_TRIP_SECONDS):
                    await transaction.start()
            except BaseException as exc:
                await self.discard()
                if isinstance(exc, Exception):
                    raise self._outage(exc) from exc
                raise
            self._transaction = transaction
        return connection

    async def commit(self, *, chain: bool, first: str | None = None) -> None:
        """COMMIT, and begin the next transaction in the same round trip if asked.

        Args:
            first: A statement to send in the same message, when the next transaction is begun.

        Raises:
            TimeoutError: There was no answer in time.
        """
        connection, transaction = self._connection, self._transaction
        if connection is None or transaction is None:
            raise TransactionEnded
        if not chain:
            self._transaction = None
            with anyio.fail_after(self._commit_timeout):
                await transaction.commit()
            return
        text = "COMMIT AND CHAIN" if first is None else f"{first}; COMMIT AND CHAIN"
        if await connection.execute(text, timeout=self._commit_timeout) != "COMMIT":
            raise TransactionEnded  # the server has rolled back, and says so only in its tag

    async def replace(self, settling: str) -> None:
        """Roll back, settle, COMMIT and begin the next transaction, all in one message.

        Raises:
            TimeoutError: There was no answer in time.
        """
        connection = self._connection
        if connection is None or self._transaction is None:
            connection = await self.begin()
        self._undone = True  # until the answer is here
        text = f"ROLLBACK AND CHAIN; {settling}; COMMIT AND CHAIN"
        await connection.execute(text, timeout=self._commit_timeout)
        self._undone = False

    async def undo(self) -> bool:
        """Roll back; later, with whatever comes next, where something does."""
        self._undone = self._transaction is not None and self.more()
        return self._undone or await self.rollback()

    def note(self, guarded: GuardedConnection) -> None:
        """Remember what code has left behind, so that the next item begins in a clean session."""
        if guarded.calls and self._reported() != self._clean:
            guarded.sets = True
            guarded.trace = max(guarded.trace, Trace.POSSIBLE)
        if guarded.trace and self._connection is not None:
            self._database.note_trace(self._connection, guarded.trace)

    def refuse(self, trace: Trace) -> None:
        """Refuse what would stay behind where the session cannot be made clean.

        Raises:
            PoolerUnsupported: The session is a transaction pooler's, and stays as it is.
        """
        self._database.refuse_trace(trace)

    async def rollback(self) -> bool:
        """Roll back whatever happens to the caller; False when the connection did not answer."""
        self._undone = False
        transaction, self._transaction = self._transaction, None
        if transaction is None:
            return True
        with anyio.move_on_after(ROUND_TRIP_SECONDS, shield=True):
            try:
                await transaction.rollback()
            except (
                OSError,
                asyncpg.PostgresError,
                asyncpg.InterfaceError,
                asyncpg.InternalClientError,
            ):
                return False
            else:
                return True
        return False

    async def idle(self) -> PooledConnection:
        """The connection outside of any transaction, for a statement that commits by itself.

        Raises:
            Outage: None can be had now.
        """
        if self._transaction is not None and not await self.rollback():
            await self.discard()
        if self.lost:
            await self.discard()
        return self._connection or await self._take()

    async def discard(self) -> None:
        """Terminate the connection: nobody knows what state it is in."""
        self._transaction, self._undone = None, False
        if self._connection is not None:
            connection, self._connection = self._connection, None
            drop(connection)
            await self._database.give_back(connection)

    async def close(self) -> None:
        """Return the connection to the pool."""
        if not await self.rollback():
            await self.discard()
        if self._connection is not None:
            connection, self._connection = self._connection, None
            if self._processor.overrides("on_connection"):
                drop(connection)  # codecs, for example, are not ours to undo
            await self._database.give_back(connection)

    @property
    def lost(self) -> bool:
        """Whether the connection is known to be broken."""
        return self._connection is None or is_lost(self._connection)

    async def _take(self) -> PooledConnection:
        """A new connection, set up for items."""
        try:
            connection = await self._database.take()
        except Exception as exc:
            raise self._outage(exc) from exc
        try:
            with anyio.fail_after(self._item_timeout):
                await self._database.configure(connection, self._item_timeout)
        except BaseException as exc:
            await self._refuse(connection)
            if isinstance(exc, Exception):
                raise self._outage(exc) from exc
            raise
        try:
            with anyio.fail_after(self._item_timeout):
                await self._set_up(connection)
        except BaseException as exc:
            broken = is_lost(connection)
            await self._refuse(connection)
            if broken and isinstance(exc, Exception):
                raise self._outage(exc) from exc
            raise  # of the processor's own making: it ends the call
        self._connection = connection
        self._settings = connection.get_settings()
        self._clean = self._reported()
        return connection

    async def _refuse(self, connection: PooledConnection) -> None:
        """Terminate a connection that cannot be set up."""
        drop(connection)
        await self._database.give_back(connection)

    def _reported(self) -> Sequence[str]:
        """What was changed also by a function shows in these; asking costs no round trip."""
        settings = self._settings
        if settings is None:
            return ()
        try:
            return settings.search_path, settings.is_superuser
        except AttributeError:  # before PostgreSQL 18
            return (settings.is_superuser,)

    async def _set_up(self, connection: Connection) -> None:
        """Run the processor's on_connection."""
        if not self._processor.overrides("on_connection"):
            return
        if self._database.pooled:
            raise PoolerUnsupported(
                "on_connection cannot work through a transaction pooler: "
                "sessions are not ours to set up.",
                hint="connect to PostgreSQL directly, or set up inside process_item.",
            )
        await self._processor.on_connection(connection)

    def _outage(self, exc: Exception) -> Outage:
        if not is_outage(exc):
            raise exc
        return outage(exc, lost=False, redact=self._database.redact)
