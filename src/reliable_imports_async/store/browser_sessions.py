"""Statements about the sessions of browsers."""

from dataclasses import dataclass

from ..database.guard import Connection
from ..database.statements import statements

_SQL = statements("store/browser_sessions")


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A session as the database has it.

    Attributes:
        user_id: The user of the session.
        key_share: One half of the key that the session began with; None without a key.
    """

    user_id: str
    key_share: bytes | None


async def insert(
    conn: Connection,
    sha256: bytes,
    user_id: str,
    key_share: bytes | None,
    path: str | None,
    seconds: float,
) -> None:
    """Store a session, and delete expired ones."""
    await conn.execute(_SQL["delete_expired_sessions"])
    await conn.execute(_SQL["insert_session"], sha256, user_id, key_share, path, seconds)


async def find(conn: Connection, sha256: bytes, path: str | None) -> StoredSession | None:
    """A session, or a ticket for a path, that has not expired."""
    row = await conn.fetchrow(_SQL["find_session"], sha256, path)
    return None if row is None else StoredSession(row["user_id"], row["key_share"])


async def delete(conn: Connection, sha256: bytes) -> None:
    """End a session."""
    await conn.execute(_SQL["delete_session"], sha256)
