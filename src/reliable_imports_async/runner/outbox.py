"""Runs the hooks outside of transactions, which rows of the outbox promise, in one process each.

The transaction that finishes or creates a batch writes a row. The process that runs the hook claims
the row, and renews the claim meanwhile. When it dies, the claim runs out, and any process that
knows the hook runs it: a worker, the API, or the next `process_batch`.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar
from uuid import UUID, uuid4

import anyio
import stamina

from ..cancellation import hook_seconds, must_propagate
from ..database import pgqueuer_tables
from ..database.guard import Connection, ReadingConnection
from ..database.pool import Database
from ..errors import QueueMissing
from ..failures import describe, is_outage
from ..log_buffer import LogBuffer
from ..models import ImportBatch, LogLevel
from ..outcomes import FailureKind
from ..processors.hooks import HookCall
from ..processors.registry import Registry
from ..settings import Settings
from ..store import batches, enqueue, logs, outbox, summaries
from ..store.outbox import OutboxHook

logger = logging.getLogger("reliable_imports_async")

R = TypeVar("R")

LEASE_SECONDS = 10.0
RENEWAL_SECONDS = 2.5
ASK_SECONDS = 1.0
RELEASE_SECONDS = 5.0
SWEEP_SECONDS = 5.0
SWEPT_AT_ONCE = 100
HOOKS_AT_ONCE = 8
HELD = "after_create"  # the option of a batch that waits for after_create_batch

_inside: ContextVar[frozenset[UUID]] = ContextVar("batches whose hook called us")


class Outbox:
    """Runs the hooks that the outbox promises, each in one process at a time."""

    def __init__(
        self, manager: object, database: Database, settings: Settings, registry: Registry
    ) -> None:
        self._manager = manager
        self._database = database
        self._settings = settings
        self._registry = registry
        self._process_id = uuid4()
        self._running: set[tuple[UUID, OutboxHook]] = set()

    async def add_finished(self, conn: Connection, batch: ImportBatch) -> None:
        """Promise the hooks after a batch, in the transaction that finishes it."""
        known = dict.fromkeys(self._registry.hooks(batch.batch_type), True)
        known.pop(OutboxHook.AFTER_CREATE, None)
        if "announce" in batch.options:  # another process knows its endpoint
            known.setdefault(OutboxHook.ENDPOINT_AFTER_COMPLETE, False)
        if known:
            await outbox.add(conn, batch.id, known, self._process_id, LEASE_SECONDS)

    def on_created(
        self, data: Mapping[str, Any] | None, *, enqueue: bool
    ) -> Callable[[Connection, UUID], Awaitable[None]] | None:
        """A function that promises after_create_batch, in the transaction that creates the batch.

        Args:
            data: The request without its items; None: there is no such hook.
            enqueue: Whether the batch is for workers once the hook has run.
        """
        if data is None:
            return None
        details = {"data": dict(data), "enqueue": enqueue}

        async def promise(conn: Connection, batch_id: UUID) -> None:
            if enqueue and not await pgqueuer_tables.is_installed(conn):
                raise QueueMissing
            hooks = {OutboxHook.AFTER_CREATE: True}
            await outbox.add(conn, batch_id, hooks, self._process_id, LEASE_SECONDS, details)

        return promise

    async def is_held(self, conn: Connection, batch: ImportBatch) -> bool:
        """Whether no item of a batch may run yet, because of after_create_batch."""
        if HELD not in batch.options or batch.id in _inside.get(frozenset()):
            return False
        return await outbox.is_held(conn, batch.id)

    async def created(self, batch_id: UUID, hook: Callable[[], Awaitable[None]]) -> bool:
        """Run after_create_batch for the request that created the batch; False: it has run.

        An exception of the hook is raised here, once the batch may be processed.
        """
        return await self._run(batch_id, OutboxHook.AFTER_CREATE, hook)

    async def deliver(self, batch: ImportBatch, *, wait: bool) -> None:
        """Run the hooks of a batch that are due and known here.

        Args:
            wait: Whether to wait for hooks that another process runs, until they have run, or
                this process has to run them because the other one has died.
        """
        known = self._registry.hooks(batch.batch_type)
        while known:
            rows = await self._ask(
                lambda conn: outbox.of_batch(conn, batch.id, self._process_id, LEASE_SECONDS)
            )
            waiting = [row for row in rows if row.hook in known]
            ran = [row.due and await self._run(batch.id, row.hook) for row in waiting]
            elsewhere = [
                row.seconds
                for row, done in zip(waiting, ran, strict=True)
                if not done and (batch.id, row.hook) not in self._running
            ]
            if not wait or not elsewhere:
                return
            await anyio.sleep(min(ASK_SECONDS, max(0.05, min(elsewhere))))

    async def sweep(self) -> int:
        """Run the known hooks whose process died, or did not know them; return how many."""
        types = self._registry.hooked_types
        known = [(hook, name) for name in types for hook in self._registry.hooks(name)]
        if not known:
            return 0
        async with self._database.connection() as conn:
            due = await outbox.due(conn, known, LEASE_SECONDS, SWEPT_AT_ONCE)
        count, limiter = 0, anyio.CapacityLimiter(HOOKS_AT_ONCE)

        async def run(batch_id: UUID, hook: OutboxHook) -> None:
            nonlocal count
            async with limiter:
                try:
                    count += await self._run(batch_id, hook)
                except Exception as exc:  # noqa: BLE001 - the claim runs out, and it is tried again
                    reason = self._database.redact(str(exc))
                    logger.warning("%s of batch %s was not run: %s", hook, batch_id, reason)

        async with anyio.create_task_group() as group:
            for batch_id, hook in due:
                group.start_soon(run, batch_id, hook)
        return count

    async def keep_sweeping(self) -> None:
        """Sweep every few seconds until cancelled."""
        while True:
            await self.sweep_if_possible()
            await anyio.sleep(SWEEP_SECONDS)

    async def sweep_if_possible(self) -> None:
        """Sweep, unless the server is down: another process, or the next sweep, will do it."""
        try:
            await self.sweep()
        except Exception as exc:
            if not is_outage(exc):
                raise
            logger.warning("the sweep for hooks failed: %s", self._database.redact(str(exc)))

    async def _run(
        self, batch_id: UUID, hook: OutboxHook, given: Callable[[], Awaitable[None]] | None = None
    ) -> bool:
        """Claim a hook, run it, and note that it has run; False when it is not ours to run.

        Args:
            given: Runs the hook; its exceptions are raised here. Without it the hook is called for
                the batch as it is stored, and its exceptions are logged.
        """
        key = batch_id, hook
        if key in self._running:
            return False
        self._running.add(key)
        try:
            details = await self._ask(
                lambda conn: outbox.claim(conn, batch_id, hook, self._process_id, LEASE_SECONDS)
            )
            if details is None:
                return False
            failed: list[Exception] = []
            log = LogBuffer(self._settings.log_level, self._database.redact)

            async def call() -> None:
                try:
                    await (given() if given else self._call_stored(batch_id, hook, details, log))
                except Exception as exc:  # noqa: BLE001 - raised again once that is stored
                    failed.append(exc)

            ended = partial(self._ended, batch_id=batch_id, hook=hook, details=details, log=log)
            await self._while_claimed(batch_id, hook, call, ended)
            if failed:
                raise failed[0]
            return True
        finally:
            self._running.discard(key)

    async def _while_claimed(
        self,
        batch_id: UUID,
        hook: OutboxHook,
        call: Callable[[], Awaitable[None]],
        ended: Callable[[Connection], Awaitable[None]],
    ) -> None:
        """Run a hook and renew the claim meanwhile; store that it has ended, or was stopped."""
        token = _inside.set(_inside.get(frozenset()) | {batch_id})
        end: Callable[[Connection], Awaitable[None]] = partial(
            outbox.release, batch_id=batch_id, hook=hook, process_id=self._process_id
        )  # another process may run it at once
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._keep_renewing, batch_id, hook)
                await call()
                end = ended
                group.cancel_scope.cancel()
        finally:
            _inside.reset(token)
            with anyio.move_on_after(RELEASE_SECONDS, shield=True) as scope:
                await self._ask(end)
        if scope.cancelled_caught:
            await self._ask(end)

    async def _keep_renewing(self, batch_id: UUID, hook: OutboxHook) -> None:
        while True:
            await anyio.sleep(RENEWAL_SECONDS)
            try:
                async with self._database.connection(seconds=LEASE_SECONDS) as conn:
                    await outbox.renew(conn, batch_id, hook, self._process_id, LEASE_SECONDS)
            except Exception as exc:  # noqa: BLE001 - the hook goes on; at worst it runs twice
                reason = self._database.redact(str(exc))
                logger.warning(
                    "the claim on %s of batch %s was not renewed: %s", hook, batch_id, reason
                )

    async def _ended(
        self,
        conn: Connection,
        *,
        batch_id: UUID,
        hook: OutboxHook,
        details: Mapping[str, Any],
        log: LogBuffer,
    ) -> None:
        """Store that the hook has run, and enqueue the batch if that was to come next."""
        async with conn.transaction():
            await logs.insert_lines(conn, batch_id, log.finished())
            await outbox.ran(conn, batch_id, hook)
            if details.get("enqueue"):
                await enqueue.enqueue(conn, batch_id)

    async def _call_stored(
        self, batch_id: UUID, hook: OutboxHook, details: Mapping[str, Any], log: LogBuffer
    ) -> None:
        """Call a hook for a batch as it is stored; log its exceptions with the batch."""
        async with self._database.connection() as conn:
            batch = await batches.get(conn, batch_id)
            summary = await summaries.get(conn, batch_id)
        if batch is None or summary is None:
            return
        call = HookCall(
            batch=batch,
            summary=summary,
            manager=self._manager,
            connection=ReadingConnection(self._database.reading),
            details=details,
            log=log,
        )
        name = hook.partition(".")[2]
        seconds = self._seconds(batch.batch_type)
        try:
            with anyio.move_on_after(seconds) as scope:
                await self._registry.hooks(batch.batch_type)[hook](call)
            if scope.cancel_called:
                self._log_failure(
                    log, name, batch_id, f"it took longer than hook_timeout ({seconds:g} s)"
                )
        except BaseException as exc:  # the hook changes nothing about the batch
            if must_propagate(exc):
                raise
            failure = describe(exc, kind=FailureKind.EXCEPTION, redact=self._database.redact)
            self._log_failure(log, name, batch_id, failure.message)

    def _log_failure(self, log: LogBuffer, name: str, batch_id: UUID, message: str) -> None:
        log.add(LogLevel.ERROR, f"{name} failed: {message}", {})
        logger.error("%s of batch %s failed: %s", name, batch_id, message)

    def _seconds(self, batch_type: str) -> float:
        if batch_type in self._registry.batch_types:
            return hook_seconds(self._registry.get(batch_type), self._settings.item_timeout)
        return self._settings.item_timeout

    async def _ask(self, statement: Callable[[Connection], Awaitable[R]]) -> R:
        """Run a statement that may be repeated, again after each outage."""
        async for attempt in stamina.retry_context(
            on=is_outage, attempts=None, timeout=None, wait_initial=0.1, wait_max=2.0
        ):
            with attempt:
                async with self._database.connection() as conn:
                    return await statement(conn)
        raise AssertionError  # pragma: no cover - the loop above never ends by itself
