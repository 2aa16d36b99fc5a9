"""Lends connections: of a pool from a URL, of the caller's own pool, or of the embedded server.

`Database` owns the pool and prepares each connection for its use: our own statements, items, or
read-only user code. `OwnConnection` is the connection class of the pools that it opens.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast
from urllib.parse import urlsplit

import anyio
import asyncpg

from ..errors import (
    ConfigurationError,
    DatabaseReadOnly,
    DatabaseUnavailable,
    DatabaseUrlMissing,
    PoolerUnsupported,
    PoolTooSmall,
    ServerTooOld,
)
from ..sanitize import Redact, password_of, redact_patterns, redactor
from ..settings import Settings
from .embedded import EmbeddedServer, is_embedded_url, parse_embedded_url
from .guard import Connection, PooledConnection, Trace, drop, is_lost
from .server_errors import explained
from .session_settings import (
    ORDINARY,
    SESSION,
    TRANSACTION,
    lifting,
    limits_of,
    read_defaults,
    sooner_deadlocks,
)
from .statements import statements

if TYPE_CHECKING:  # asyncpg's classes are generic in its stubs only
    _Base: TypeAlias = asyncpg.Connection[Any]
else:
    _Base = asyncpg.Connection
_SQL = statements("database/sessions")
_RESET = _SQL["reset_session"]
RESERVED_CONNECTIONS = 3  # control statements, read-only validation, queries
DEFAULT_CONCURRENCY = 10
STATEMENT_SECONDS = 60.0
RELEASE_SECONDS = 5.0
OLDEST_SERVER = 140_000
NO_CACHE = (
    "set RELIABLE_IMPORTS_STATEMENT_CACHE to false; PgBouncer 1.21 supports prepared statements "
    "with max_prepared_statements."
)
_BROKEN = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_NAMED_STATEMENTS = (
    "SELECT EXISTS (SELECT FROM pg_prepared_statements WHERE name LIKE '\\_\\_asyncpg%')"
)
_READ_ONLY = "SELECT pg_catalog.current_setting('transaction_read_only')::pg_catalog.bool"


@dataclass(frozen=True, slots=True)
class PoolUse:
    """The use of a pool: its open connections, the lent connections, and the limit."""

    size: int
    lent: int
    limit: int


class Database:
    """Lends the connections of one pool.

    Attributes:
        redact: Masks this database's password, and other passwords, in a text.
        pooled: Whether the connections go through a transaction pooler such as PgBouncer.
        concurrency: How many items can run at once: the pool without the reserved connections.
        defaults: How the user's transactions begin; ours are always `ORDINARY`.
    """

    def __init__(self, settings: Settings, *, pool: "asyncpg.Pool[Any] | None" = None) -> None:
        self._settings = settings
        self._given = pool
        self._pool = pool
        self._home = pool  # the pool to which connections return, even while it is being closed
        self._server: EmbeddedServer | None = None
        self._dsn: str | None = None  # of the pool that was opened here
        self._reader = anyio.Lock()
        self._opening = anyio.Lock()
        self._opened = False
        self._traces: dict[PooledConnection, Trace] = {}  # left by user code
        # The statements that restore the settings of a connection of the caller's pool.
        self._before: dict[PooledConnection, list[tuple[Any, ...]]] = {}
        self.defaults = ORDINARY
        self.redact: Redact = redact_patterns
        self.pooled = False
        self._lift = ""  # the statement that lifts the server's time limits for our statements
        self._deadlock_timeout: str | None = None  # of items; None: the server's own
        self.concurrency = settings.concurrency or DEFAULT_CONCURRENCY

    @property
    def is_open(self) -> bool:
        """Whether it lends connections."""
        return self._pool is not None

    @property
    def embedded(self) -> bool:
        """Whether the server is the library's embedded server."""
        return self._server is not None

    @property
    def url(self) -> str | None:
        """The URL of the pool that was opened here; None for the caller's pool."""
        return self._dsn

    async def allowed_connections(self) -> int | None:
        """How many connections the server allows this role; None: it is not known."""
        if self.pooled:
            return None
        async with self.connection() as conn:
            allowed: int = await conn.fetchval(_SQL["allowed_connections"])
        return allowed

    def use(self) -> PoolUse:
        """The current use of the pool."""
        pool = self._require_pool()
        size = pool.get_size()
        return PoolUse(size, size - pool.get_idle_size(), pool.get_max_size())

    async def open(self) -> None:
        """Connect, and examine the server.

        Raises:
            DatabaseUrlMissing: There is neither a URL nor a pool.
            DatabaseUnavailable: The server cannot be reached, or refuses the connection.
            PoolTooSmall: The caller's pool leaves no connection for items.
            ServerTooOld: The server is older than PostgreSQL 14.
            PoolerUnsupported: A pooler does not support the statement cache.
        """
        async with self._opening:
            if not self._opened:
                try:
                    await self._open()
                except BaseException:
                    await self.close()
                    raise

    async def _open(self) -> None:
        if self._given is None:
            self._dsn = await self._url()
            self._pool = self._home = await self._connect(self._dsn)
        self.concurrency = self._concurrency(self._require_pool())
        async with self.connection() as conn:
            await self._examine(conn)
        self._opened = True

    async def close(self) -> None:
        """Close the pool, unless it is the caller's own, and leave the embedded server."""
        self._opened = False
        with anyio.CancelScope(shield=True):
            if self._given is None and self._pool is not None:
                pool, self._pool = self._pool, None
                with anyio.move_on_after(RELEASE_SECONDS):
                    await pool.close()
                pool.terminate()
            if self._server is not None:
                server, self._server = self._server, None
                await server.stop()

    @asynccontextmanager
    async def connection(
        self, seconds: float | None = STATEMENT_SECONDS, *, shared: bool = False
    ) -> AsyncIterator[Connection]:
        """Lend a connection for our own statements.

        After a cancellation or a timeout, its state is unknown, so it is terminated; after an error
        of PostgreSQL's, it returns to the pool.

        Args:
            seconds: The time limit, after which TimeoutError is raised; None for no limit.
            shared: Whether user code uses it too. Its traces in the session are then removed; see
                `note_trace` for the caller's own pool.
        """
        with anyio.fail_after(seconds):
            conn = await self.take_ours()
            try:
                yield conn
                if self._given is None and not shared and conn not in self._traces:
                    with suppress(asyncpg.InterfaceError):  # it has broken in the meantime
                        conn.mark_untouched()  # type: ignore[attr-defined]  # a proxy passes it on
            except asyncpg.PostgresError as exc:
                if not shared and (refusal := explained(exc)) is not None:
                    raise refusal from exc
                raise
            except BaseException:
                drop(conn)
                raise
            finally:
                await self.give_back(conn)

    def note_trace(self, conn: Connection, trace: Trace) -> None:
        """Remember the trace that user code left on a connection, until it is given back."""
        if trace is not Trace.NONE:
            pooled = cast("PooledConnection", conn)
            self._traces[pooled] = max(trace, self._traces.get(pooled, Trace.NONE))

    def refuse_trace(self, trace: Trace) -> None:
        """Refuse a trace in a session that cannot be reset.

        Raises:
            PoolerUnsupported: A transaction pooler would lend the session to other clients next.
        """
        if self.pooled and trace >= Trace.SESSION:
            raise PoolerUnsupported(
                "A statement changed the session, which a transaction pooler shares with other "
                "clients.",
                hint="use statements that end with the transaction: SET LOCAL, "
                "pg_advisory_xact_lock, ON COMMIT DROP.",
            )

    def has_trace(self, conn: PooledConnection) -> bool:
        """Whether user code has left a trace on a connection since it was taken."""
        return conn in self._traces

    async def require_writable(self) -> None:
        """Check that the server accepts writes, before any code waits for it.

        Raises:
            DatabaseReadOnly: The server is a standby, or its transactions are read-only.
        """
        async with self.connection() as conn:
            if await conn.fetchval(_READ_ONLY):
                standby = await conn.fetchval("SELECT pg_catalog.pg_is_in_recovery()")
                raise DatabaseReadOnly(
                    "it is a standby" if standby else "its transactions are read-only"
                )

    async def listening(self) -> Connection | None:
        """A separate connection for LISTEN that bypasses any pooler; None if there is none.

        The caller has to terminate it.
        """
        direct = self._settings.direct_url
        url = self._dsn if direct is None else direct.get_secret_value()
        if url is None or (self.pooled and direct is None):
            return None
        conn = await asyncpg.connect(
            url.replace("postgresql+asyncpg://", "postgresql://", 1),
            timeout=self._settings.connect_timeout,
            server_settings={"application_name": "reliable_imports_async"},
        )
        if self._lift:  # such as a limit for idle sessions, because it only listens
            await conn.execute(self._lift, SESSION)
        return conn

    @asynccontextmanager
    async def reading(self, trace: Trace = Trace.NONE) -> AsyncIterator[Connection]:
        """Lend the reserved connection for validate_item and prepare_item, which no slot holds.

        Args:
            trace: The trace that the user's statement is going to leave on it.
        """
        self.refuse_trace(trace)
        async with self._reader, self.connection(shared=True) as conn:
            self.note_trace(conn, trace)
            yield conn

    async def take(self) -> PooledConnection:
        """Take a connection until `give_back`."""
        pool = self._require_pool()
        try:
            conn = await pool.acquire(timeout=self._settings.connect_timeout)
        except asyncpg.InterfaceError as exc:
            raise DatabaseUnavailable("the given pool", self.redact(str(exc))) from None
        if self._lift and not self.pooled:
            try:
                await conn.execute(self._lift, SESSION)
            except BaseException:
                drop(conn)
                await self.give_back(conn)
                raise
        return conn

    async def take_ours(self) -> PooledConnection:
        """Take a connection for our own statements, with the defaults of our transactions."""
        conn = await self.take()
        if self._given is not None and not self.pooled and self.defaults != ORDINARY:
            self._before[conn] = [(_SQL["set_defaults"], *astuple(self.defaults))]
            try:
                await conn.execute(_SQL["ordinary_defaults"])
            except BaseException:
                drop(conn)
                await self.give_back(conn)
                raise
        return conn

    async def give_back(self, conn: PooledConnection) -> None:
        """Return a connection to its pool, with the settings that it had.

        A session of our own pool is reset, unless only our code has used it. It is unknown how the
        caller's pool resets sessions, so a connection with traces of user code is terminated.
        """
        pool = self._home or self._require_pool()
        trace = self._traces.pop(conn, Trace.NONE)
        before = self._before.pop(conn, ())
        if trace is Trace.DRIVER or (trace is not Trace.NONE and self._given is not None):
            drop(conn)
        with anyio.CancelScope(shield=True):
            try:
                for statement in () if is_lost(conn) else before:
                    await conn.execute(*statement, timeout=RELEASE_SECONDS)
            except _BROKEN:
                drop(conn)
            try:
                await pool.release(conn, timeout=RELEASE_SECONDS)
            except _BROKEN:
                drop(conn)  # it broke while idle, and the pool has already removed it

    async def configure(self, conn: PooledConnection, item_timeout: float) -> None:
        """Set up a session for items: the user's defaults, and time limits of the server.

        Behind a pooler, sessions cannot be set up; see `configure_transaction`.
        """
        if self.pooled:
            return
        if self._given is not None:
            *limits, deadlock_timeout = await conn.fetchval(_SQL["limits"])
            limits.append(deadlock_timeout if self._deadlock_timeout else None)
            self._before[conn] = [(_SQL["set_limits"], *limits, SESSION)]
        if self.defaults != ORDINARY:
            if self._given is not None:
                self._before[conn].append((_SQL["set_defaults"], *astuple(self.defaults)))
            await conn.execute(_SQL["set_defaults"], *astuple(self.defaults))
        await conn.execute(_SQL["set_limits"], *self._limits(item_timeout), SESSION)

    async def configure_transaction(self, conn: Connection, item_timeout: float) -> None:
        """Set the server's time limits for one transaction, if there is a pooler."""
        if self.pooled:
            await conn.execute(_SQL["set_limits"], *self._limits(item_timeout), TRANSACTION)

    def _limits(self, item_timeout: float) -> tuple[str | None, ...]:
        return limits_of(item_timeout, self._deadlock_timeout)

    def transaction(self, conn: PooledConnection) -> "asyncpg.transaction.Transaction":
        """A transaction for an item, with the user's defaults."""
        if self.pooled and self.defaults != ORDINARY:
            isolation = self.defaults.isolation.replace(" ", "_")
            return conn.transaction(isolation=cast("Any", isolation))
        return conn.transaction()

    async def reset_settings(self, conn: Connection) -> None:
        """Reset the settings of the session, inside the current transaction of `conn`."""
        await conn.execute(_SQL["reset_settings"])

    def settling(self, conn: Connection) -> AbstractAsyncContextManager[object]:
        """The transaction for a settling statement on an item's connection, if it needs its own."""
        if self.defaults == ORDINARY:
            return nullcontext()
        return conn.transaction(isolation="read_committed")

    async def lift_limits(self, conn: Connection) -> None:
        """Lift the server's time limits for a long transaction, if there is a pooler.

        Without a pooler, they are lifted for each connection that is taken.
        """
        if self._lift and self.pooled:
            await conn.execute(self._lift, TRANSACTION)

    async def _url(self) -> str:
        secret = self._settings.database_url
        if secret is None or not secret.get_secret_value():
            raise DatabaseUrlMissing
        url = secret.get_secret_value()
        if is_embedded_url(url):
            name, directory = parse_embedded_url(url)
            self._server = EmbeddedServer(directory)
            await self._server.start()
            return await self._server.ensure_database(name)
        return url.replace("postgresql+asyncpg://", "postgresql://", 1)

    async def _connect(self, url: str) -> "asyncpg.Pool[Any]":
        password = password_of(url)
        self.redact = redactor([password] if password else [])
        try:
            return await asyncpg.create_pool(
                url,
                min_size=1,
                max_size=self.concurrency + RESERVED_CONNECTIONS,
                timeout=self._settings.connect_timeout,
                connection_class=OwnConnection,
                init=cast("Any", self._set_up),
                statement_cache_size=100 if self._settings.statement_cache else 0,
                server_settings={"application_name": "reliable_imports_async"},
            )
        except (ValueError, asyncpg.exceptions.ClientConfigurationError) as exc:
            raise ConfigurationError(
                f"The database URL cannot be used: {self.redact(str(exc))}",
                hint="write it as postgresql://user:password@host:5432/database.",
            ) from None
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
            reason = self.redact(str(exc)) or type(exc).__name__
            raise DatabaseUnavailable(_place(url), reason) from None

    async def _set_up(self, conn: "OwnConnection") -> None:
        """Set the defaults of our transactions, independent of the database's settings."""
        self.defaults, backend = await read_defaults(conn)
        if self.defaults == ORDINARY:
            return
        conn.states_isolation = conn.get_server_pid() != backend  # a pooler does not keep sessions
        if not conn.states_isolation:
            conn.defaults = _SQL["ordinary_defaults"]
            await conn.execute(conn.defaults)

    def _concurrency(self, pool: "asyncpg.Pool[Any]") -> int:
        size = pool.get_max_size()
        available = size - RESERVED_CONNECTIONS
        if available < 1:
            raise PoolTooSmall(size, RESERVED_CONNECTIONS + 1)
        return min(self._settings.concurrency or available, available)

    async def _examine(self, conn: Connection) -> None:
        version = await conn.fetchval("SELECT current_setting('server_version_num')::integer")
        if version < OLDEST_SERVER:
            raise ServerTooOld(f"{version // 10_000}.{version % 10_000}")
        # A pooler sends an invented process id to the client.
        backend = await conn.fetchval("SELECT pg_backend_pid()")
        self.pooled = conn.get_server_pid() != backend
        if self.pooled:
            await _refuse_statement_cache(conn)
        elif self._given is not None:
            self.defaults, _ = await read_defaults(conn)
        self._lift = await lifting(conn)
        self._deadlock_timeout = await sooner_deadlocks(conn, version)

    def _require_pool(self) -> "asyncpg.Pool[Any]":
        if self._pool is None:
            raise ConfigurationError(
                "The manager is not open.",
                hint="use `async with BatchManager(…) as manager:`.",
                cli_hint="",
                web_hint="the server is starting or stopping; try again.",
            )
        return self._pool


class OwnConnection(_Base):
    """A connection whose session is not reset after our own statements.

    Our statements change nothing in the session, so a reset would be an unnecessary round trip.
    After user code, the reset is complete, unlike asyncpg's, which keeps roles, temporary tables
    and prepared statements.

    Attributes:
        defaults: The statement that sets the defaults of our transactions; empty if not needed.
        states_isolation: Whether each transaction states its isolation level instead, because a
            pooler does not keep sessions.
    """

    __slots__ = ("_untouched", "defaults", "states_isolation")

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._untouched = False
        self.defaults = ""
        self.states_isolation = False

    def mark_untouched(self) -> None:
        """Skip the next reset, because only our code has used the session since the last reset."""
        self._untouched = True

    def get_reset_query(self) -> str:
        """The statements that asyncpg runs when the connection returns to its pool."""
        untouched, self._untouched = self._untouched, False
        return "" if untouched else f"{_RESET};{self.defaults}"

    def transaction(self, **options: Any) -> "asyncpg.transaction.Transaction":
        """asyncpg's `transaction`; our own transactions are READ COMMITTED."""
        if self.states_isolation and not self.is_in_transaction():
            options.setdefault("isolation", "read_committed")
        return super().transaction(**options)


async def _refuse_statement_cache(conn: Connection) -> None:
    """Refuse a pooler that would mix up the prepared statements of its clients.

    Raises:
        PoolerUnsupported: The pooler passes the names of prepared statements on.
    """
    async with conn.transaction():  # both statements then use the same server connection
        await conn.fetchval("SELECT current_setting('server_version_num')::integer")
        if await conn.fetchval(_NAMED_STATEMENTS):
            raise PoolerUnsupported(
                "The connection goes through a transaction pooler that does not support "
                "prepared statements, and the statement cache is on.",
                hint="set RELIABLE_IMPORTS_STATEMENT_CACHE=false, or create your own pool with "
                "statement_cache_size=0; PgBouncer 1.21 supports them with "
                "max_prepared_statements.",
                cli_hint=NO_CACHE,
                web_hint=NO_CACHE,
            )


def _place(url: str) -> str:
    """The host, port and database of a URL, without user and password."""
    try:
        parts = urlsplit(url)
        return f"{parts.hostname or 'the local socket'}:{parts.port or 5432}{parts.path}"
    except ValueError:
        return "the configured URL"
