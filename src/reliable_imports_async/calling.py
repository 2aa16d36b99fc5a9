"""The developer's code for items: called within its time limit, and its results checked."""

from collections.abc import Sequence
from typing import Any

from anyio import to_thread

from .context import ImportContext
from .database import Database
from .declared import Upsert, declared_upsert
from .errors import ConfigurationError
from .models import ImportBatchItem
from .outcomes import Completed, Skip
from .processors import BaseProcessor, as_outcome, as_outcomes, is_declared, is_set_wise
from .time_limit import TimeLimit


class Calls:
    """Calls what a processor has for its items: `process_item`, `process_items` or its declaration.

    Args:
        item_timeout: Seconds that a call may take.
    """

    def __init__(self, processor: BaseProcessor[Any], item_timeout: float) -> None:
        self._processor = processor
        self._item_timeout = item_timeout
        self._set_wise = is_set_wise(type(processor))
        self._declared = is_declared(type(processor))
        self._upsert: Upsert | None = None

    async def check_declaration(self, database: Database) -> str | None:
        """Why items cannot be upserted as the processor declares; None: they can, or need not."""
        if self._declared:
            try:
                async with database.connection(shared=True) as conn:
                    if not database.pooled:  # it may say where the table is, or who we are
                        await self._processor.on_connection(conn)
                    self._upsert = await declared_upsert(conn, self._processor)
            except ConfigurationError as exc:
                return str(exc)
        return None

    async def one(
        self, item: ImportBatchItem[Any], ctx: ImportContext, limit: TimeLimit
    ) -> Completed | Skip:
        """Process one item.

        Raises:
            ItemTimeout: It took too long.
        """
        if self._set_wise:
            return (await self.several([item], ctx, limit))[0]
        work = self._processor.process_item(item, ctx)
        result = await limit.run(work, self._item_timeout)
        if item.is_large:  # what it returns may be as large
            return await to_thread.run_sync(as_outcome, result)
        return as_outcome(result)

    async def several(
        self, items: Sequence[ImportBatchItem[Any]], ctx: ImportContext, limit: TimeLimit
    ) -> list[Completed | Skip]:
        """Process many items at once.

        Raises:
            ItemTimeout: They took too long together.
        """
        write = self._processor.process_items
        if self._declared:
            if self._upsert is None:
                conn = ctx.connection._open()  # noqa: SLF001
                self._upsert = await declared_upsert(conn, self._processor)
            write = self._upsert.write
        results = await limit.run(write(items, ctx), self._item_timeout)
        return as_outcomes(results, len(items))
