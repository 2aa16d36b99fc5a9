"""The connections a processor meets: the item's own, guarded, and a reserved one for reading."""

from collections.abc import AsyncIterator, Callable, Generator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import anyio
import asyncpg

from .errors import ContextClosed, ProcessorError, TransactionControlRefused
from .transaction_control import HARMLESS, Examined, Trace, examined

if TYPE_CHECKING:  # asyncpg's classes are generic in its stubs only
    PooledConnection: TypeAlias = asyncpg.pool.PoolConnectionProxy[Any]
    Connection: TypeAlias = asyncpg.Connection[Any] | PooledConnection
else:
    Connection = asyncpg.Connection
    PooledConnection = asyncpg.pool.PoolConnectionProxy
Reserve = Callable[[Trace], AbstractAsyncContextManager[Connection]]


def is_lost(connection: Connection) -> bool:
    """Whether a connection is broken. A pool's proxy that lost its own will not even be asked."""
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True


def drop(connection: Connection) -> None:
    """Terminate a connection, whatever state it is in."""
    with suppress(asyncpg.InterfaceError):  # the pool has let go of it already
        connection.terminate()


PROBE_SECONDS = 5.0
_FACTORIES = (asyncpg.cursor.CursorFactory,)
_REFUSED = frozenset({"close", "terminate", "reset", "is_closed", "reload_schema_state"})
_OF_THE_DRIVER = ("add_", "remove_", "set_", "reset_")  # what they change is in asyncpg's object
_NAMES_FIRST = ("copy_", *_OF_THE_DRIVER)  # their first argument is no SQL text
_SQL_ARGUMENTS = ("query", "command", "where")


class GuardedConnection:
    """The item's connection, for as long as its transaction lasts.

    It has asyncpg's methods, refuses SQL that would end the transaction, remembers the errors it
    raised (so that an outage can be told from an error of the processor's own making), and raises
    `ContextClosed` once the item has settled; so does everything that was obtained through it.

    Attributes:
        changed_transaction: Whether its characteristics were changed, such as the isolation level,
            which a chained transaction would keep.
        names_savepoints: Whether savepoints were handled by name, so that those of other items
            could be meant.
        sets: Whether a setting was changed, if only for the transaction.
        trace: What is left behind beyond the transaction.
        calls: Whether a function was called, in whose text anything may stand.
        errors: The errors raised so far.
        savepoints: How many were made so far.
        used: Whether anything was done with it.
    """

    __slots__ = (
        "_connection",
        "calls",
        "changed_transaction",
        "errors",
        "names_savepoints",
        "savepoints",
        "sets",
        "trace",
        "used",
    )

    def __init__(self, connection: Connection) -> None:
        self._connection: Connection | None = connection
        self.changed_transaction = False
        self.names_savepoints = False
        self.sets = False
        self.calls = False
        self.trace = Trace.NONE
        self.used = False
        self.errors: Sequence[BaseException] = ()
        self.savepoints = 0

    @property
    def left_behind(self) -> Trace:
        """What may be there beyond the transaction, also by functions whose text is not seen."""
        return max(self.trace, Trace.POSSIBLE if self.used else Trace.NONE)

    def close(self) -> None:
        """Detach from the connection; every later use raises `ContextClosed`."""
        self._connection = None

    async def own_errors(self, exc: BaseException) -> tuple[BaseException, ...]:
        """The errors of this connection; `exc` may be of another one that the processor uses.

        A prepared statement, a cursor or a COPY raises unwatched. But an SQL error leaves the
        transaction aborted, and one from elsewhere does not. After `close`, `exc` is ours.
        """
        if self._connection is None:
            return (*self.errors, exc)
        unwatched = all(exc is not known for known in self.errors)
        if unwatched and isinstance(exc, asyncpg.PostgresError) and not is_lost(self._connection):
            with anyio.move_on_after(PROBE_SECONDS, shield=True):
                try:
                    await self._connection.execute("SELECT 1")
                except asyncpg.InFailedSQLTransactionError:
                    return (*self.errors, exc)
                except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    pass  # it broke, and whoever uses it next will see
        return tuple(self.errors)

    async def execute(self, sql: str, *args: Any, timeout: float | None = None) -> str:
        """Run a statement, or several without arguments; return PostgreSQL's command tag."""
        connection = self._usable(sql)
        try:
            return await connection.execute(sql, *args, timeout=timeout)
        except BaseException as exc:
            self._remember(exc, args)
            raise

    async def executemany(
        self, sql: str, args: Iterable[Any], *, timeout: float | None = None
    ) -> None:
        """Run a statement once for each sequence of arguments."""
        connection = self._usable(sql)
        try:
            await connection.executemany(sql, args, timeout=timeout)
        except BaseException as exc:
            self._remember(exc, ())
            raise

    async def fetch(
        self, sql: str, *args: Any, timeout: float | None = None
    ) -> list[asyncpg.Record]:
        """Run a query and return its rows."""
        connection = self._usable(sql)
        try:
            return await connection.fetch(sql, *args, timeout=timeout)
        except BaseException as exc:
            self._remember(exc, args)
            raise

    async def fetchrow(
        self, sql: str, *args: Any, timeout: float | None = None
    ) -> asyncpg.Record | None:
        """Run a query and return its first row, or None."""
        connection = self._usable(sql)
        try:
            return await connection.fetchrow(sql, *args, timeout=timeout)
        except BaseException as exc:
            self._remember(exc, args)
            raise

    async def fetchval(
        self, sql: str, *args: Any, column: int = 0, timeout: float | None = None
    ) -> Any:
        """Run a query and return one value of its first row, or None."""
        connection = self._usable(sql)
        try:
            return await connection.fetchval(sql, *args, column=column, timeout=timeout)
        except BaseException as exc:
            self._remember(exc, args)
            raise

    async def prepare(self, sql: str, **options: Any) -> Any:
        """asyncpg's `prepare`, with the same check of the SQL text."""
        return _Lent(self, await self._usable(sql).prepare(sql, **options))

    def cursor(self, sql: str, *args: Any, **options: Any) -> Any:
        """asyncpg's `cursor`, with the same check of the SQL text."""
        return _Lent(self, self._usable(sql).cursor(sql, *args, **options))

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Undo what happens inside when it raises, and only that."""
        async with self.transaction():
            yield

    def transaction(self, **options: Any) -> Any:
        """asyncpg's `transaction`, which inside the item's transaction is a savepoint."""
        self.savepoints += 1
        return _Lent(self, self._open().transaction(**options))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in _REFUSED or name.startswith("_"):
            raise ProcessorError(
                f"connection.{name} is refused: the connection belongs to the library.",
                hint="open a connection of your own for work outside the item's transaction.",
            )
        value = getattr(self._open(), name)
        return self._checked(name, value) if callable(value) else value

    def _checked(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """A method of asyncpg's that can be called for as long as the item has not settled."""

        def call(*args: Any, **options: Any) -> Any:
            self._open()
            if name.startswith(_OF_THE_DRIVER):
                self.trace = Trace.DRIVER
            first = () if name.startswith(_NAMES_FIRST) and name != "copy_from_query" else args[:1]
            texts = (*first, *(options.get(key) for key in _SQL_ARGUMENTS))
            for text in texts:
                if isinstance(text, str):
                    self._usable(text)
            return method(*args, **options)

        return call

    def _open(self) -> Connection:
        if self._connection is None:
            raise ContextClosed
        self.used = True
        return self._connection

    def _usable(self, sql: str) -> Connection:
        found = examined(sql)
        if found is not HARMLESS:
            self._note(found)
        return self._open()

    def _note(self, found: Examined) -> None:
        """Keep in mind what a statement may have done besides; refuse what ends a transaction."""
        _permit(found)
        self.changed_transaction = self.changed_transaction or found.changes
        self.names_savepoints = self.names_savepoints or found.savepoints
        self.sets = self.sets or found.sets
        self.trace = max(self.trace, found.trace)
        self.calls = self.calls or found.calls

    def _remember(self, exc: BaseException, args: tuple[Any, ...]) -> None:
        self.errors = (*self.errors, exc)
        packed = len(args) == 1 and isinstance(args[0], tuple | list)
        if packed and isinstance(exc, asyncpg.InterfaceError):
            exc.add_note(
                "the processor has to give the arguments one by one, not as a tuple or list."
            )


class _Lent:
    """A statement, cursor or savepoint of a guarded connection; unusable when that is closed."""

    __slots__ = ("_guard", "_thing")

    def __init__(self, guard: GuardedConnection, thing: Any) -> None:
        self._guard = guard
        self._thing = thing

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        value = getattr(self._thing, name)
        return self._checked(value) if callable(value) else value

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._obtain().__await__()

    async def __aiter__(self) -> AsyncIterator[Any]:
        rows = aiter(self._thing)
        while True:
            self._guard._open()  # noqa: SLF001 - both are the guard
            try:
                row = await anext(rows)
            except StopAsyncIteration:
                return
            yield row

    async def __aenter__(self) -> Any:
        self._guard._open()  # noqa: SLF001
        return await self._thing.__aenter__()

    async def __aexit__(self, *raised: Any) -> Any:
        self._guard._open()  # noqa: SLF001
        return await self._thing.__aexit__(*raised)

    async def _obtain(self) -> Any:
        """Wait for what is awaited, such as a cursor."""
        self._guard._open()  # noqa: SLF001
        return _Lent(self._guard, await self._thing)

    def _checked(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self._guard._open()  # noqa: SLF001
            result = method(*args, **options)
            return _Lent(self._guard, result) if isinstance(result, _FACTORIES) else result

        return call


class ReadingConnection:
    """What validate_item and prepare_item read through: a reserved connection, read-only.

    Each call is a transaction of its own, on a connection that item slots never hold; so waiting
    for it cannot deadlock with them.
    """

    __slots__ = ("_reserve", "errors", "lost")

    def __init__(self, reserve: Reserve) -> None:
        self._reserve: Reserve | None = reserve
        self.errors: list[BaseException] = []
        self.lost = False  # the connection broke, or none could be had

    def close(self) -> None:
        """Every later use raises `ContextClosed`."""
        self._reserve = None

    async def execute(self, sql: str, *args: Any, timeout: float | None = None) -> str:
        """Run a statement that writes nothing."""
        async with self._transaction(sql) as connection:
            return await connection.execute(sql, *args, timeout=timeout)

    async def fetch(
        self, sql: str, *args: Any, timeout: float | None = None
    ) -> list[asyncpg.Record]:
        """Run a query and return its rows."""
        async with self._transaction(sql) as connection:
            return await connection.fetch(sql, *args, timeout=timeout)

    async def fetchrow(
        self, sql: str, *args: Any, timeout: float | None = None
    ) -> asyncpg.Record | None:
        """Run a query and return its first row, or None."""
        async with self._transaction(sql) as connection:
            return await connection.fetchrow(sql, *args, timeout=timeout)

    async def fetchval(
        self, sql: str, *args: Any, column: int = 0, timeout: float | None = None
    ) -> Any:
        """Run a query and return one value of its first row, or None."""
        async with self._transaction(sql) as connection:
            return await connection.fetchval(sql, *args, column=column, timeout=timeout)

    async def executemany(self, *_args: Any, **_options: Any) -> NoReturn:
        """Refused: there is nothing to write here."""
        raise _only_reading()

    def savepoint(self) -> NoReturn:
        """Refused: there is no item transaction yet."""
        raise _only_reading()

    @asynccontextmanager
    async def _transaction(self, sql: str) -> AsyncIterator[Connection]:
        found = examined(sql)
        _permit(found)
        if found.changes or found.savepoints:
            raise _only_reading()
        if self._reserve is None:
            raise ContextClosed
        closed = True
        try:
            async with self._reserve(found.trace) as connection:
                try:
                    async with _undone(connection):
                        yield connection
                finally:
                    closed = is_lost(connection)
        except asyncpg.ReadOnlySQLTransactionError as exc:
            raise _only_reading() from exc
        except Exception as exc:
            self.errors.append(exc)
            self.lost = self.lost or closed
            raise


@asynccontextmanager
async def _undone(connection: Connection) -> AsyncIterator[None]:
    """A transaction that is rolled back in any case, with the settings that were made in it."""
    transaction = connection.transaction(readonly=True)
    await transaction.start()
    try:
        yield
    finally:
        await transaction.rollback()


def _permit(found: Examined) -> None:
    """Refuse a text that would end the transaction."""
    if found.refused is not None:
        raise TransactionControlRefused(found.refused)


def _only_reading() -> ProcessorError:
    return ProcessorError(
        "Here the database can only be read: the item's transaction has not begun.",
        hint="write in process_item.",
    )
