"""The table of pages, and their routes: sign-in, the origin of forms, cookies and error pages."""

from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from ...errors import ReliableImportsError
from ..http.browser_safety import is_own_site
from ..http.cookies import FORM_COOKIE, SESSION_SECONDS, cookie_name, set_cookie
from ..http.problems import NO_ANSWER, UNEXPECTED, InvalidRequest, on_error, status_of
from ..http.service import Service
from . import actions, downloads, editing, session, uploads, views
from .templating import error_page
from .visit import Page, Refused, Visit

BATCH = "/batches/{batch_id:uuid}"
ITEM = f"{BATCH}/items/{{item_number:number}}"
SMALL_FORM_BYTES = 8 * 1_048_576

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


def page_routes(service: Service) -> list[Route]:
    """A route for each page."""
    return [_route(page, service) for page in PAGES]


def _route(page: Page, service: Service) -> Route:
    async def endpoint(request: Request) -> Response:
        visit: Visit | None = None
        try:
            visit = await Visit.begin(request, service)
            return await _answer(page, visit)
        except Exception as exc:  # noqa: BLE001 - every error becomes a page without traceback
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


async def _answer(page: Page, visit: Visit) -> Response:
    if visit.needs_sign_in and not page.public:
        return _to_sign_in(page, visit)
    if page.method == "POST":
        _require_same_site(visit.call.request)
    if not page.public:
        await visit.look_up_rights()
    response = await page.handler(visit)
    if not page.static:
        _set_cookies(visit, response)
    return response


def _to_sign_in(page: Page, visit: Visit) -> Response:
    request = visit.call.request
    if error := request.scope.get("state", {}).get("session_error"):
        raise error
    if not visit.signs_in:
        raise Refused(401, "Sign in to the application that this dashboard belongs to.")
    if page.method != "GET":
        raise Refused(401, "You are no longer signed in.")
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    target = f"{visit.base}/sign-in?next={quote(wanted, safe='')}"
    return RedirectResponse(target, 303, {"Cache-Control": "no-store"})


def _require_same_site(request: Request) -> None:
    """Refuse a form that another site has sent; browsers send the origin of every form."""
    site = request.headers.get("sec-fetch-site")
    known = site == "same-origin" if site is not None else "origin" in request.headers
    if not known or not is_own_site(request.scope):
        raise Refused(403, "This form was sent from another site.")


def _set_cookies(visit: Visit, response: Response) -> None:
    request = visit.call.request
    if visit.browser != request.cookies.get(cookie_name(request, FORM_COOKIE)):
        set_cookie(request, response, visit.browser, name=FORM_COOKIE)
    if visit.new_session is not None:
        set_cookie(request, response, visit.new_session, seconds=SESSION_SECONDS)


async def _refusal(request: Request, visit: Visit | None, exc: Exception) -> Response:
    """Make the page of an error."""
    hint = ""
    match exc:
        case Refused():
            status, text = exc.status, exc.message
        case HTTPException():
            status, text = exc.status_code, str(exc.detail)
        case InvalidRequest():
            status, text = exc.status, exc.detail
        case ReliableImportsError():
            status, text, hint = status_of(exc), exc.message, exc.web_hint
        case _:
            status = (await on_error(request, exc)).status_code  # logs unexpected errors
            text = NO_ANSWER if status == 503 else UNEXPECTED
    return error_page(visit, status, text, hint)
