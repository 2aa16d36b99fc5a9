"""Deletes finished lineages, in chunks, so that no other statement waits for long."""

import logging
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from ..database.pool import Database
from ..errors import BatchNotFound, WrongBatchStatus
from ..store import batches, crash_marks, items, logs, outbox, ranges, repairs, reprocessing
from ..wording import counted

logger = logging.getLogger("reliable_imports_async")

CHUNK = 5_000
LINEAGES = 100


async def purge_batch(database: Database, batch_id: UUID, actor: str | None) -> int:
    """Delete the whole lineage of a batch, and return the number of its batches.

    Raises:
        BatchNotFound: The batch does not exist.
        WrongBatchStatus: A batch of the lineage is not finished.
    """
    async with database.connection() as conn:
        batch = await batches.get(conn, batch_id)
    if batch is None:
        raise BatchNotFound(batch_id)
    lineage = await _begin(database, batch.root_batch_id)
    if not lineage:
        async with database.connection() as conn:
            for member in await batches.lineage(conn, batch.root_batch_id):
                if member.finished_at is None:
                    raise WrongBatchStatus(member.id, member.status, "purged before it is finished")
        raise BatchNotFound(batch_id)  # another process has purged it meanwhile
    return await _delete(database, batch.root_batch_id, lineage, actor)


async def purge_finished(
    database: Database, finished_before: datetime, batch_type: str | None, actor: str | None
) -> int:
    """Delete every lineage that finished before a time, and return the number of batches."""
    count = 0
    after: UUID | None = None
    while True:
        async with database.connection() as conn:
            roots = await batches.purgeable(conn, finished_before, batch_type, after, LINEAGES)
        if not roots:
            return count
        for root in roots:
            if lineage := await _begin(database, root, finished_before):
                count += await _delete(database, root, lineage, actor)
        after = roots[-1]


async def _begin(
    database: Database, root_id: UUID, finished_before: datetime | None = None
) -> Sequence[UUID]:
    """Mark a finished lineage, so that no reprocessing or edit joins it, and return its batches.

    The mark stays if the purge is interrupted; only another purge can follow. No batches are
    returned if one of them is not finished, or finished too recently.
    """
    async with database.connection() as conn, conn.transaction(isolation="read_committed"):
        await batches.lock(conn, root_id)
        return await reprocessing.begin_purge(conn, root_id, finished_before)


async def _delete(
    database: Database, root_id: UUID, lineage: Sequence[UUID], actor: str | None
) -> int:
    """Delete log lines and items in chunks and the batches last, so that it can be repeated."""
    for delete_chunk in (logs.delete_chunk, items.delete_chunk):
        deleted = CHUNK
        while deleted:
            async with database.connection() as conn:
                deleted = await delete_chunk(conn, lineage, CHUNK)
    async with database.connection() as conn, conn.transaction():
        await repairs.delete(conn, lineage)
        await ranges.delete(conn, lineage)
        await crash_marks.delete(conn, lineage)
        await reprocessing.delete_last_tries(conn, [root_id])
        await outbox.delete(conn, lineage)
        await batches.delete(conn, lineage)
    logger.info("purged %s of lineage %s (by %s)", counted(len(lineage), "batch"), root_id, actor)
    return len(lineage)
