"""Every refusal this library raises, and what to do about each.

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
  + SourceError (ValueError)
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

Signals that a processor raises on purpose (`Retry`) are not errors; they live in `outcomes`.
"""

from collections.abc import Sequence
from uuid import UUID


class ReliableImportsError(Exception):
    """The base of every error raised by this library.

    Args:
        hint: What to do about it; in Python's words where they differ from place to place.
        cli_hint: The same in the words of the command line; None where `hint` fits there too.
        web_hint: The same for HTTP clients and the dashboard; None where `hint` fits there too.

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


class ConfigurationError(ReliableImportsError, ValueError):
    """A setting or an argument cannot work."""


class DatabaseUrlMissing(ConfigurationError):
    """No database was named, neither in code nor in the environment."""

    def __init__(self) -> None:
        super().__init__(
            "No database is configured.",
            hint="pass a URL (BatchManager('postgresql://user@host/db')) or set "
            "RELIABLE_IMPORTS_DATABASE_URL; for a PostgreSQL that this library starts itself, "
            "install reliable-imports-async[embedded] and use BatchManager.embedded() or the "
            "URL 'embedded:'.",
        )


class PoolTooSmall(ConfigurationError):
    """The pool leaves no connection for items."""

    def __init__(self, size: int, needed: int) -> None:
        super().__init__(
            f"The pool holds at most {size} connections; at least {needed} are needed.",
            hint=f"create it with max_size={needed} or more: three connections are kept for "
            "control statements, read-only validation and queries, the rest run items.",
        )
        self.size = size
        self.needed = needed


class PoolerUnsupported(ConfigurationError):
    """The connection goes through a transaction pooler in a way that cannot work."""


class EmbeddedServerError(ConfigurationError):
    """The embedded PostgreSQL could not be installed, started or reached."""


class DatabaseUnavailable(ReliableImportsError, ConnectionError):
    """The server could not be reached, or refused the connection."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(
            f"PostgreSQL at {where} cannot be reached: {reason}",
            hint="check that the server runs and that host, port, user and database are right; "
            "`reliable-imports migrate --check` tests the same connection.",
        )
        self.where = where


class DatabaseReadOnly(DatabaseUnavailable):
    """The server takes no writes: it is a standby, or its transactions are read-only."""

    def __init__(self, reason: str) -> None:
        super(DatabaseUnavailable, self).__init__(
            f"The database takes no writes: {reason}.",
            hint="connect to the primary server (in a URL with several hosts: "
            "target_session_attrs=read-write), or set default_transaction_read_only = off for "
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
        )


class SchemaOutdated(SchemaError):
    """Migrations are waiting."""

    def __init__(self, pending: Sequence[str]) -> None:
        super().__init__(
            f"The schema reliable_imports is outdated: {', '.join(pending)} not applied.",
            hint="run `reliable-imports migrate`.",
        )
        self.pending = tuple(pending)


class SchemaTooNew(SchemaError):
    """A newer version of the library has migrated this database."""

    def __init__(self, unknown: Sequence[str]) -> None:
        super().__init__(
            f"The database has migrations this version does not know: {', '.join(unknown)}.",
            hint="upgrade reliable-imports-async here to the version that migrated it.",
        )
        self.unknown = tuple(unknown)


class QueueMissing(SchemaError):
    """PgQueuer's tables are not in this database."""

    def __init__(self) -> None:
        super().__init__(
            "The tables of PgQueuer, by which workers are told of batches, do not exist.",
            hint="run `reliable-imports migrate`, or `await manager.migrate()`.",
        )


RIGHTS_HINT = (
    "let the owner run: GRANT USAGE ON SCHEMA reliable_imports TO that role; GRANT SELECT, INSERT, "
    "UPDATE, DELETE ON ALL TABLES IN SCHEMA reliable_imports TO that role. If it is not the role "
    "that you connect with, another one was set (ALTER ROLE … SET role, SET ROLE without RESET "
    "ROLE): undo that."
)


MIGRATING_HINT = (
    "run `reliable-imports migrate` as the owner of the database (or of the schema "
    "reliable_imports), or GRANT CREATE ON DATABASE to the role."
)


class RightsMissing(SchemaError):
    """The role may not use the tables of this library."""

    def __init__(self, reason: str) -> None:
        migrating = "for database" in reason or "must be owner" in reason
        hint = MIGRATING_HINT if migrating else RIGHTS_HINT
        super().__init__(f"The database role lacks a right: {reason}.", hint=hint)


class ServerTooOld(SchemaError):
    """PostgreSQL itself is older than what is supported."""

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
            hint="call manager.registry.discover('your.package') or register(YourProcessor) first; "
            "on the command line name the package with --processors.",
        )
        self.batch_type = batch_type


class DuplicateBatchType(RegistryError):
    """Two processors, or two endpoints, claim the same batch type."""

    def __init__(self, batch_type: str, first: str, second: str) -> None:
        super().__init__(
            f"Batch type {batch_type!r} is claimed twice: by {first} and by {second}.",
            hint="set a different `batch_type` on one of them.",
        )
        self.batch_type = batch_type


class DiscoveryError(RegistryError):
    """A package could not be searched for processors."""


class NotAProcessor(RegistryError, TypeError):
    """Something that is no usable processor was registered."""


class NotAnEndpoint(RegistryError, TypeError):
    """Something that is no usable endpoint was registered."""


class NotFound(ReliableImportsError, LookupError):
    """What was asked for does not exist."""


class BatchNotFound(NotFound):
    """No such batch."""

    def __init__(self, batch_id: UUID | str) -> None:
        super().__init__(
            f"There is no batch {batch_id}.",
            hint="`reliable-imports list` shows the batches of this database.",
        )
        self.batch_id = batch_id


class ItemNotFound(NotFound):
    """No such item in the batch."""

    def __init__(self, batch_id: UUID, item_number: int) -> None:
        super().__init__(f"Batch {batch_id} has no item {item_number}.")
        self.batch_id = batch_id
        self.item_number = item_number


class StateError(ReliableImportsError):
    """The batch is in a status in which this cannot be done."""


class BatchPaused(StateError):
    """The batch is paused."""

    def __init__(self, batch_id: UUID, reason: str | None) -> None:
        super().__init__(
            f"Batch {batch_id} is paused: {reason or 'no reason given'}.",
            hint=f"remove the cause, then `reliable-imports resume {batch_id}` "
            "(or await manager.resume_batch(batch_id)) and process it again.",
        )
        self.batch_id = batch_id
        self.reason = reason


class BatchCancelled(StateError):
    """The batch was cancelled."""

    def __init__(self, batch_id: UUID) -> None:
        super().__init__(
            f"Batch {batch_id} was cancelled.",
            hint="reprocess_batch(batch_id) runs its failed and its never-started items "
            "in a new batch.",
        )
        self.batch_id = batch_id


class WrongBatchStatus(StateError):
    """The verb does not apply to a batch in this status."""

    def __init__(self, batch_id: UUID, status: str, verb: str) -> None:
        super().__init__(f"Batch {batch_id} is {status}; it cannot be {verb}.")
        self.batch_id = batch_id
        self.status = status


class AnotherBatchRuns(StateError):
    """Only one batch of its type may run at a time, and another one does."""

    def __init__(self, batch_type: str, running_id: UUID) -> None:
        message = f"Only one batch of type {batch_type!r} may run: batch {running_id} does."
        super().__init__(message, hint=f"wait for it, or `reliable-imports pause {running_id}`.")
        self.running_id = running_id


class ConflictError(ReliableImportsError):
    """The request contradicts something that already exists."""


class SameFile(ConflictError):
    """The same file was already imported for this batch type."""

    def __init__(self, name: str, batch_id: UUID, created_at: str) -> None:
        super().__init__(
            f"{name} was already imported: batch {batch_id}, created {created_at}.",
            hint="use on_same_file='force' (CLI: --on-same-file force) to import it once more, "
            "or 'skip' to get the earlier batch.",
        )
        self.batch_id = batch_id


class IdempotencyConflict(ConflictError):
    """An idempotency key was used before, with other content."""

    def __init__(self, key: str, batch_id: UUID) -> None:
        super().__init__(
            f"Idempotency key {key!r} already belongs to batch {batch_id} with other content.",
            hint="use a new key for new content.",
        )
        self.batch_id = batch_id
        self.key = key


class ReprocessRefused(ConflictError):
    """Items were named that cannot be reprocessed."""


class EditRefused(ConflictError):
    """An item that has not failed, or a record that cannot be stored."""


class SourceError(ReliableImportsError, ValueError):
    """A source as a whole cannot be read; no batch was created."""


class TooManyClients(ReliableImportsError):
    """As many clients follow events as may do so at once."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"{limit} clients follow events already.",
            hint="try again later; RELIABLE_IMPORTS_MAX_EVENT_CLIENTS sets the limit.",
        )
        self.limit = limit


class ProcessorError(ReliableImportsError):
    """A processor broke the contract of the library; its item fails."""


class ProcessorResultError(ProcessorError, TypeError):
    """A processor returned something else than a result."""


class TransactionControlRefused(ProcessorError):
    """SQL text of a processor tried to end or begin the item's transaction."""

    def __init__(self, command: str) -> None:
        super().__init__(
            f"{command} is refused: the item's transaction belongs to the library, "
            "so that its effects and its status commit together.",
            hint="use `async with ctx.savepoint():` to undo a part; raise to undo all.",
        )
        self.command = command


class TransactionEnded(ProcessorError):
    """The item's transaction was no longer open when it should have been settled."""

    def __init__(self) -> None:
        super().__init__(
            "The item's transaction was ended by the processor; what it had written by then "
            "may have been committed without a status.",
            hint="do not send COMMIT or ROLLBACK around the context, e.g. in a prepared "
            "statement or a procedure.",
        )


class ContextClosed(ProcessorError):
    """A context or its connection was used after the item had settled."""

    def __init__(self) -> None:
        super().__init__(
            "This context is closed: its item has settled.",
            hint="await everything that uses ctx before process_item returns; start no "
            "background task with it.",
        )


class Rejected(ProcessorError):
    """validate_item returned a falsy value."""


class ItemKeyRefused(ProcessorError, ValueError):
    """item_key raised, or what it returned is no key."""


class ItemRefused(ProcessorError, ValueError):
    """An item's values cannot be written as they are: bad data, not an error of the code.

    Attributes:
        position: Of the item in its set; None where there is no set, or nobody knows.
    """

    position: int | None = None


class ValueRefused(ItemRefused):
    """A value has no place in its column; PostgreSQL was not asked."""

    def __init__(self, table: str, column: str, column_type: str, reason: str, hint: str) -> None:
        super().__init__(f"Column {column} of {table} is {column_type}: {reason}.", hint=hint)
        self.column = column


class KeyIsNull(ItemRefused):
    """A row without its key could not be found again, and every import would add it once more."""

    def __init__(self, table: str, columns: Sequence[str]) -> None:
        super().__init__(
            f"The key of {table} is empty: {', '.join(columns)} is NULL.",
            hint="a row without its key cannot be found again: fill it in, or make the unique "
            "constraint NULLS NOT DISTINCT (PostgreSQL 15), so that NULLs are equal.",
        )


class NotWritten(ItemRefused):
    """A statement succeeded without writing a row for the item."""

    def __init__(self, table: str, written: int = 0, rows: int = 1) -> None:
        count = "no row was written" if rows == 1 else f"{written} of {rows} rows were written"
        super().__init__(
            f"The upsert into {table} succeeded, but {count}.",
            hint=f"a trigger or a rule of {table} suppressed it (RETURN NULL in a BEFORE trigger), "
            "or wrote it elsewhere: change it, or write with a statement of your own.",
        )


class BatchNotCompleted(ReliableImportsError):
    """Raised by `BatchSummary.raise_for_status` for a batch that is not completed."""

    def __init__(self, batch_id: UUID, status: str, failed: int, total: int) -> None:
        super().__init__(
            f"Batch {batch_id} is {status}: {failed} of {total} items failed.",
            hint=f"`reliable-imports show {batch_id}` groups them by cause.",
        )
        self.batch_id = batch_id
        self.status = status
