"""An existing PgQueuer application takes our jobs along with its own."""

from typing import Any

from pgqueuer import PgQueuer

from ..manager import BatchManager
from ..store import enqueue
from .worker import sweep

SWEEP_ENTRYPOINT = "reliable_imports_sweep"


def register(pgq: PgQueuer, manager: BatchManager) -> None:
    """Let a PgQueuer application drain enqueued batches, instead of `manager.run_worker()`.

    Call it before ``pgq.run()``, with the manager open and its processors registered; the manager
    must stay open while it runs. Give ``pgq.run`` a short ``dequeue_timeout`` and, as
    ``heartbeat_timeout``, the setting `lease_seconds`; else a killed process's batches wait longer.

    Args:
        pgq: The application.
        manager: An open manager on the same database.
    """
    batch_types = manager.registry.batch_types
    jobs = manager._batch_jobs(batch_types, pgq.shutdown.is_set)  # noqa: SLF001 - ours
    for name in batch_types:
        pgq.entrypoint(enqueue.entrypoint(name), accepts_context=False)(jobs.run)

    async def sweep_once(_schedule: Any) -> None:
        await sweep(manager._database, batch_types)  # noqa: SLF001 - ours

    pgq.schedule(SWEEP_ENTRYPOINT, "* * * * *", accepts_context=False)(sweep_once)
