"""The mutants: what is broken, by an exact replacement, and which tests must turn red."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Edit:
    """A further replacement of the same mutant; the attributes are as there."""

    file: str
    old: str
    new: str
    times: int = 1


@dataclass(frozen=True, slots=True)
class Mutant:
    """One way to break the protocol.

    Attributes:
        name: What is broken.
        file: In the package.
        old: Text that occurs exactly once there, or `times` times.
        new: What replaces it.
        tests: Arguments for pytest; at least one of these tests must fail.
        torture: Arguments for the torture, with the faults that this protocol cannot bear; it must
            find a violation, and none with the protocol as it is.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    times: int = 1
    torture: tuple[str, ...] = ()
    also: tuple[Edit, ...] = ()

    @property
    def edits(self) -> tuple[Edit, ...]:
        """All its replacements."""
        return (Edit(self.file, self.old, self.new, self.times), *self.also)


MUTANTS = (
    Mutant(
        "no fence",
        "migrations/0015_shared_statements.sql",
        "AND i.status = 'pending' AND i.attempts = tries AND i.reprocessed_by IS NULL",
        "AND tries >= 0",
        ("tests/system/test_processes.py::test_two_processes_drain_one_batch_together[no_lease]",),
        torture=("--kinds", "freeze"),
        also=(
            Edit(
                "store/sql/settlements.sql",
                "AND status = 'pending' AND attempts = $3 AND reprocessed_by IS NULL",
                "AND $3::integer >= 0",
            ),
            Edit(
                "store/sql/settlements.sql",
                "AND i.status = 'pending' AND i.attempts = $3 AND i.reprocessed_by IS NULL",
                "AND $3::integer >= 0",
            ),
            Edit(
                "store/sql/settlements.sql",
                " AND i.status = 'pending'\n       AND i.attempts = ((SELECT g.outcomes FROM given g) "
                "-> i.item_number::text ->> 'attempts')::integer\n       AND i.reprocessed_by IS NULL\n",
                "\n",
            ),
        ),
    ),
    Mutant(
        "two transactions",
        "execution/executor.py",
        "            chain = not (guard.changed_transaction or guard.trace) and session.more()\n",
        "            chain = not (guard.changed_transaction or guard.trace) and session.more()\n"
        "            await session.commit(chain=True)\n",
        (
            "tests/system/test_processes.py::test_kill_9_in_the_middle_of_a_batch_loses_and_doubles_nothing",
            "tests/system/test_processes.py::test_a_connection_cut_while_commit_is_in_flight",
            "tests/execution/test_reliability.py::test_a_swallowed_sql_error_fails_the_item",
        ),
        torture=("--kinds", "kill,terminate,cut_request"),
    ),
    Mutant(
        "settle first",
        "execution/executor.py",
        "            outcome = await self.invoker.call(item, ctx, session.limit)\n",
        "            await self._settle(conn, item, Completed(), ())\n"
        "            outcome = await self.invoker.call(item, ctx, session.limit)\n"
        "            await self.commit(session, chain=False)\n"
        "            return outcome\n",
        ("tests/execution/test_reliability.py::test_a_swallowed_sql_error_fails_the_item",),
    ),
    Mutant(
        "in doubt counted as failed",
        "execution/executor.py",
        "            raise outage(exc, lost=True, redact=self.database.redact) from exc\n"
        "        return None",
        "            return RuntimeError(str(exc))\n        return None",
        ("tests/system/test_processes.py::test_a_connection_cut_while_commit_is_in_flight",),
        torture=("--kinds", "lose_commit,lose_answer"),
    ),
    Mutant(
        "plain SELECT when in doubt",
        "store/sql/settlements.sql",
        " ORDER BY item_number\n   FOR UPDATE;",
        " ORDER BY item_number;",
        ("tests/system/test_processes.py::test_an_outcome_in_doubt_is_read_under_the_row_lock",),
        torture=("--kinds", "abandon_commit", "--slow-commits", "--max-wait", "100"),
    ),
    Mutant(
        "no reset after a hook",
        "runner/lifecycle.py",
        "            self._database.note_trace(tx.conn, guard.left_behind)\n",
        "",
        ("tests/database/test_traces.py", "-k", "Start or Complete or Check"),
    ),
    Mutant(
        "no reset after an item",
        "execution/attempt.py",
        "            self._session.note(guard)\n            self._session.refuse(guard.trace)\n",
        "            pass\n",
        ("tests/database/test_traces.py", "-k", "Item or Prepared"),
    ),
    Mutant(
        "connection reused after a cancellation",
        "execution/session.py",
        "            drop(connection)\n            await self._database.give_back(connection)\n\n"
        "    async def close",
        "            self._connection = connection\n\n    async def close",
        ("tests/execution/test_reliability.py", "tests/execution/test_cancellation.py"),
    ),
    Mutant(
        "batch finished without looking again",
        "runner/lifecycle.py",
        "        if await ranges.any_unfinished(conn, batch_id):\n            return batch, summary\n",
        "",
        ("tests/runner/test_ending.py::test_a_finish_waits_for_a_range_that_is_still_leased",),
        also=(
            Edit(
                "store/sql/batches.sql",
                "   AND NOT EXISTS (SELECT FROM reliable_imports.import_batch_ranges r "
                "WHERE r.batch_id = b.id AND r.state <> 'done')\nRETURNING b.started_at",
                "RETURNING b.started_at",
            ),
        ),
    ),
    Mutant(
        "batch finished inside the range's transaction",
        "store/sql/ranges.sql",
        "SELECT EXISTS (SELECT FROM reliable_imports.import_batch_ranges r "
        "WHERE r.batch_id = $1 AND r.state <> 'done');",
        "SELECT EXISTS (SELECT FROM reliable_imports.import_batch_ranges r "
        "WHERE r.batch_id = $1 AND (r.state <> 'done' OR r.xmin::text::bigint >= "
        "pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 8));",
        ("tests/runner/test_ending.py",),
        torture=("--kinds", "freeze", "--faults", "5", "--foreground", "--batch-items", "200"),
    ),
    Mutant(
        "errors stored unsanitised",
        "sanitize.py",
        '    clean = text[:limit].replace("\\x00", "\\\\x00")\n',
        "    clean = text[:limit]\n",
        ("tests/runner/test_ending.py",),
    ),
    Mutant(
        "leases taken from the living",
        "store/sql/ranges.sql",
        "(r.worker_id = $2\n                     OR greatest(r.lease_until, pg_postmaster_start_time() + "
        "make_interval(secs => $3)) < clock_timestamp())",
        "true",
        ("tests/system/test_processes.py::test_two_processes_drain_one_batch_together[lease]",),
    ),
    Mutant(
        "reprocessing without its mark",
        "store/sql/reprocessing.sql",
        "       SET reprocessed_by = $2\n      FROM reliable_imports.import_eligible_items e\n",
        "       SET reprocessed_by = NULL\n      FROM reliable_imports.import_eligible_items e\n",
        ("tests/repair/test_reprocess.py", "tests/repair/test_one_open_try.py"),
    ),
    Mutant(
        "a second open try of a record",
        "store/sql/reprocessing.sql",
        "     WHERE t.batch_id = excluded.replaces\n",
        "     WHERE true\n",
        (
            "tests/repair/test_one_open_try.py::test_the_key_refuses_a_second_try_even_without_the_lock",
        ),
    ),
    Mutant(
        "a late failure mark of a hook",
        "store/sql/batches.sql",
        "   SET status = 'failed', error = $2\n"
        " WHERE id = $1 AND started_at IS NULL AND status IN ('pending', 'failed');",
        "   SET status = 'failed', error = $2\n"
        " WHERE id = $1 AND finished_at IS NULL AND status IN ('pending', 'processing', 'failed');",
        ("tests/runner/test_lifecycle.py",),
    ),
    Mutant(
        "a hook that dies with its process",
        "store/sql/outbox.sql",
        "   SET claimed_by = $3, claimed_until = clock_timestamp() + make_interval(secs => $4),\n",
        "   SET claimed_by = $3, claimed_until = 'infinity',\n",
        ("tests/runner/test_outbox.py::test_a_real_kill_in_the_hook",),
    ),
    Mutant(
        "a pass begun by everybody who asks",
        "store/sql/ranges.sql",
        " AND b.pass_number = $2 ",
        " AND b.pass_number >= $2 ",
        ("tests/runner/test_deferral.py::test_only_one_of_two_begins_the_next_pass",),
    ),
    Mutant(
        "failures stored although the batch pauses",
        "execution/settler.py",
        "            await session.rollback()\n            return Rescheduled()\n",
        "            pass\n",
        (
            "tests/execution/test_reliability.py::test_a_missing_table_pauses_the_batch_with_its_reason",
        ),
    ),
    Mutant(
        "an item waits for ever for what only it meets",
        "runner/slots.py",
        "        return replace(failure, kind=FailureKind.EXCEPTION) if to_blame else None\n",
        "        return None\n",
        (
            "tests/execution/test_user_faults.py::test_when_an_item_is_to_blame_for_its_outages",
            "tests/execution/test_user_faults.py"
            "::test_an_error_that_only_one_item_meets_again_and_again_fails_it",
        ),
    ),
    Mutant(
        "an exit of an item's code ends the process",
        "failures.py",
        "    return isinstance(exc, SystemExit) and _is_raised_by_handler(exc)\n",
        "    return isinstance(exc, SystemExit)\n",
        ("tests/execution/test_user_faults.py::test_an_exit_of_the_code_itself_is_told_apart",),
    ),
    Mutant(
        "items of one key run side by side",
        "runner/drain.py",
        "                entry.keys, entry.read = self._ordering.keys(entry.item)\n",
        "                entry.keys, entry.read = (), None\n",
        ("tests/execution/test_key_order.py", "-k", "one_after_the_other and interval-1"),
    ),
    Mutant(
        "ranges claimed whatever waits before them",
        "runner/drain.py",
        "KeyOrder(self._in_order(), ordering.kinds, among)",
        "KeyOrder(self._in_order(), None, among)",
        ("tests/execution/test_key_order.py", "-k", "one_after_the_other and interval-2"),
    ),
    Mutant(
        "rows that a statement wrote are not counted",
        "processors/upsert.py",
        "        if written != len(positions):\n",
        "        if written > len(positions):\n",
        ("tests/processors/test_writes.py::test_an_item_whose_row_is_suppressed_fails",),
    ),
)
