"""The connection that a slot keeps across items, and drops after anything but a plain failure."""

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
OURS = (
    OSError,  # includes TimeoutError
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""What the driver raises when a statement, or the connection, fails."""


class Session:
    """A connection for one item at a time, taken from the pool once it is needed.

    If a further item is waiting, transactions are chained: COMMIT AND CHAIN ends a transaction and
    begins the next in one round trip.

    Args:
        item_timeout: Seconds for setting up a connection.
        more: Returns whether a further item is waiting, so that chaining pays.
        commit_timeout: Seconds to wait for the answer to a COMMIT.

    Attributes:
        limit: Bounds the time of each item; usable while the session is entered.
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
        self._undone = False  # whether the transaction has yet to be rolled back
        self.limit = TimeLimit()
        self._settings: Any = None  # those that the server reports without being asked
        self._clean: Sequence[str] = ()  # their values before any item
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
        """The connection, in a transaction without any effects yet.

        Raises:
            Outage: No connection is available now.
        """
        if self._undone and not await self.rollback():
            await self.discard()
        if self.lost:
            await self.discard()
        elif self._connection is not None and self._database.has_trace(self._connection):
            await self.close()  # the next item must not meet what an item left in the session
        connection = self._connection or await self._take()
        if connection.is_in_transaction() is not (self._transaction is not None):
            # A BEGIN was cancelled, or user code has ended the transaction: asyncpg and the server
            # disagree about it, and the effects of the next statements may silently be lost.
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
        """Commit.

        Args:
            chain: Whether to begin the next transaction in the same round trip.
            first: A statement to send before COMMIT in the same message; only with `chain`.

        Raises:
            TimeoutError: The answer did not come in time.
            TransactionEnded: There is no transaction, or the server has rolled it back.
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
            raise TransactionEnded  # only the command tag tells that the server has rolled back

    async def replace(self, settling: str) -> None:
        """Roll back, settle, commit and begin the next transaction, all in one message.

        Args:
            settling: The text of the settling statement.

        Raises:
            TimeoutError: The answer did not come in time.
        """
        connection = self._connection
        if connection is None or self._transaction is None:
            connection = await self.begin()
        self._undone = True  # until the answer has come
        text = f"ROLLBACK AND CHAIN; {settling}; COMMIT AND CHAIN"
        await connection.execute(text, timeout=self._commit_timeout)
        self._undone = False

    async def undo(self) -> bool:
        """Roll back, or note that the next message has to; False: the connection did not answer."""
        self._undone = self._transaction is not None and self.more()
        return self._undone or await self.rollback()

    def note(self, guard: GuardedConnection) -> None:
        """Note the traces of user code, so that the next item begins in a clean session."""
        if guard.calls and self._reported() != self._clean:
            guard.sets = True
            guard.trace = max(guard.trace, Trace.POSSIBLE)
        if guard.trace and self._connection is not None:
            self._database.note_trace(self._connection, guard.trace)

    def refuse(self, trace: Trace) -> None:
        """Refuse a trace that cannot be removed.

        Raises:
            PoolerUnsupported: The session belongs to a transaction pooler.
        """
        self._database.refuse_trace(trace)

    async def rollback(self) -> bool:
        """Roll back, even if the caller is cancelled; False: the connection did not answer."""
        self._undone = False
        transaction, self._transaction = self._transaction, None
        if transaction is None:
            return True
        with anyio.move_on_after(ROUND_TRIP_SECONDS, shield=True):
            try:
                await transaction.rollback()
            except OURS:
                return False
            else:
                return True
        return False

    async def leave(self, *, plain: bool) -> None:
        """Roll back, or drop the connection if it may not be in order.

        Args:
            plain: Whether it is in order as far as the caller knows.
        """
        if not plain or self.lost or not await self.rollback():
            await self.discard()

    async def idle(self) -> PooledConnection:
        """The connection outside of transactions, for a statement that commits by itself.

        Raises:
            Outage: No connection is available now.
        """
        if self._transaction is not None and not await self.rollback():
            await self.discard()
        if self.lost:
            await self.discard()
        return self._connection or await self._take()

    async def discard(self) -> None:
        """Terminate the connection: its state is unknown."""
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
                drop(connection)  # for example, a codec that it has set cannot be undone
            await self._database.give_back(connection)

    @property
    def lost(self) -> bool:
        """Whether the connection is known to be broken."""
        return self._connection is None or is_lost(self._connection)

    async def _take(self) -> PooledConnection:
        """Take a connection from the pool, and set it up for items."""
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
            raise  # a bug in on_connection ends the call
        self._connection = connection
        self._settings = connection.get_settings()
        self._clean = self._reported()
        return connection

    async def _refuse(self, connection: PooledConnection) -> None:
        """Terminate a connection that cannot be set up."""
        drop(connection)
        await self._database.give_back(connection)

    def _reported(self) -> Sequence[str]:
        """Settings that show changes by functions, too; reading them takes no round trip."""
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
                "the pooler shares its sessions among clients.",
                hint="connect to PostgreSQL directly, or set up inside process_item.",
            )
        await self._processor.on_connection(connection)

    def _outage(self, exc: Exception) -> Outage:
        if not is_outage(exc):
            raise exc
        return outage(exc, lost=False, redact=self._database.redact)
