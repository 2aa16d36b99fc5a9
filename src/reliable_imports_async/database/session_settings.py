"""The settings of sessions: how transactions begin, and the server's time limits."""

from dataclasses import dataclass

from .guard import Connection
from .statements import statements

_SQL = statements("database/sessions")

_LIMITED = """
SELECT name FROM pg_catalog.pg_settings
 WHERE name = ANY ($1::pg_catalog.text[]) AND setting <> '0'
"""
_LIFTED = {  # the limits that a database or a role may set, and the values for our own sessions
    "statement_timeout": "0",
    "lock_timeout": "0",
    "transaction_timeout": "0",
    "idle_in_transaction_session_timeout": "10min",  # releases the locks of a frozen process
    "idle_session_timeout": "0",
}
DEADLOCK_MILLISECONDS = 50
PARAMETER_GRANTS = 150_000  # the first version with GRANT SET ON PARAMETER
SESSION, TRANSACTION = False, True  # for how long set_config applies


@dataclass(frozen=True, slots=True)
class Defaults:
    """How transactions begin by default, according to the settings of the database or role.

    Attributes:
        isolation: The isolation level.
        deferrable: Whether they are deferrable.
        search_path: The search path, if it puts a schema before PostgreSQL's own; else None.
    """

    isolation: str = "read committed"
    deferrable: str = "off"
    search_path: str | None = None


ORDINARY = Defaults()


async def read_defaults(conn: Connection) -> tuple[Defaults, int]:
    """How transactions begin by default, and the process id of the server's backend."""
    (row,) = await conn.fetch(_SQL["defaults"])
    *defaults, backend = row
    return Defaults(*defaults), backend


async def lifting(conn: Connection) -> str:
    """The statement that lifts the limits of this database, for a session or transaction ($1)."""
    limited = await conn.fetch(_LIMITED, list(_LIFTED))
    lifted = [f"set_config('{row['name']}', '{_LIFTED[row['name']]}', $1)" for row in limited]
    return f"SELECT {', '.join(lifted)}" if lifted else ""


async def sooner_deadlocks(conn: Connection, version: int) -> str | None:
    """The `deadlock_timeout` of items, if the role may set it and the server's is longer.

    A deadlock costs its transactions this time. The session that looks first is the victim, so an
    import gives way to an application. A server that logs lock waits would log each of them.

    Args:
        version: The server's `server_version_num`.
    """
    if not await conn.fetchval(_SQL["deadlock_timeout"], DEADLOCK_MILLISECONDS):
        return None
    if version >= PARAMETER_GRANTS:
        may = await conn.fetchval(_SQL["may_set_deadlock_timeout"])
    else:
        may = await conn.fetchval(_SQL["is_superuser"])
    return f"{DEADLOCK_MILLISECONDS}ms" if may else None


def limits_of(item_timeout: float, deadlock_timeout: str | None) -> tuple[str | None, ...]:
    """The limits for items: longer than `item_timeout`, so that the library's own limit is first.

    The keepalives detect a vanished machine within a minute instead of two hours.
    """
    limit = f"{int((item_timeout + 5) * 1000)}ms"
    return limit, limit, limit, "2000ms", "30", "10", "3", deadlock_timeout
