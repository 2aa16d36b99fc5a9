"""PgQueuer's own tables: installed and upgraded together with ours, and found in any schema."""

from contextlib import suppress
from functools import cache
from typing import Any, cast

from pgqueuer.adapters.persistence import qb
from pgqueuer.db import AsyncpgDriver
from pgqueuer.domain.settings import db_settings
from pgqueuer.ports.driver import Driver
from pgqueuer.queries import Queries
from pydantic import ValidationError

from .guard import Connection
from .statements import statements

_SQL = statements("database/pgqueuer_tables")
OWN_SCHEMA = "reliable_imports"


async def queries(conn: Connection) -> Queries:
    """PgQueuer's statements on a connection, inside whatever transaction it is in."""
    return queries_in(_driver(conn), await find(conn))


def queries_in(driver: Driver, schema: str | None) -> Queries:
    """PgQueuer's statements on its tables in a schema, whatever the `search_path` is."""
    return Queries(driver, *_builders(schema))


def as_sql() -> str:
    """What creates PgQueuer's tables in an empty database."""
    return Queries(cast("Any", None)).qbe.build_install_query()


async def find(conn: Connection) -> str | None:
    """The schema in which PgQueuer's tables are; None: they are nowhere."""
    found: str | None = await conn.fetchval(_SQL["queue_schema"], db_settings().queue_table)
    return found


async def install(conn: Connection) -> None:
    """Create PgQueuer's tables, unless they are there; called inside a transaction."""
    if await find(conn) is None:
        place = db_settings().db_schema or await conn.fetchval(_SQL["current_schema"])
        await queries_in(_driver(conn), place or OWN_SCHEMA).install(
            create_schema=db_settings().db_schema is not None
        )


async def upgrade(conn: Connection) -> None:
    """Bring PgQueuer's tables up to the installed version; not in a transaction: enums grow."""
    on_connection = await queries(conn)
    if (await on_connection.plan_upgrade()).statements:
        await on_connection.apply_upgrade()


async def is_installed(conn: Connection) -> bool:
    """Whether PgQueuer's tables are there."""
    return await find(conn) is not None


def _driver(conn: Connection) -> Driver:
    return AsyncpgDriver(cast("Any", conn))  # the proxy of a pool will do as well


@cache
def _builders(
    schema: str | None,
) -> tuple[qb.QueryBuilderEnvironment, qb.QueryQueueBuilder, qb.QuerySchedulerBuilder]:
    """What writes PgQueuer's statements; it takes plain lower-case names of schemas only."""
    settings = db_settings()
    if schema is not None and settings.db_schema is None:
        with suppress(ValidationError):  # then the search_path has to find them
            settings = type(settings).model_validate({**settings.model_dump(), "db_schema": schema})
    return (
        qb.QueryBuilderEnvironment(settings),
        qb.QueryQueueBuilder(settings),
        qb.QuerySchedulerBuilder(settings),
    )
