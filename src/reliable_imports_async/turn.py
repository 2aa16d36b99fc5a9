"""A turn: for how long a process may go on draining a batch."""

from dataclasses import dataclass
from uuid import UUID


@dataclass(slots=True)
class Turn:
    """In the foreground without an end; a background job ends it when others wait.

    Attributes:
        patience: Seconds to wait for a retry that is due later; None: however long it takes.
        over: Whether to stop: no further item starts, and the ranges are handed back.
        gone: Nothing is left to do: the batch was deleted, paused or cancelled.
        rest: The batch of what a canary has held back, once that has passed.
        due_in: When it was left early because nothing is due: seconds until something is.
    """

    patience: float | None = None
    over: bool = False
    gone: bool = False
    due_in: float | None = None
    rest: UUID | None = None

    def leaves(self, due_in: float) -> bool:
        """Whether to leave a batch in which nothing can be done for so many seconds."""
        if self.patience is None or due_in <= self.patience:
            return False
        self.due_in = due_in
        return True
