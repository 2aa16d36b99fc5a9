"""Batch types of which one batch runs at a time; the database says which one it is."""

from typing import Any
from uuid import UUID

from ..database.guard import Connection
from ..database.pool import Database
from ..errors import AnotherBatchRuns
from ..models import ImportBatch
from ..processors.processor import BaseProcessor
from ..processors.registry import Registry
from ..store import exclusive
from ..store.exclusive import Holder

VACANT_SECONDS = 3.0
"""How long a paused, cancelled or failed batch must have been idle before another one may run:
longer than its workers take to notice the status, so that none of them starts an item later."""


async def other(conn: Connection, batch: ImportBatch, processor: BaseProcessor[Any]) -> UUID | None:
    """Make a batch the one that runs, in the transaction that starts or joins it.

    Returns:
        Another batch, if that one runs; None where this one may.
    """
    if not processor.only_one or batch.finished_at is not None:
        return None
    holder = await exclusive.take_turn(conn, batch.batch_type, batch.id, VACANT_SECONDS)
    return None if holder == batch.id else holder


async def refuse(
    database: Database, registry: Registry, batch_type: str, conn: Connection | None = None
) -> None:
    """Refuse to run a further batch of a type whose `only_one` is "refuse", while one runs.

    Raises:
        AnotherBatchRuns: A process works on another one.
    """
    if batch_type not in registry.batch_types or registry.get(batch_type).only_one != "refuse":
        return
    holder = await running(database, batch_type, conn)
    if holder is not None and not holder.abandoned:
        raise AnotherBatchRuns(batch_type, holder.batch_id)


async def running(
    database: Database, batch_type: str, conn: Connection | None = None
) -> Holder | None:
    """The batch of a type with `only_one` that runs, if one does."""
    if conn is not None:
        return await exclusive.holder(conn, batch_type)
    async with database.connection() as own:
        return await exclusive.holder(own, batch_type)
