"""Who asks: API keys, an application's own backend, and signed cookies and tickets for browsers."""

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence

from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.authentication import (
    AuthCredentials,
    AuthenticationBackend,
    BaseUser,
    SimpleUser,
)
from starlette.requests import HTTPConnection, Request

from ..errors import ConfigurationError

COOKIE = "reliable_imports_session"
COOKIE_SECONDS = 12 * 3600
TICKET_SECONDS = 60
KEY_BYTES = 32

Authenticated = tuple[AuthCredentials, BaseUser]


def new_api_key() -> str:
    """A random key; only its hash belongs into the settings."""
    return f"ri_{secrets.token_urlsafe(KEY_BYTES)}"


def hash_of(key: str) -> str:
    """The hash of a key. Keys are random and long, so that a fast hash is enough."""
    return hashlib.sha256(key.encode()).hexdigest()


class ApiKeys(AuthenticationBackend):
    """Lets in who sends one of some keys, as ``Authorization: Bearer …`` or ``X-API-Key: …``.

    Args:
        keys: The names of the users and the hashes of their keys (see `hash_of`).
    """

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._keys = dict(keys)

    @classmethod
    def of(cls, entries: Sequence[str]) -> "ApiKeys":
        """From settings: ``name:hash`` each.

        Raises:
            ConfigurationError: An entry is malformed.
        """
        keys = {}
        for entry in entries:
            name, _, digest = entry.rpartition(":")
            if not name or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
                raise ConfigurationError(
                    f"The API key of {name or 'nobody'} is not written as name:hash.",
                    hint="`reliable-imports api-key NAME` makes a key and prints the entry.",
                    web_hint="",
                )
            keys[name] = digest
        return cls(keys)

    async def authenticate(self, conn: HTTPConnection) -> Authenticated | None:
        """The user whose key was sent; every key is compared, in constant time."""
        scheme, _, token = conn.headers.get("authorization", "").partition(" ")
        sent = token.strip() if scheme.lower() == "bearer" else conn.headers.get("x-api-key", "")
        if not sent:
            return None
        digest, found = hash_of(sent), None
        for name, known in self._keys.items():
            if hmac.compare_digest(digest, known):
                found = name
        return None if found is None else (AuthCredentials(["authenticated"]), SimpleUser(found))


class Signer:
    """Signs what proves later who somebody is.

    Args:
        secret: Shared by the processes that serve one API; None makes one for this process.
    """

    def __init__(self, secret: str | None) -> None:
        key = secret or secrets.token_urlsafe(KEY_BYTES)
        self._cookies = URLSafeTimedSerializer(key, salt="session")
        self._tickets = URLSafeTimedSerializer(key, salt="ticket")
        self._forms = URLSafeTimedSerializer(key, salt="form")

    def cookie(self, user_id: str) -> str:
        """A session cookie's value."""
        return str(self._cookies.dumps(user_id))

    def ticket(self, user_id: str, path: str) -> str:
        """A ticket for one path."""
        return str(self._tickets.dumps([user_id, path]))

    def form_token(self, session: str) -> str:
        """Proves that a form was made for this session."""
        return str(self._forms.dumps(hash_of(session)))

    def is_form_token(self, value: str, session: str) -> bool:
        """Whether it was made for this session, and is not old."""
        try:
            made_for = str(self._forms.loads(value, max_age=COOKIE_SECONDS))
        except BadSignature:
            return False
        return hmac.compare_digest(made_for, hash_of(session))

    def user_of_cookie(self, value: str | None) -> str | None:
        """Whose cookie it is; None for none, a forged and an old one."""
        try:
            return str(self._cookies.loads(value, max_age=COOKIE_SECONDS)) if value else None
        except BadSignature:
            return None

    def user_of_ticket(self, value: str | None, path: str) -> str | None:
        """Whose ticket for this path it is; None for none, a forged and an old one."""
        try:
            user, allowed = self._tickets.loads(value, max_age=TICKET_SECONDS) if value else (0, 0)
        except BadSignature:
            return None
        return str(user) if allowed == path else None


class Browsers(AuthenticationBackend):
    """A backend, and behind it what a browser can send where it cannot send headers.

    The cookie counts for reading only: what changes something must prove itself by a header, which
    no foreign page can send.
    """

    def __init__(self, backend: AuthenticationBackend, signer: Signer) -> None:
        self._backend = backend
        self._signer = signer

    async def authenticate(self, conn: HTTPConnection) -> Authenticated | None:
        """The user by header, by cookie, or by ticket."""
        found = await self._backend.authenticate(conn)
        if found is not None or conn.scope.get("method") not in ("GET", "HEAD"):
            return found
        path = conn.scope["path"]
        user = self._signer.user_of_cookie(conn.cookies.get(COOKIE))
        if user is None and path.endswith("/events"):
            user = self._signer.user_of_ticket(conn.query_params.get("ticket"), path)
        return None if user is None else (AuthCredentials(["authenticated"]), SimpleUser(user))


def user_of(request: Request) -> str | None:
    """The id of who asks; also when an application around the API has found it out."""
    user = request.scope.get("user")
    if user is None or not getattr(user, "is_authenticated", False):
        return None
    try:
        name = user.identity
    except NotImplementedError:
        name = user.display_name
    return str(name) or None
