"""Who asks: API keys, an application's own backend, and cookies and tickets for browsers."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING
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

if TYPE_CHECKING:
    from .service import Service

COOKIE = "reliable_imports_session"
COOKIE_SECONDS = 12 * 3600
TICKET_SECONDS = 60
KEY_BYTES = 32
SHORTEST_SECRET = 32
OPEN_PATHS = ("/health", "/openapi.json", "/docs", "/dashboard/static/")  # nobody's session counts

_EVENTS = re.compile(
    r"/api/batches/([0-9a-fA-F]{8}(?:-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12})/events$"
)

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


class OuterUser(AuthenticationBackend):
    """Takes over the user that the application around the API has authenticated.

    The application puts the user into ``request.user``, as Starlette's AuthenticationMiddleware
    does. A request without a user is answered with 401.

    Args:
        allow: Whether a user may come in; by default everybody who has signed in there.
    """

    def __init__(self, allow: Callable[[BaseUser], bool] = lambda _user: True) -> None:
        self._allow = allow

    async def authenticate(self, conn: HTTPConnection) -> Authenticated | None:
        """The application's user."""
        user = conn.scope.get("user")
        if user is None or not getattr(user, "is_authenticated", False) or not self._allow(user):
            return None
        return conn.scope.get("auth") or AuthCredentials(["authenticated"]), user


class Signer:
    """Signs forms, which proves later that they are ours.

    Args:
        secret: Shared by the processes that serve one API; None makes one for this process.

    Raises:
        ConfigurationError: The secret is too short to keep anything secret.
    """

    def __init__(self, secret: str | None) -> None:
        if secret is not None and len(secret.strip()) < SHORTEST_SECRET:
            raise ConfigurationError(
                f"RELIABLE_IMPORTS_API_SECRET is shorter than {SHORTEST_SECRET} characters: "
                "it could be guessed.",
                hint=f"set it to a random text of at least {SHORTEST_SECRET} characters, such as "
                "`openssl rand -hex 32` prints.",
            )
        key = secret or secrets.token_urlsafe(KEY_BYTES)
        self._forms = URLSafeTimedSerializer(key, salt="form")

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


class Browsers(AuthenticationBackend):
    """The API's backend, and behind it what a browser can send where it cannot send headers.

    The cookie counts for reading only: what changes something must prove itself by a header, which
    no foreign page can send.
    """

    def __init__(self, service: "Service") -> None:
        self._service = service

    async def authenticate(self, conn: HTTPConnection) -> Authenticated | None:
        """The user by header, by cookie, or by ticket."""
        backend = self._service.authentication
        if backend is None:  # everybody may come in; the outer application's user stays its own
            return await OuterUser().authenticate(conn)
        try:
            found = await backend.authenticate(conn)
        except AuthenticationError as exc:
            if key_of(conn) is not None:
                raise
            # It may be a browser that has a session, or a route that is for everybody.
            conn.scope.setdefault("state", {})["refusal"] = str(exc)
            found = None
        if found is not None or conn.scope.get("method") not in ("GET", "HEAD"):
            return found
        return await self.by_session(conn)

    async def by_session(self, conn: HTTPConnection) -> Authenticated | None:
        """The user by cookie or by ticket; an outage is remembered, for who needs to know."""
        if self._is_open(conn):
            return None
        path = ticketed(str(conn.scope["path"]))
        cookie = conn.cookies.get(cookie_name(conn)) if self._service.signs_in else None
        ticket = conn.query_params.get("ticket") if path is not None else None
        try:
            found = await self._user_of(conn, cookie, None)
            return found or await self._user_of(conn, ticket, path)
        except AuthenticationError:
            return None
        except Exception as exc:  # noqa: BLE001 - routes for everybody need no session
            conn.scope.setdefault("state", {})["session_error"] = exc
            return None

    async def user_again(self, conn: HTTPConnection) -> str | None:
        """Who asks, asked again: whether the key and the session still are what they were."""
        state = conn.scope.setdefault("state", {})
        known: bytes | str | None = state.get("ticket")
        if isinstance(known, str):
            return known
        state.pop("session_error", None)
        try:
            if known is not None:
                return identity_of(await self._by_key(conn, known))
            found = identity_of(await self.authenticate(conn))
        except AuthenticationError:
            return None
        if error := state.get("session_error"):
            raise error
        return found

    async def _user_of(
        self, conn: HTTPConnection, value: str | None, path: str | None
    ) -> Authenticated | None:
        session = await self._service.manager.sessions.find(value, path) if value else None
        if session is None:
            return None
        if path is not None:  # a ticket runs out, but not the stream that it has opened
            state = conn.scope.setdefault("state", {})
            state["ticket"] = session.user_id if session.key is None else session.key
        if session.key is None:
            return AuthCredentials(["authenticated"]), SimpleUser(session.user_id)
        found = await self._by_key(conn, session.key)
        return found if identity_of(found) == session.user_id else None

    async def _by_key(self, conn: HTTPConnection, key: bytes) -> Authenticated | None:
        """The user whose key this is by now."""
        backend = self._service.authentication
        return None if backend is None else await backend.authenticate(with_key(conn, key))

    def _is_open(self, conn: HTTPConnection) -> bool:
        return str(conn.scope["path"]).removeprefix(base_of(conn)).startswith(OPEN_PATHS)


def ticketed(path: str) -> str | None:
    """What a ticket for a path is bound to, wherever the API is mounted; None where none counts."""
    found = _EVENTS.search(path)
    return None if found is None else f"/api/batches/{UUID(found[1])}/events"


def key_of(conn: HTTPConnection) -> bytes | None:
    """The headers by which a caller has proved who it is; None when it was not by these."""
    sent = [conn.headers.get(name, "") for name in ("authorization", "x-api-key")]
    return "\n".join(sent).encode("latin-1") if any(sent) else None


def typed_key(key: str) -> bytes:
    """The same for a key that somebody has typed: as if it had been sent in either header."""
    return f"Bearer {key}\n{key}".encode("latin-1")


def with_key(conn: HTTPConnection, key: bytes) -> HTTPConnection:
    """The request as if it had been sent with these headers, and with no others that count."""
    names = (b"authorization", b"x-api-key")
    kept = [
        (name, value) for name, value in conn.scope["headers"] if name not in (*names, b"cookie")
    ]
    sent = [(name, value) for name, value in zip(names, key.split(b"\n"), strict=True) if value]
    return HTTPConnection({**conn.scope, "headers": kept + sent})


def cookie_name(conn: HTTPConnection, name: str = COOKIE) -> str:
    """A cookie's name; over https one that only https, and at the root only this host, can set."""
    if conn.url.scheme != "https":
        return name
    return f"__Secure-{name}" if base_of(conn) else f"__Host-{name}"


def base_of(conn: HTTPConnection) -> str:
    """What the API's paths start with: where it is mounted."""
    return str(conn.scope.get("root_path", "")).rstrip("/")


def user_of(request: Request) -> str | None:
    """The id of who asks; also when an application around the API has found it out."""
    user = request.scope.get("user")
    if user is None or not getattr(user, "is_authenticated", False):
        return None
    return _name(user)


def identity_of(found: Authenticated | None) -> str | None:
    """The id of a user that a backend has found."""
    return None if found is None else _name(found[1])


def _name(user: BaseUser) -> str | None:
    try:
        name = user.identity
    except NotImplementedError:
        name = user.display_name
    return str(name) or None
