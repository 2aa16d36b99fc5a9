"""The cookies that the API and the dashboard set, the same way everywhere."""

from starlette.requests import HTTPConnection
from starlette.responses import Response

SESSION_COOKIE = "reliable_imports_session"
FORM_COOKIE = "reliable_imports_form"
SESSION_SECONDS = 12 * 3600


def base_of(conn: HTTPConnection) -> str:
    """The path prefix below which the API is mounted; empty at the root."""
    return str(conn.scope.get("root_path", "")).rstrip("/")


def cookie_name(conn: HTTPConnection, name: str = SESSION_COOKIE) -> str:
    """The name of a cookie, with a prefix over https.

    With the prefix, browsers accept the cookie only over https, and at the root only from this
    host.
    """
    if conn.url.scheme != "https":
        return name
    return f"__Secure-{name}" if base_of(conn) else f"__Host-{name}"


def set_cookie(
    conn: HTTPConnection,
    response: Response,
    value: str,
    *,
    name: str = SESSION_COOKIE,
    seconds: int | None = None,
) -> None:
    """Set a cookie that scripts cannot read and other sites cannot send.

    Args:
        value: Its value; an empty one deletes the cookie.
        seconds: How long the browser keeps it; None until the browser is closed.
    """
    response.set_cookie(
        cookie_name(conn, name),
        value,
        max_age=seconds if value else 0,
        expires=None if value else 0,
        path=f"{base_of(conn)}/",
        secure=conn.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
