"""The pages in one table, and as routes: who asks, whether a form is ours, errors as pages."""

import secrets
from urllib.parse import quote

from starlette.authentication import AuthenticationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from ...errors import ReliableImportsError
from ..http.authentication import (
    COOKIE_SECONDS,
    cookie_name,
    identity_of,
    typed_key,
    user_of,
    with_key,
)
from ..http.browser_safety import is_own_site
from ..http.browser_sessions import LONGEST_KEY
from ..http.call import Call
from ..http.problems import InvalidRequest, on_error, status_of
from ..http.service import Service
from . import actions, downloads, editing, session, uploads, views
from .templating import error_page
from .visit import Page, Refused, Visit

BATCH = "/batches/{batch_id:uuid}"
ITEM = f"{BATCH}/items/{{item_number:number}}"

PAGES: tuple[Page, ...] = (
    Page("GET", "", views.batches),
    Page("GET", "/static/{name}", session.file, public=True, static=True),
    Page("GET", "/sign-in", session.sign_in_page, public=True),
    Page("POST", "/sign-in", session.sign_in, public=True),
    Page("POST", "/sign-out", session.sign_out, public=True),
    Page("GET", "/types", views.batch_types),
    Page("GET", "/types/{name:path}", views.batch_type),
    Page("GET", "/upload", uploads.upload_page),
    Page("POST", "/upload", uploads.upload, takes_file=True),
    Page("GET", BATCH, views.batch),
    Page("GET", f"{BATCH}/items", views.items),
    Page("GET", ITEM, views.item),
    Page("GET", f"{BATCH}/logs", views.logs),
    Page("GET", f"{ITEM}/edit", editing.edit_page),
    Page("POST", f"{ITEM}/edit", editing.edit),
    Page("GET", f"{BATCH}/corrected", uploads.corrected_page),
    Page("POST", f"{BATCH}/corrected", uploads.corrected, takes_file=True),
    Page("GET", f"{BATCH}/download", downloads.ask),
    Page("POST", f"{BATCH}/download", downloads.download),
    Page("POST", f"{BATCH}/dry-run", actions.dry_run),
    Page("GET", f"{BATCH}/{{action}}", actions.ask),
    Page("POST", f"{BATCH}/{{action}}", actions.act),
    Page("GET", "/{path:path}", session.nowhere),
)


FORM_COOKIE = "reliable_imports_form"
SMALL_FORM_BYTES = 8 * 1_048_576
LONGEST_TYPED_KEY = LONGEST_KEY // 2 - 16  # a session keeps it twice, as both headers


def page_routes(service: Service) -> list[Route]:
    """A route for each page."""
    return [_route(page, service) for page in PAGES]


def _route(page: Page, service: Service) -> Route:
    async def endpoint(request: Request) -> Response:
        visit: Visit | None = None
        try:
            visit = await _visit(request, service)
            return await _answer(page, visit)
        except Exception as exc:  # noqa: BLE001 - every error has its page; none shows a traceback
            if visit is not None:
                exc = await visit.call.discreet(exc)
            return await _refusal(request, visit, exc)

    return Route(
        f"/dashboard{page.path}",
        endpoint,
        methods=[page.method],
        name=f"dashboard:{page.method}:{page.path}",
        max_body_size=service.settings.max_upload_bytes if page.takes_file else SMALL_FORM_BYTES,
    )


async def _visit(request: Request, service: Service) -> Visit:
    cookie = request.cookies.get(cookie_name(request), "") if service.signs_in else ""
    user = user_of(request)  # by a header; when only looking, by the cookie as well
    if user is None and cookie:
        user = identity_of(await service.browsers.by_session(request))
    call = Call(request, service, user)
    browser = request.cookies.get(cookie_name(request, FORM_COOKIE)) or secrets.token_urlsafe(24)
    session = f"{browser} {call.user_id or ''} {cookie if user else ''}"
    return Visit(
        call=call,
        browser=browser,
        secured=service.authentication is not None,
        signs_in=service.signs_in,
        token=lambda: service.signer.form_token(session),
        is_token=lambda given: service.signer.is_form_token(given, session),
        sign_in=lambda key: _user_of_key(request, service, key),
        begin_session=lambda user, key: call.manager.sessions.begin(
            user, typed_key(key), seconds=COOKIE_SECONDS
        ),
        end_session=lambda: call.manager.sessions.end(cookie),
    )


async def _answer(page: Page, visit: Visit) -> Response:
    request = visit.call.request
    if visit.secured and visit.call.user_id is None and not page.public:
        if error := request.scope.get("state", {}).get("session_error"):
            raise error
        if not visit.signs_in:
            raise Refused(401, "Sign in to the application that this dashboard belongs to.")
        if page.method != "GET":
            raise Refused(401, "You are not signed in any more.")
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        target = f"{visit.base}/sign-in?next={quote(wanted, safe='')}"
        return RedirectResponse(target, 303, {"Cache-Control": "no-store"})
    if page.method == "POST":
        _require_same_site(request)
    if not page.public:
        await visit.look_up_rights()
    response = await page.handler(visit)
    if page.public and page.static:
        return response
    _set_cookies(visit, response)
    return response


def _set_cookies(visit: Visit, response: Response) -> None:
    request = visit.call.request
    secure, path = request.url.scheme == "https", f"{visit.call.base}/"
    session, form = cookie_name(request), cookie_name(request, FORM_COOKIE)
    if visit.browser != request.cookies.get(form):
        response.set_cookie(
            form, visit.browser, httponly=True, samesite="strict", secure=secure, path=path
        )
    if visit.new_session == "":
        response.delete_cookie(session, path=path, httponly=True, samesite="strict", secure=secure)
    elif visit.new_session is not None:
        response.set_cookie(
            session,
            visit.new_session,
            max_age=COOKIE_SECONDS,
            httponly=True,
            samesite="strict",
            secure=secure,
            path=path,
        )


def _require_same_site(request: Request) -> None:
    """Refuse a form that another site has sent; every browser says where a form comes from."""
    site = request.headers.get("sec-fetch-site")
    said = site == "same-origin" if site is not None else "origin" in request.headers
    if not said or not is_own_site(request.scope):
        raise Refused(403, "This form was sent from another site.")


async def _user_of_key(request: Request, service: Service, key: str) -> str | None:
    """Whom a key belongs to, as if it had been sent in the headers."""
    if service.authentication is None or not service.signs_in:
        return None
    if not key or not key.isascii() or not key.isprintable() or len(key) > LONGEST_TYPED_KEY:
        return None
    try:
        asked = with_key(request, typed_key(key))
        return identity_of(await service.authentication.authenticate(asked))
    except AuthenticationError:
        return None


async def _refusal(request: Request, visit: Visit | None, exc: Exception) -> Response:
    """The page that an error becomes."""
    hint = ""
    if isinstance(exc, Refused):
        status, text = exc.status, exc.message
    elif isinstance(exc, HTTPException):
        status, text = exc.status_code, str(exc.detail)
    elif isinstance(exc, InvalidRequest):
        status, text = exc.status, exc.detail
    elif isinstance(exc, ReliableImportsError):
        status, text, hint = status_of(exc), exc.message, exc.web_hint
    else:
        status = (await on_error(request, exc)).status_code  # logs what is unexpected
        text = {503: "The database did not answer in time."}.get(
            status, "Something unexpected happened; the server's log has the details."
        )
    return error_page(visit, status, text, hint)
