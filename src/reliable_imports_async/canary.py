"""A few items first: the rest only when enough of them succeed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from .database import Database
from .errors import ConfigurationError
from .models import BatchStatus, BatchSummary, ImportBatch
from .records import Limits
from .reprocessing import Selection, create_child
from .store import batches, lineage, summaries
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

    def options(
        self, selection: Selection, *, continues: bool, actor: str | None
    ) -> dict[str, Any]:
        """What the batch of the sample remembers, so that anybody can go on with the rest.

        Args:
            selection: Of what it is the sample.
            continues: Whether the one who finishes it does so unasked. A transform is code, which
                the database cannot keep: then only who has it can go on.
            actor: Who asks.
        """
        return {
            "canary": {
                "size": self.size,
                "min_success": self.min_success,
                "group": selection.group,
                "item_numbers": selection.item_numbers,
                "continues": continues and selection.transform is None,
                "actor": actor,
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
    finished = summary.finished_at is not None and summary.status is not BatchStatus.CANCELLED
    if finished and good >= wanted * summary.total_items:
        return None
    return (
        f"the canary has not passed: {good:,} of {counted(summary.total_items, 'item')} succeeded, "
        f"{wanted:.0%} must; the rest was not run"
    )


class Continuation:
    """Goes on with the rest of canaries; nothing about it is only in memory.

    That a rest is due is in the canary's options until the transaction that creates its batch, so
    whoever processes or sweeps next does what a killed process has left.
    """

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database = database
        self._limits = limits

    async def after(self, batch: ImportBatch) -> UUID | None:
        """The batch of the rest, once a canary that continues has finished; None: there is none."""
        kept = batch.options.get("canary")
        if kept is None or batch.finished_at is None:
            return None
        if not kept.get("continues"):
            return None if kept.get("rest") is None else UUID(kept["rest"])
        async with self._database.connection() as conn:
            summary = await summaries.get(conn, batch.id)
            if summary is None or stopped_by(batch.options, summary):
                await lineage.decide_canary(conn, batch.id, None)
                return None
        return await create_child(
            self._database,
            batch.parent_batch_id or batch.id,
            rest_of(batch.options, Selection()),
            self._limits,
            kept.get("actor"),
            rest_of=batch.id,
        )

    async def sweep(self, batch_types: Sequence[str], limit: int) -> None:
        """Decide about canaries that somebody has finished and left."""
        async with self._database.connection() as conn:
            found = await lineage.undecided_canaries(conn, batch_types, limit)
            left = [await batches.get(conn, batch_id) for batch_id in found]
        for batch in left:
            if batch is not None:
                await self.after(batch)
