"""The connections that user code receives, and the examination of its SQL text.

`GuardedConnection` is the item's connection, inside its transaction; `ReadingConnection` can only
read. Both refuse SQL that would begin or end a transaction, and record what it may leave in the
session. `examined` finds that out from the text of the SQL.
"""

import re
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeAlias

import anyio
import asyncpg

from ..errors import ContextClosed, ProcessorError, TransactionControlRefused


class Trace(IntEnum):
    """The trace that user code leaves on a connection, beyond its transaction."""

    NONE = 0
    POSSIBLE = 1  # perhaps in the server's session, left by code that was not examined
    SESSION = 2  # in the server's session; a reset removes it
    DRIVER = 3  # in the driver's object too; the connection is not used again


class Examined(NamedTuple):
    """The effects of SQL text on the transaction and the session in which it runs.

    Attributes:
        refused: The command that would begin or end a transaction, such as COMMIT; None if there
            is none.
        changes: Whether it may change its transaction: isolation, access mode, constraints.
        savepoints: Whether it handles savepoints by name, which may be those of other items.
        sets: Whether it changes a setting or creates a temporary table, if only in its transaction.
        trace: The trace that it may leave in the session.
        calls: Whether it calls a function or procedure, whose text is not examined.
    """

    refused: str | None = None
    changes: bool = False
    savepoints: bool = False
    sets: bool = False
    trace: Trace = Trace.NONE
    calls: bool = False


HARMLESS = Examined()
_CALLING = Examined(calls=True)


if TYPE_CHECKING:  # asyncpg's classes are generic in its stubs only
    PooledConnection: TypeAlias = asyncpg.pool.PoolConnectionProxy[Any]
    Connection: TypeAlias = asyncpg.Connection[Any] | PooledConnection
else:
    Connection = asyncpg.Connection
    PooledConnection = asyncpg.pool.PoolConnectionProxy
Reserve = Callable[[Trace], AbstractAsyncContextManager[Connection]]


def is_lost(connection: Connection) -> bool:
    """Whether a connection is broken, or was already removed from its pool."""
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True


def drop(connection: Connection) -> None:
    """Terminate a connection in any state."""
    with suppress(asyncpg.InterfaceError):  # the pool has already removed it
        connection.terminate()


PROBE_SECONDS = 5.0
_FACTORIES = (asyncpg.cursor.CursorFactory,)
_REFUSED = frozenset({"close", "terminate", "reset", "is_closed", "reload_schema_state"})
_OF_THE_DRIVER = ("add_", "remove_", "set_", "reset_")  # methods that change asyncpg's object
_NAMES_FIRST = ("copy_", *_OF_THE_DRIVER)  # methods whose first argument is not SQL text
_SQL_ARGUMENTS = ("query", "command", "where")


class GuardedConnection:
    """The item's connection, for the duration of its transaction.

    It has asyncpg's methods, and refuses SQL that would end the transaction. It remembers the
    errors that it raised, so that an outage can be told from an error of the processor. When the
    item is settled, it raises `ContextClosed`, and so do its statements, cursors and savepoints.

    Attributes:
        changed_transaction: Whether the transaction's characteristics were changed, such as its
            isolation level, which a chained transaction would keep.
        names_savepoints: Whether savepoints were handled by name, which may be those of other
            items.
        sets: Whether a setting was changed, if only for the transaction.
        trace: The trace that is left in the session.
        calls: Whether a function was called, whose text was not examined.
        errors: The errors raised so far.
        savepoints: The number of savepoints so far.
        used: Whether the connection was used at all.
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
        """The trace that may be left in the session, including one by functions not examined."""
        return max(self.trace, Trace.POSSIBLE if self.used else Trace.NONE)

    def close(self) -> None:
        """Detach from the connection; every later use raises `ContextClosed`."""
        self._connection = None

    async def own_errors(self, exc: BaseException) -> tuple[BaseException, ...]:
        """The errors of this connection; `exc` may come from another connection of the processor.

        Errors of prepared statements, cursors and COPY are not remembered. But such an error leaves
        the transaction aborted, and an error of another connection does not. After `close`, `exc`
        counts as an error of this connection.
        """
        if self._connection is None:
            return (*self.errors, exc)
        unknown = all(exc is not known for known in self.errors)
        if unknown and isinstance(exc, asyncpg.PostgresError) and not is_lost(self._connection):
            with anyio.move_on_after(PROBE_SECONDS, shield=True):
                try:
                    await self._connection.execute("SELECT 1")
                except asyncpg.InFailedSQLTransactionError:
                    return (*self.errors, exc)
                except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    pass  # it is broken, and its next use will show that
        return tuple(self.errors)

    # The next five return the coroutine of `_remembering` instead of awaiting it in their own,
    # because they are called for every item, often several times.

    def execute(
        self, sql: str, *args: Any, timeout: float | None = None
    ) -> Coroutine[Any, Any, str]:
        """Run a statement, or several without arguments; return PostgreSQL's command tag."""
        return self._remembering(self._usable(sql).execute, sql, *args, timeout=timeout)

    def executemany(
        self, sql: str, args: Iterable[Any], *, timeout: float | None = None
    ) -> Coroutine[Any, Any, None]:
        """Run a statement once for each sequence of arguments."""
        return self._remembering(self._usable(sql).executemany, sql, args=args, timeout=timeout)

    def fetch(
        self, sql: str, *args: Any, timeout: float | None = None
    ) -> Coroutine[Any, Any, list[asyncpg.Record]]:
        """Run a query and return its rows."""
        return self._remembering(self._usable(sql).fetch, sql, *args, timeout=timeout)

    def fetchrow(
        self, sql: str, *args: Any, timeout: float | None = None
    ) -> Coroutine[Any, Any, asyncpg.Record | None]:
        """Run a query and return its first row, or None."""
        return self._remembering(self._usable(sql).fetchrow, sql, *args, timeout=timeout)

    def fetchval(
        self, sql: str, *args: Any, column: int = 0, timeout: float | None = None
    ) -> Coroutine[Any, Any, Any]:
        """Run a query and return one value of its first row, or None."""
        fetchval = self._usable(sql).fetchval
        return self._remembering(fetchval, sql, *args, column=column, timeout=timeout)

    async def prepare(self, sql: str, **options: Any) -> Any:
        """asyncpg's `prepare`, with the same check of the SQL text."""
        return _Lent(self, await self._usable(sql).prepare(sql, **options))

    def cursor(self, sql: str, *args: Any, **options: Any) -> Any:
        """asyncpg's `cursor`, with the same check of the SQL text."""
        return _Lent(self, self._usable(sql).cursor(sql, *args, **options))

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Roll back the statements inside it if it raises."""
        async with self.transaction():
            yield

    def transaction(self, **options: Any) -> Any:
        """asyncpg's `transaction`, which is a savepoint inside the item's transaction."""
        self.savepoints += 1
        return _Lent(self, self._open().transaction(**options))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in _REFUSED or name.startswith("_"):
            raise ProcessorError(
                f"connection.{name} is refused: the library manages the connection.",
                hint="the processor has to open its own connection for work outside the item's "
                "transaction.",
            )
        value = getattr(self._open(), name)
        return self._checked(name, value) if callable(value) else value

    def _checked(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """A method of asyncpg that can be called until the item is settled."""

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
        effects = examined(sql)
        if effects is not HARMLESS:
            self._note(effects)
        return self._open()

    def _note(self, effects: Examined) -> None:
        """Record the effects of a statement, and refuse a statement that ends the transaction."""
        _permit(effects)
        self.changed_transaction = self.changed_transaction or effects.changes
        self.names_savepoints = self.names_savepoints or effects.savepoints
        self.sets = self.sets or effects.sets
        self.trace = max(self.trace, effects.trace)
        self.calls = self.calls or effects.calls

    async def _remembering(
        self, method: Callable[..., Coroutine[Any, Any, Any]], sql: str, *args: Any, **options: Any
    ) -> Any:
        """Call a method of the connection, and remember its error."""
        try:
            return await method(sql, *args, **options)
        except BaseException as exc:
            self.errors = (*self.errors, exc)
            packed = len(args) == 1 and isinstance(args[0], tuple | list)
            if packed and isinstance(exc, asyncpg.InterfaceError):
                exc.add_note(
                    "the processor has to pass the arguments one by one, not as a tuple or list."
                )
            raise


class _Lent:
    """A statement, cursor or savepoint of a `GuardedConnection`; unusable once that is closed."""

    __slots__ = ("_guard", "_object")

    def __init__(self, guard: GuardedConnection, lent: Any) -> None:
        self._guard = guard
        self._object = lent

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        value = getattr(self._object, name)
        return self._checked(value) if callable(value) else value

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._obtain().__await__()

    async def __aiter__(self) -> AsyncIterator[Any]:
        rows = aiter(self._object)
        while True:
            self._guard._open()  # noqa: SLF001 - both are the guard
            try:
                row = await anext(rows)
            except StopAsyncIteration:
                return
            yield row

    async def __aenter__(self) -> Any:
        self._guard._open()  # noqa: SLF001
        return await self._object.__aenter__()

    async def __aexit__(self, *raised: Any) -> Any:
        self._guard._open()  # noqa: SLF001
        return await self._object.__aexit__(*raised)

    async def _obtain(self) -> Any:
        """Await an awaitable object, such as a cursor."""
        self._guard._open()  # noqa: SLF001
        return _Lent(self._guard, await self._object)

    def _checked(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self._guard._open()  # noqa: SLF001
            result = method(*args, **options)
            return _Lent(self._guard, result) if isinstance(result, _FACTORIES) else result

        return call


class ReadingConnection:
    """The reserved, read-only connection of validate_item and prepare_item.

    Each call is its own transaction, on a connection that no item slot ever holds; so waiting for
    it cannot deadlock with the slots.

    Attributes:
        errors: The errors raised so far.
        lost: Whether the connection broke, or there was none.
    """

    __slots__ = ("_reserve", "errors", "lost")

    def __init__(self, reserve: Reserve) -> None:
        self._reserve: Reserve | None = reserve
        self.errors: list[BaseException] = []
        self.lost = False

    def close(self) -> None:
        """Make every later use raise `ContextClosed`."""
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
        """Raise ProcessorError, because this connection can only read."""
        raise _only_reading()

    def savepoint(self) -> NoReturn:
        """Raise ProcessorError, because there is no item transaction yet."""
        raise _only_reading()

    @asynccontextmanager
    async def _transaction(self, sql: str) -> AsyncIterator[Connection]:
        effects = examined(sql)
        _permit(effects)
        if effects.changes or effects.savepoints:
            raise _only_reading()
        if self._reserve is None:
            raise ContextClosed
        closed = True
        try:
            async with self._reserve(effects.trace) as connection:
                try:
                    async with _rolled_back(connection):
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
async def _rolled_back(connection: Connection) -> AsyncIterator[None]:
    """A read-only transaction that is always rolled back, together with its settings."""
    transaction = connection.transaction(readonly=True)
    await transaction.start()
    try:
        yield
    finally:
        await transaction.rollback()


def _permit(effects: Examined) -> None:
    """Refuse SQL text that would begin or end a transaction."""
    if effects.refused is not None:
        raise TransactionControlRefused(effects.refused)


def _only_reading() -> ProcessorError:
    return ProcessorError(
        "The database can only be read here: the item's transaction has not begun.",
        hint="the processor has to write in process_item.",
    )


LONGEST_CACHED = 8_192  # characters; longer texts probably contain values and are not repeated

# A statement may begin at the start, or after a semicolon, a comment or a line end.
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
_ESCAPED = r"'[^'\\]*+(?:(?:''|\\.)[^'\\]*+)*+(?:'|\\?\Z)"  # without an end: the rest of the text


def _lexer(string: str) -> re.Pattern[str]:
    """The tokens of SQL text in which a plain string looks like `string`."""
    return re.compile(
        rf"(?P<comment>--[^\r\n]*|/\*)|[eE](?P<escaped>{_ESCAPED})|[bBxX](?P<bits>{_STANDARD})"
        rf"|[uU]&(?P<unicode>{_STANDARD})|(?P<string>{string})|(?P<name>\"(?:[^\"]|\"\")*+(?:\"|\Z))"
        rf"|(?P<word>{_WORD})|(?P<tag>{_TAG})|(?P<end>;)|(?P<blank>[ \t\r\n\f\v]+)|(?P<other>.)",
        re.DOTALL,
    )


_READINGS = _lexer(_STANDARD), _lexer(_ESCAPED)
"""The tokens with `standard_conforming_strings` on and off."""
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

# Functions with effects beyond the transaction; their names may also be quoted.
_SET_CONFIG = re.compile(r"set_config", re.IGNORECASE)
_SET_LOCALLY = re.compile(r"set_config\s*\([^()]*,\s*(?:true|'t')\s*\)", re.IGNORECASE)
_CALL = re.compile(r"\bcall\b|\b(?:select|from|perform)\s+[\w.\"]+\s*\(", re.IGNORECASE)
_OF_THE_TRANSACTION = re.compile(r"transaction_(?:isolation|read_only|deferrable)", re.IGNORECASE)
_REACHING = re.compile(
    r"pg_(?:try_)?advisory_(?:un)?lock|dblink_connect|pg_settings|\bu&\"", re.IGNORECASE
)


def examined(sql: str) -> Examined:
    """The effects of SQL text; the results for short texts are cached."""
    return _cached(sql) if len(sql) <= LONGEST_CACHED else _examine(sql)


def _examine(sql: str) -> Examined:
    if not _PREFILTER.search(sql):
        return _CALLING if _CALL.search(sql) else HARMLESS
    # `standard_conforming_strings` may change at any time, so the text is read in both ways.
    lexers = _READINGS if "\\" in sql else _READINGS[:1]
    statements = [statement for lexer in lexers for statement in _statements(sql, lexer)]

    def any_matches(pattern: re.Pattern[str]) -> bool:
        return any(pattern.match(statement) for statement in statements)

    refused = next(filter(None, map(_CONTROL.match, statements)), None)
    configures = len(_SET_CONFIG.findall(sql))
    lasting = configures > len(_SET_LOCALLY.findall(sql)) or _REACHING.search(sql) is not None
    lasting = lasting or any(map(_is_lasting, statements))
    has_block = any_matches(_BLOCK)
    return Examined(
        refused=None if refused is None else refused.group().upper(),
        changes=any_matches(_CHARACTERISTICS) or _OF_THE_TRANSACTION.search(sql) is not None,
        savepoints=any_matches(_SAVEPOINTS),
        sets=configures > 0 or lasting or has_block or any_matches(_SETS),
        trace=Trace.SESSION if lasting else Trace.POSSIBLE if has_block else Trace.NONE,
        calls=_CALL.search(sql) is not None,
    )


_cached = lru_cache(maxsize=2048)(_examine)


def _is_lasting(statement: str) -> bool:
    """Whether the effect of a statement on the session outlasts its transaction."""
    if _TEMPORARY.match(statement):
        return _DROPPED.search(statement) is None
    return _LASTING.match(statement) is not None and _LOCAL.match(statement) is None


def _statements(sql: str, lexer: re.Pattern[str]) -> list[str]:
    """The statements of a text, with single spaces between words, without strings and comments."""
    statements: list[str] = []
    words: list[str] = []
    depth = 0  # inside the body of a routine, whose statements do not run now
    opened = 0  # parentheses
    position = 0
    while (token := lexer.match(sql, position)) is not None:
        position = token.end()
        match token.lastgroup:
            case "comment":
                position = _comment_end(sql, position) if token.group() == "/*" else position
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
            case "name":  # the only quoted name that matters
                words.append("pg_temp" if token.group() == '"pg_temp"' else '""')
            case "string" | "escaped" | "bits" | "unicode":
                words.append("''")
            case _:
                pass
    return [*statements, " ".join(words)]


def _comment_end(sql: str, position: int) -> int:
    """The end of a comment that began before `position`; comments nest."""
    depth = 1
    while depth and (edge := _COMMENT_EDGE.search(sql, position)) is not None:
        position = edge.end()
        depth += 1 if edge.group() == "/*" else -1
    return len(sql) if depth else position


def _depth(words: list[str], depth: int, opened: int) -> int:
    """The depth of the last word inside BEGIN ATOMIC … END, the body of a routine."""
    word = words[-1].upper()
    if depth:
        return depth + (word == "CASE") - (word == "END")
    if word != "ATOMIC" or len(words) < 2 or words[-2].upper() != "BEGIN":
        return 0
    return int(opened <= 0 and _ROUTINE.match(" ".join(words[:4])) is not None)
