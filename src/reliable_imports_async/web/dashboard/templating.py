"""Rendering templates into responses, with headers that make the pages safe."""

import http
from functools import cache, partial
from typing import Any
from urllib.parse import urlencode

from anyio import to_thread
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from ...wording import counted
from . import charts, filters, record_fields
from .visit import Visit

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # without a referrer, the origin of forms would be "null"
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@cache
def environment() -> Environment:
    """The templates. Values are escaped, and unknown names are errors."""
    templates = Environment(
        loader=PackageLoader(__package__, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in (
        "shown", "brief", "plain", "json_text", "value_text", "count", "rate", "size", "span",
        "moment", "percent",
    ):  # fmt: skip
        templates.filters[name] = getattr(filters, name)
    templates.filters["counted"] = counted
    templates.globals["shares"] = charts.shares
    templates.globals["remaining"] = charts.remaining
    templates.globals["pairs"] = record_fields.pairs
    templates.globals["query"] = query
    return templates


def query(**values: Any) -> str:
    """The query of a link, without the values that are None."""
    pairs = {name: str(value) for name, value in values.items() if value is not None}
    return f"?{urlencode(pairs)}" if pairs else ""


async def render(visit: Visit, template: str, *, code: int = 200, **values: Any) -> Response:
    """Render a page in a thread, since its values may be large.

    Args:
        code: The status of the response.
        values: The names of the template. A `partial` is called in the thread.
    """
    return await to_thread.run_sync(lambda: rendered(visit, template, code, values))


def rendered(visit: Visit, template: str, code: int, values: dict[str, Any]) -> Response:
    """Render a page."""
    ready = {name: each() if isinstance(each, partial) else each for name, each in values.items()}
    text = (
        environment()
        .get_template(template)
        .render(
            base=visit.base,
            api=f"{visit.call.base}/api",
            user=visit.call.user_id,
            secured=visit.signs_in,
            token=visit.token(),
            **{"may_create": visit.may_create, **ready},
        )
    )
    # A query or a header may contain a lone surrogate, which cannot be encoded.
    return HTMLResponse(text.encode("utf-8", "backslashreplace"), code, HEADERS)


def error_page(visit: Visit | None, status: int, text: str, hint: str = "") -> Response:
    """Render the page of an error."""
    if visit is None:
        return HTMLResponse("The request failed.", status, HEADERS)
    title = http.HTTPStatus(status).phrase
    values = {"title": title, "text": text, "hint": hint}
    return rendered(visit, "error.html", status, values)
