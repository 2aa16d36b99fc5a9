"""JSON bodies: whole objects for pydantic, and the items of a new batch as the client wrote them.

The elements of `items` are stored unchanged: 1.10 stays 1.10, and invalid JSON values (NaN, a
repeated key) become one failed item instead of a refused request. Each element is cut out of the
body and measured before it is parsed, so the memory needed is a small multiple of the body's size.
"""

import hashlib
import json
import re
from codecs import getincrementaldecoder
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request

from ... import exact_json
from ...exact_json import aside
from ...loading.records import Limits, StoredRecord, from_parsed, unreadable
from ...loading.sources.json_records import JsonRecords, value_end
from ...wording import counted
from .payloads import CreateBatch
from .problems import InvalidRequest

Model = TypeVar("Model", bound=BaseModel)

BLANKS = 16_384  # skipped in one step
FIELD_BYTES = 1_048_576  # the limit for all fields of a new batch except its items
MOST_MEMBERS = 100
MOST_CONTAINERS = 1_000_000  # objects and arrays in items that a hook or `strict` reads
_SPACE = re.compile(rb"[ \t\r\n]*+")
_DECODER = json.JSONDecoder(parse_float=exact_json.number)
_TOLERANT = json.JSONDecoder(parse_int=float)  # int() refuses more than 4,300 digits


@dataclass(slots=True)
class Creation:
    """A request for a new batch, and its items as they will be stored.

    Attributes:
        data: The request as hooks see and may change it; its items are None until `read_items`.
        records: The items.
    """

    data: CreateBatch
    records: list[StoredRecord]

    def sha256(self) -> str:
        """A digest of the items as sent, which identifies a repeated request."""
        digest = hashlib.sha256()
        for text in map(_bytes, self.records):
            digest.update(b"%d " % len(text) + text)
        return digest.hexdigest()

    async def read_items(self) -> None:
        """Parse the items, for a hook or for `strict`.

        Raises:
            HTTPException: 413, if they contain too many objects.
        """
        self.data.items = await aside(self._size(), lambda: _values(self.records))

    async def source(self, *, touched: bool) -> JsonRecords:
        """The records to store: as sent, except for those that a hook has changed.

        Args:
            touched: Whether a hook has seen the items.
        """
        if not touched:
            return JsonRecords(self.records)
        return JsonRecords(await aside(self._size(), self._with_changes))

    def _size(self) -> int:
        return sum(len(_bytes(record)) for record in self.records)

    def _with_changes(self) -> list[StoredRecord | Any]:
        known = [*self.records, *[None] * len(self.data.items or [])]
        pairs = zip(self.data.items or [], known, strict=False)
        return [record if _is_unchanged(item, record) else item for item, record in pairs]


async def json_body(request: Request, model: type[Model]) -> Model:
    """Return the body as a model; an empty body counts as an empty object.

    Raises:
        InvalidRequest: The body is not JSON, or does not fit the model.
        HTTPException: 415, if its content type is not JSON.
    """
    _require_json(request)
    body = await request.body() or b"{}"
    return await aside(len(body), lambda: _model(body, model))


async def creation_body(request: Request, limits: Limits, most_items: int) -> Creation:
    """Return the request for a new batch in a body.

    Args:
        limits: The limits of one record.
        most_items: The largest number of items.

    Raises:
        InvalidRequest: The body is not JSON, or does not fit `CreateBatch`.
        HTTPException: 415, if its content type is not JSON; 413, for too many items or too large
            other fields.
    """
    _require_json(request)
    body = await request.body()
    return await aside(len(body), lambda: _Reader(body, limits, most_items).creation())


def _require_json(request: Request) -> None:
    given = request.headers.get("content-type")
    if given is None and not _has_body(request):
        return
    kind = (given or "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        sent = kind or "a body without a content type"
        raise HTTPException(415, f"Send application/json, not {sent}. Send files to …/upload.")


def _has_body(request: Request) -> bool:
    length = request.headers.get("content-length", "0").strip()
    return length.strip("0") != "" or "transfer-encoding" in request.headers


def _model(body: bytes, model: type[Model]) -> Model:
    try:
        value = exact_json.read_unchecked(body.decode())
    except ValueError:
        raise InvalidRequest("The body is not JSON.", status=400) from None
    return _validated(model, value)


def _validated(model: type[Model], value: Any) -> Model:
    if isinstance(value, dict) and len(value) > MOST_MEMBERS:  # each unknown member is one error
        raise InvalidRequest(f"The body has more than {MOST_MEMBERS} members.")
    try:
        return model.model_validate(value)
    except ValidationError as exc:
        raise InvalidRequest.of(exc, "body") from None


class _Reader:
    """Reads the body of a new batch from beginning to end."""

    def __init__(self, body: bytes, limits: Limits, most_items: int) -> None:
        self._body = body
        self._limits = limits
        self._most_items = most_items
        self._at = 0
        self._field_bytes = 0

    def creation(self) -> Creation:
        """Return the request."""
        try:
            self._require_utf8()
            fields, records = self._fields()
        except json.JSONDecodeError as exc:
            detail = f"The body is not JSON: {exc.msg} at byte {self._at + exc.pos}."
            raise InvalidRequest(detail, status=400) from None
        except RecursionError:
            raise InvalidRequest("The body is nested too deeply.", status=400) from None
        without = {} if records is not None else {"items": fields.pop("items", None)}
        data = _validated(CreateBatch, fields | without)
        if records is None:
            where = {"location": ["body", "items"], "message": "Field required", "type": "missing"}
            raise InvalidRequest("The request is invalid at body.items.", [where])
        return Creation(data, records)

    def _require_utf8(self) -> None:
        decoder = getincrementaldecoder("utf-8")()
        for start in range(0, len(self._body), FIELD_BYTES):
            part = self._body[start : start + FIELD_BYTES]
            try:
                decoder.decode(part, final=start + FIELD_BYTES >= len(self._body))
            except UnicodeDecodeError:
                detail = f"The body is not UTF-8 between bytes {start} and {start + len(part)}."
                raise InvalidRequest(detail, status=400) from None

    def _fields(self) -> tuple[dict[str, Any], list[StoredRecord] | None]:
        """Return the members of the object, and the elements of `items` if it is a list."""
        fields: dict[str, Any] = {}
        records: list[StoredRecord] | None = None
        self._expect(b"{", "Expecting an object")
        more = self._skip() != b"}"
        while more:
            if self._skip() != b'"':
                self._refuse("Expecting a name in double quotes")
            name = self._value()
            self._expect(b":", "Expecting ':'")
            if name == "items" and self._skip() == b"[":
                records = self._elements()
            else:
                fields[name] = self._value()
                records = None if name == "items" else records
            more = self._skip() == b","
            if more:
                self._at += 1
        self._expect(b"}", "Expecting ',' or '}'")
        if self._skip():
            self._refuse("Extra data")
        return fields, records

    def _elements(self) -> list[StoredRecord]:
        records: list[StoredRecord] = []
        self._at += 1
        more = self._skip() != b"]"
        while more:
            if len(records) == self._most_items:
                most = counted(self._most_items, "item")
                detail = f"The batch has more than {most}. Upload a file instead."
                raise HTTPException(413, detail)
            self._skip()
            records.append(self._record())
            more = self._skip() == b","
            if more:
                self._at += 1
        self._expect(b"]", "Expecting ',' or ']'")
        return records

    def _record(self) -> StoredRecord:
        """Return the element that starts here. Elements over the size limit are not parsed."""
        start, end = self._at, value_end(self._body, self._at)
        raw = self._body[start:end]
        if len(raw) > self._limits.record_bytes:
            reason = f"it is {len(raw):,} bytes long as JSON"
            reason = f"{reason}; at most {self._limits.record_bytes:,} are allowed"
            self._at = end
            return unreadable(raw, line=None, reason=reason, limits=self._limits)
        value, _ = _decoded(raw)
        self._at = end
        return from_parsed(raw, value, limits=self._limits)

    def _value(self) -> Any:
        """Return the value that starts here, which is not an item."""
        self._skip()
        end = value_end(self._body, self._at)
        self._field_bytes += end - self._at
        if self._field_bytes > FIELD_BYTES:
            raise HTTPException(413, f"The fields except items exceed {FIELD_BYTES} bytes.")
        value, _ = _decoded(self._body[self._at : end])
        self._at = end
        return value

    def _skip(self) -> bytes:
        """Skip white space and return the next byte; an empty one at the end."""
        while match := _SPACE.match(self._body, self._at, self._at + BLANKS):
            if match.end() == self._at:
                break
            self._at = match.end()
        return self._body[self._at : self._at + 1]

    def _expect(self, sign: bytes, complaint: str) -> None:
        if self._skip() != sign:
            self._refuse(complaint)
        self._at += 1

    def _refuse(self, complaint: str) -> NoReturn:
        raise json.JSONDecodeError(complaint, "", 0)


def _values(records: list[StoredRecord]) -> list[Any]:
    texts = [_bytes(record) for record in records]
    if sum(text.count(b"{") + text.count(b"[") for text in texts) > MOST_CONTAINERS:
        detail = f"The items contain more than {MOST_CONTAINERS} objects. Upload a file instead."
        raise HTTPException(413, detail)
    return [_lenient(text) for text in texts]


def _lenient(text: bytes) -> Any:
    """The value of an item; None for a long one, of which only the beginning is kept."""
    try:
        return _decoded(text)[0]
    except (ValueError, RecursionError):
        return None


def _decoded(raw: bytes) -> tuple[Any, str]:
    """Return the only value in a text, and the text."""
    text = raw.decode()
    try:
        return _DECODER.decode(text), text
    except json.JSONDecodeError:
        raise
    except ValueError:
        return _TOLERANT.decode(text), text


def _is_unchanged(item: Any, record: StoredRecord | None) -> bool:
    """Whether a hook has left a value as it was. By repr, since NaN is not equal to itself."""
    return record is not None and repr(_lenient(_bytes(record))) == repr(item)


def _bytes(record: StoredRecord) -> bytes:
    return record.text or record.raw or b""
