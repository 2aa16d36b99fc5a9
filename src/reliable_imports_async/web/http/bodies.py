"""JSON bodies: whole objects for pydantic, and the items of a new batch as they are written.

The elements of `items` reach the database as the client wrote them: 1.10 stays 1.10, and what JSON
should not hold (NaN, a key that occurs twice) becomes one failed item, not a refused request. They
are cut out by their ends, counted, and measured before anything is made of them, so that a body
costs a few times its size and no more.
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

BLANKS = 16_384  # skipped at once
BESIDE_BYTES = 1_048_576  # of a new batch's body, beside its items
MOST_MEMBERS = 100
MOST_CONTAINERS = 1_000_000  # objects and arrays in items that a hook or `strict` looks at
_SPACE = re.compile(rb"[ \t\r\n]*+")
_DECODER = json.JSONDecoder(parse_float=exact_json.number)
_TOLERANT = json.JSONDecoder(parse_int=float)  # int() refuses more than 4,300 digits


@dataclass(slots=True)
class Creation:
    """A request for a new batch, and its items as they will be stored.

    Attributes:
        data: What hooks see and may change; its items are None until `read_items`.
        records: The items; None where there is no list of them.
    """

    data: CreateBatch
    records: list[StoredRecord]

    def sha256(self) -> str:
        """A digest of the items as they came, by which a repeated request is known."""
        digest = hashlib.sha256()
        for one in self.records:
            text = one.text or one.raw or b""
            digest.update(b"%d " % len(text) + text)
        return digest.hexdigest()

    async def read_items(self) -> None:
        """Make values of the items, for a hook or for `strict`.

        Raises:
            HTTPException: 413, when they hold too many objects.
        """
        size = sum(len(one.text or one.raw or b"") for one in self.records)
        self.data.items = await aside(size, lambda: _values(self.records))

    async def source(self, *, touched: bool) -> JsonRecords:
        """The records to store: as they are written, but for those that a hook has changed.

        Args:
            touched: Whether a hook has seen the items.
        """
        if not touched:
            return JsonRecords(self.records)
        size = sum(len(one.text or one.raw or b"") for one in self.records)
        return JsonRecords(await aside(size, self._changed))

    def _changed(self) -> list[StoredRecord | Any]:
        known = [*self.records, *[None] * len(self.data.items or [])]
        pairs = zip(self.data.items or [], known, strict=False)
        return [record if _is_unchanged(item, record) else item for item, record in pairs]


async def json_body(request: Request, model: type[Model]) -> Model:
    """The body as a model; an empty one where the body is empty.

    Raises:
        InvalidRequest: It is no JSON, or does not fit.
        HTTPException: 415, when it says that it is something else than JSON.
    """
    _require_json(request)
    body = await request.body() or b"{}"
    return await aside(len(body), lambda: _model(body, model))


async def creation_body(request: Request, limits: Limits, most_items: int) -> Creation:
    """A new batch from a body.

    Args:
        request: The request.
        limits: Of one record.
        most_items: So many may be in it.

    Raises:
        InvalidRequest: It is no JSON, or does not fit.
        HTTPException: 415, when it says that it is something else than JSON; 413 for too many
            items, or too much beside them.
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
        raise HTTPException(415, f"Send application/json, not {sent}; files go to …/upload.")


def _has_body(request: Request) -> bool:
    length = request.headers.get("content-length", "0").strip()
    return length.strip("0") != "" or "transfer-encoding" in request.headers


def _model(body: bytes, model: type[Model]) -> Model:
    try:
        value = exact_json.read_unchecked(body.decode())
    except ValueError:
        raise InvalidRequest("The body is no JSON.", status=400) from None
    return _validated(model, value)


def _validated(model: type[Model], value: Any) -> Model:
    if isinstance(value, dict) and len(value) > MOST_MEMBERS:  # each unknown one is an error
        raise InvalidRequest(f"The body has more than {MOST_MEMBERS} members.")
    try:
        return model.model_validate(value)
    except ValidationError as exc:
        raise InvalidRequest.of(exc, "body") from None


class _Reader:
    """Reads the body of a new batch from its beginning to its end."""

    def __init__(self, body: bytes, limits: Limits, most_items: int) -> None:
        self._body = body
        self._limits = limits
        self._most_items = most_items
        self._at = 0
        self._beside = 0

    def creation(self) -> Creation:
        """The new batch."""
        try:
            self._require_utf8()
            fields, records = self._fields()
        except json.JSONDecodeError as exc:
            detail = f"The body is no JSON: {exc.msg} at byte {self._at + exc.pos}."
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
        for start in range(0, len(self._body), BESIDE_BYTES):
            part = self._body[start : start + BESIDE_BYTES]
            try:
                decoder.decode(part, final=start + BESIDE_BYTES >= len(self._body))
            except UnicodeDecodeError:
                detail = f"The body is not UTF-8 between bytes {start} and {start + len(part)}."
                raise InvalidRequest(detail, status=400) from None

    def _fields(self) -> tuple[dict[str, Any], list[StoredRecord] | None]:
        """The members of the object; and the elements of `items`, where that is a list."""
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
                detail = f"More than {counted(self._most_items, 'item')}; upload a file instead."
                raise HTTPException(413, detail)
            self._skip()
            records.append(self._record())
            more = self._skip() == b","
            if more:
                self._at += 1
        self._expect(b"]", "Expecting ',' or ']'")
        return records

    def _record(self) -> StoredRecord:
        """The element that starts here. What is longer than a record may be is not looked into."""
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
        """The value that starts here, which is not an item."""
        self._skip()
        end = value_end(self._body, self._at)
        self._beside += end - self._at
        if self._beside > BESIDE_BYTES:
            raise HTTPException(413, f"More than {BESIDE_BYTES} bytes beside the items.")
        value, _ = _decoded(self._body[self._at : end])
        self._at = end
        return value

    def _skip(self) -> bytes:
        """Go to the next byte that is not white space; nothing at the end."""
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
    texts = [one.text or one.raw or b"" for one in records]
    if sum(text.count(b"{") + text.count(b"[") for text in texts) > MOST_CONTAINERS:
        detail = f"The items hold more than {MOST_CONTAINERS} objects; upload a file instead."
        raise HTTPException(413, detail)
    return [_lenient(text) for text in texts]


def _lenient(text: bytes) -> Any:
    """The value of an item; None for one that is too long, of which only the beginning is kept."""
    try:
        return _decoded(text)[0]
    except (ValueError, RecursionError):
        return None


def _decoded(raw: bytes) -> tuple[Any, str]:
    """The one value that a text holds, and the text."""
    text = raw.decode()
    try:
        return _DECODER.decode(text), text
    except json.JSONDecodeError:
        raise
    except ValueError:
        return _TOLERANT.decode(text), text


def _is_unchanged(item: Any, record: StoredRecord | None) -> bool:
    """Whether a value is still what its text says; NaN, which equals nothing, included."""
    if record is None:
        return False
    return bool(repr(_lenient(record.text or record.raw or b"")) == repr(item))
