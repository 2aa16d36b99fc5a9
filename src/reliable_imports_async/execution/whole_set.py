"""Runs a set of records in one transaction, without an object for each of them.

Most sets of a bulk import have no bad record. They are read, written, settled and committed column
by column. If anything stops a set, it is rolled back without an outcome, and its records run as
items of a chunk, which finds out what each of them did.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any

import anyio.lowlevel
import asyncpg

from .. import exact_json
from ..cancellation import must_propagate
from ..database.guard import Connection, GuardedConnection
from ..exact_json import LARGE
from ..log_buffer import LogLine
from ..models import ImportBatch, ImportBatchItem
from ..outcomes import COMPLETED, Completed, Failed, Outage, Outcome, Skip
from ..processors.processor import is_set_wise
from ..store import settlements
from ..store.items import PendingRow, item_of, read_rows
from .attempt import Attempt
from .chunk_progress import SuspectKeys
from .executor import Executor
from .prepare import data_of
from .session import OURS, Session

READING_SECONDS = 0.01  # of reading records into their model, before other tasks run
FEWEST_PASSED_OVER = 8
MOST_PASSED_OVER = 128


@dataclass(slots=True)
class Records:
    """Records that the processor's model has read.

    Attributes:
        batch: Their batch.
        attempts: The stored attempts of each.
        rows: Their rows, in order.
        sources: The parsed records.
        data: The same as the processor's model.
    """

    batch: ImportBatch
    attempts: int
    rows: list[PendingRow] = field(default_factory=list)
    sources: list[Any] = field(default_factory=list)
    data: list[Any] = field(default_factory=list)

    @property
    def numbers(self) -> list[int]:
        """The numbers of the records."""
        return [row[0] for row in self.rows]

    def items(self) -> list[ImportBatchItem[Any]]:
        """The records as items that were read."""
        ids = (self.batch.id, self.batch.root_batch_id)
        read = zip(self.rows, self.sources, self.data, strict=True)
        return [item_of(row, source, data, *ids) for row, source, data in read]

    def new_items(self) -> list[ImportBatchItem[Any]]:
        """The records as they are stored, for they may have been changed by code that failed."""
        ids = (self.batch.id, self.batch.root_batch_id)
        return [item_of(row, data := exact_json.read(row[2]), data, *ids) for row in self.rows]


class WholeSets:
    """Reads and executes whole sets; used by the drain and by all slots.

    After a set that could not run as a whole, some sets are passed over, and more after the next:
    in a batch of which every set has a bad record, they would nearly all run for nothing.

    Args:
        chunk_size: How many items share a transaction at most.
        suspect_keys: Learns the key that a failure of a set names.
    """

    def __init__(self, executor: Executor, chunk_size: int, suspect_keys: SuspectKeys) -> None:
        self._executor = executor
        self._suspect_keys = suspect_keys
        processor = executor.processor
        hooks = processor.overrides("validate_item") or processor.overrides("prepare_item")
        self._possible = (
            is_set_wise(type(processor))
            and not hooks
            and executor.remembering is None
            and chunk_size > 1
        )
        self._read_one = partial(data_of, processor)
        self._passed_over = 0
        self._to_pass_over = FEWEST_PASSED_OVER

    @property
    def usable(self) -> bool:
        """Whether records may be read as sets now."""
        return self._possible and self._executor.ordering.only_fields

    def is_next(self) -> bool:
        """Whether the next set runs as a whole."""
        self._passed_over = max(0, self._passed_over - 1)
        return not (self._passed_over or self._executor.conflicted)

    async def read(self, rows: Sequence[PendingRow]) -> list[Records | ImportBatchItem[Any]]:
        """Read records into sets, in order, and those that do not fit a set as items.

        Records that their model refuses come last: they have no keys.
        """
        batch, until = self._executor.batch, perf_counter() + READING_SECONDS
        read: list[Records | ImportBatchItem[Any]] = []
        refused: list[ImportBatchItem[Any]] = []
        for row in rows:
            if len(row[2]) > LARGE:
                read += await read_rows([row], batch.id, batch.root_batch_id)
                continue
            source = exact_json.read(row[2])
            try:
                data = self._read_one(source)
            except Exception:  # noqa: BLE001 - the item fails with it when it is prepared
                refused.append(item_of(row, source, source, batch.id, batch.root_batch_id))
                continue
            records = read[-1] if read else None
            if not isinstance(records, Records) or records.attempts != row[1]:
                records = Records(batch, row[1])
                read.append(records)
            records.rows.append(row)
            records.sources.append(source)
            records.data.append(data)
            if perf_counter() > until:
                await anyio.lowlevel.checkpoint()
                until = perf_counter() + READING_SECONDS
        return [*read, *refused]

    async def execute(
        self, records: Records, session: Session
    ) -> Sequence[Completed | Skip] | None:
        """Run a set in a transaction of its own.

        Returns:
            The outcomes in order; None: nothing has happened, and each record must run as an item.

        Raises:
            Outage: The server failed; only the items' rows, read under their locks, have the
                outcomes.
        """
        outcomes = await self._transact(records, session)
        if outcomes is None:
            self._passed_over = self._to_pass_over + 1
            self._to_pass_over = min(MOST_PASSED_OVER, 2 * self._to_pass_over)
        else:
            self._to_pass_over = FEWEST_PASSED_OVER
        return outcomes

    async def _transact(
        self, records: Records, session: Session
    ) -> Sequence[Completed | Skip] | None:
        """Run one transaction, from BEGIN to COMMIT."""
        conn = await session.begin()
        executor, version = self._executor, self._executor.ordering.version
        attempt, run = Attempt(session, conn), None
        try:
            await executor.database.configure_transaction(conn, executor.item_timeout)
            with attempt as guard:
                run = await self._run(guard, records, session)
                attempt.finish()
            if attempt.raised is not None:
                await attempt.conclude(attempt.raised)
                if must_propagate(attempt.raised):
                    raise attempt.raised
                self._learn(attempt, records, session)
            elif (
                run is not None
                and not (guard.changed_transaction or guard.names_savepoints)
                and executor.ordering.version == version
                and await self._settle(conn, records, run)
                and await executor.commit(session, chain=session.more()) is None
            ):
                return run.outcomes
        except BaseException as exc:
            await session.leave(plain=isinstance(exc, asyncpg.PostgresError))
            if must_propagate(exc) or not isinstance(exc, OURS):
                raise
            return None
        await session.leave(plain=attempt.undisturbed)
        return None

    def _learn(self, attempt: Attempt, records: Records, session: Session) -> None:
        """Learn which key failed, so that the chunk sets its items apart at once."""
        if attempt.raised is not None and not session.lost:
            with suppress(Outage):
                first = records.items()[0]
                outcome = self._executor.outcome_of(attempt.raised, first, own=attempt.own)
                if isinstance(outcome, Failed):
                    self._suspect_keys.learn(outcome.failure)

    async def _run(self, guard: GuardedConnection, records: Records, session: Session) -> "_Run":
        """Run the processor's code for a set."""
        executor, log = self._executor, self._executor.new_log()
        invoker, limit = executor.invoker, session.limit
        items = () if invoker.declared else records.items()
        ctx = executor.set_context(items, guard, log)
        if not invoker.declared:
            outcomes = await invoker.call_for_set(items, ctx, limit)
            return _Run(outcomes, items, log.finished())
        table, ids = await invoker.upsert_data(records.data, ctx, limit)
        return _Run([COMPLETED] * len(ids), table=table, ids=ids)

    async def _settle(self, conn: Connection, records: Records, run: "_Run") -> bool:
        """Send the last statement before COMMIT; False: the fence is lost for some record."""
        batch_id, timeout = records.batch.id, self._executor.settings.commit_timeout
        if run.items:
            settled = await settlements.settle(
                conn,
                batch_id,
                list(map(_Settlement, run.items, run.outcomes)),
                timeout=timeout,
                lines=run.lines,
            )
        else:
            settled = await settlements.settle_completed(
                conn,
                batch_id,
                numbers := records.numbers,
                attempts=records.attempts,
                table=run.table,
                ids=dict(zip(numbers, run.ids, strict=True)),
                timeout=timeout,
            )
        return settled == len(records.rows)


@dataclass(frozen=True, slots=True)
class _Run:
    """What the processor's code did for a set.

    Attributes:
        outcomes: One for each record, in order.
        items: The records as items, if the code got items.
        lines: Log lines about the set.
        table, ids: Otherwise, the table and the keys of the rows that were written.
    """

    outcomes: Sequence[Completed | Skip]
    items: Sequence[ImportBatchItem[Any]] = ()
    lines: Sequence[LogLine] = ()
    table: str | None = None
    ids: Sequence[str | None] = ()


@dataclass(frozen=True, slots=True)
class _Settlement:
    """An item of a set that succeeded, with no log lines of its own."""

    item: ImportBatchItem[Any]
    outcome: Outcome
    lines: Sequence[LogLine] = ()
    seconds: float = 0.0
