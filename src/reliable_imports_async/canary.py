"""A few items first: the rest only when enough of them succeed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .errors import ConfigurationError
from .models import BatchSummary
from .reprocessing import Selection
from .wording import counted


@dataclass(frozen=True, slots=True)
class Canary:
    """A sample that decides about the rest; kept in the options of the batch that runs it.

    Attributes:
        size: Items in the sample, at least one.
        min_success: The share of them (0-1) that must complete or be skipped.

    Raises:
        ConfigurationError: One of the two cannot work.
    """

    size: int
    min_success: float

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 <= self.min_success <= 1:
            raise ConfigurationError(
                f"A canary of {counted(self.size, 'item')} with min_success {self.min_success} "
                "cannot work.",
                hint="canary is at least 1, min_success a share from 0 to 1, such as 0.9.",
            )

    def options(self, selection: Selection) -> dict[str, Any]:
        """What the batch of the sample remembers, so that anybody can go on with the rest."""
        return {
            "canary": {
                "size": self.size,
                "min_success": self.min_success,
                "group": selection.group,
                "item_numbers": selection.item_numbers,
            }
        }


def rest_of(options: Mapping[str, Any], selection: Selection) -> Selection:
    """What is left to run once the canary of these options has passed."""
    kept = options["canary"]
    numbers = kept["item_numbers"]
    return replace(
        selection,
        group=kept["group"],
        item_numbers=None if numbers is None else tuple(numbers),
        checked=True,
    )


def stopped_by(options: Mapping[str, Any], summary: BatchSummary) -> str | None:
    """Why the rest must not run after the canary; None: it may."""
    wanted = options["canary"]["min_success"]
    good = summary.completed_items + summary.skipped_items
    if summary.finished_at is not None and good >= wanted * summary.total_items:
        return None
    return (
        f"the canary has not passed: {good:,} of {counted(summary.total_items, 'item')} succeeded, "
        f"{wanted:.0%} must; the rest was not run"
    )
