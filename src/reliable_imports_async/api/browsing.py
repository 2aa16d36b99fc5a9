"""The dashboard's pages as routes: who asks, whether a form is ours, and errors as pages."""

import hmac
import secrets
from urllib.parse import quote, urlsplit

from starlette.authentication import AuthenticationError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from ..dashboard import PAGES, Page, Refused, Visit, error_page
from ..errors import ReliableImportsError
from .authentication import COOKIE, COOKIE_SECONDS
from .calls import Call
from .problems import InvalidRequest, on_error, status_of
from .service import Service

FORM_COOKIE = "reliable_imports_form"
SMALL_FORM_BYTES = 8 * 1_048_576


def routes(service: Service) -> list[Route]:
    """A route for each page."""
    return [_route(page, service) for page in PAGES]


def _route(page: Page, service: Service) -> Route:
    async def endpoint(request: Request) -> Response:
        visit: Visit | None = None
        try:
            visit = _visit(request, service)
            return await _answer(page, visit)
        except Exception as exc:  # noqa: BLE001 - every error has its page; none shows a traceback
            return await _refusal(request, visit, exc)

    return Route(
        f"/dashboard{page.path}",
        endpoint,
        methods=[page.method],
        name=f"dashboard:{page.method}:{page.path}",
        max_body_size=service.settings.max_upload_bytes if page.takes_file else SMALL_FORM_BYTES,
    )


def _visit(request: Request, service: Service) -> Visit:
    cookie = request.cookies.get(COOKIE, "")
    user = service.signer.user_of_cookie(cookie) if service.authentication else None
    call = Call(request, service, user)
    browser = request.cookies.get(FORM_COOKIE) or secrets.token_urlsafe(24)
    session = f"{browser} {call.user_id or ''} {cookie if user else ''}"
    return Visit(
        call=call,
        browser=browser,
        secured=service.authentication is not None,
        token=lambda: service.signer.form_token(session),
        is_token=lambda given: service.signer.is_form_token(given, session),
        sign_in=lambda key: _user_of_key(request, service, key),
        session_cookie=service.signer.cookie,
    )


async def _answer(page: Page, visit: Visit) -> Response:
    request = visit.call.request
    if visit.secured and visit.call.user_id is None and not page.public:
        if page.method != "GET":
            raise Refused(401, "You are not signed in any more.")
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        target = f"{visit.base}/sign-in?next={quote(wanted, safe='')}"
        return RedirectResponse(target, 303, {"Cache-Control": "no-store"})
    if page.method == "POST":
        _require_same_site(request)
    response = await page.handler(visit)
    if page.public and page.static:
        return response
    _set_cookies(visit, response)
    return response


def _set_cookies(visit: Visit, response: Response) -> None:
    secure, path = visit.call.request.url.scheme == "https", f"{visit.call.base}/"
    if visit.browser != visit.call.request.cookies.get(FORM_COOKIE):
        response.set_cookie(
            FORM_COOKIE, visit.browser, httponly=True, samesite="strict", secure=secure, path=path
        )
    if visit.new_session == "":
        response.delete_cookie(COOKIE, path=path, httponly=True, samesite="strict")
    elif visit.new_session is not None:
        response.set_cookie(
            COOKIE,
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
    if site is not None:
        if site == "same-origin":
            return
    elif (origin := request.headers.get("origin")) is not None and hmac.compare_digest(
        urlsplit(origin).netloc.lower().encode(), request.url.netloc.lower().encode()
    ):
        return
    raise Refused(403, "This form was sent from another site.")


async def _user_of_key(request: Request, service: Service, key: str) -> str | None:
    """Whom a key belongs to, as if it had been sent in the headers."""
    if service.authentication is None or not key.isascii():
        return None
    kept = [
        (name, value)
        for name, value in request.scope["headers"]
        if name not in (b"authorization", b"x-api-key", b"cookie")
    ]
    sent = [(b"authorization", f"Bearer {key}".encode()), (b"x-api-key", key.encode())]
    scope = {**request.scope, "headers": kept + sent}
    try:
        found = await service.authentication.authenticate(HTTPConnection(scope))
    except AuthenticationError:
        return None
    return None if found is None else str(found[1].identity)


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
