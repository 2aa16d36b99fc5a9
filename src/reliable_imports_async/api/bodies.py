"""JSON bodies: whole objects for pydantic, and the items of a new batch as they are written.

The elements of `items` reach the database as the client wrote them: 1.10 stays 1.10, and what JSON
should not hold (NaN, a key that occurs twice) becomes one failed item, not a refused request.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, TypeVar

from anyio import to_thread
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request

from ..sources.texts import JsonTexts
from .payloads import CreateBatch
from .problems import InvalidRequest

Model = TypeVar("Model", bound=BaseModel)

IN_LOOP_BYTES = 262_144  # what is parsed without leaving the event loop
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()
_TOLERANT = json.JSONDecoder(parse_int=float)  # int() refuses more than 4,300 digits


@dataclass(slots=True)
class Creation:
    """A request for a new batch, and the texts of its items.

    Attributes:
        data: What hooks see and may change.
        texts: The items as they are written; None without items.
    """

    data: CreateBatch
    texts: list[bytes] | None

    def source(self, *, touched: bool) -> JsonTexts:
        """The records to store: their texts, but for those that a hook has changed.

        Args:
            touched: Whether a hook has seen the items.
        """
        items, texts = self.data.items or [], self.texts or []
        if not touched:
            return JsonTexts(texts, items)
        known = zip(items, [*texts, *[None] * len(items)], strict=False)
        return JsonTexts([text if _unchanged(item, text) else item for item, text in known])


async def json_body(request: Request, model: type[Model]) -> Model:
    """The body as a model; an empty one where the body is empty.

    Raises:
        InvalidRequest: It is no JSON, or does not fit.
        HTTPException: 415, when it says that it is something else than JSON.
    """
    _require_json(request)
    body = await request.body() or b"{}"
    try:
        return model.model_validate_json(body)
    except ValidationError as exc:
        if any(one["type"] == "json_invalid" for one in exc.errors(include_input=False)):
            raise InvalidRequest("The body is no JSON.", status=400) from None
        raise InvalidRequest.of(exc, "body") from None


async def creation_body(request: Request) -> Creation:
    """A new batch from a body.

    Raises:
        InvalidRequest: It is no JSON, or does not fit.
        HTTPException: 415, when it says that it is something else than JSON.
    """
    _require_json(request)
    body = await request.body()
    if len(body) <= IN_LOOP_BYTES:
        return _creation(body)
    return await to_thread.run_sync(_creation, body)


def _require_json(request: Request) -> None:
    given = request.headers.get("content-type")
    if given is None and not _has_body(request):
        return
    kind = (given or "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        sent = kind or "a body without a content type"
        raise HTTPException(415, f"Send application/json, not {sent}; files go to …/upload.")


def _has_body(request: Request) -> bool:
    length = request.headers.get("content-length", "0").strip()
    return length.strip("0") != "" or "transfer-encoding" in request.headers


def _creation(body: bytes) -> Creation:
    try:
        fields, texts = _fields(body.decode())
    except UnicodeDecodeError as exc:
        raise InvalidRequest(f"The body is not UTF-8, at byte {exc.start}.", status=400) from None
    except json.JSONDecodeError as exc:
        detail = f"The body is no JSON: {exc.msg} at character {exc.pos}."
        raise InvalidRequest(detail, status=400) from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.", status=400) from None
    items = fields.pop("items", None)
    try:
        data = CreateBatch.model_validate(
            fields | ({} if isinstance(items, list) else {"items": items})
        )
    except ValidationError as exc:
        raise InvalidRequest.of(exc, "body") from None
    if not isinstance(items, list):
        missing = {"location": ["body", "items"], "message": "Field required", "type": "missing"}
        raise InvalidRequest("The request is invalid at body.items.", [missing])
    data.items = items  # any value is a record here; pydantic would only copy them
    return Creation(data, texts)


def _fields(text: str) -> tuple[dict[str, Any], list[bytes]]:
    """The members of the object that a text holds, and the texts of the elements of `items`."""
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        raise json.JSONDecodeError("Expecting an object", text, at)
    fields: dict[str, Any] = {}
    texts: list[bytes] = []
    at = _skip(text, at + 1)
    if text[at : at + 1] == "}":
        return fields, _end(text, at + 1, texts)
    while True:
        name, at = _name(text, at)
        if name == "items" and text[at : at + 1] == "[":
            fields[name], texts, at = _elements(text, at)
        else:
            fields[name], at = _value(text, at)
        at = _skip(text, at)
        if text[at : at + 1] == "}":
            return fields, _end(text, at + 1, texts)
        at = _skip(text, _expect(text, at, ","))


def _name(text: str, at: int) -> tuple[str, int]:
    """A member's name, and where its value starts."""
    if text[at : at + 1] != '"':
        raise json.JSONDecodeError("Expecting a name in double quotes", text, at)
    name, at = _DECODER.raw_decode(text, at)
    return name, _skip(text, _expect(text, _skip(text, at), ":"))


def _elements(text: str, at: int) -> tuple[list[Any], list[bytes], int]:
    """The values and the texts of an array's elements, and where it ends."""
    values: list[Any] = []
    texts: list[bytes] = []
    at = _skip(text, at + 1)
    if text[at : at + 1] == "]":
        return values, texts, at + 1
    while True:
        value, end = _value(text, at)
        values.append(value)
        texts.append(text[at:end].encode(errors="surrogatepass"))
        at = _skip(text, end)
        if text[at : at + 1] == "]":
            return values, texts, at + 1
        at = _skip(text, _expect(text, at, ","))


def _value(text: str, at: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, at)
    except json.JSONDecodeError:
        raise
    except ValueError:
        return _TOLERANT.raw_decode(text, at)


def _expect(text: str, at: int, sign: str) -> int:
    if text[at : at + 1] != sign:
        raise json.JSONDecodeError(f"Expecting {sign!r}", text, at)
    return at + 1


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _end(text: str, at: int, texts: list[bytes]) -> list[bytes]:
    at = _skip(text, at)
    if at != len(text):
        raise json.JSONDecodeError("Extra data", text, at)
    return texts


def _unchanged(item: Any, text: bytes | None) -> bool:
    """Whether a value is still what its text says; NaN, which equals nothing, included."""
    if text is None:
        return False
    before, _ = _value(text.decode(errors="surrogatepass"), 0)
    return bool(repr(before) == repr(item))
