"""The pool: from a URL, the caller's own, or on the embedded server; it lends connections."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import anyio
import asyncpg

from .embedded import EmbeddedServer, is_embedded_url, parse_embedded_url
from .errors import (
    ConfigurationError,
    DatabaseReadOnly,
    DatabaseUnavailable,
    DatabaseUrlMissing,
    PoolerUnsupported,
    PoolTooSmall,
    ServerTooOld,
)
from .guarded import Connection, PooledConnection, drop
from .own_connection import OwnConnection
from .safe_text import Redact, password_of, redact_patterns, redactor
from .server_refusals import explained
from .settings import Settings

RESERVED_CONNECTIONS = 3  # control statements, read-only validation, queries
DEFAULT_CONCURRENCY = 10
STATEMENT_SECONDS = 60.0
RELEASE_SECONDS = 5.0
OLDEST_SERVER = 140_000


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
    """

    def __init__(self, settings: Settings, *, pool: "asyncpg.Pool[Any] | None" = None) -> None:
        self._settings = settings
        self._given = pool
        self._pool = pool
        self._home = pool  # where connections return to, also while it is being closed
        self._server: EmbeddedServer | None = None
        self._dsn: str | None = None  # of the pool that was opened here
        self._reader = anyio.Lock()
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
        if self._given is None:
            self._dsn = await self._url()
            self._pool = self._home = await self._connect(self._dsn)
        self.concurrency = self._concurrency(self._require_pool())
        async with self.connection() as conn:
            await self._examine(conn)

    async def close(self) -> None:
        """Close what `open` opened; a pool of the caller's stays open."""
        if self._given is None and self._pool is not None:
            pool, self._pool = self._pool, None
            with anyio.CancelScope(shield=True):
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
            shared: Whether a user's code uses it too, whose traces in the session are removed.
        """
        with anyio.fail_after(seconds):
            conn = await self.take()
            try:
                yield conn
                if self._given is None and not shared:
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
            await conn.execute(self._lift, _SESSION)
        return conn

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        """The reserved connection for validate_item and prepare_item; item slots never hold it."""
        async with self._reader, self.connection(shared=True) as conn:
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
                await conn.execute(self._lift, _SESSION)
            except BaseException:
                drop(conn)
                await self.give_back(conn)
                raise
        return conn

    async def give_back(self, conn: PooledConnection) -> None:
        """Return a connection; a terminated one makes room for a new one."""
        pool = self._home or self._require_pool()
        with anyio.CancelScope(shield=True):
            try:
                await pool.release(conn, timeout=RELEASE_SECONDS)
            except (
                OSError,
                asyncpg.PostgresError,
                asyncpg.InterfaceError,
                asyncpg.InternalClientError,
            ):
                drop(conn)  # it broke while idle; the pool has let go of it by now

    async def configure(self, conn: Connection, item_timeout: float) -> None:
        """Set the server-side timeouts that free what a frozen or killed worker holds.

        Behind a pooler a session is not ours to configure; see `configure_transaction`.
        """
        if not self.pooled:
            await conn.execute(_SET_TIMEOUTS, *_timeouts(item_timeout), _SESSION)

    async def configure_transaction(self, conn: Connection, item_timeout: float) -> None:
        """The same for one transaction, where a pooler is in between."""
        if self.pooled:
            await conn.execute(_SET_TIMEOUTS, *_timeouts(item_timeout), _TRANSACTION)

    async def lift_limits(self, conn: Connection) -> None:
        """Keep the server from ending a long transaction of ours, where a pooler is in between.

        Elsewhere it is done for each connection that is taken.
        """
        if self._lift and self.pooled:
            await conn.execute(self._lift, _TRANSACTION)

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
        limited = await conn.fetch(_LIMITED, list(_LIFTED))
        lifted = [f"set_config('{row['name']}', '{_LIFTED[row['name']]}', $1)" for row in limited]
        self._lift = f"SELECT {', '.join(lifted)}" if lifted else ""

    def _require_pool(self) -> "asyncpg.Pool[Any]":
        if self._pool is None:
            raise ConfigurationError(
                "The manager is not open.", hint="use `async with BatchManager(…) as manager:`."
            )
        return self._pool


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
            )


_NAMED_STATEMENTS = (
    "SELECT EXISTS (SELECT FROM pg_prepared_statements WHERE name LIKE '\\_\\_asyncpg%')"
)
_READ_ONLY = "SELECT pg_catalog.current_setting('transaction_read_only')::pg_catalog.bool"
_LIMITED = """
SELECT name FROM pg_catalog.pg_settings
 WHERE name = ANY ($1::pg_catalog.text[]) AND setting <> '0'
"""
_LIFTED = {  # what a database or a role may limit, and what our own sessions have instead
    "statement_timeout": "0",
    "lock_timeout": "0",
    "transaction_timeout": "0",
    "idle_in_transaction_session_timeout": "10min",  # what a frozen process holds gets free
    "idle_session_timeout": "0",
}
_SESSION, _TRANSACTION = False, True  # how long set_config holds
_SET_TIMEOUTS = """
SELECT set_config('statement_timeout', $1, $4), set_config('lock_timeout', $1, $4),
       set_config('idle_in_transaction_session_timeout', $2, $4),
       set_config('client_connection_check_interval', $3, $4),
       set_config('tcp_keepalives_idle', '30', $4), set_config('tcp_keepalives_interval', '10', $4),
       set_config('tcp_keepalives_count', '3', $4)
"""


def _timeouts(item_timeout: float) -> tuple[str, str, str]:
    """Longer than `item_timeout`, so that the library decides first wherever it can.

    A machine that vanished is noticed by the keepalives, within a minute instead of two hours.
    """
    limit = f"{int((item_timeout + 5) * 1000)}ms"
    return limit, limit, "2000ms"


def _place(url: str) -> str:
    """Host, port and database of a URL, without user and password."""
    try:
        parts = urlsplit(url)
        return f"{parts.hostname or 'the local socket'}:{parts.port or 5432}{parts.path}"
    except ValueError:
        return "the configured URL"
