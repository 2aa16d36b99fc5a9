"""Signing in and out, and the files that pages need."""

from functools import cache
from importlib import resources
from urllib.parse import urlsplit

from starlette.responses import RedirectResponse, Response

from .templating import render
from .visit import Refused, Visit

TYPES = {
    "dashboard.css": "text/css",
    "dashboard.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}


async def file(visit: Visit) -> Response:
    """Send a stylesheet, script or picture."""
    name = visit.call.request.path_params["name"]
    if name not in TYPES:
        raise Refused(404, "There is no such file.")
    headers = {"Cache-Control": "max-age=300", "X-Content-Type-Options": "nosniff"}
    return Response(_content(name), media_type=TYPES[name], headers=headers)


async def nowhere(visit: Visit) -> Response:
    """Say that there is no such page; one stroke too many at the end is forgiven."""
    path = str(visit.call.request.path_params["path"])
    if not path or path.endswith("/"):
        stripped = path.strip("/")
        query = visit.call.request.url.query
        return visit.to((f"/{stripped}" if stripped else "") + (f"?{query}" if query else ""))
    raise Refused(404, f"There is no page at {visit.call.request.url.path}.")


@cache
def _content(name: str) -> bytes:
    return resources.files(__package__).joinpath("static", name).read_bytes()


async def sign_in_page(visit: Visit) -> Response:
    """Ask for an API key."""
    if not visit.signs_in or visit.call.user_id is not None:
        return visit.to("")
    return await render(visit, "sign_in.html", wanted=visit.given("next") or "", wrong=False)


async def sign_in(visit: Visit) -> Response:
    """Start a session for the owner of an API key."""
    form = await visit.form()
    wanted = str(form.get("next", ""))
    key = str(form.get("key", "")).strip()
    user = await visit.sign_in(key)
    if user is None:
        return await render(visit, "sign_in.html", code=401, wanted=wanted, wrong=True)
    visit.new_session = await visit.begin_session(user, key)
    return RedirectResponse(_own(visit, wanted), 303, {"Cache-Control": "no-store"})


async def sign_out(visit: Visit) -> Response:
    """End the session."""
    await visit.form()
    await visit.end_session()
    visit.new_session = ""
    return visit.to("/sign-in")


def _own(visit: Visit, wanted: str) -> str:
    """Where to go: only to pages of our own."""
    try:
        parts = urlsplit(wanted.replace("\\", "/"))
    except ValueError:
        return visit.base
    ours = parts.path == visit.base or parts.path.startswith(f"{visit.base}/")
    if parts.scheme or parts.netloc or not ours:
        return visit.base
    return parts.path + (f"?{parts.query}" if parts.query else "")
