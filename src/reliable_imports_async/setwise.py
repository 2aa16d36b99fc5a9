"""A run of items as one set, through `process_items`."""

from collections.abc import Sequence
from time import perf_counter

from .errors import ItemRefused, TransactionEnded
from .execution import Executor
from .guarded import GuardedConnection
from .itemwise import Attempt, MayStart, RunFailed, TransactionChanged
from .judgement import sound
from .models import ImportBatchItem
from .prepared import Prepared
from .savepoints import Savepoints
from .time_limit import TimeLimit


class SetWise:
    """How an interval runs items whose processor has `process_items`."""

    growth = 2.0

    def __init__(self, executor: Executor, size: int) -> None:
        self._executor = executor
        self.first_distance = size

    async def attempt(
        self,
        run: Sequence[Prepared],
        savepoints: Savepoints,
        may_start: MayStart,
        limit: TimeLimit,
    ) -> Attempt:
        """The outcomes of a run; of fewer items when no more may start.

        Raises:
            RunFailed: The set failed, and with several items nobody knows which is at fault.
            TransactionChanged: The set cannot share a transaction.
        """
        started = perf_counter()
        items = _ready(run, may_start)
        guarded = GuardedConnection(savepoints.conn)
        log = self._executor.new_log()
        ctx = self._executor.set_context(items, guarded, log)
        try:
            outcomes = await self._executor.calls.several(items, ctx, limit)
            if not savepoints.conn.is_in_transaction():
                raise TransactionEnded
            self._executor.database.refuse_trace(guarded.trace)
        except BaseException as raised:  # noqa: BLE001 - judged by whoever undoes the run
            exc = sound(raised)
            own, seconds = await guarded.own_errors(exc), perf_counter() - started
            culprit = exc.position if isinstance(exc, ItemRefused) else None
            raise RunFailed(exc, own, culprit, seconds) from exc
        finally:
            guarded.close()
            self._executor.database.note_trace(savepoints.conn, guarded.trace)
        if guarded.changed_transaction or guarded.names_savepoints:
            raise TransactionChanged
        savepoints.count(guarded.savepoints)
        if guarded.sets:
            savepoints.end()
        return Attempt(outcomes, log.finished())


def _ready(run: Sequence[Prepared], may_start: MayStart) -> list[ImportBatchItem]:
    """The items of a run up to the first that may not start."""
    items: list[ImportBatchItem] = []
    for prepared in run:
        if not may_start(prepared):
            break
        assert isinstance(prepared.ready, ImportBatchItem)  # noqa: S101 - others have an outcome
        items.append(prepared.ready)
    return items
