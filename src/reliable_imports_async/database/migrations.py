"""Applies the migrations, which are numbered SQL files, once and in order, under a lock."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from ..errors import SchemaMissing, SchemaOutdated, SchemaTooNew
from . import pgqueuer_tables
from .guard import Connection
from .statements import statements

_SQL = statements("database/migrations")


@dataclass(frozen=True, slots=True)
class Migration:
    """A file of ``migrations/``."""

    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """The hash that is recorded with the migration, so that a changed file is detected."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


@cache
def migrations() -> tuple[Migration, ...]:
    """All migrations, in order."""
    packaged = resources.files(__package__.rpartition(".")[0]).joinpath("migrations")
    # In a checkout, they are at the top of the repository; in the wheel, inside the package.
    folder = packaged if packaged.is_dir() else Path(__file__).parents[3] / "migrations"
    files = sorted(
        (entry for entry in folder.iterdir() if entry.name.endswith(".sql")),
        key=lambda entry: entry.name,
    )
    return tuple(
        Migration(entry.name.removesuffix(".sql"), entry.read_text(encoding="utf-8"))
        for entry in files
    )


def as_sql() -> str:
    """The script that `migrate` would run on an empty database."""
    parts = [_SQL["create_history"], _SQL["create_history_table"]]
    for migration in migrations():
        record = f"VALUES ('{migration.name}', '{migration.sha256}')"
        parts += [migration.sql.rstrip(), _SQL["record"].replace("VALUES ($1, $2)", record)]
    parts.append(pgqueuer_tables.as_sql().strip())
    return "BEGIN;\n\n" + ";\n\n".join(part.rstrip(";") for part in parts) + ";\n\nCOMMIT;\n"


async def migrate(conn: Connection) -> tuple[str, ...]:
    """Apply the missing migrations in one transaction, and return their names.

    The tables of PgQueuer are installed in the same transaction, and those of an older PgQueuer
    are upgraded.

    Raises:
        SchemaTooNew: The database has migrations that this version does not know.
    """
    async with conn.transaction():
        await conn.execute(_SQL["lock"])
        if not await conn.fetchval(_SQL["has_history"]):
            await conn.execute(_SQL["create_history"])
            await conn.execute(_SQL["create_history_table"])
        missing = await pending(conn)
        for migration in missing:
            await conn.execute(migration.sql)
            await conn.execute(_SQL["record"], migration.name, migration.sha256)
        await pgqueuer_tables.install(conn)
    await pgqueuer_tables.upgrade(conn)
    return tuple(migration.name for migration in missing)


async def verify(conn: Connection) -> None:
    """Check that the schema is that of this version.

    Raises:
        SchemaMissing: The database was never migrated.
        SchemaOutdated: Some migrations were not applied.
        SchemaTooNew: The database has migrations that this version does not know.
    """
    if not await conn.fetchval(_SQL["has_history"]):
        raise SchemaMissing
    if missing := await pending(conn):
        raise SchemaOutdated([migration.name for migration in missing])


async def pending(conn: Connection) -> list[Migration]:
    """The migrations that were not applied yet.

    Raises:
        SchemaTooNew: The database has migrations that this version does not know.
    """
    rows = await conn.fetch(_SQL["applied"])
    applied = {row["name"] for row in rows}
    if unknown := sorted(applied - {migration.name for migration in migrations()}):
        raise SchemaTooNew(unknown)
    return [migration for migration in migrations() if migration.name not in applied]
