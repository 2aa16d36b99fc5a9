"""Deleting finished lineages, in chunks, so that nobody waits for it."""

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
    """Delete the whole lineage of a batch; how many batches that were.

    Raises:
        BatchNotFound: There is no such batch.
        WrongBatchStatus: A batch of the lineage is not finished.
    """
    async with database.connection() as conn:
        batch = await batches.get(conn, batch_id)
    if batch is None:
        raise BatchNotFound(batch_id)
    family = await _begin(database, batch.root_batch_id)
    if not family:
        async with database.connection() as conn:
            for member in await batches.lineage(conn, batch.root_batch_id):
                if member.finished_at is None:
                    raise WrongBatchStatus(member.id, member.status, "purged before it is finished")
        raise BatchNotFound(batch_id)  # somebody else has purged it meanwhile
    return await _delete(database, batch.root_batch_id, family, actor)


async def purge_finished(
    database: Database, finished_before: datetime, batch_type: str | None, actor: str | None
) -> int:
    """Delete every lineage that finished before a time; how many batches that were."""
    count = 0
    after: UUID | None = None
    while True:
        async with database.connection() as conn:
            roots = await batches.purgeable(conn, finished_before, batch_type, after, LINEAGES)
        if not roots:
            return count
        for root in roots:
            if family := await _begin(database, root, finished_before):
                count += await _delete(database, root, family, actor)
        after = roots[-1]


async def _begin(
    database: Database, root_id: UUID, finished_before: datetime | None = None
) -> Sequence[UUID]:
    """Let no reprocessing and no edit join a finished lineage any more; its batches.

    The mark stays, so that an interrupted purge can be repeated and nothing else happens in
    between. Nothing is returned when a batch is not finished after all, or is younger.
    """
    async with database.connection() as conn, conn.transaction(isolation="read_committed"):
        await batches.lock(conn, root_id)
        return await reprocessing.begin_purge(conn, root_id, finished_before)


async def _delete(
    database: Database, root_id: UUID, family: Sequence[UUID], actor: str | None
) -> int:
    """Log lines and items in chunks, the batch rows last: an interrupted purge can be repeated."""
    for delete_chunk in (logs.delete_chunk, items.delete_chunk):
        deleted = CHUNK
        while deleted:
            async with database.connection() as conn:
                deleted = await delete_chunk(conn, family, CHUNK)
    async with database.connection() as conn, conn.transaction():
        await repairs.delete(conn, family)
        await ranges.delete(conn, family)
        await crash_marks.delete(conn, family)
        await reprocessing.delete_last_tries(conn, [root_id])
        await outbox.delete(conn, family)
        await batches.delete(conn, family)
    logger.info("purged %s of lineage %s (by %s)", counted(len(family), "batch"), root_id, actor)
    return len(family)
