"""after_batch_complete of the REST API's endpoints: after the final commit, at least once."""

import logging
from typing import TYPE_CHECKING
from uuid import UUID

from .context import LogBuffer
from .database import Database
from .endpoints import BaseEndpoint, EndpointContext, answer
from .interruptions import must_propagate
from .judgement import describe
from .models import BatchSummary, ImportBatch, LogLevel
from .outcomes import FailureKind
from .registry import Registry
from .settings import Settings
from .store import batches, logs, summaries

if TYPE_CHECKING:
    from .manager import BatchManager

logger = logging.getLogger("reliable_imports_async")

ANNOUNCEMENT_SECONDS = 60.0
AT_ONCE = 100


class Announcer:
    """Runs the endpoints' hook for finished batches, one process for each batch."""

    def __init__(
        self, manager: "BatchManager", database: Database, settings: Settings, registry: Registry
    ) -> None:
        self._manager = manager
        self._database = database
        self._settings = settings
        self._registry = registry

    async def announce(self, batch: ImportBatch, summary: BatchSummary) -> None:
        """Run the hook for a finished batch, unless somebody else does or has."""
        endpoint = self._registry.endpoint(batch.batch_type)
        if not endpoint.overrides("after_batch_complete"):
            return
        async with self._database.connection() as conn:
            if not await batches.claim_announcement(conn, batch.id, ANNOUNCEMENT_SECONDS):
                return
        log = LogBuffer(self._settings.log_level, self._database.redact)
        await self._run(endpoint, batch, summary, log)
        async with self._database.connection() as conn:
            await logs.insert_lines(conn, batch.id, log.finished())
            await batches.mark_announced(conn, batch.id)

    async def sweep(self) -> int:
        """Run the hook for batches whose process died before it, or knew no endpoint; how many."""
        names = [
            name
            for name in self._registry.batch_types
            if self._registry.endpoint(name).overrides("after_batch_complete")
        ]
        if not names:
            return 0
        async with self._database.connection() as conn:
            waiting = await batches.unannounced(conn, names, AT_ONCE)
        for batch_id in waiting:
            await self._announce_by_id(batch_id)
        return len(waiting)

    async def _announce_by_id(self, batch_id: UUID) -> None:
        async with self._database.connection() as conn:
            batch = await batches.get(conn, batch_id)
            summary = await summaries.get(conn, batch_id)
        if batch is not None and summary is not None:
            await self.announce(batch, summary)

    async def _run(
        self, endpoint: BaseEndpoint, batch: ImportBatch, summary: BatchSummary, log: LogBuffer
    ) -> None:
        ctx = EndpointContext(manager=self._manager, user_id=batch.created_by, log=log)
        try:
            await answer(endpoint.after_batch_complete(batch.id, summary, ctx))
        except BaseException as exc:  # the batch is finished, whatever this hook does
            if must_propagate(exc):
                raise
            failure = describe(exc, kind=FailureKind.EXCEPTION, redact=self._database.redact)
            log.add(LogLevel.ERROR, f"after_batch_complete failed: {failure.message}", {})
            logger.error(  # noqa: TRY400 - a traceback could hold what is masked here
                "after_batch_complete of batch %s failed: %s", batch.id, failure.message
            )
