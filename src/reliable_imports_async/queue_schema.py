"""PgQueuer's own tables: installed and upgraded together with ours."""

from typing import Any, cast

from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries

from .guarded import Connection


def queries(conn: Connection) -> Queries:
    """PgQueuer's statements on a connection, inside whatever transaction it is in."""
    return Queries(AsyncpgDriver(cast("Any", conn)))  # the proxy of a pool will do as well


def as_sql() -> str:
    """What creates PgQueuer's tables in an empty database."""
    return Queries(cast("Any", None)).qbe.build_install_query()


async def install(conn: Connection) -> None:
    """Create PgQueuer's tables, unless they are there; called inside a transaction."""
    on_connection = queries(conn)
    if not await on_connection.schema_is_installed():
        await on_connection.install()


async def upgrade(conn: Connection) -> None:
    """Bring PgQueuer's tables up to the installed version; not in a transaction: enums grow."""
    on_connection = queries(conn)
    if (await on_connection.plan_upgrade()).statements:
        await on_connection.apply_upgrade()


async def is_installed(conn: Connection) -> bool:
    """Whether PgQueuer's tables are there."""
    on_connection = queries(conn)
    return await on_connection.has_table(on_connection.qbe.settings.queue_table)
