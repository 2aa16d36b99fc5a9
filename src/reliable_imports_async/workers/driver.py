"""Connects PgQueuer to the database: by the manager's pool, and a connection that listens."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any, Self

import anyio
from pgqueuer.core.tm import TaskManager
from pgqueuer.ports.driver import Driver, NotifyCallback

from ..database.guard import Connection, drop
from ..database.pool import Database
from ..failures import is_outage
from ..store import ranges

logger = logging.getLogger("reliable_imports_async")

PING_SECONDS = 10.0
ANSWER_SECONDS = 5.0
RECONNECT_SECONDS = 1.0

RunStatement = Callable[[Callable[[Connection], Awaitable[Any]]], Awaitable[Any]]


class QueueDriver(Driver):
    """Runs PgQueuer's statements on connections of the pool.

    Args:
        run: Runs a statement on a connection, through outages.
    """

    def __init__(self, run: RunStatement) -> None:
        self._run = run
        self._callbacks: dict[str, list[NotifyCallback]] = defaultdict(list)
        self._shutdown = asyncio.Event()

    async def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        """The rows of a query."""
        rows = await self._run(lambda conn: conn.fetch(query, *args))
        return [dict(row) for row in rows]

    async def execute(self, query: str, *args: object) -> str:
        """The tag of a statement."""
        tag: str = await self._run(lambda conn: conn.execute(query, *args))
        return tag

    async def notify(self, channel: str, payload: str) -> None:
        """Send a NOTIFY."""
        await self.fetch("SELECT pg_notify($1, $2)", channel, payload)

    async def add_listener(self, channel: str, callback: NotifyCallback) -> None:
        """Call back with the payloads that `deliver` gets for a channel."""
        self._callbacks[channel].append(callback)

    async def remove_listener(self, channel: str, callback: NotifyCallback) -> None:
        """Stop calling back."""
        self._callbacks[channel].remove(callback)

    def deliver(self, _connection: object, _pid: object, channel: str, payload: object) -> None:
        """Pass on a notification; asyncpg calls this."""
        for callback in self._callbacks[channel]:
            callback(str(payload))

    def forget_listeners(self) -> None:
        """Forget all callbacks, before another queue manager starts."""
        self._callbacks.clear()

    @property
    def shutdown(self) -> asyncio.Event:
        """Never set: the worker stops its queue manager itself."""
        return self._shutdown

    @property
    def tm(self) -> TaskManager:
        """A task manager, as PgQueuer requires; no task runs in it."""
        return TaskManager()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...


class Listener:
    """Keeps a connection that listens. Without it a worker finds its jobs a little later."""

    def __init__(self, database: Database, driver: QueueDriver, channel: str) -> None:
        self._database = database
        self._driver = driver
        self._channel = channel

    async def run(self) -> None:
        """Listen until cancelled, again after each outage; return if the database cannot listen."""
        while True:
            try:
                conn = await self._database.listening()
                if conn is None:
                    return
                await self._listen(conn)
            except Exception as exc:
                if not is_outage(exc):
                    raise
                logger.debug("not listening: %s", self._database.redact(str(exc)))
            await anyio.sleep(RECONNECT_SECONDS)

    async def _listen(self, conn: Connection) -> None:
        closed = anyio.Event()
        try:
            conn.add_termination_listener(lambda _: closed.set())
            await conn.add_listener(self._channel, self._driver.deliver)
            while not closed.is_set():
                with anyio.move_on_after(PING_SECONDS):
                    await closed.wait()
                with anyio.fail_after(
                    ANSWER_SECONDS
                ):  # a half-open connection raises nothing itself
                    await conn.fetchval(ranges.WRITABLE)
        finally:
            drop(conn)
