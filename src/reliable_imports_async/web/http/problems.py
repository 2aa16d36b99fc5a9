"""Where errors meet HTTP: one table, and answers as application/problem+json (RFC 9457)."""

import http
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pydantic
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from ...errors import (
    ConfigurationError,
    ConflictError,
    DatabaseUnavailable,
    EditNotAccepted,
    IdempotencyConflict,
    NotFound,
    ReliableImportsError,
    SchemaError,
    SourceError,
    StateError,
    TooManyClients,
    UnknownBatchType,
)
from ...failures import is_outage

logger = logging.getLogger("reliable_imports_async")

MEDIA_TYPE = "application/problem+json"
MOST_ERRORS = 100
RETRY_AFTER_SECONDS = "5"

STATUSES: Mapping[type[Exception], int] = {
    NotFound: 404,
    UnknownBatchType: 422,
    StateError: 409,
    ConflictError: 409,
    IdempotencyConflict: 422,
    EditNotAccepted: 422,
    SourceError: 422,
    ConfigurationError: 422,
    TooManyClients: 429,
    DatabaseUnavailable: 503,
    SchemaError: 503,
    TimeoutError: 503,
}
"""The status of each error; the nearest class wins. All others are 500, or 503 in an outage."""

_WORD_STARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class InvalidRequest(Exception):
    """The request does not fit its description.

    Attributes:
        errors: What is wrong where: location, message and type of each error.
        status: 422, or 400 for a body that is no JSON at all.
    """

    def __init__(
        self, detail: str, errors: Sequence[Mapping[str, Any]] = (), *, status: int = 422
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)
        self.status = status

    @classmethod
    def of(cls, error: pydantic.ValidationError, *where: str | int) -> "InvalidRequest":
        """What pydantic found, with `where` in front of each location."""
        found = error.errors(include_url=False, include_context=False, include_input=False)
        errors = [
            {"location": [*where, *one["loc"]], "message": one["msg"], "type": one["type"]}
            for one in found[:MOST_ERRORS]
        ]
        places = ", ".join(".".join(map(str, one["location"])) for one in errors[:3])
        return cls(f"The request is invalid at {places}.", errors)


async def on_http_exception(request: Request, exc: Exception) -> Response:
    """Answer what Starlette or a hook refused."""
    assert isinstance(exc, HTTPException)  # noqa: S101 - registered for nothing else
    if exc.status_code == 405:
        exc.headers = {**(exc.headers or {}), "Allow": ", ".join(_methods(request))}
    return problem(request, exc.status_code, str(exc.detail), headers=exc.headers)


def _methods(request: Request) -> list[str]:
    """All methods of a path; each of them has a route of its own, and knows only itself."""
    routes = [one for one in request.app.routes if isinstance(one, Route)]
    found = [one.methods or () for one in routes if one.matches(request.scope)[0] != Match.NONE]
    return sorted({method for methods in found for method in methods})


async def on_invalid_request(request: Request, exc: Exception) -> Response:
    """Answer a request that does not fit its description."""
    assert isinstance(exc, InvalidRequest)  # noqa: S101 - registered for nothing else
    extra = {"errors": exc.errors} if exc.errors else {}
    return problem(request, exc.status, exc.detail, kind="invalid-request", extra=extra)


async def on_error(request: Request, exc: Exception) -> Response:
    """Answer anything else; what is unexpected is logged and not told."""
    status = status_of(exc)
    if isinstance(exc, ReliableImportsError):
        extra = {"hint": exc.web_hint} if exc.web_hint else {}
        if batch_id := getattr(exc, "batch_id", None):
            extra["batch_id"] = str(batch_id)
        return problem(request, status, exc.message, kind=_kind(exc), extra=extra)
    if status == 503:
        logger.warning("%s %s: %s", request.method, request.url.path, type(exc).__name__)
        return problem(request, 503, "The database did not answer in time.", kind="unavailable")
    logger.error("%s %s failed", request.method, request.url.path, exc_info=exc)
    return problem(request, 500, "Something unexpected happened; the server's log has the details.")


def status_of(exc: Exception) -> int:
    """The status that an error is answered with."""
    status = next((STATUSES[cls] for cls in type(exc).__mro__ if cls in STATUSES), 500)
    return 503 if status == 500 and is_outage(exc) else status


def problem(
    request: Request,
    status: int,
    detail: str,
    *,
    kind: str | None = None,
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Response:
    """An answer as RFC 9457 describes it.

    Args:
        kind: Names the problem; without it the status says everything.
        extra: Further members.
    """
    body = {
        "type": f"urn:reliable-imports:problem:{kind}" if kind else "about:blank",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": request.url.path,
        "request_id": request.scope.get("state", {}).get("request_id"),
        **(extra or {}),
    }
    given = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"} | dict(headers or {})
    if status in (429, 503):
        given.setdefault("Retry-After", RETRY_AFTER_SECONDS)
    content = to_json(body, inf_nan_mode="strings", fallback=repr)
    return Response(content, status, given, media_type=MEDIA_TYPE)


def _kind(exc: Exception) -> str:
    return _WORD_STARTS.sub("-", type(exc).__name__).lower()
