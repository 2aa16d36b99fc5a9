"""The processing of one batch in this process: what its drain, slots and quarantine share."""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

import anyio

from ..execution.executor import Executor
from ..models import ImportBatch
from ..processors.thresholds import FailureLimits
from .leases import HeldRange, Leases


@dataclass(slots=True)
class TimeSlice:
    """How long one call may work on a batch: to its end, or until other batches wait for a worker.

    Attributes:
        max_idle: Seconds to wait for a retry that is due later; None: any time.
        over: Whether to stop: no further item starts, and the ranges are handed back.
        gone: Whether there is nothing left to do: the batch was deleted, paused or cancelled.
        rest: The batch with the records that a canary has held back, once the canary has passed.
        due_in: Seconds until something is due, if the batch was left because nothing is.
        on_taken: Called with the batch, once it has been read.
    """

    max_idle: float | None = None
    over: bool = False
    gone: bool = False
    due_in: float | None = None
    rest: UUID | None = None
    on_taken: Callable[[ImportBatch], None] | None = None

    def leaves(self, due_in: float) -> bool:
        """Whether to leave a batch in which nothing can be done for so many seconds."""
        if self.max_idle is None or due_in <= self.max_idle:
            return False
        self.due_in = due_in
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRun:
    """One batch that is being processed here.

    Attributes:
        leases: The ranges that this process holds.
        limiter: Limits the slots of all batches of this process.
        limits: Counts the failures, and says when they pause the batch.
        time_slice: When to leave the rest to other processes.
        chunk_size: How many items share a transaction.
        concurrency: How many slots the batch has.
    """

    batch: ImportBatch
    executor: Executor
    leases: Leases
    limiter: anyio.CapacityLimiter
    limits: FailureLimits
    time_slice: TimeSlice
    chunk_size: int
    concurrency: int

    @property
    def running(self) -> bool:
        """Whether items of the batch may start."""
        return (
            self.limits.reason is None
            and not self.time_slice.over
            and not self.leases.is_stopped(self.batch.id)
        )

    def may_start(self, held: HeldRange) -> bool:
        """Whether a further item of a range may start.

        The range is still leased, the batch is being processed, and the keys by which the range
        was claimed are still all there are.
        """
        return held.open and held.keys_version == self.executor.ordering.version and self.running
