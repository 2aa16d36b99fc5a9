"""When failures stop a batch: bugs, one exception over and over, or more failures than allowed."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from ..errors import ConfigurationError
from ..outcomes import Failure, FailureKind
from ..wording import counted

BUGS_IN_A_ROW = 5
MIN_PROCESSED = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """How many items may fail before the batch pauses; kept in its options for every worker.

    Attributes:
        max_failures: Failed items that are allowed; None for any number.
        max_failure_rate: Their share (0-1) of the items with an outcome; None for any.
        min_processed: Items with an outcome before the rate counts.

    Raises:
        ConfigurationError: One of them cannot work.
    """

    max_failures: int | None = None
    max_failure_rate: float | None = None
    min_processed: int = MIN_PROCESSED

    def __post_init__(self) -> None:
        rate = self.max_failure_rate
        if rate is not None and not 0 <= rate <= 1:
            raise ConfigurationError(
                f"max_failure_rate {rate} cannot work.", hint="it is a share from 0 to 1: 0.05."
            )
        if (self.max_failures or 0) < 0 or self.min_processed < 1:
            raise ConfigurationError(
                f"max_failures {self.max_failures} with min_processed {self.min_processed} "
                "cannot work.",
                hint="max_failures is at least 0, min_processed at least 1.",
            )

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Those that a batch's options hold."""
        return cls(**{name: options[name] for name in THRESHOLDS if name in options})

    def options(self) -> dict[str, Any]:
        """What a batch's options keep: nothing where nothing is limited."""
        limits = self.max_failures is not None or self.max_failure_rate is not None
        return asdict(self) if limits else {}

    def exceeded(self, failed: int, settled: int) -> str | None:
        """Why these counts are too many failures; None: they are not."""
        if self.max_failures is not None and failed > self.max_failures:
            return f"more than {counted(self.max_failures, 'item')} failed (max_failures)"
        rate = self.max_failure_rate
        if rate is None or settled < self.min_processed or failed <= rate * settled:
            return None
        return (
            f"{failed:,} of {counted(settled, 'item')} failed, {failed / settled:.1%}; "
            f"{rate:.1%} may (max_failure_rate)"
        )


THRESHOLDS = ("max_failures", "max_failure_rate", "min_processed")


@dataclass(slots=True)
class FailureLimits:
    """The failures that one process sees: in a row, and against the batch's thresholds.

    Attributes:
        pause_after: Consecutive exceptions of one group that pause the batch; None for never.
        thresholds: How many items may fail in all.
        reason: Why the batch must pause; None while it need not.
        failed: Items that failed so far, anywhere, as far as this process knows.
        settled: Items with an outcome so far, likewise.
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

    def success(self) -> None:
        """An item completed or was skipped."""
        self._bugs = self._exceptions = 0
        self.settled += 1

    def take_back(self, failed: int, settled: int) -> None:
        """So many items were counted, but the transaction that was to settle them is gone."""
        self.failed -= failed
        self.settled -= settled

    def copy(self) -> Self:
        """It as it is, for `restore`."""
        return replace(self)

    def restore(self, before: Self) -> None:
        """Forget what has happened since `copy`."""
        for field in fields(self):
            setattr(self, field.name, getattr(before, field.name))

    def learn(self, failed: int, settled: int) -> None:
        """Take in counts of the whole batch, which others work on as well."""
        self.failed, self.settled = max(failed, self.failed), max(settled, self.settled)
        self._measure(self.failed, self.settled)

    def refuses(self, failure: Failure) -> bool:
        """Count a failure before it is stored; True: do not store it, the batch must pause.

        The item then stays pending, so that however many run at once, no more than the allowed
        number fail by one broken deployment, or beyond a threshold.
        """
        programmed = failure.kind in (FailureKind.BUG, FailureKind.EXCEPTION)
        if self.reason is not None and (programmed or self._exceeded):
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
        """Pause for a reason that no count tells."""
        self.reason = self.reason or reason

    def _measure(self, failed: int, settled: int, last: Failure | None = None) -> bool:
        why = self.thresholds.exceeded(failed, settled)
        if why is None:
            return False
        self._exceeded = True
        if self.reason is None:
            self.reason = f"{why}; the last: {_described(last)}" if last is not None else why
        return True

    def _pause(self, failure: Failure, count: int) -> None:
        self.reason = f"{counted(count, 'item')} in a row failed with {_described(failure)}"


def _described(failure: Failure) -> str:
    code = f" {failure.sqlstate}" if failure.sqlstate else ""
    return f"{failure.type}{code}: {failure.message[:300]}"
