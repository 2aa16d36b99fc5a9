"""Sessions of browsers: the value of a cookie or a ticket, and its counterpart in the database.

A session keeps the API key that began it, so that it ends when the key is removed. The key is split
into two shares, one in the browser and one in the database; neither share reveals the key.
"""

import base64
import binascii
import hashlib
import secrets
from dataclasses import dataclass

from ...database.pool import Database
from ...store import browser_sessions

TOKEN_BYTES = 32
LONGEST_KEY = 2_500  # bytes; browsers accept cookies of up to 4096 bytes
LONGEST_VALUE = 4_096


@dataclass(frozen=True, slots=True)
class Session:
    """A session that has not ended.

    Attributes:
        user_id: Its user.
        key: The API key that began it; None without a key.
    """

    user_id: str
    key: bytes | None


class BrowserSessions:
    """The sessions in a database, whichever process began them.

    Args:
        database: Where the sessions are stored.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(
        self, user_id: str, key: bytes | None, *, seconds: float, path: str | None = None
    ) -> str:
        """Begin a session, and return the value that its browser sends.

        Args:
            user_id: Its user.
            key: The API key of the user, at most `LONGEST_KEY` bytes.
            seconds: How long the session lasts.
            path: Makes it a ticket for this path.

        Raises:
            ValueError: The key is too long for a cookie.
        """
        if key is not None and len(key) > LONGEST_KEY:
            raise ValueError("The key is too long to be kept in a cookie.")
        token = secrets.token_bytes(TOKEN_BYTES)
        kept = None if key is None else secrets.token_bytes(len(key))
        given = b"" if key is None or kept is None else _xor(key, kept)
        async with self._database.connection() as conn, conn.transaction():
            await browser_sessions.insert(conn, _hash(token), user_id, kept, path, seconds)
        return base64.urlsafe_b64encode(token + given).decode()

    async def find(self, value: str, path: str | None = None) -> Session | None:
        """Return the session of a value; None for a forged value and for an ended session."""
        parts = _parts(value)
        if parts is None:
            return None
        token, given = parts
        async with self._database.connection() as conn:
            stored = await browser_sessions.find(conn, _hash(token), path)
        if stored is None or len(given) != len(stored.key_share or b""):
            return None
        kept = stored.key_share
        return Session(stored.user_id, None if kept is None else _xor(given, kept))

    async def end(self, value: str) -> None:
        """End a session; copies of its cookie are then worthless."""
        parts = _parts(value)
        if parts is not None:
            async with self._database.connection() as conn:
                await browser_sessions.delete(conn, _hash(parts[0]))


def _parts(value: str) -> tuple[bytes, bytes] | None:
    """Split a value into the token and the share of the key."""
    if not value.isascii() or len(value) > LONGEST_VALUE:
        return None
    try:
        data = base64.b64decode(value, altchars=b"-_", validate=True)
    except binascii.Error:
        return None
    return (data[:TOKEN_BYTES], data[TOKEN_BYTES:]) if len(data) >= TOKEN_BYTES else None


def _xor(first: bytes, second: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(first, second, strict=True))


def _hash(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
