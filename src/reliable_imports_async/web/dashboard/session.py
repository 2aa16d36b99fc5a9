"""Signing in and out, the static files of pages, and paths without a page."""

from functools import cache
from importlib import resources
from urllib.parse import urlsplit

from starlette.responses import RedirectResponse, Response

from ..http.authentication import typed_key
from ..http.cookies import SESSION_SECONDS
from .templating import render
from .visit import Refused, Visit

TYPES = {
    "dashboard.css": "text/css",
    "dashboard.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}


async def sign_in_page(visit: Visit) -> Response:
    """Ask for an API key."""
    if not visit.signs_in or visit.call.user_id is not None:
        return visit.to("")
    return await render(visit, "sign_in.html", wanted=visit.given("next") or "", wrong=False)


async def sign_in(visit: Visit) -> Response:
    """Begin a session for the owner of an API key."""
    form = await visit.form()
    wanted = str(form.get("next", ""))
    key = str(form.get("key", "")).strip()
    authenticator = visit.service.authenticator
    user = await authenticator.user_of_key(visit.call.request, key)
    if user is None:
        return await render(visit, "sign_in.html", code=401, wanted=wanted, wrong=True)
    visit.new_session = await authenticator.sessions.begin(
        user, typed_key(key), seconds=SESSION_SECONDS
    )
    return RedirectResponse(_own_page(visit, wanted), 303, {"Cache-Control": "no-store"})


def _own_page(visit: Visit, wanted: str) -> str:
    """The path to redirect to; only a page of the dashboard."""
    try:
        parts = urlsplit(wanted.replace("\\", "/"))
    except ValueError:
        return visit.base
    ours = parts.path == visit.base or parts.path.startswith(f"{visit.base}/")
    if parts.scheme or parts.netloc or not ours:
        return visit.base
    return parts.path + (f"?{parts.query}" if parts.query else "")


async def sign_out(visit: Visit) -> Response:
    """End the session."""
    await visit.form()
    await visit.service.authenticator.sessions.end(visit.session)
    visit.new_session = ""
    return visit.to("/sign-in")


async def file(visit: Visit) -> Response:
    """Send a stylesheet, script or icon."""
    name = visit.call.request.path_params["name"]
    if name not in TYPES:
        raise Refused(404, "There is no such file.")
    headers = {"Cache-Control": "max-age=300", "X-Content-Type-Options": "nosniff"}
    return Response(_content(name), media_type=TYPES[name], headers=headers)


@cache
def _content(name: str) -> bytes:
    return resources.files(__package__).joinpath("static", name).read_bytes()


async def nowhere(visit: Visit) -> Response:
    """Answer that there is no such page; a trailing slash is removed first."""
    path = str(visit.call.request.path_params["path"])
    if not path or path.endswith("/"):
        stripped = path.strip("/")
        query = visit.call.request.url.query
        return visit.to((f"/{stripped}" if stripped else "") + (f"?{query}" if query else ""))
    raise Refused(404, f"There is no page at {visit.call.request.url.path}.")
