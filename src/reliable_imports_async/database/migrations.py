"""Migrations: numbered SQL files, applied once, in order, under a lock; opening only verifies."""

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
    """One file of ``migrations/``."""

    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """Recorded with the migration, so that a changed file is noticed."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


@cache
def migrations() -> tuple[Migration, ...]:
    """All migrations, in order."""
    packaged = resources.files(__package__.rpartition(".")[0]).joinpath("migrations")
    # A checkout keeps them at the top of the repository; the wheel carries them in the package.
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
    """Everything `migrate` would run on an empty database, as one script."""
    parts = [_SQL["create_history"], _SQL["create_history_table"]]
    for one in migrations():
        record = f"VALUES ('{one.name}', '{one.sha256}')"
        parts += [one.sql.rstrip(), _SQL["record"].replace("VALUES ($1, $2)", record)]
    parts.append(pgqueuer_tables.as_sql().strip())
    return "BEGIN;\n\n" + ";\n\n".join(part.rstrip(";") for part in parts) + ";\n\nCOMMIT;\n"


async def migrate(conn: Connection) -> tuple[str, ...]:
    """Apply what is missing, in one transaction; the names of what was applied.

    The tables of PgQueuer are installed in it as well; those of an older PgQueuer are upgraded.

    Raises:
        SchemaTooNew: The database has migrations this version does not know.
    """
    async with conn.transaction():
        await conn.execute(_SQL["lock"])
        if not await conn.fetchval(_SQL["has_history"]):
            await conn.execute(_SQL["create_history"])
            await conn.execute(_SQL["create_history_table"])
        missing = await pending(conn)
        for one in missing:
            await conn.execute(one.sql)
            await conn.execute(_SQL["record"], one.name, one.sha256)
        await pgqueuer_tables.install(conn)
    await pgqueuer_tables.upgrade(conn)
    return tuple(one.name for one in missing)


async def verify(conn: Connection) -> None:
    """Refuse to work on another schema than this version's.

    Raises:
        SchemaMissing: The database was never migrated.
        SchemaOutdated: Migrations are waiting.
        SchemaTooNew: The database has migrations this version does not know.
    """
    if not await conn.fetchval(_SQL["has_history"]):
        raise SchemaMissing
    if missing := await pending(conn):
        raise SchemaOutdated([one.name for one in missing])


async def pending(conn: Connection) -> list[Migration]:
    """The migrations that are not applied yet; raises `SchemaTooNew` for unknown ones."""
    rows = await conn.fetch(_SQL["applied"])
    applied = {row["name"] for row in rows}
    if unknown := sorted(applied - {one.name for one in migrations()}):
        raise SchemaTooNew(unknown)
    return [one for one in migrations() if one.name not in applied]
