"""The connections a processor meets: the item's own, guarded, and a reserved one for reading."""

import re
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeAlias

import anyio
import asyncpg

from ..errors import ContextClosed, ProcessorError, TransactionControlRefused

LONGEST_REMEMBERED = 8_192  # characters; a longer text is likely to have its values in it

# Where a statement may begin: at the start, behind a semicolon, a comment or a line's end.
_PREFILTER = re.compile(
    r"(?:(?:\A|;|\*/)\s*|[\r\n][^\S\r\n]*)(?:commit|end|abort|rollback|begin|start|prepare|discard|savepoint"
    r"|release|set|reset|listen|unlisten|load|deallocate|declare|do)\b"
    r"|\b(?:temp|temporary)\b|set_config|advisory|pg_temp|pg_settings|dblink_connect"
    r"|transaction_|u&\"",
    re.IGNORECASE,
)
_WORD = r"[A-Za-z_\u0080-\U0010ffff][A-Za-z0-9_$\u0080-\U0010ffff]*"
_TAG = r"\$(?:[A-Za-z_\u0080-\U0010ffff][A-Za-z0-9_\u0080-\U0010ffff]*)?\$"
_STANDARD = r"'[^']*+(?:''[^']*+)*+(?:'|\Z)"
_ESCAPED = r"'[^'\\]*+(?:(?:''|\\.)[^'\\]*+)*+(?:'|\\?\Z)"  # without an end, it is all that follows


def _lexer(string: str) -> re.Pattern[str]:
    """What a text consists of, where a plain string looks like `string`."""
    return re.compile(
        rf"(?P<comment>--[^\r\n]*|/\*)|[eE](?P<escaped>{_ESCAPED})|[bBxX](?P<bits>{_STANDARD})"
        rf"|[uU]&(?P<unicode>{_STANDARD})|(?P<string>{string})|(?P<name>\"(?:[^\"]|\"\")*+(?:\"|\Z))"
        rf"|(?P<word>{_WORD})|(?P<tag>{_TAG})|(?P<end>;)|(?P<blank>[ \t\r\n\f\v]+)|(?P<other>.)",
        re.DOTALL,
    )


_READINGS = _lexer(_STANDARD), _lexer(_ESCAPED)
"""With `standard_conforming_strings` and without."""
_COMMENT_EDGE = re.compile(r"/\*|\*/")

_CONTROL = re.compile(
    r"(?:COMMIT|END|ABORT|BEGIN|START TRANSACTION|PREPARE TRANSACTION|DISCARD ALL"
    r"|ROLLBACK(?! (?:WORK |TRANSACTION )?TO\b))\b",
    re.IGNORECASE,
)
_SAVEPOINTS = re.compile(r"(?:SAVEPOINT|RELEASE|ROLLBACK)\b", re.IGNORECASE)
_CHARACTERISTICS = re.compile(
    r"SET (?:LOCAL )?TRANSACTION\b|SET CONSTRAINTS\b|SET .*\btransaction_", re.IGNORECASE
)
_LOCAL = re.compile(r"SET (?:LOCAL|TRANSACTION|CONSTRAINTS)\b", re.IGNORECASE)
_SETS = re.compile(
    r"SET\b|CREATE (?:LOCAL |GLOBAL )?TEMP(?:ORARY)?\b|SELECT\b.* INTO (?:LOCAL |GLOBAL )?TEMP",
    re.IGNORECASE | re.DOTALL,
)
_LASTING = re.compile(
    r"(?:SET|RESET|LISTEN|UNLISTEN|LOAD|PREPARE|DEALLOCATE|DISCARD)\b|DECLARE\b.* WITH HOLD\b",
    re.IGNORECASE | re.DOTALL,
)
_BLOCK = re.compile(r"DO\b", re.IGNORECASE)
_TEMPORARY = re.compile(
    r"CREATE (?:OR REPLACE )?(?:LOCAL |GLOBAL )?TEMP(?:ORARY)?\b"
    r"|CREATE\b.* pg_temp|(?:SELECT|WITH)\b.* INTO (?:LOCAL |GLOBAL )?TEMP(?:ORARY)?\b",
    re.IGNORECASE | re.DOTALL,
)
_DROPPED = re.compile(r" ON COMMIT DROP\b", re.IGNORECASE)
_ROUTINE = re.compile(r"CREATE (?:OR REPLACE )?(?:FUNCTION|PROCEDURE)\b", re.IGNORECASE)

# Functions by which a query reaches beyond its transaction; a quoted name is one as well.
_SET_CONFIG = re.compile(r"set_config", re.IGNORECASE)
_SET_LOCALLY = re.compile(r"set_config\s*\([^()]*,\s*(?:true|'t')\s*\)", re.IGNORECASE)
_CALL = re.compile(r"\bcall\b|\b(?:select|from|perform)\s+[\w.\"]+\s*\(", re.IGNORECASE)
_OF_THE_TRANSACTION = re.compile(r"transaction_(?:isolation|read_only|deferrable)", re.IGNORECASE)
_REACHING = re.compile(
    r"pg_(?:try_)?advisory_(?:un)?lock|dblink_connect|pg_settings|\bu&\"", re.IGNORECASE
)


class Trace(IntEnum):
    """What user code leaves on a connection, beyond its transaction."""

    NONE = 0
    POSSIBLE = 1  # perhaps in the server's session, by code that is not seen
    SESSION = 2  # in the server's session: a reset removes it
    DRIVER = 3  # in the driver's object as well: the connection is not used again


class Examined(NamedTuple):
    """What SQL text means for the transaction and the session that it runs in.

    Attributes:
        refused: The command by which it would end or begin a transaction: COMMIT, ROLLBACK, BEGIN
            and their like.
        changes: Whether it may change how its transaction works: isolation, access, constraints.
        savepoints: Whether it handles savepoints by name; those of others are among them.
        sets: Whether it changes a setting or makes a temporary table, if only for its transaction.
        trace: What it may leave behind.
        calls: Whether it calls a function or procedure, in whose text anything may stand.
    """

    refused: str | None = None
    changes: bool = False
    savepoints: bool = False
    sets: bool = False
    trace: Trace = Trace.NONE
    calls: bool = False


HARMLESS = Examined()
_CALLING = Examined(calls=True)


def examined(sql: str) -> Examined:
    """SQL text, examined once however often it is sent."""
    return _remembered(sql) if len(sql) <= LONGEST_REMEMBERED else _examine(sql)


def _examine(sql: str) -> Examined:
    if not _PREFILTER.search(sql):
        return _CALLING if _CALL.search(sql) else HARMLESS
    # Which of the two holds is a setting that may change at any time: what either forbids is.
    readings = _READINGS if "\\" in sql else _READINGS[:1]
    statements = [one for lexer in readings for one in _statements(sql, lexer)]
    refused = next((found for one in statements if (found := _CONTROL.match(one))), None)
    configures = len(_SET_CONFIG.findall(sql))
    lasting = configures > len(_SET_LOCALLY.findall(sql)) or _REACHING.search(sql) is not None
    lasting = lasting or any(_outlives(one) for one in statements)
    unseen = any(_BLOCK.match(one) for one in statements)
    return Examined(
        refused=None if refused is None else refused.group().upper(),
        changes=any(_CHARACTERISTICS.match(one) for one in statements)
        or _OF_THE_TRANSACTION.search(sql) is not None,
        savepoints=any(_SAVEPOINTS.match(one) for one in statements),
        sets=configures > 0 or lasting or unseen or any(_SETS.match(one) for one in statements),
        trace=Trace.SESSION if lasting else Trace.POSSIBLE if unseen else Trace.NONE,
        calls=_CALL.search(sql) is not None,
    )


_remembered = lru_cache(maxsize=2048)(_examine)


def _outlives(statement: str) -> bool:
    """Whether what a statement does is still there after its transaction."""
    if _TEMPORARY.match(statement):
        return _DROPPED.search(statement) is None
    return _LASTING.match(statement) is not None and _LOCAL.match(statement) is None


def _statements(sql: str, lexer: re.Pattern[str]) -> list[str]:
    """The statements of a text, their words a blank apart; strings and comments are left out."""
    statements: list[str] = []
    words: list[str] = []
    depth = 0  # in the body of a routine, whose statements are none of this text's
    opened = 0  # parentheses
    position = 0
    while (token := lexer.match(sql, position)) is not None:
        position = token.end()
        match token.lastgroup:
            case "comment":
                position = _behind(sql, position) if token.group() == "/*" else position
            case "tag":
                closing = sql.find(token.group(), position)
                position = len(sql) if closing < 0 else closing + len(token.group())
                words.append("''")
            case "word":
                words.append(token.group())
                depth = _depth(words, depth, opened)
            case "end" if depth == 0:
                statements.append(" ".join(words))
                words, opened = [], 0
            case "other":
                words.append(token.group())
                opened += {"(": 1, ")": -1}.get(token.group(), 0)
            case "name":  # only this one is looked for
                words.append("pg_temp" if token.group() == '"pg_temp"' else '""')
            case "string" | "escaped" | "bits" | "unicode":
                words.append("''")
            case _:
                pass
    return [*statements, " ".join(words)]


def _behind(sql: str, position: int) -> int:
    """Where a comment ends that began before `position`; comments nest."""
    depth = 1
    while depth and (edge := _COMMENT_EDGE.search(sql, position)) is not None:
        position = edge.end()
        depth += 1 if edge.group() == "/*" else -1
    return len(sql) if depth else position


def _depth(words: list[str], depth: int, opened: int) -> int:
    """How deep in BEGIN ATOMIC … END of a routine's body the last word is."""
    word = words[-1].upper()
    if depth:
        return depth + (word == "CASE") - (word == "END")
    if word != "ATOMIC" or len(words) < 2 or words[-2].upper() != "BEGIN":
        return 0
    return int(opened <= 0 and _ROUTINE.match(" ".join(words[:4])) is not None)


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
