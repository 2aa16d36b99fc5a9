"""What may run again, and the new batch it runs in; never unasked what succeeded."""

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Self
from uuid import UUID

from typing_extensions import TypedDict
from uuid_utils.compat import uuid7

from .. import exact_json
from ..database.guard import Connection
from ..database.pool import Database
from ..errors import BatchNotFound, ConfigurationError, ReprocessRefused, WrongBatchStatus
from ..loading.create import range_size
from ..loading.records import Limits, from_value
from ..loading.sources import SourceInfo
from ..models import BatchStatus, BatchSummary, ImportBatch, LogLevel
from ..store import batches, enqueue, logs, ranges, reprocessing, summaries
from ..store.batches import NewBatch
from ..store.reprocessing import EligibleItem
from ..wording import counted

Transform = Callable[[Any], Mapping[str, Any]]

PAGE = 500
LARGEST_NUMBER = 2_147_483_647  # of an item
MIN_SUCCESS = 0.9
# Of one batch, not of its reprocessings.
OWN_OPTIONS = frozenset({"after_create", "canary", "expect", "forgiven", "request_sha256"})


class ReprocessOptions(TypedDict, total=False):
    """What `create_reprocessing` takes by name.

    Attributes:
        group: As for `reprocess_batch`, like the next five.
        item_numbers: Only these items of the batch.
        transform: Makes the new record from the old one.
        canary: So many items first.
        min_success: The share of them (0-1) that must succeed.
        actor: Who asks, for the log.
        continues: Whether the process that finishes a canary that passes goes on with the rest, be
            it this one or a worker; else only `process_reprocessing` does. A `transform` is code
            that other processes do not have, so with one it is always `process_reprocessing`.
    """

    group: str | None
    item_numbers: Sequence[int] | None
    transform: Transform | None
    canary: int | None
    min_success: float
    actor: str | None
    continues: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which items to run again.

    Attributes:
        failed_items_only: False runs every item of the batch again, also those that succeeded.
        group: Only failures of this group.
        item_numbers: Only these items of the batch.
        transform: Makes the new record from the old one. A record that failed at parse takes part
            only when `group` or `item_numbers` select it; then `transform` gets its raw bytes.
        canary: Only so many of them, from anywhere, to see whether they succeed.
        checked: `item_numbers` may have succeeded meanwhile: those are left out, not refused.
    """

    failed_items_only: bool = True
    group: str | None = None
    item_numbers: tuple[int, ...] | None = None
    transform: Transform | None = None
    canary: int | None = None
    checked: bool = False

    @classmethod
    def of(cls, failed_items_only: bool, options: ReprocessOptions) -> Self:  # noqa: FBT001
        """What the arguments of `reprocess_batch` select."""
        numbers = options.get("item_numbers")
        return cls(
            failed_items_only=failed_items_only,
            group=options.get("group"),
            item_numbers=None if numbers is None else tuple(numbers),
            transform=options.get("transform"),
            canary=options.get("canary"),
        )


@asynccontextmanager
async def lineage_transaction(database: Database) -> AsyncIterator[Connection]:
    """A transaction that takes the root's lock, whatever the isolation by default.

    Who has waited for the lock must see what was done under it: no snapshot from before.
    """
    async with (
        database.connection(seconds=None) as conn,
        conn.transaction(isolation="read_committed"),
    ):
        yield conn


async def create_child(
    database: Database,
    batch_id: UUID,
    selection: Selection,
    limits: Limits,
    actor: str | None,
    options: Mapping[str, Any] | None = None,
    *,
    child_id: UUID | None = None,
    rest_of: UUID | None = None,
) -> UUID | None:
    """The batch that runs the selected items again; an unfinished one when nothing is left to take.

    Args:
        options: Kept in the options of the new batch, beside those it inherits.
        child_id: The id of the new batch; returned only when there is one.
        rest_of: A canary that has passed. The new batch, or that there is none, is noted with it in
            the same transaction, and is for workers where the canary was.

    Returns:
        The new batch; or the lineage's unfinished or newest reprocessing when nothing is eligible
        any more; or None when there is none either. Where a run of all its items is asked for,
        the one that is in progress already.

    Raises:
        BatchNotFound: There is no such batch.
        WrongBatchStatus: The batch has not come to an end yet.
        ReprocessRefused: Items were named that cannot run again; or all of them were asked for
            and another batch is still to process some.
    """
    child_id = child_id or uuid7()
    async with lineage_transaction(database) as conn:
        batch = await locked(conn, batch_id)
        if not selection.failed_items_only and (same := await _open_run(conn, batch, selection)):
            return same
        if rest_of is not None and not await reprocessing.decide_canary(conn, rest_of, child_id):
            return await _noted_rest(conn, rest_of)
        count = await _fill(conn, batch, child_id, selection, limits)
        if not count and rest_of is not None:
            await reprocessing.note_no_rest(conn, rest_of)
        if not count:
            return None if rest_of is not None else await _existing(conn, batch, selection)
        own = dict(options or {})
        if not selection.failed_items_only:  # that nothing has changed is no reason to skip it
            own["skip_unchanged"] = False
        await insert_child(conn, batch, child_id, count, _how(selection), actor=actor, options=own)
        if rest_of is not None and await reprocessing.is_enqueued(conn, rest_of):
            await enqueue.enqueue(conn, child_id)
    return child_id


async def _noted_rest(conn: Connection, canary_id: UUID) -> UUID | None:
    """The batch in which the rest of a canary runs, as was decided before."""
    canary = await batches.get(conn, canary_id)
    noted = None if canary is None else canary.options["canary"].get("rest")
    return None if noted is None else UUID(noted)


async def locked(conn: Connection, batch_id: UUID) -> ImportBatch:
    """The batch as it is under the root's lock, which is taken here.

    Raises:
        BatchNotFound: There is no such batch.
        WrongBatchStatus: It has not come to an end yet.
    """
    batch = await batches.get(conn, batch_id)
    if batch is None:
        raise BatchNotFound(batch_id)
    await reprocessing.lock_root(conn, batch.root_batch_id)
    batch = await batches.get(conn, batch_id)
    if batch is None:
        raise BatchNotFound(batch_id)
    if batch.status in (BatchStatus.PENDING, BatchStatus.PROCESSING):
        raise WrongBatchStatus(batch_id, batch.status, "reprocessed before it has been processed")
    return batch


async def _open_run(conn: Connection, batch: ImportBatch, selection: Selection) -> UUID | None:
    """The batch that runs all these items again already.

    Raises:
        ReprocessRefused: Another batch is still to process some of them, or a choice was made.
    """
    if selection.group or selection.item_numbers or selection.transform or selection.canary:
        raise ReprocessRefused(
            "Every item was asked for (`failed_items_only` is false), which runs every item; "
            "`group`, `item_numbers`, `transform` and `canary` select among the failed ones.",
            hint="use the one or the other.",
        )
    unfinished = await reprocessing.open_tries(conn, batch.id, batch.root_batch_id)
    if not unfinished:
        return None
    for one in unfinished:
        if one.same:
            return one.batch_id
    first = unfinished[0]
    raise ReprocessRefused(
        f"Batch {first.batch_id} is still to process {first.items} of these records.",
        hint="process that batch to its end, or cancel it, first.",
    )


async def _fill(
    conn: Connection, batch: ImportBatch, child_id: UUID, selection: Selection, limits: Limits
) -> int:
    """Write the child's items and mark their origins; how many."""
    if not selection.failed_items_only:
        return await reprocessing.take_all(conn, batch.id, child_id, batch.root_batch_id)
    numbers = await _root_numbers(conn, batch, selection)
    named = selection.transform is not None and (selection.group is not None or numbers is not None)
    if numbers is not None and not selection.checked:
        await _check_named(conn, batch, selection, numbers, unreadable=named)
    if selection.canary is not None:
        numbers = await reprocessing.sample(
            conn,
            batch.root_batch_id,
            group=selection.group,
            numbers=numbers,
            unreadable=named,
            count=selection.canary,
        )
    if selection.transform is not None:
        return await _take_transformed(
            conn, batch, child_id, selection, numbers, limits, unreadable=named
        )
    return await reprocessing.take_over(
        conn, batch.root_batch_id, child_id, group=selection.group, numbers=numbers
    )


async def _root_numbers(
    conn: Connection, batch: ImportBatch, selection: Selection
) -> list[int] | None:
    if selection.item_numbers is None:
        return None
    possible = [one for one in selection.item_numbers if 0 < one <= LARGEST_NUMBER]
    found = await reprocessing.root_numbers(conn, batch.id, possible)
    if unknown := sorted(set(selection.item_numbers) - set(found)):
        raise ReprocessRefused(f"Batch {batch.id} has no items {_listed(unknown)}.")
    return list(found.values())


async def _check_named(
    conn: Connection,
    batch: ImportBatch,
    selection: Selection,
    numbers: Sequence[int],
    *,
    unreadable: bool,
) -> None:
    """Refuse when an item was named that cannot run again, before anything is marked."""
    able = await reprocessing.eligible(
        conn,
        batch.root_batch_id,
        group=selection.group,
        numbers=numbers,
        unreadable=unreadable,
        limit=len(numbers),
    )
    if len(able) == len(set(numbers)):
        return
    refused = sorted(set(numbers) - {item.root_number for item in able})
    raise ReprocessRefused(
        f"Items {_listed(refused)} (numbers in the root batch) cannot be reprocessed: "
        "they have not failed, are being reprocessed already, or could not be read.",
        hint="a record that could not be read runs only with new data (transform=…).",
        cli_hint="correct a record that could not be read with `failures --export` and "
        "`reprocess --from-file`, or with `edit`.",
        web_hint="correct a record that could not be read: edit it, or upload a corrected file.",
    )


async def _take_transformed(
    conn: Connection,
    batch: ImportBatch,
    child_id: UUID,
    selection: Selection,
    numbers: list[int] | None,
    limits: Limits,
    *,
    unreadable: bool,
) -> int:
    """The same with new records, page by page, all in the one transaction."""
    count = after = 0
    while page := await reprocessing.eligible(
        conn,
        batch.root_batch_id,
        group=selection.group,
        numbers=numbers,
        unreadable=unreadable,
        after=after,
        limit=PAGE,
    ):
        texts = [_transformed(item, selection.transform, limits) for item in page]
        count += await reprocessing.take_over_edited(
            conn, batch.root_batch_id, child_id, page, texts, change="replace", offset=count
        )
        after = page[-1].root_number
    return count


def _transformed(item: EligibleItem, transform: Transform | None, limits: Limits) -> str:
    assert transform is not None  # noqa: S101 - only called with one
    source = item.raw if item.text is None else exact_json.read(item.text)
    record = from_value(transform(source), limits=limits)
    if record.text is None:
        raise ReprocessRefused(
            f"transform made a record that cannot be stored from item {item.item_number}: "
            f"{record.reason}",
            hint="nothing was changed; correct the transform and call again.",
        )
    return record.text.decode()


async def _existing(conn: Connection, batch: ImportBatch, selection: Selection) -> UUID | None:
    """Nothing is eligible: the reprocessing that is under way, or the last one there was."""
    if not selection.failed_items_only:
        return None
    unfinished = await reprocessing.unfinished_child(conn, batch.root_batch_id)
    return unfinished or await reprocessing.newest_child(conn, batch.root_batch_id)


def _how(selection: Selection) -> dict[str, Any]:
    return {
        "group": selection.group,
        "canary": selection.canary,
        "all": not selection.failed_items_only,
    }


async def insert_child(
    conn: Connection,
    batch: ImportBatch,
    child_id: UUID,
    count: int,
    how: Mapping[str, Any],
    *,
    actor: str | None,
    options: Mapping[str, Any],
    file: SourceInfo | None = None,
) -> None:
    """The child's row, ranges and first log line, once its items are there.

    Args:
        how: What its items were selected by, for the log.
        options: Its own, beside those it inherits.
        file: What its records were read from, where that is a file of its own.
    """
    new = NewBatch(
        id=child_id,
        batch_type=batch.batch_type,
        parent_batch_id=batch.id,
        root_batch_id=batch.root_batch_id,
        reprocesses_all=bool(how.get("all")),
        created_by=actor,
        source_name=batch.source_name,
        source_columns=batch.source_columns,
        source_encoding=None if file is None else file.encoding,
        notes=() if file is None else file.notes,
    )
    inherited = {name: value for name, value in batch.options.items() if name not in OWN_OPTIONS}
    texts = exact_json.write(dict(batch.metadata)).decode(), json.dumps({**inherited, **options})
    await batches.insert(conn, new, *texts)
    await batches.complete_creation(conn, new, count, b"")
    await ranges.insert(conn, child_id, count, range_size(count), with_failures=False)
    details = {"actor": actor, "items": count, "reprocesses": batch.id, **how}
    await logs.insert(conn, child_id, LogLevel.INFO, "batch created", details)


def _listed(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:10]))
    return f"{shown} and {len(numbers) - 10} more" if len(numbers) > 10 else shown


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


def canary_options(selection: Selection, options: ReprocessOptions) -> dict[str, Any]:
    """The options of a reprocessing that is a canary; none for any other.

    Raises:
        ConfigurationError: The canary cannot work.
    """
    if selection.canary is None:
        return {}
    canary = Canary(selection.canary, options.get("min_success", MIN_SUCCESS))
    continues = options.get("continues", False)
    return canary.options(selection, continues=continues, actor=options.get("actor"))


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
                await reprocessing.decide_canary(conn, batch.id, None)
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
            found = await reprocessing.undecided_canaries(conn, batch_types, limit)
            left = [await batches.get(conn, batch_id) for batch_id in found]
        for batch in left:
            if batch is not None:
                await self.after(batch)


def nothing_to_reprocess(summary: BatchSummary) -> str:
    """Why a reprocessing created no batch, given the summary of the lineage's latest batch."""
    if not summary.outstanding_items:
        return "Nothing to reprocess: all failures were fixed by later batches."
    return "Nothing to reprocess: the outstanding records must be corrected first."
