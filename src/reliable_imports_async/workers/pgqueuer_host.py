"""Lets an existing PgQueuer application run our jobs beside its own."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from pgqueuer import PgQueuer

from ..processors.registry import Registry
from ..store import enqueue
from .jobs import BatchJobs

SWEEP_ENTRYPOINT = "reliable_imports_sweep"


class HostedManager(Protocol):
    """What this room needs of a `BatchManager`, which it does not know."""

    registry: Registry

    def _batch_jobs(
        self, batch_types: Sequence[str], stopping: Callable[[], bool]
    ) -> BatchJobs: ...


def register(pgq: PgQueuer, manager: HostedManager) -> None:
    """Let a PgQueuer application process enqueued batches, instead of `manager.run_worker()`.

    Call it before ``pgq.run()``, with the manager open and its processors registered; the manager
    must stay open while it runs. Give ``pgq.run`` a short ``dequeue_timeout`` and, as
    ``heartbeat_timeout``, the setting `lease_seconds`; else a killed process's batches wait longer.

    Args:
        pgq: The application.
        manager: An open `BatchManager` on the same database.
    """
    batch_types = manager.registry.batch_types
    jobs = manager._batch_jobs(batch_types, pgq.shutdown.is_set)  # noqa: SLF001 - ours
    for name in batch_types:
        pgq.entrypoint(enqueue.entrypoint(name), accepts_context=False)(jobs.run)

    async def sweep_once(_schedule: Any) -> None:
        await jobs.sweep()

    pgq.schedule(SWEEP_ENTRYPOINT, "* * * * *", accepts_context=False)(sweep_once)
