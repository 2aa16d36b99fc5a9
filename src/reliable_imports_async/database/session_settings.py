"""What sessions are set to: how their transactions begin, and when the server ends them."""

from dataclasses import dataclass

from .guard import Connection
from .statements import statements

_SQL = statements("database/sessions")

_LIMITED = """
SELECT name FROM pg_catalog.pg_settings
 WHERE name = ANY ($1::pg_catalog.text[]) AND setting <> '0'
"""
_LIFTED = {  # what a database or a role may limit, and what our own sessions have instead
    "statement_timeout": "0",
    "lock_timeout": "0",
    "transaction_timeout": "0",
    "idle_in_transaction_session_timeout": "10min",  # what a frozen process holds gets free
    "idle_session_timeout": "0",
}
SESSION, TRANSACTION = False, True  # how long set_config holds


@dataclass(frozen=True, slots=True)
class Defaults:
    """How transactions begin that do not say so themselves: what the database or role is set to.

    Attributes:
        search_path: Where it puts something before PostgreSQL's own functions; else None.
    """

    isolation: str = "read committed"
    deferrable: str = "off"
    search_path: str | None = None


ORDINARY = Defaults()


async def read_defaults(conn: Connection) -> tuple[Defaults, int]:
    """How transactions begin by default, and the process id of the server's side."""
    row = await conn.fetchrow(_SQL["defaults"])
    assert row is not None  # noqa: S101 - it has no FROM
    *defaults, backend = row
    return Defaults(*defaults), backend


async def lifting(conn: Connection) -> str:
    """The statement that lifts the limits set here, for the session or transaction ($1)."""
    limited = await conn.fetch(_LIMITED, list(_LIFTED))
    lifted = [f"set_config('{row['name']}', '{_LIFTED[row['name']]}', $1)" for row in limited]
    return f"SELECT {', '.join(lifted)}" if lifted else ""


def limits_of(item_timeout: float) -> tuple[str, ...]:
    """Longer than `item_timeout`, so that the library decides first wherever it can.

    A machine that vanished is noticed by the keepalives, within a minute instead of two hours.
    """
    limit = f"{int((item_timeout + 5) * 1000)}ms"
    return limit, limit, limit, "2000ms", "30", "10", "3"
