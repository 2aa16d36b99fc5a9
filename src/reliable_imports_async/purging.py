"""Deleting finished lineages, in chunks, so that nobody waits for it."""

import logging
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from .database import Database
from .errors import BatchNotFound, WrongBatchStatus
from .store import batches, crash_marks, edits, items, logs, ranges
from .wording import counted

logger = logging.getLogger("reliable_imports_async")

CHUNK = 5_000
LINEAGES = 100


async def purge_batch(database: Database, batch_id: UUID, actor: str | None) -> int:
    """Delete the whole lineage of a batch; how many batches that were.

    Raises:
        BatchNotFound: There is no such batch.
        WrongBatchStatus: A batch of the lineage is not finished.
    """
    async with database.connection() as conn:
        batch = await batches.get(conn, batch_id)
        if batch is None:
            raise BatchNotFound(batch_id)
        family = await batches.lineage(conn, batch.root_batch_id)
    for one in family:
        if one.finished_at is None:
            raise WrongBatchStatus(one.id, one.status, "purged before it is finished")
    return await _delete(database, [one.id for one in family], actor)


async def purge_finished(
    database: Database, finished_before: datetime, batch_type: str | None, actor: str | None
) -> int:
    """Delete every lineage that finished before a time; how many batches that were."""
    count = 0
    while True:
        async with database.connection() as conn:
            roots = await batches.purgeable(conn, finished_before, batch_type, LINEAGES)
        if not roots:
            return count
        for root in roots:
            async with database.connection() as conn:
                family = [one.id for one in await batches.lineage(conn, root)]
            count += await _delete(database, family, actor)


async def _delete(database: Database, family: Sequence[UUID], actor: str | None) -> int:
    """Log lines and items in chunks, the batch rows last: an interrupted purge can be repeated."""
    for delete_chunk in (logs.delete_chunk, items.delete_chunk):
        deleted = CHUNK
        while deleted:
            async with database.connection() as conn:
                deleted = await delete_chunk(conn, family, CHUNK)
    async with database.connection() as conn, conn.transaction():
        await edits.delete(conn, family)
        await ranges.delete(conn, family)
        await crash_marks.delete(conn, family)
        await batches.delete(conn, family)
    logger.info("purged %s of lineage %s (by %s)", counted(len(family), "batch"), family[0], actor)
    return len(family)
