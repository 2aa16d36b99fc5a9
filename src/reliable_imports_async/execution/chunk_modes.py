"""A run of items, one `process_item` after the other, each watched on its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

from anyio import to_thread

from ..cancellation import TimeLimit
from ..database.guard import GuardedConnection
from ..errors import ItemRefused, TransactionEnded
from ..failures import sound
from ..log_buffer import LogLine
from ..models import ImportBatchItem
from ..outcomes import Completed, Skip
from ..processors.processor import as_outcome
from .executor import Executor
from .prepare import Prepared
from .savepoints import Savepoints

MayStart = Callable[[Prepared], bool]


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of a run that did not fail.

    Attributes:
        outcomes: Of its items in order; fewer when no more could start.
        lines: Log lines that belong to no single item.
    """

    outcomes: Sequence[Completed | Skip]
    lines: Sequence[LogLine] = ()


class RunFailed(Exception):
    """An exception inside a run of items.

    Attributes:
        cause: What was raised.
        own: The errors that the connection raised in this run.
        culprit: The position of the item at fault; None when nobody knows.
        seconds: How long that item took.
    """

    def __init__(
        self,
        cause: BaseException,
        own: tuple[BaseException, ...],
        culprit: int | None = None,
        seconds: float = 0.0,
    ) -> None:
        super().__init__(type(cause).__name__)
        self.seconds = seconds
        self.cause = cause
        self.own = own
        self.culprit = culprit


class TransactionChanged(Exception):
    """An item changed its transaction, such as its isolation level: it must have one of its own."""


class ItemWise:
    """How an interval runs items whose processor has `process_item`."""

    first_distance = 16
    growth = 1.25

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def attempt(
        self,
        run: Sequence[Prepared],
        savepoints: Savepoints,
        may_start: MayStart,
        limit: TimeLimit,
    ) -> Attempt:
        """The outcomes of a run; of fewer items when no more may start.

        Raises:
            RunFailed: An item failed; what the run did must be undone.
            TransactionChanged: The run cannot share a transaction.
        """
        process, timeout = self._executor.processor.process_item, self._executor.item_timeout
        outcomes: list[Completed | Skip] = []
        for position, prepared in enumerate(run):
            if savepoints.exhausted or not may_start(prepared):
                break
            started, item, ctx = perf_counter(), _ready(prepared), prepared.ctx
            guarded = GuardedConnection(savepoints.conn)
            ctx._enter(guarded, item)  # noqa: SLF001
            try:  # and await it right here: a coroutine in between is paid for by every item
                result = await limit.run(process(item, ctx), timeout)
                if item.is_large:  # what it returns may be as large
                    outcome = await to_thread.run_sync(as_outcome, result)
                else:
                    outcome = as_outcome(result)
                if not savepoints.conn.is_in_transaction():
                    raise TransactionEnded
                if guarded.trace:
                    self._executor.database.refuse_trace(guarded.trace)
            except BaseException as raised:  # noqa: BLE001 - judged by whoever undoes the run
                exc = sound(raised)
                own, seconds = await guarded.own_errors(exc), perf_counter() - started
                raise RunFailed(exc, own, position, seconds) from exc
            finally:
                prepared.leave()
                self._executor.database.note_trace(savepoints.conn, guarded.trace)
            if guarded.changed_transaction or guarded.names_savepoints:
                raise TransactionChanged
            savepoints.count(guarded.savepoints)
            if guarded.sets:
                savepoints.end()
            outcomes.append(outcome)
        return Attempt(outcomes)


def _ready(prepared: Prepared) -> ImportBatchItem:
    """The item, about to run once more or for the first time."""
    prepared.rewind()
    assert isinstance(prepared.ready, ImportBatchItem)  # noqa: S101 - others have their outcome
    return prepared.ready


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
        items = _startable(run, may_start)
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


def _startable(run: Sequence[Prepared], may_start: MayStart) -> list[ImportBatchItem]:
    """The items of a run up to the first that may not start."""
    items: list[ImportBatchItem] = []
    for prepared in run:
        if not may_start(prepared):
            break
        assert isinstance(prepared.ready, ImportBatchItem)  # noqa: S101 - others have an outcome
        items.append(prepared.ready)
    return items
