"""Decides when failures pause a batch: bugs in a row, one exception again and again, or too many.

`Thresholds` are the limits of a batch; `FailureLimits` counts the failures of one process.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from ..errors import ConfigurationError
from ..outcomes import Failure, FailureKind
from ..wording import counted

BUGS_IN_A_ROW = 5
MIN_PROCESSED = 100
THRESHOLDS = ("max_failures", "max_failure_rate", "min_processed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """How many items may fail before the batch pauses; stored in its options for all workers.

    Attributes:
        max_failures: How many items may fail; None for no limit.
        max_failure_rate: Which share (0 to 1) of the settled items may fail; None for no limit.
        min_processed: Settled items before the rate is checked.

    Raises:
        ConfigurationError: A threshold is not valid.
    """

    max_failures: int | None = None
    max_failure_rate: float | None = None
    min_processed: int = MIN_PROCESSED

    def __post_init__(self) -> None:
        rate = self.max_failure_rate
        if rate is not None and not 0 <= rate <= 1:
            raise ConfigurationError(
                f"max_failure_rate {rate} is not valid.",
                hint="use a share from 0 to 1, such as 0.05.",
            )
        if (self.max_failures or 0) < 0 or self.min_processed < 1:
            raise ConfigurationError(
                f"max_failures {self.max_failures} with min_processed {self.min_processed} "
                "is not valid.",
                hint="max_failures is at least 0, min_processed at least 1.",
            )

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """The thresholds in a batch's options."""
        return cls(**{name: options[name] for name in THRESHOLDS if name in options})

    def options(self) -> dict[str, Any]:
        """The thresholds as options of a batch; none if nothing is limited."""
        limits = self.max_failures is not None or self.max_failure_rate is not None
        return asdict(self) if limits else {}

    def exceeded(self, failed: int, settled: int) -> str | None:
        """Why so many failures exceed a threshold; None if they do not."""
        if self.max_failures is not None and failed > self.max_failures:
            return f"more than {counted(self.max_failures, 'item')} failed (max_failures)"
        rate = self.max_failure_rate
        if rate is None or settled < self.min_processed or failed <= rate * settled:
            return None
        return (
            f"{failed:,} of {counted(settled, 'item')} failed, {failed / settled:.1%}; "
            f"at most {rate:.1%} may fail (max_failure_rate)"
        )


@dataclass(slots=True)
class FailureLimits:
    """Counts the failures that one process sees, and says when the batch must pause.

    Attributes:
        pause_after: Consecutive exceptions of one group that pause the batch; None for never.
        thresholds: How many items of the whole batch may fail.
        reason: Why the batch must pause; None if it need not.
        failed: The failed items of the batch, as far as this process knows.
        settled: The settled items of the batch, likewise.
    """

    pause_after: int | None
    thresholds: Thresholds = Thresholds()
    reason: str | None = None
    failed: int = 0
    settled: int = 0
    _bugs: int = 0
    _group: str | None = None
    _exceptions: int = 0
    _exceeded: bool = False

    def success(self, count: int = 1) -> None:
        """Count items that completed or were skipped, one after the other."""
        if count:
            self._bugs = self._exceptions = 0
            self.settled += count

    def take_back(self, failed: int, settled: int) -> None:
        """Subtract counted items whose transaction was rolled back after all."""
        self.failed -= failed
        self.settled -= settled

    def copy(self) -> Self:
        """A copy of the state, for `restore`."""
        return replace(self)

    def restore(self, before: Self) -> None:
        """Go back to the state of a copy."""
        for field in fields(self):
            setattr(self, field.name, getattr(before, field.name))

    def learn(self, failed: int, settled: int) -> None:
        """Update the counts with those of the whole batch, on which other processes work too."""
        self.failed, self.settled = max(failed, self.failed), max(settled, self.settled)
        self._measure(self.failed, self.settled)

    def refuses(self, failure: Failure) -> bool:
        """Count a failure before it is stored; True if the batch must pause instead.

        The item then stays pending. So no more items fail than allowed, no matter how many run at
        once when a broken deployment or a threshold stops the batch.
        """
        from_code = failure.kind in (FailureKind.BUG, FailureKind.EXCEPTION)
        if self.reason is not None and (from_code or self._exceeded):
            return True
        if self._measure(self.failed + 1, self.settled + 1, failure):
            return True
        self.failed += 1
        self.settled += 1
        if failure.kind is FailureKind.BUG:
            self._bugs += 1
            if self._bugs == BUGS_IN_A_ROW:
                self._pause(failure, self._bugs)
        if failure.kind is FailureKind.EXCEPTION and self.pause_after is not None:
            self._exceptions = self._exceptions + 1 if failure.group == self._group else 1
            self._group = failure.group
            if self._exceptions == self.pause_after:
                self._pause(failure, self._exceptions)
        return False

    def halt(self, reason: str) -> None:
        """Pause for a reason other than the counts."""
        self.reason = self.reason or reason

    def _measure(self, failed: int, settled: int, last: Failure | None = None) -> bool:
        reason = self.thresholds.exceeded(failed, settled)
        if reason is None:
            return False
        self._exceeded = True
        if self.reason is None:
            described = "" if last is None else f"; the last failure: {_described(last)}"
            self.reason = f"{reason}{described}"
        return True

    def _pause(self, failure: Failure, count: int) -> None:
        self.reason = f"{counted(count, 'item')} in a row failed with {_described(failure)}"


def _described(failure: Failure) -> str:
    code = f" {failure.sqlstate}" if failure.sqlstate else ""
    return f"{failure.type}{code}: {failure.message[:300]}"
