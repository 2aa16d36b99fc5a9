"""The two ways to run the items of a chunk: `process_item` for each, or `process_items` for all.

In both, a run is a part of the chunk behind a savepoint, so that the part can be undone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

from anyio import to_thread

from ..errors import ItemRefused
from ..log_buffer import LogLine
from ..outcomes import Completed, Skip
from ..processors.processor import as_outcome
from .attempt import Attempt
from .executor import Executor
from .prepare import Prepared
from .savepoints import Savepoints
from .session import Session


class MayStart(Protocol):
    """Tells whether items may start now."""

    def __call__(self, prepared: Prepared) -> bool:
        """Whether an item may start."""

    def count(self, items: Sequence[Prepared]) -> int:
        """How many of these items may start: those before the first that may not."""


@dataclass(slots=True)
class Run:
    """The result of a run of items.

    Attributes:
        outcomes: The items' outcomes in order; fewer than items if the rest could not start.
        lines: Log lines about no single item.
        raised: The exception that ended the run, which must be undone; None: none did.
        own: The errors that the connection itself raised.
        position: The position of the item that failed; None: unknown.
        seconds: How long that item took.
        changed: Whether the items cannot share a transaction; the run must be undone as well.
    """

    outcomes: Sequence[Completed | Skip] = ()
    lines: Sequence[LogLine] = ()
    raised: BaseException | None = None
    own: tuple[BaseException, ...] = ()
    position: int | None = None
    seconds: float = 0.0
    changed: bool = False


class ItemWise:
    """Runs items one by one with `process_item`.

    Attributes:
        first_distance: How many items the first run has.
        growth: The factor by which runs get longer while none fails.
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
        """Run items, as long as they may start."""
        process, timeout = self._executor.processor.process_item, self._executor.item_timeout
        outcomes: list[Completed | Skip] = []
        for position, prepared in enumerate(items):
            if savepoints.exhausted or not may_start(prepared):
                break
            prepared.rewind()
            started, item, ctx = perf_counter(), prepared.item, prepared.ctx
            attempt = Attempt(session, savepoints.conn)
            with attempt as guard:
                ctx._enter(guard, item)  # noqa: SLF001
                # Not through the invoker: a further coroutine for each item takes time.
                result = await session.limit.run(process(item, ctx), timeout)
                if item.is_large:  # so its result may be, too
                    outcomes.append(await to_thread.run_sync(as_outcome, result))
                else:
                    outcomes.append(as_outcome(result))
                attempt.finish()
            prepared.leave()
            if attempt.raised is not None:
                await attempt.conclude(attempt.raised)
                return _failed(attempt, started, position)
            if not savepoints.admit(guard):
                return Run(changed=True)
        return Run(outcomes)


class SetWise:
    """Runs items in one call of `process_items`; the attributes are those of `ItemWise`."""

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
        """Run items, as many as may start."""
        started = perf_counter()
        startable = [prepared.item for prepared in items[: may_start.count(items)]]
        attempt, log = Attempt(session, savepoints.conn), self._executor.new_log()
        outcomes: Sequence[Completed | Skip] = ()
        with attempt as guard:
            ctx = self._executor.set_context(startable, guard, log)
            outcomes = await self._executor.invoker.call_for_set(startable, ctx, session.limit)
            attempt.finish()
        if attempt.raised is not None:
            exc = attempt.raised
            await attempt.conclude(exc)
            return _failed(attempt, started, exc.position if isinstance(exc, ItemRefused) else None)
        if not savepoints.admit(guard):
            return Run(changed=True)
        return Run(outcomes, log.finished())


def _failed(attempt: Attempt, started: float, position: int | None) -> Run:
    """A run that was ended by an attempt's exception."""
    seconds = perf_counter() - started
    return Run(raised=attempt.raised, own=attempt.own, position=position, seconds=seconds)
