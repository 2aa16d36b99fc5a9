"""Installs and upgrades PgQueuer's tables together with ours, and finds them in any schema."""

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
    """PgQueuer's statements on a connection, inside its current transaction."""
    return queries_in(_driver(conn), await find(conn))


def queries_in(driver: Driver, schema: str | None) -> Queries:
    """PgQueuer's statements on its tables in a schema, independent of the `search_path`."""
    return Queries(driver, *_builders(schema))


def as_sql() -> str:
    """The script that creates PgQueuer's tables in an empty database."""
    return Queries(cast("Any", None)).qbe.build_install_query()


async def find(conn: Connection) -> str | None:
    """The schema of PgQueuer's tables; None if they do not exist."""
    schema: str | None = await conn.fetchval(_SQL["pgqueuer_schema"], db_settings().queue_table)
    return schema


async def install(conn: Connection) -> None:
    """Create PgQueuer's tables unless they exist; called inside a transaction."""
    if await find(conn) is None:
        schema = db_settings().db_schema or await conn.fetchval(_SQL["current_schema"])
        await queries_in(_driver(conn), schema or OWN_SCHEMA).install(
            create_schema=db_settings().db_schema is not None
        )


async def upgrade(conn: Connection) -> None:
    """Upgrade PgQueuer's tables to the installed version, outside of a transaction.

    PostgreSQL cannot use a new enum value in the transaction that adds it.
    """
    tables = await queries(conn)
    if (await tables.plan_upgrade()).statements:
        await tables.apply_upgrade()


async def is_installed(conn: Connection) -> bool:
    """Whether PgQueuer's tables exist."""
    return await find(conn) is not None


def _driver(conn: Connection) -> Driver:
    return AsyncpgDriver(cast("Any", conn))  # a pool's proxy works as well


@cache
def _builders(
    schema: str | None,
) -> tuple[qb.QueryBuilderEnvironment, qb.QueryQueueBuilder, qb.QuerySchedulerBuilder]:
    """PgQueuer's builders of statements, which accept only plain lower-case schema names."""
    settings = db_settings()
    if schema is not None and settings.db_schema is None:
        with suppress(ValidationError):  # the search_path then has to contain the schema
            settings = type(settings).model_validate({**settings.model_dump(), "db_schema": schema})
    return (
        qb.QueryBuilderEnvironment(settings),
        qb.QueryQueueBuilder(settings),
        qb.QuerySchedulerBuilder(settings),
    )
