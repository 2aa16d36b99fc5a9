"""The Starlette application: middleware, and the routes of the API, the dashboard and endpoints."""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import ReliableImportsError
from ..processors.registry import Registry
from .api.openapi import document
from .api.routes import OPERATIONS, Operation
from .dashboard.routes import PAGES, page_routes
from .endpoints import endpoints_of
from .http.browser_safety import RefuseOtherSites, SafeHeaders
from .http.call import Call
from .http.middleware import BodyPace, RequestIds
from .http.payloads import CreateBatch
from .http.problems import InvalidRequest, on_error, problem
from .http.service import Service

SMALL_BODY_BYTES = 1_048_576
logger = logging.getLogger("reliable_imports_async")

NOT_RUNNING = "The import API is not running: the application around it has not started it."
HOW_TO_RUN = (
    "The import API is mounted but was never started: the lifespan of a mounted application does "
    "not run by itself. Mount it with api.mount_into(app, '/prefix'), or write `async with "
    "api.running():` around the yield of your own lifespan."
)
Lifespan = Callable[[Any], AbstractAsyncContextManager[None]]


def build(service: Service, lifespan: Lifespan, hosts: Sequence[str]) -> Starlette:
    """Build the application.

    Args:
        service: What its handlers share.
        lifespan: Entered when the application is served by itself.
        hosts: The host names that it answers to; "*" for all.
    """
    service.document = lambda base: document(
        service.manager.registry, base, secured=service.authentication is not None
    )
    origins = service.settings.cors_origins
    middleware = [
        Middleware(RequestIds),
        Middleware(SafeHeaders),
        Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
        Middleware(_OnlyWhileRunning, service=service),
        Middleware(RefuseOtherSites, origins=origins, exempt=_is_page),
    ]
    if origins:
        headers = [
            "authorization",
            "content-type",
            "idempotency-key",
            "if-none-match",
            "x-api-key",
        ]
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=list(origins),
                allow_methods=["GET", "POST", "PATCH", "DELETE"],
                allow_headers=headers,
                expose_headers=["etag", "idempotency-replayed", "location", "x-request-id"],
            )
        )
    backend = service.authenticator
    middleware.append(Middleware(AuthenticationMiddleware, backend=backend, on_error=_refused))
    middleware.append(Middleware(BodyPace, settings=service.settings))
    return Starlette(
        routes=_own_routes(service),
        middleware=middleware,
        exception_handlers={
            HTTPException: on_error,
            InvalidRequest: on_error,
            ReliableImportsError: on_error,
            Exception: on_error,
        },
        lifespan=lifespan,
    )


def _own_routes(service: Service) -> list[Route]:
    pages = page_routes(service) if service.dashboard else []
    return [_route(operation, service) for operation in OPERATIONS] + pages


def _route(operation: Operation, service: Service) -> Route:
    async def endpoint(request: Request) -> Response:
        call = Call(request, service)
        try:
            if not operation.public:
                require_user(call)
            return await operation.handler(call)
        except Exception as exc:  # noqa: BLE001 - every error becomes a response without traceback
            return await on_error(request, await call.discreet(exc))

    limit = SMALL_BODY_BYTES
    if operation.takes_file:
        limit = service.settings.max_upload_bytes
    elif operation.body is CreateBatch:
        limit = service.settings.max_body_bytes
    return Route(
        operation.path,
        endpoint,
        methods=[operation.method],
        name=operation.handler.__name__,
        max_body_size=limit,
    )


def require_user(call: Call) -> None:
    """Refuse an anonymous caller if the API needs authentication.

    Raises:
        HTTPException: 401.
        Exception: The caller's session could not be read.
    """
    service = call.service
    if service.authentication is None or call.user_id is not None:
        return
    state = call.request.scope.get("state", {})
    if error := state.get("session_error"):
        raise error
    text = state.get("refusal") or "Send an API key: Authorization: Bearer …"
    if not service.access_defined:
        text = (
            "Anonymous requests are refused, because the API was mounted without authentication. "
            "Pass `authentication=` to APIManager, or allow_anonymous=True."
        )
    elif not service.authenticator.signs_in:
        text = "Sign in to the application that this API belongs to."
    raise HTTPException(401, text, {"WWW-Authenticate": "Bearer"})


def add_extra_routes(app: Starlette, registry: Registry, *, dashboard: bool) -> None:
    """Serve the routes that endpoints add, and drop those of an earlier start."""
    routes: list[BaseRoute] = app.router.routes
    del routes[len(OPERATIONS) + (len(PAGES) if dashboard else 0) :]
    for endpoint in endpoints_of(registry):
        routes += endpoint.extra_routes()


class _OnlyWhileRunning:
    """Answers 503 until the lifespan has been entered, and logs how to do that."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on if the API is running."""
        if scope["type"] != "http" or self._service.running:
            await self.app(scope, receive, send)
            return
        logger.error(HOW_TO_RUN)
        response = problem(Request(scope), 503, NOT_RUNNING, kind="not-running")
        await response(scope, receive, send)


def _is_page(scope: Scope) -> bool:
    """Whether a path belongs to the dashboard, which checks the origin of forms itself."""
    path = str(scope["path"]).removeprefix(str(scope.get("root_path", "")))
    return path.startswith("/dashboard/")


def _refused(conn: HTTPConnection, exc: Exception) -> Response:
    """Answer a request that the authentication backend refused."""
    text = str(exc) or "Authentication failed."
    return problem(Request(conn.scope), 401, text, headers={"WWW-Authenticate": "Bearer"})
