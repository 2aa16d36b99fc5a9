"""Sessions of browsers: what a cookie or a ticket holds, and what the database keeps of it.

A session keeps the key that it was begun with, so that it ends when the key is withdrawn. The key
is split: the browser and the database have a share each, and a share alone says nothing about it.
"""

import base64
import binascii
import hashlib
import secrets
from dataclasses import dataclass

from ...database.pool import Database
from ...store import browser_sessions

TOKEN_BYTES = 32
LONGEST_KEY = 2_500  # bytes; browsers keep cookies of 4096 bytes
LONGEST_VALUE = 4_096


@dataclass(frozen=True, slots=True)
class Session:
    """A session that has not ended.

    Attributes:
        user_id: Whose it is.
        key: What it was begun with; None without a key.
    """

    user_id: str
    key: bytes | None


class BrowserSessions:
    """The sessions that a database knows, whichever process began them.

    Args:
        database: Where they are kept.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(
        self, user_id: str, key: bytes | None, *, seconds: float, path: str | None = None
    ) -> str:
        """Begin a session; what its browser has to send.

        Args:
            user_id: Whose it is.
            key: What the user came in with, at most `LONGEST_KEY` bytes.
            seconds: How long it lasts.
            path: Makes it a ticket for this path.

        Raises:
            ValueError: The key is too long for a cookie.
        """
        if key is not None and len(key) > LONGEST_KEY:
            raise ValueError("The key is too long to be kept in a cookie.")
        token = secrets.token_bytes(TOKEN_BYTES)
        kept = None if key is None else secrets.token_bytes(len(key))
        given = b"" if key is None or kept is None else _combined(key, kept)
        async with self._database.connection() as conn, conn.transaction():
            await browser_sessions.insert(conn, _hash(token), user_id, kept, path, seconds)
        return base64.urlsafe_b64encode(token + given).decode()

    async def find(self, value: str, path: str | None = None) -> Session | None:
        """The session whose value a browser sent; None for a forged one and one that has ended."""
        parts = _parts(value)
        if parts is None:
            return None
        token, given = parts
        async with self._database.connection() as conn:
            found = await browser_sessions.find(conn, _hash(token), path)
        if found is None or len(given) != len(found.key_share or b""):
            return None
        kept = found.key_share
        return Session(found.user_id, None if kept is None else _combined(given, kept))

    async def end(self, value: str) -> None:
        """End a session, wherever its cookie has got to."""
        parts = _parts(value)
        if parts is not None:
            async with self._database.connection() as conn:
                await browser_sessions.delete(conn, _hash(parts[0]))


def _parts(value: str) -> tuple[bytes, bytes] | None:
    """The token and the share of the key that a value holds."""
    if not value.isascii() or len(value) > LONGEST_VALUE:
        return None
    try:
        data = base64.b64decode(value, altchars=b"-_", validate=True)
    except binascii.Error:
        return None
    return (data[:TOKEN_BYTES], data[TOKEN_BYTES:]) if len(data) >= TOKEN_BYTES else None


def _combined(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def _hash(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
