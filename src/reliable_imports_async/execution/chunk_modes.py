"""How a chunk runs its items: one `process_item` after the other, or one `process_items` for all.

Either way each run of items stands behind a savepoint, so that it can be undone by itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from anyio import to_thread

from ..errors import ItemRefused
from ..log_buffer import LogLine
from ..models import ImportBatchItem
from ..outcomes import Completed, Skip
from ..processors.processor import as_outcome
from .attempt import Attempt
from .executor import Executor
from .prepare import Prepared
from .savepoints import Savepoints
from .session import Session

MayStart = Callable[[Prepared], bool]


@dataclass(slots=True)
class Run:
    """What came of a run of items.

    Attributes:
        outcomes: Of its items in order; fewer when no more could start.
        lines: Log lines that belong to no single item.
        raised: What has ended it: what the run did must be undone. None: nothing was raised.
        own: The errors that the connection itself raised.
        position: Of the item that failed; None when nobody knows.
        seconds: How long that item took.
        changed: Whether the run cannot share a transaction, and must be undone as well.
    """

    outcomes: Sequence[Completed | Skip] = ()
    lines: Sequence[LogLine] = ()
    raised: BaseException | None = None
    own: tuple[BaseException, ...] = ()
    position: int | None = None
    seconds: float = 0.0
    changed: bool = False


class ItemWise:
    """How a chunk runs items whose processor has `process_item`.

    Attributes:
        first_distance: How many items the first run has.
        growth: How much longer the next may be, after one that did not fail.
    """

    first_distance = 16
    growth = 1.25

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def run(
        self,
        items: Sequence[Prepared],
        session: Session,
        savepoints: Savepoints,
        may_start: MayStart,
    ) -> Run:
        """Run one item after the other; fewer when no more may start."""
        process, timeout = self._executor.processor.process_item, self._executor.item_timeout
        outcomes: list[Completed | Skip] = []
        for position, prepared in enumerate(items):
            if savepoints.exhausted or not may_start(prepared):
                break
            prepared.rewind()
            started, item, ctx = perf_counter(), prepared.item, prepared.ctx
            attempt = Attempt(session, savepoints.conn)
            async with attempt as guarded:
                ctx._enter(guarded, item)  # noqa: SLF001
                # Not through the invoker: each item would pay for a coroutine in between.
                result = await session.limit.run(process(item, ctx), timeout)
                if item.is_large:  # what it returns may be as large
                    outcomes.append(await to_thread.run_sync(as_outcome, result))
                else:
                    outcomes.append(as_outcome(result))
                attempt.finish()
            prepared.leave()
            if attempt.raised is not None:
                return _failed(attempt, started, position)
            if not savepoints.admit(guarded):
                return Run(changed=True)
        return Run(outcomes)


class SetWise:
    """How a chunk runs items whose processor has `process_items`; the attributes are as above."""

    growth = 2.0

    def __init__(self, executor: Executor, size: int) -> None:
        self._executor = executor
        self.first_distance = size

    async def run(
        self,
        items: Sequence[Prepared],
        session: Session,
        savepoints: Savepoints,
        may_start: MayStart,
    ) -> Run:
        """Run items in one call; fewer when no more may start."""
        started = perf_counter()
        startable = _startable(items, may_start)
        attempt, log = Attempt(session, savepoints.conn), self._executor.new_log()
        outcomes: Sequence[Completed | Skip] = ()
        async with attempt as guarded:
            ctx = self._executor.set_context(startable, guarded, log)
            outcomes = await self._executor.invoker.call_for_set(startable, ctx, session.limit)
            attempt.finish()
        if attempt.raised is not None:
            exc = attempt.raised
            return _failed(attempt, started, exc.position if isinstance(exc, ItemRefused) else None)
        if not savepoints.admit(guarded):
            return Run(changed=True)
        return Run(outcomes, log.finished())


def _failed(attempt: Attempt, started: float, position: int | None) -> Run:
    """The run that an attempt has ended."""
    seconds = perf_counter() - started
    return Run(raised=attempt.raised, own=attempt.own, position=position, seconds=seconds)


def _startable(run: Sequence[Prepared], may_start: MayStart) -> list[ImportBatchItem[Any]]:
    """The items of a run up to the first that may not start."""
    items: list[ImportBatchItem[Any]] = []
    for prepared in run:
        if not may_start(prepared):
            break
        items.append(prepared.item)
    return items
