"""What keeps other sites' pages out, and responses harmless."""

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
"""What every response has unless it says something else."""


class SafeHeaders:
    """Adds `HEADERS` to each response that does not have them."""

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
    """Answers 403 to what another site's page has a browser send, if it could change something.

    Browsers say where a request comes from, and pages cannot make them lie. Clients that are no
    browsers say nothing, and pass.

    Args:
        app: The application.
        origins: The sites whose pages may use the API; ``*`` for all.
        exempt: The paths that look for themselves.
    """

    def __init__(
        self, app: ASGIApp, origins: Collection[str], exempt: Callable[[Scope], bool]
    ) -> None:
        self.app = app
        self._origins = origins
        self._exempt = exempt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, if its sender may send it."""
        if (
            scope["type"] != "http"
            or scope["method"] in SAFE_METHODS
            or self._exempt(scope)
            or is_own_site(scope, self._origins)
        ):
            await self.app(scope, receive, send)
            return
        text = "This request was sent by a page of another site, which may not use this API."
        answer = problem(Request(scope), 403, text, kind="other-site")
        await answer(scope, receive, send)


def is_own_site(scope: Scope, origins: Collection[str] = ()) -> bool:
    """Whether no page of another site has sent a request.

    Args:
        scope: The request.
        origins: Other sites whose pages may; ``*`` for all.
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
    # Behind a proxy that ends https the scheme is http here; never the other way round.
    schemes = ("https",) if scheme == "https" else ("http", "https")
    return parts.scheme in schemes and parts.netloc.lower() == host.lower()
