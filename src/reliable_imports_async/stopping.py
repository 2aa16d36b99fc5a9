"""When failures stop a batch: bugs, or one exception over and over; bad data never does."""

from dataclasses import dataclass

from .outcomes import Failure, FailureKind

BUGS_IN_A_ROW = 5


@dataclass(slots=True)
class Streak:
    """Consecutive failures in one process, without a success between them.

    Attributes:
        pause_after: Consecutive exceptions of one group that pause the batch; None for never.
        reason: Why the batch must pause; None while it need not.
    """

    pause_after: int | None
    reason: str | None = None
    _bugs: int = 0
    _group: str | None = None
    _exceptions: int = 0

    def success(self) -> None:
        """An item completed or was skipped."""
        self._bugs = self._exceptions = 0

    def refuses(self, failure: Failure) -> bool:
        """Count a failure before it is stored; True: do not store it, the batch must pause.

        The item then stays pending, so that however many run at once, no more than the allowed
        number fail by one broken deployment.
        """
        if self.reason is not None and failure.kind in (FailureKind.BUG, FailureKind.EXCEPTION):
            return True
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

    def _pause(self, failure: Failure, count: int) -> None:
        code = f" {failure.sqlstate}" if failure.sqlstate else ""
        self.reason = (
            f"{count} items in a row failed with {failure.type}{code}: {failure.message[:300]}"
        )
