"""Templates made into answers, with the headers that keep what they show harmless."""

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
    "Referrer-Policy": "same-origin",  # without one, forms would come from the origin "null"
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@cache
def environment() -> Environment:
    """The templates: everything is escaped, and a misspelt name is an error."""
    made = Environment(
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
        made.filters[name] = getattr(filters, name)
    made.filters["counted"] = counted
    made.globals["shares"] = charts.shares
    made.globals["remaining"] = charts.remaining
    made.globals["pairs"] = record_fields.pairs
    made.globals["query"] = query
    return made


def query(**values: Any) -> str:
    """The query of a link, without what is None."""
    given = {name: str(value) for name, value in values.items() if value is not None}
    return f"?{urlencode(given)}" if given else ""


async def render(visit: Visit, template: str, *, code: int = 200, **values: Any) -> Response:
    """A page; made in a thread, as what it shows may be large.

    Of a value that is a `partial` its result is shown.
    """
    return await to_thread.run_sync(lambda: rendered(visit, template, code, values))


def rendered(visit: Visit, template: str, code: int, values: dict[str, Any]) -> Response:
    """A page, made here and now."""
    made = {name: one() if isinstance(one, partial) else one for name, one in values.items()}
    text = (
        environment()
        .get_template(template)
        .render(
            base=visit.base,
            api=f"{visit.call.base}/api",
            user=visit.call.user_id,
            secured=visit.signs_in,
            token=visit.token(),
            **{"may_create": visit.may_create, **made},
        )
    )
    # A lone surrogate in a query or a header has no bytes.
    return HTMLResponse(text.encode("utf-8", "backslashreplace"), code, HEADERS)


def error_page(visit: Visit | None, status: int, text: str, hint: str = "") -> Response:
    """A page that says what went wrong."""
    if visit is None:
        return HTMLResponse("Something went wrong.", status, HEADERS)
    title = http.HTTPStatus(status).phrase
    values = {"title": title, "text": text, "hint": hint}
    return rendered(visit, "error.html", status, values)
