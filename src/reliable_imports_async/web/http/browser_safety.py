"""Protection of browsers: safe response headers, and no requests from pages of other sites."""

from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .problems import problem

SAFE_METHODS = ("GET", "HEAD", "OPTIONS", "TRACE")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""The headers of every response that does not set them itself."""


class SafeHeaders:
    """Adds `HEADERS` to each response, except those that it already has."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                message.setdefault("headers", [])
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, send_safely)


class RefuseOtherSites:
    """Answers 403 to a request that changes something and was sent by a page of another site.

    Browsers send the origin of a request in headers that pages cannot forge. Other clients do not
    send these headers, and are let through.

    Args:
        app: The application.
        origins: The sites whose pages may use the API; ``*`` for all.
        exempt: Whether a path checks the origin itself.
    """

    def __init__(
        self, app: ASGIApp, origins: Collection[str], exempt: Callable[[Scope], bool]
    ) -> None:
        self.app = app
        self._origins = origins
        self._exempt = exempt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, unless a page of another site has sent it."""
        if (
            scope["type"] != "http"
            or scope["method"] in SAFE_METHODS
            or self._exempt(scope)
            or is_own_site(scope, self._origins)
        ):
            await self.app(scope, receive, send)
            return
        text = (
            "This request was sent by a page of another site, which is not allowed to use this API."
        )
        answer = problem(Request(scope), 403, text, kind="other-site")
        await answer(scope, receive, send)


def is_own_site(scope: Scope, origins: Collection[str] = ()) -> bool:
    """Whether a request was not sent by a page of another site.

    Args:
        scope: The request.
        origins: Other sites whose pages may send it; ``*`` for all.
    """
    headers = Headers(scope=scope)
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if origin is not None and ("*" in origins or origin in origins):
        return True
    if site is not None:
        return site.lower() in ("same-origin", "none")
    return origin is None or _is_here(origin, str(scope.get("scheme", "")), headers.get("host", ""))


def _is_here(origin: str, scheme: str, host: str) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    # Behind a proxy that terminates https, the scheme is http here; the reverse does not happen.
    schemes = ("https",) if scheme == "https" else ("http", "https")
    return parts.scheme in schemes and parts.netloc.lower() == host.lower()
