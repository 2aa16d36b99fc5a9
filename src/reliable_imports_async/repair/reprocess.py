"""Creates the batches that run items again: the outstanding ones, all of them, or a canary.

`create_child` is the way in, and the only code that reruns an item that succeeded, if asked to.
`Continuation` runs the rest of a canary that has passed.
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
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
# The options that a batch does not pass on to its reprocessings.
OWN_OPTIONS = frozenset({"after_create", "canary", "expect", "forgiven", "request_sha256"})


class ReprocessOptions(TypedDict, total=False):
    """The keyword arguments of `create_reprocessing`.

    Attributes:
        group: Only failures of this group.
        item_numbers: Only these items of the batch.
        transform: Makes the new record from the old one.
        canary: How many items run first.
        min_success: The share of the canary's items (0 to 1) that must succeed.
        actor: The user, for the log.
        continues: Whether the process that finishes the canary, this one or a worker, runs the rest
            if it has passed; otherwise only `process_reprocessing` does. With a `transform`, which
            other processes do not have, only `process_reprocessing` does in any case.
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
    """The items to run again.

    Attributes:
        failed_items_only: False runs every item of the batch again, even those that succeeded.
        group: Only failures of this group.
        item_numbers: Only these items of the batch.
        transform: Makes the new record from the old one. An unreadable record is included only if
            `group` or `item_numbers` select it; `transform` then receives its raw bytes.
        canary: Only a sample of this many items.
        checked: Whether items of `item_numbers` that succeeded meanwhile are left out instead of
            refused.
    """

    failed_items_only: bool = True
    group: str | None = None
    item_numbers: tuple[int, ...] | None = None
    transform: Transform | None = None
    canary: int | None = None
    checked: bool = False

    @classmethod
    def of(cls, failed_items_only: bool, options: ReprocessOptions) -> Self:  # noqa: FBT001
        """The selection for the arguments of `reprocess_batch`."""
        numbers = options.get("item_numbers")
        return cls(
            failed_items_only=failed_items_only,
            group=options.get("group"),
            item_numbers=None if numbers is None else tuple(numbers),
            transform=options.get("transform"),
            canary=options.get("canary"),
        )


@dataclass(frozen=True, slots=True)
class Canary:
    """A sample whose success decides about the rest; stored in the options of its batch.

    Attributes:
        size: The number of items in the sample.
        min_success: The share of them (0 to 1) that must complete or be skipped.

    Raises:
        ConfigurationError: One of the two is not valid.
    """

    size: int
    min_success: float

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 <= self.min_success <= 1:
            raise ConfigurationError(
                f"A canary of {counted(self.size, 'item')} with min_success {self.min_success} "
                "is not valid.",
                hint="canary is at least 1, min_success a share from 0 to 1, such as 0.9.",
            )

    def options(
        self, selection: Selection, *, continues: bool, actor: str | None
    ) -> dict[str, Any]:
        """The options of the canary's batch, with which any process can run the rest.

        Args:
            selection: The items of which it is a sample.
            continues: Whether the process that finishes the canary runs the rest by itself. It
                cannot if there is a transform, which is code that the database cannot store.
            actor: The user.
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
    """The options of a canary; none for a reprocessing without one.

    Raises:
        ConfigurationError: The canary is not valid.
    """
    if selection.canary is None:
        return {}
    canary = Canary(selection.canary, options.get("min_success", MIN_SUCCESS))
    continues = options.get("continues", False)
    return canary.options(selection, continues=continues, actor=options.get("actor"))


def rest_of(options: Mapping[str, Any], selection: Selection) -> Selection:
    """The items that remain to run when the canary with these options has passed."""
    canary = options["canary"]
    numbers = canary["item_numbers"]
    return replace(
        selection,
        group=canary["group"],
        item_numbers=None if numbers is None else tuple(numbers),
        checked=True,
    )


def stopped_by(options: Mapping[str, Any], summary: BatchSummary) -> str | None:
    """Why the canary has not passed, so that the rest must not run; None if it has passed."""
    min_success = options["canary"]["min_success"]
    succeeded = summary.completed_items + summary.skipped_items
    finished = summary.finished_at is not None and summary.status is not BatchStatus.CANCELLED
    if finished and succeeded >= min_success * summary.total_items:
        return None
    return (
        f"the canary has not passed: {succeeded:,} of {counted(summary.total_items, 'item')} "
        f"succeeded, and {min_success:.0%} must; the other items were not run"
    )


class Continuation:
    """Creates the batches for the rest of canaries; all of its state is in the database.

    The canary's options say that a rest is due until the transaction that creates its batch. So
    after a crash, the next process that works on the batch or sweeps creates it.
    """

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database = database
        self._limits = limits

    async def after(self, batch: ImportBatch) -> UUID | None:
        """The batch of the rest after a finished canary; None if there is none."""
        canary = batch.options.get("canary")
        if canary is None or batch.finished_at is None:
            return None
        if not canary.get("continues"):
            return None if canary.get("rest") is None else UUID(canary["rest"])
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
            canary.get("actor"),
            rest_of=batch.id,
        )

    async def sweep(self, batch_types: Sequence[str], limit: int) -> None:
        """Continue finished canaries whose process died before it created the rest."""
        async with self._database.connection() as conn:
            batch_ids = await reprocessing.undecided_canaries(conn, batch_types, limit)
            undecided = [await batches.get(conn, batch_id) for batch_id in batch_ids]
        for batch in undecided:
            if batch is not None:
                await self.after(batch)


def nothing_to_reprocess(summary: BatchSummary) -> str:
    """Why a reprocessing created no batch, given the summary of the lineage's latest batch."""
    if not summary.outstanding_items:
        return "Nothing to reprocess: all failures were fixed by later batches."
    return "Nothing to reprocess: the outstanding records must be corrected first."


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
    """Create the batch that runs the selected items again.

    Args:
        options: The new batch's own options, in addition to those it inherits.
        child_id: The id of the new batch, if one is created.
        rest_of: A canary that has passed. The new batch, or that there is none, is stored with it
            in the same transaction; the new batch is enqueued if the canary was.

    Returns:
        The new batch, or the batch in progress that already runs all items again. If no item is
        eligible, the lineage's unfinished or newest reprocessing, or None.

    Raises:
        BatchNotFound: The batch does not exist.
        WrongBatchStatus: The batch has not ended yet.
        ReprocessRefused: Some of the named items cannot run again; or all items are to run again,
            and another batch has yet to process some of them.
    """
    child_id = child_id or uuid7()
    async with lineage_transaction(database) as conn:
        batch = await locked(conn, batch_id)
        if not selection.failed_items_only and (same := await _same_run(conn, batch, selection)):
            return same
        if rest_of is not None and not await reprocessing.decide_canary(conn, rest_of, child_id):
            return await _stored_rest(conn, rest_of)
        count = await _fill(conn, batch, child_id, selection, limits)
        if not count and rest_of is not None:
            await reprocessing.note_no_rest(conn, rest_of)
        if not count:
            return None if rest_of is not None else await _existing(conn, batch, selection)
        own = dict(options or {})
        if not selection.failed_items_only:  # all items were asked for, even unchanged ones
            own["skip_unchanged"] = False
        await insert_child(
            conn, batch, child_id, count, _details(selection), actor=actor, options=own
        )
        if rest_of is not None and await reprocessing.is_enqueued(conn, rest_of):
            await enqueue.enqueue(conn, child_id)
    return child_id


@asynccontextmanager
async def lineage_transaction(database: Database) -> AsyncIterator[Connection]:
    """Open a transaction that can take the root's lock.

    It is READ COMMITTED even if another isolation level is the default: after waiting for the
    lock, it must see the changes of the transaction that held it.
    """
    async with (
        database.connection(seconds=None) as conn,
        conn.transaction(isolation="read_committed"),
    ):
        yield conn


async def locked(conn: Connection, batch_id: UUID) -> ImportBatch:
    """Lock the root of a batch, and read the batch.

    Raises:
        BatchNotFound: The batch does not exist.
        WrongBatchStatus: The batch has not ended yet.
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


async def insert_child(
    conn: Connection,
    batch: ImportBatch,
    child_id: UUID,
    count: int,
    selected_by: Mapping[str, Any],
    *,
    actor: str | None,
    options: Mapping[str, Any],
    file: SourceInfo | None = None,
) -> None:
    """Insert the child's row, ranges and first log line, after its items.

    Args:
        conn: A connection in a lineage transaction.
        batch: The batch that is reprocessed.
        child_id: The new batch.
        count: The number of its items.
        selected_by: How its items were selected, for the log.
        actor: The user, for the log.
        options: Its own options, in addition to those it inherits.
        file: The file that its records were read from, if there is one.
    """
    new = NewBatch(
        id=child_id,
        batch_type=batch.batch_type,
        parent_batch_id=batch.id,
        root_batch_id=batch.root_batch_id,
        reprocesses_all=bool(selected_by.get("all")),
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
    details = {"actor": actor, "items": count, "reprocesses": batch.id, **selected_by}
    await logs.insert(conn, child_id, LogLevel.INFO, "batch created", details)


def _details(selection: Selection) -> dict[str, Any]:
    return {
        "group": selection.group,
        "canary": selection.canary,
        "all": not selection.failed_items_only,
    }


async def _stored_rest(conn: Connection, canary_id: UUID) -> UUID | None:
    """The batch that runs the rest of a canary, as another process has decided."""
    canary = await batches.get(conn, canary_id)
    rest = None if canary is None else canary.options["canary"].get("rest")
    return None if rest is None else UUID(rest)


async def _same_run(conn: Connection, batch: ImportBatch, selection: Selection) -> UUID | None:
    """The batch in progress that already runs all these items again.

    Raises:
        ReprocessRefused: Another batch has yet to process some of them, or only some were selected.
    """
    if selection.group or selection.item_numbers or selection.transform or selection.canary:
        raise ReprocessRefused(
            "All items were requested (`failed_items_only` is false), but `group`, `item_numbers`, "
            "`transform` and `canary` select failed items.",
            hint="use only one of the two.",
        )
    unfinished = await reprocessing.open_tries(conn, batch.id, batch.root_batch_id)
    if not unfinished:
        return None
    for run in unfinished:
        if run.same:
            return run.batch_id
    first = unfinished[0]
    raise ReprocessRefused(
        f"Batch {first.batch_id} has yet to process {counted(first.items, 'record')} of this "
        "batch.",
        hint="process that batch to its end, or cancel it, first.",
    )


async def _existing(conn: Connection, batch: ImportBatch, selection: Selection) -> UUID | None:
    """The reprocessing in progress, or else the newest one, if no item is eligible."""
    if not selection.failed_items_only:
        return None
    unfinished = await reprocessing.unfinished_child(conn, batch.root_batch_id)
    return unfinished or await reprocessing.newest_child(conn, batch.root_batch_id)


async def _fill(
    conn: Connection, batch: ImportBatch, child_id: UUID, selection: Selection, limits: Limits
) -> int:
    """Insert the child's items, mark their origins, and return the number of items."""
    if not selection.failed_items_only:
        return await reprocessing.take_all(conn, batch.id, child_id, batch.root_batch_id)
    numbers = await _root_numbers(conn, batch, selection)
    named = selection.transform is not None and (selection.group is not None or numbers is not None)
    eligible = partial(
        reprocessing.eligible,
        conn,
        batch.root_batch_id,
        group=selection.group,
        unreadable=named,
    )
    if numbers is not None and not selection.checked:
        _require_all(numbers, await eligible(numbers=numbers, limit=len(numbers)))
    if selection.canary is not None:
        numbers = await reprocessing.sample(
            conn,
            batch.root_batch_id,
            group=selection.group,
            numbers=numbers,
            unreadable=named,
            count=selection.canary,
        )
    if selection.transform is None:
        return await reprocessing.take_over(
            conn, batch.root_batch_id, child_id, group=selection.group, numbers=numbers
        )
    count = after = 0
    while page := await eligible(numbers=numbers, after=after, limit=PAGE):
        texts = [_transformed(item, selection.transform, limits) for item in page]
        count += await reprocessing.take_over_edited(
            conn, batch.root_batch_id, child_id, page, texts, change="replace", offset=count
        )
        after = page[-1].root_number
    return count


async def _root_numbers(
    conn: Connection, batch: ImportBatch, selection: Selection
) -> list[int] | None:
    if selection.item_numbers is None:
        return None
    possible = [number for number in selection.item_numbers if 0 < number <= LARGEST_NUMBER]
    roots = await reprocessing.root_numbers(conn, batch.id, possible)
    if unknown := sorted(set(selection.item_numbers) - set(roots)):
        noun = "item" if len(unknown) == 1 else "items"
        raise ReprocessRefused(f"Batch {batch.id} has no {noun} {_listed(unknown)}.")
    return list(roots.values())


def _require_all(numbers: Sequence[int], eligible: Sequence[EligibleItem]) -> None:
    """Refuse the selection if some of the named items are not eligible."""
    if len(eligible) == len(set(numbers)):
        return
    refused = sorted(set(numbers) - {item.root_number for item in eligible})
    items, verbs = ("Items", "they have not failed, are")
    if len(refused) == 1:
        items, verbs = ("Item", "it has not failed, is")
    raise ReprocessRefused(
        f"{items} {_listed(refused)} (by number in the root batch) cannot be reprocessed: "
        f"{verbs} already being reprocessed, or could not be read.",
        hint="an unreadable record needs new data (transform=…).",
        cli_hint="correct an unreadable record with `failures --export` and "
        "`reprocess --from-file`, or with `edit`.",
        web_hint="correct an unreadable record: edit it, or upload a corrected file.",
    )


def _transformed(item: EligibleItem, transform: Transform, limits: Limits) -> str:
    source = item.raw if item.text is None else exact_json.read(item.text)
    record = from_value(transform(source), limits=limits)
    if record.text is None:
        raise ReprocessRefused(
            f"The record that transform returned for item {item.item_number} cannot be stored: "
            f"{record.reason}",
            hint="nothing was changed; correct the transform and call again.",
        )
    return record.text.decode()


def _listed(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:10]))
    return f"{shown} and {len(numbers) - 10} more" if len(numbers) > 10 else shown
