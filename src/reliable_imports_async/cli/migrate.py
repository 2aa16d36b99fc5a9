"""migrate: creating and updating the library's schema in a database."""

import sys
from typing import Annotated

import typer

from ..database import migrations
from ..database.pool import Database
from ..manager import BatchManager
from .exit_codes import UsageRefused
from .invocation import Invocation


async def migrate(
    cli: Invocation,
    *,
    dsn: Annotated[
        str | None,
        typer.Argument(
            metavar="[DSN]",
            help="The database's URL; by default RELIABLE_IMPORTS_DATABASE_URL. (While the command "
            "runs, other users of this machine can read a password in it.)",
            show_default=False,
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit with 3 if it is not up to date.")
    ] = False,
    sql: Annotated[
        bool, typer.Option("--sql", help="Print the SQL script instead of running it.")
    ] = False,
) -> None:
    """Bring the schema of a database up to date."""
    if check and sql:
        raise UsageRefused("--check and --sql cannot be combined.")
    if sql:
        sys.stdout.write(migrations.as_sql())
    elif check:
        await _check(cli, dsn)
    else:
        await _apply(cli, dsn)


async def _apply(cli: Invocation, dsn: str | None) -> None:
    applied = await BatchManager(settings=cli.settings(url=dsn, discover=False)).migrate()
    if cli.output.json:
        cli.output.record({"applied": applied})
    elif applied:
        cli.output.show(f"Applied: {', '.join(applied)}.")
    else:
        cli.output.show("The schema is up to date.")


async def _check(cli: Invocation, dsn: str | None) -> None:
    """Check the schema without a manager, which would migrate an embedded server."""
    database = Database(cli.settings(url=dsn, discover=False))
    await database.open()
    try:
        async with database.connection() as conn:
            await migrations.verify(conn)
    finally:
        await database.close()
    names = [migration.name for migration in migrations.migrations()]
    if cli.output.json:
        cli.output.record({"up_to_date": True, "migrations": names})
    else:
        cli.output.show(f"The schema is up to date ({names[-1]}).")
