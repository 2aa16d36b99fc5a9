"""Authentication: API keys, users of an outer application, and browsers' sessions and tickets."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.authentication import (
    AuthCredentials,
    AuthenticationBackend,
    AuthenticationError,
    BaseUser,
    SimpleUser,
)
from starlette.requests import HTTPConnection, Request

from ...errors import ConfigurationError
from .browser_sessions import LONGEST_KEY, BrowserSessions
from .cookies import SESSION_SECONDS, base_of, cookie_name

TICKET_SECONDS = 60
KEY_BYTES = 32
SHORTEST_SECRET = 32
LONGEST_TYPED_KEY = LONGEST_KEY // 2 - 16  # a session keeps the key twice, as both headers
PUBLIC_PATHS = ("/health", "/openapi.json", "/docs", "/dashboard/static/")  # sessions are ignored

_EVENTS = re.compile(
    r"/api/batches/([0-9a-fA-F]{8}(?:-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12})/events$"
)

Authenticated = tuple[AuthCredentials, BaseUser]


def new_api_key() -> str:
    """Return a random key. Put only its hash into the settings."""
    return f"ri_{secrets.token_urlsafe(KEY_BYTES)}"


def hash_of(key: str) -> str:
    """The hash of a key. Keys are long and random, so a fast hash is enough."""
    return hashlib.sha256(key.encode()).hexdigest()


class ApiKeys(AuthenticationBackend):
    """Accepts API keys, sent as ``Authorization: Bearer …`` or ``X-API-Key: …``.

    Args:
        keys: The hash of each user's key (see `hash_of`), by user name.
    """

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._keys = dict(keys)

    @classmethod
    def of(cls, entries: Sequence[str]) -> "ApiKeys":
        """Build the backend from the settings, whose entries are ``name:hash``.

        Raises:
            ConfigurationError: An entry is malformed.
        """
        keys = {}
        for entry in entries:
            name, _, digest = entry.rpartition(":")
            if not name or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
                raise ConfigurationError(
                    f"The API key entry {name or '(without a name)'} is not written as name:hash.",
                    hint="`reliable-imports api-key NAME` makes a key and prints its entry.",
                    web_hint="",
                )
            keys[name] = digest
        return cls(keys)

    async def authenticate(self, conn: HTTPConnection) -> Authenticated | None:
        """Return the user whose key was sent. Every key is compared, in constant time."""
        scheme, _, token = conn.headers.get("authorization", "").partition(" ")
        sent = token.strip() if scheme.lower() == "bearer" else conn.headers.get("x-api-key", "")
        if not sent:
            return None
        digest, user = hash_of(sent), None
        for name, known in self._keys.items():
            if hmac.compare_digest(digest, known):
                user = name
        return None if user is None else (AuthCredentials(["authenticated"]), SimpleUser(user))


class OuterUser(AuthenticationBackend):
    """Accepts the user that the application around the API has authenticated.

    The application sets ``request.user``, as Starlette's AuthenticationMiddleware does. A request
    without a user is answered with 401.

    Args:
        allow: Whether a user may use the API; by default every authenticated user may.
    """

    def __init__(self, allow: Callable[[BaseUser], bool] = lambda _user: True) -> None:
        self._allow = allow

    async def authenticate(self, conn: HTTPConnection) -> Authenticated | None:
        """Return the application's user."""
        user = conn.scope.get("user")
        if user is None or not getattr(user, "is_authenticated", False) or not self._allow(user):
            return None
        return conn.scope.get("auth") or AuthCredentials(["authenticated"]), user


class Signer:
    """Signs the dashboard's forms, so that forged ones can be refused.

    Args:
        secret: Shared by all processes that serve one API; None makes one for this process.

    Raises:
        ConfigurationError: The secret is too short.
    """

    def __init__(self, secret: str | None) -> None:
        if secret is not None and len(secret.strip()) < SHORTEST_SECRET:
            raise ConfigurationError(
                f"RELIABLE_IMPORTS_API_SECRET is shorter than {SHORTEST_SECRET} characters and "
                "could be guessed.",
                hint=f"set it to at least {SHORTEST_SECRET} random characters, for example the "
                "output of `openssl rand -hex 32`.",
            )
        key = secret or secrets.token_urlsafe(KEY_BYTES)
        self._forms = URLSafeTimedSerializer(key, salt="form")

    def form_token(self, session: str) -> str:
        """A token that proves that a form was made for this session."""
        return str(self._forms.dumps(hash_of(session)))

    def is_form_token(self, value: str, session: str) -> bool:
        """Whether a token was made for this session, and has not expired."""
        try:
            made_for = str(self._forms.loads(value, max_age=SESSION_SECONDS))
        except BadSignature:
            return False
        return hmac.compare_digest(made_for, hash_of(session))


class Authenticator(AuthenticationBackend):
    """Authenticates by the configured backend, and by what a browser sends instead of a header.

    The session cookie is accepted for reading only. A request that changes something needs a
    header, which a page of another site cannot send.

    Args:
        backend: The configured backend; None lets everybody in.
        sessions: The sessions of browsers.
    """

    def __init__(self, backend: AuthenticationBackend | None, sessions: BrowserSessions) -> None:
        self.backend = backend
        self.sessions = sessions

    @property
    def signs_in(self) -> bool:
        """Whether people sign in here, and not to an application around the API."""
        return self.backend is not None and not isinstance(self.backend, OuterUser)

    async def authenticate(self, conn: HTTPConnection) -> Authenticated | None:
        """Return the user by header, by cookie, or by ticket."""
        if self.backend is None:  # the user of an outer application is kept
            return await OuterUser().authenticate(conn)
        try:
            user = await self.backend.authenticate(conn)
        except AuthenticationError as exc:
            if key_of(conn) is not None:
                raise
            # A browser may still have a session, or the route may be public.
            conn.scope.setdefault("state", {})["refusal"] = str(exc)
            user = None
        if user is not None or conn.scope.get("method") not in ("GET", "HEAD"):
            return user
        return await self.by_session(conn)

    async def by_session(self, conn: HTTPConnection) -> Authenticated | None:
        """Return the user by cookie or by ticket.

        If the session cannot be read, the error is kept in the request's state for routes that
        need a user; public routes still work.
        """
        if _is_public_path(conn):
            return None
        path = ticketed(str(conn.scope["path"]))
        cookie = conn.cookies.get(cookie_name(conn)) if self.signs_in else None
        ticket = conn.query_params.get("ticket") if path is not None else None
        try:
            user = await self._by_session_value(conn, cookie, None)
            return user or await self._by_session_value(conn, ticket, path)
        except AuthenticationError:
            return None
        except Exception as exc:  # noqa: BLE001 - public routes need no session
            conn.scope.setdefault("state", {})["session_error"] = exc
            return None

    async def user_again(self, conn: HTTPConnection) -> str | None:
        """Authenticate the same request once more; None if the key or the session has ended."""
        state = conn.scope.setdefault("state", {})
        known: bytes | str | None = state.get("ticket")
        if isinstance(known, str):
            return known
        state.pop("session_error", None)
        try:
            if known is not None:
                return identity_of(await self._by_key(conn, known))
            user = identity_of(await self.authenticate(conn))
        except AuthenticationError:
            return None
        if error := state.get("session_error"):
            raise error
        return user

    async def user_of_key(self, conn: HTTPConnection, key: str) -> str | None:
        """Return the owner of a typed key, as if it had been sent in a header."""
        if not self.signs_in or len(key) > LONGEST_TYPED_KEY:
            return None
        if not key or not key.isascii() or not key.isprintable():
            return None
        try:
            return identity_of(await self._by_key(conn, typed_key(key)))
        except AuthenticationError:
            return None

    async def _by_session_value(
        self, conn: HTTPConnection, value: str | None, path: str | None
    ) -> Authenticated | None:
        session = await self.sessions.find(value, path) if value else None
        if session is None:
            return None
        if path is not None:  # the stream outlives the ticket that has opened it
            state = conn.scope.setdefault("state", {})
            state["ticket"] = session.user_id if session.key is None else session.key
        if session.key is None:
            return AuthCredentials(["authenticated"]), SimpleUser(session.user_id)
        user = await self._by_key(conn, session.key)
        return user if identity_of(user) == session.user_id else None

    async def _by_key(self, conn: HTTPConnection, key: bytes) -> Authenticated | None:
        """Return the user whose key this is now."""
        return None if self.backend is None else await self.backend.authenticate(_with(conn, key))


def _is_public_path(conn: HTTPConnection) -> bool:
    return str(conn.scope["path"]).removeprefix(base_of(conn)).startswith(PUBLIC_PATHS)


def ticketed(path: str) -> str | None:
    """The path that a ticket is bound to, wherever the API is mounted; None for other paths."""
    match = _EVENTS.search(path)
    return None if match is None else f"/api/batches/{UUID(match[1])}/events"


def key_of(conn: HTTPConnection) -> bytes | None:
    """The headers that carry the caller's key; None when there are none."""
    sent = [conn.headers.get(name, "") for name in ("authorization", "x-api-key")]
    return "\n".join(sent).encode("latin-1") if any(sent) else None


def typed_key(key: str) -> bytes:
    """The same for a key that somebody typed: as if it had been sent in both headers."""
    return f"Bearer {key}\n{key}".encode("latin-1")


def _with(conn: HTTPConnection, key: bytes) -> HTTPConnection:
    """The request as if it had these key headers, and no cookie."""
    names = (b"authorization", b"x-api-key")
    kept = [
        (name, value) for name, value in conn.scope["headers"] if name not in (*names, b"cookie")
    ]
    sent = [(name, value) for name, value in zip(names, key.split(b"\n"), strict=True) if value]
    return HTTPConnection({**conn.scope, "headers": kept + sent})


def user_of(request: Request) -> str | None:
    """The id of the authenticated user, also of one that an outer application authenticated."""
    user = request.scope.get("user")
    if user is None or not getattr(user, "is_authenticated", False):
        return None
    return _name(user)


def identity_of(authenticated: Authenticated | None) -> str | None:
    """The id of the user that a backend returned."""
    return None if authenticated is None else _name(authenticated[1])


def _name(user: BaseUser) -> str | None:
    try:
        name = user.identity
    except NotImplementedError:
        name = user.display_name
    return str(name) or None
