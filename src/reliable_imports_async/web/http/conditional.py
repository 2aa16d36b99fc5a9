"""Responses that a client may have already: ETag and If-None-Match (RFC 9110, section 13.1.2)."""

from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ... import exact_json
from .call import reply

TAG_BYTES = 16


def reply_unless_known(
    request: Request, body: Mapping[str, Any], *, clock: Collection[str] = ()
) -> Response:
    """Make a response in JSON; 304 without a body if the client has named its tag.

    Args:
        clock: Members that change with time alone; they are left out of the tag.
    """
    lasting = {name: value for name, value in body.items() if name not in clock}
    content = exact_json.write(lasting, inf_nan_mode="strings", fallback=str)
    tag = f'W/"{blake2b(content, digest_size=TAG_BYTES).hexdigest()}"'
    if _names(request.headers.getlist("if-none-match"), tag):
        return Response(status_code=304, headers={"ETag": tag})
    return reply(body, etag=tag)


def _names(given: Sequence[str], tag: str) -> bool:
    """Whether an If-None-Match header names a tag, in the weak comparison."""
    tags = [each.strip() for header in given for each in header.split(",")]
    return "*" in tags or any(each.removeprefix("W/") == tag.removeprefix("W/") for each in tags)
