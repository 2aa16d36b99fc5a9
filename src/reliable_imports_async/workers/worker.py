"""A worker: takes jobs from PgQueuer, through outages, until it is told to stop."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import anyio
import stamina
from pgqueuer.qm import QueueManager

from ..database import pgqueuer_tables
from ..database.guard import Connection
from ..database.pool import Database
from ..errors import QueueMissing
from ..failures import is_outage
from ..repair.reprocess import Continuation
from ..runner.outbox import Outbox
from ..runner.process import Processing
from ..settings import Settings
from ..store import enqueue
from .driver import Listener, QueueDriver
from .jobs import AT_ONCE, SWEPT_AT_ONCE, BatchJobs

logger = logging.getLogger("reliable_imports_async")

POLL_SECONDS = 1.0
SWEEP_SECONDS = 5.0
REBUILD_SECONDS = 1.0
LONGEST_WAIT = 2.0
FLUSH_SECONDS = 10.0
HELP_SECONDS = 1.0


class Worker:
    """Processes the enqueued batches of some types, two of them at a time."""

    def __init__(
        self,
        database: Database,
        processing: Processing,
        outbox: Outbox,
        continuation: Continuation,
        settings: Settings,
        batch_types: Sequence[str],
    ) -> None:
        self._database = database
        self._outbox = outbox
        self._continuation = continuation
        self._settings = settings
        self._batch_types = batch_types
        self._stop = anyio.Event()
        self._jobs = BatchJobs(database, processing, settings, batch_types, self._stop.is_set)
        self._driver = QueueDriver(self._run_statement)
        self._ended = anyio.Event()
        self._managing = anyio.CancelScope(shield=True)
        self._schema: str | None = None
        self._manager = self._build()

    async def run(self) -> None:
        """Work until cancelled; then let running items settle, and hand back the rest.

        Must run in a child task: only there can nothing break the shield.

        Raises:
            QueueMissing: PgQueuer's tables are not there.
        """
        self._schema = await self._run_statement(pgqueuer_tables.find)
        if self._schema is None:
            raise QueueMissing
        self._driver.forget_listeners()
        self._manager = self._build()
        listener = Listener(self._database, self._driver, self._manager.channel)
        async with anyio.create_task_group() as group:
            group.start_soon(self._keep_sweeping)
            group.start_soon(self._outbox.keep_sweeping)
            group.start_soon(listener.run)
            group.start_soon(self._stop_when_cancelled)
            with self._managing:
                await self._work()
            group.cancel_scope.cancel()

    async def _work(self) -> None:
        """Take jobs, and help other workers while there are none, until told to stop."""
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._keep_helping)
                await self._manage()
        finally:
            self._ended.set()

    async def _manage(self) -> None:
        """Run a queue manager, and build another one when it fails."""
        while not self._stop.is_set():
            try:
                await self._manager.run(
                    dequeue_timeout=timedelta(seconds=POLL_SECONDS),
                    batch_size=1,
                    max_concurrent_tasks=AT_ONCE,
                    heartbeat_timeout=timedelta(seconds=self._settings.lease_seconds),
                )
            except Exception as exc:  # noqa: BLE001 - logged; a worker outlives it
                reason = self._database.redact(str(exc))
                logger.error("the queue manager failed: %s: %s", type(exc).__name__, reason)  # noqa: TRY400
                await anyio.sleep(REBUILD_SECONDS)
            if not self._stop.is_set():
                self._driver.forget_listeners()
                self._manager = self._build()

    async def _keep_helping(self) -> None:
        """Work on ranges that no process works on, those of dead workers among them."""
        while not self._stop.is_set():
            with anyio.move_on_after(HELP_SECONDS):
                await self._stop.wait()
            await self._jobs.help()

    def _build(self) -> QueueManager:
        manager = QueueManager(pgqueuer_tables.queries_in(self._driver, self._schema))
        for name in self._batch_types:
            manager.entrypoint(enqueue.entrypoint(name))(self._jobs.run)
        return manager

    async def _stop_when_cancelled(self) -> None:
        """Wait for the running items until `stop_timeout`, then roll them back."""
        try:
            await anyio.sleep_forever()
        finally:
            self._stop.set()
            self._manager.shutdown.set()
            self._jobs.end_slices()
            with anyio.CancelScope(shield=True):
                await self._wait(self._settings.stop_timeout)
                self._jobs.cancel()
                await self._wait(FLUSH_SECONDS)
            self._managing.cancel()

    async def _wait(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await self._ended.wait()

    async def _run_statement(self, statement: Callable[[Connection], Awaitable[Any]]) -> Any:
        """Run a statement of PgQueuer's, again after each outage unless the worker stops."""
        try:
            async for attempt in stamina.retry_context(
                on=lambda exc: is_outage(exc) and not self._stop.is_set(),
                attempts=None,
                timeout=None,
                wait_initial=0.1,
                wait_max=LONGEST_WAIT,
            ):
                with attempt:
                    async with self._database.connection(self._settings.connect_timeout) as conn:
                        return await statement(conn)
        except Exception:
            self._jobs.end_slices()  # else the queue manager would wait for them before it fails
            raise

    async def _keep_sweeping(self) -> None:
        while True:
            try:
                await self._jobs.sweep()
                await self._continuation.sweep(self._batch_types, SWEPT_AT_ONCE)
            except Exception as exc:
                if not is_outage(exc):
                    raise
                logger.warning("the sweep failed: %s", self._database.redact(str(exc)))
            await anyio.sleep(SWEEP_SECONDS)
