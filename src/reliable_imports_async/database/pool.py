"""The pool: from a URL, the caller's own, or on the embedded server; it lends connections."""

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
from .session_settings import ORDINARY, SESSION, TRANSACTION, lifting, limits_of, read_defaults
from .statements import statements

if TYPE_CHECKING:  # asyncpg's classes are generic in its stubs only
    _Base: TypeAlias = asyncpg.Connection[Any]
else:
    _Base = asyncpg.Connection

_SQL = statements("database/sessions")
_RESET = _SQL["reset_session"]


class OwnConnection(_Base):
    """A connection whose session needs no reset after our own statements.

    They set nothing in the session, so a reset when a connection returns to its pool would be a
    round trip for nothing. After user code it is thorough: the statements that asyncpg sends by
    default leave roles, temporary tables and prepared statements.

    Attributes:
        defaults: The statement that makes transactions begin as ours need it; empty if they do.
        states_isolation: Whether each transaction has to say it instead: through a pooler.
    """

    __slots__ = ("_untouched", "defaults", "states_isolation")

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._untouched = False
        self.defaults = ""
        self.states_isolation = False

    def mark_untouched(self) -> None:
        """Skip the next reset: no code but ours has used the session since the last one."""
        self._untouched = True

    def get_reset_query(self) -> str:
        """What asyncpg sends when the connection returns to its pool; nothing if it may."""
        untouched, self._untouched = self._untouched, False
        return "" if untouched else f"{_RESET};{self.defaults}"

    def transaction(self, **options: Any) -> "asyncpg.transaction.Transaction":
        """asyncpg's `transaction`; in our own, each statement sees what has committed by then."""
        if self.states_isolation and not self.is_in_transaction():
            options.setdefault("isolation", "read_committed")
        return super().transaction(**options)


RESERVED_CONNECTIONS = 3  # control statements, read-only validation, queries
DEFAULT_CONCURRENCY = 10
STATEMENT_SECONDS = 60.0
RELEASE_SECONDS = 5.0
OLDEST_SERVER = 140_000

_BROKEN = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


@dataclass(frozen=True, slots=True)
class PoolUse:
    """The connections of a pool: how many there are, are lent, and may be."""

    size: int
    lent: int
    limit: int


class Database:
    """Lends connections of one pool.

    Attributes:
        redact: Masks this database's password, and what looks like one, in a text.
        pooled: Whether a transaction pooler such as PgBouncer is between us and the server.
        concurrency: How many items can run at once: the pool less what is reserved.
        defaults: How transactions of users begin; ours are always `ORDINARY`.
    """

    def __init__(self, settings: Settings, *, pool: "asyncpg.Pool[Any] | None" = None) -> None:
        self._settings = settings
        self._given = pool
        self._pool = pool
        self._home = pool  # where connections return to, also while it is being closed
        self._server: EmbeddedServer | None = None
        self._dsn: str | None = None  # of the pool that was opened here
        self._reader = anyio.Lock()
        self._opening = anyio.Lock()
        self._opened = False
        self._traces: dict[PooledConnection, Trace] = {}  # what user code has left on them
        # What gives connections of a given pool the settings back that they had.
        self._before: dict[PooledConnection, list[tuple[Any, ...]]] = {}
        self.defaults = ORDINARY
        self.redact: Redact = redact_patterns
        self.pooled = False
        self._lift = ""  # sets what the server would end our own statements by
        self.concurrency = settings.concurrency or DEFAULT_CONCURRENCY

    @property
    def is_open(self) -> bool:
        """Whether connections can be had."""
        return self._pool is not None

    @property
    def embedded(self) -> bool:
        """Whether the server is the embedded one, made by this library."""
        return self._server is not None

    def use(self) -> PoolUse:
        """How much of the pool is in use."""
        pool = self._require_pool()
        size = pool.get_size()
        return PoolUse(size, size - pool.get_idle_size(), pool.get_max_size())

    async def open(self) -> None:
        """Connect, and learn what is at the other end.

        Raises:
            DatabaseUrlMissing: No URL and no pool was given.
            DatabaseUnavailable: The server cannot be reached, or refuses us.
            PoolTooSmall: The given pool leaves no connection for items.
            ServerTooOld: The server is older than PostgreSQL 14.
            PoolerUnsupported: A pooler is in between that does not understand the statement cache.
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
        """Close what `open` opened; a pool of the caller's stays open."""
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
        """A connection for our own statements.

        It is returned to the pool only if nothing happened on it but an error of PostgreSQL's;
        after a cancellation or a timeout nobody knows its state, so it is terminated.

        Args:
            seconds: After how long to give up with TimeoutError; None waits for ever.
            shared: Whether a user's code uses it too, whose traces in the session are removed;
                see `note_trace` for a pool that is not ours.
        """
        with anyio.fail_after(seconds):
            conn = await self.take_ours()
            try:
                yield conn
                if self._given is None and not shared and conn not in self._traces:
                    with suppress(asyncpg.InterfaceError):  # it broke meanwhile
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
        """Remember what user code has left on a connection, until it is given back."""
        if trace is not Trace.NONE:
            pooled = cast("PooledConnection", conn)
            self._traces[pooled] = max(trace, self._traces.get(pooled, Trace.NONE))

    def refuse_trace(self, trace: Trace) -> None:
        """Refuse what would stay in a session that is not ours to reset.

        Raises:
            PoolerUnsupported: A transaction pooler lends it to its other clients next.
        """
        if self.pooled and trace >= Trace.SESSION:
            raise PoolerUnsupported(
                "A statement changed the session, which a transaction pooler lends to others next.",
                hint="use what ends with the transaction: SET LOCAL, pg_advisory_xact_lock, "
                "ON COMMIT DROP.",
            )

    def has_trace(self, conn: PooledConnection) -> bool:
        """Whether user code has left something on a connection since it was taken."""
        return conn in self._traces

    async def require_writable(self) -> None:
        """Refuse a server that takes no writes, before anything waits for it.

        Raises:
            DatabaseReadOnly: It is a standby, or its transactions are read-only.
        """
        async with self.connection() as conn:
            if await conn.fetchval(_READ_ONLY):
                standby = await conn.fetchval("SELECT pg_catalog.pg_is_in_recovery()")
                raise DatabaseReadOnly(
                    "it is a standby" if standby else "its transactions are read-only"
                )

    async def listening(self) -> Connection | None:
        """A connection of its own for LISTEN, past any pooler; None where there can be none.

        Whoever asks for it terminates it.
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
        if self._lift:  # such as a limit on idle sessions: it only listens
            await conn.execute(self._lift, SESSION)
        return conn

    @asynccontextmanager
    async def reading(self, trace: Trace = Trace.NONE) -> AsyncIterator[Connection]:
        """The reserved connection for validate_item and prepare_item; item slots never hold it.

        Args:
            trace: What the user's statement is going to leave on it.
        """
        self.refuse_trace(trace)
        async with self._reader, self.connection(shared=True) as conn:
            self.note_trace(conn, trace)
            yield conn

    async def take(self) -> PooledConnection:
        """A connection to keep until `give_back`."""
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
        """The same for our own statements, whose transactions begin as they need it."""
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
        """Return a connection as it was taken; a terminated one makes room for a new one.

        A session of our own pool is reset, unless only we have used it. How a given pool resets
        its sessions is not known, so one in which user code has left something is terminated.
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
                drop(conn)  # it broke while idle; the pool has let go of it by now

    async def configure(self, conn: PooledConnection, item_timeout: float) -> None:
        """Set up a session for items: the user's defaults, and when the server ends it by itself.

        Behind a pooler a session is not ours to configure; see `configure_transaction`.
        """
        if self.pooled:
            return
        if self._given is not None:
            limits = await conn.fetchval(_SQL["limits"])
            self._before[conn] = [(_SQL["set_limits"], *limits, SESSION)]
        if self.defaults != ORDINARY:
            if self._given is not None:
                self._before[conn].append((_SQL["set_defaults"], *astuple(self.defaults)))
            await conn.execute(_SQL["set_defaults"], *astuple(self.defaults))
        await conn.execute(_SQL["set_limits"], *limits_of(item_timeout), SESSION)

    async def configure_transaction(self, conn: Connection, item_timeout: float) -> None:
        """The same for one transaction, where a pooler is in between."""
        if self.pooled:
            await conn.execute(_SQL["set_limits"], *limits_of(item_timeout), TRANSACTION)

    def transaction(self, conn: PooledConnection) -> "asyncpg.transaction.Transaction":
        """A transaction for an item, as the user's begin by default."""
        if self.pooled and self.defaults != ORDINARY:
            isolation = self.defaults.isolation.replace(" ", "_")
            return conn.transaction(isolation=cast("Any", isolation))
        return conn.transaction()

    async def reset_settings(self, conn: Connection) -> None:
        """Undo what was set in the session, inside the transaction that `conn` is in."""
        await conn.execute(_SQL["reset_settings"])

    def settling(self, conn: Connection) -> AbstractAsyncContextManager[object]:
        """What surrounds a statement of ours on an item's connection, outside of a transaction."""
        if self.defaults == ORDINARY:
            return nullcontext()
        return conn.transaction(isolation="read_committed")

    async def lift_limits(self, conn: Connection) -> None:
        """Keep the server from ending a long transaction of ours, where a pooler is in between.

        Elsewhere it is done for each connection that is taken.
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
                init=self._set_up,
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

    async def _set_up(self, conn: "asyncpg.Connection[Any]") -> None:
        """Make transactions of ours begin as they need it, whatever the database is set to."""
        assert isinstance(conn, OwnConnection)  # noqa: S101 - of the pool's own class
        self.defaults, backend = await read_defaults(conn)
        if self.defaults == ORDINARY:
            return
        conn.states_isolation = conn.get_server_pid() != backend  # a pooler keeps no session
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
        # A pooler invents the process id that it sends to the client.
        backend = await conn.fetchval("SELECT pg_backend_pid()")
        self.pooled = conn.get_server_pid() != backend
        if self.pooled:
            await _refuse_statement_cache(conn)
        elif self._given is not None:
            self.defaults, _ = await read_defaults(conn)
        self._lift = await lifting(conn)

    def _require_pool(self) -> "asyncpg.Pool[Any]":
        if self._pool is None:
            raise ConfigurationError(
                "The manager is not open.",
                hint="use `async with BatchManager(…) as manager:`.",
                cli_hint="",
                web_hint="the server is starting or stopping; try again.",
            )
        return self._pool


NO_CACHE = (
    "set RELIABLE_IMPORTS_STATEMENT_CACHE to false; PgBouncer 1.21 understands prepared statements "
    "with max_prepared_statements."
)


async def _refuse_statement_cache(conn: Connection) -> None:
    """A pooler that passes the names of prepared statements on mixes those of its clients."""
    async with conn.transaction():  # one server connection for both
        await conn.fetchval("SELECT current_setting('server_version_num')::integer")
        if await conn.fetchval(_NAMED_STATEMENTS):
            raise PoolerUnsupported(
                "The connection goes through a transaction pooler that does not understand "
                "prepared statements, and the statement cache is on.",
                hint="set RELIABLE_IMPORTS_STATEMENT_CACHE=false, or create your own pool with "
                "statement_cache_size=0; PgBouncer 1.21 understands them with "
                "max_prepared_statements.",
                cli_hint=NO_CACHE,
                web_hint=NO_CACHE,
            )


_NAMED_STATEMENTS = (
    "SELECT EXISTS (SELECT FROM pg_prepared_statements WHERE name LIKE '\\_\\_asyncpg%')"
)
_READ_ONLY = "SELECT pg_catalog.current_setting('transaction_read_only')::pg_catalog.bool"


def _place(url: str) -> str:
    """Host, port and database of a URL, without user and password."""
    try:
        parts = urlsplit(url)
        return f"{parts.hostname or 'the local socket'}:{parts.port or 5432}{parts.path}"
    except ValueError:
        return "the configured URL"
