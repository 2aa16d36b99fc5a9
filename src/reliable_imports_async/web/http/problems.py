"""How errors become responses: one table of statuses, and problem details as in RFC 9457."""

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
NO_ANSWER = "The database did not answer in time."
UNEXPECTED = "An unexpected error occurred. The server's log has the details."

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
"""The status of each error; the nearest base class counts. Others are 500, or 503 in an outage."""

_WORD_STARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class InvalidRequest(Exception):
    """The request does not match its description in the OpenAPI document.

    Attributes:
        detail: The message.
        errors: The location, message and type of each error.
        status: 422, or 400 for a body that is not JSON.
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
        """Turn pydantic's errors into a refusal, with `where` in front of each location."""
        details = error.errors(include_url=False, include_context=False, include_input=False)
        errors = [
            {"location": [*where, *each["loc"]], "message": each["msg"], "type": each["type"]}
            for each in details[:MOST_ERRORS]
        ]
        return cls(f"The request is invalid at {places_of(errors)}.", errors)


def places_of(errors: Sequence[Mapping[str, Any]]) -> str:
    """The first three locations, to read."""
    return ", ".join(".".join(map(str, each["location"])) for each in errors[:3])


async def on_error(request: Request, exc: Exception) -> Response:
    """Answer any error; unexpected ones are logged, and their text is not sent."""
    match exc:
        case HTTPException():
            return _http_error(request, exc)
        case InvalidRequest():
            extra = {"errors": exc.errors} if exc.errors else {}
            return problem(request, exc.status, exc.detail, kind="invalid-request", extra=extra)
        case ReliableImportsError():
            return _known_error(request, exc)
    if status_of(exc) == 503:
        logger.warning("%s %s: %s", request.method, request.url.path, type(exc).__name__)
        return problem(request, 503, NO_ANSWER, kind="unavailable")
    logger.error("%s %s failed", request.method, request.url.path, exc_info=exc)
    return problem(request, 500, UNEXPECTED)


def _http_error(request: Request, exc: HTTPException) -> Response:
    headers = dict(exc.headers or {})
    if exc.status_code == 405:
        headers["Allow"] = ", ".join(_methods(request))
    return problem(request, exc.status_code, str(exc.detail), headers=headers)


def _methods(request: Request) -> list[str]:
    """All methods of a path. Each method has its own route, which only knows itself."""
    routes = [each for each in request.app.routes if isinstance(each, Route)]
    matching = [each for each in routes if each.matches(request.scope)[0] != Match.NONE]
    return sorted({method for each in matching for method in each.methods or ()})


def _known_error(request: Request, exc: ReliableImportsError) -> Response:
    extra = {"hint": exc.web_hint} if exc.web_hint else {}
    if batch_id := getattr(exc, "batch_id", None):
        extra["batch_id"] = str(batch_id)
    kind = _WORD_STARTS.sub("-", type(exc).__name__).lower()
    return problem(request, status_of(exc), exc.message, kind=kind, extra=extra)


def status_of(exc: Exception) -> int:
    """The status of the response to an error."""
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
    """Make a response with problem details (RFC 9457).

    Args:
        kind: The name of the problem in its `type`; without it the type is about:blank.
        extra: Further members of the body.
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
