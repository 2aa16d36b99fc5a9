"""Turns any record into JSON text that jsonb stores unaltered, or into a reason why it cannot.

A bad record never raises here: it becomes a `StoredRecord` without text that keeps the raw bytes.
Nothing is lost silently: a number that Python could not read back, a duplicate key, NUL characters,
lone surrogates, NaN and infinities make a record unstorable.
"""

import dataclasses
import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple, NoReturn

from pydantic import BaseModel
from pydantic_core import to_json

from .. import exact_json
from ..errors import ConfigurationError

MAX_RECORD_BYTES = 128 * 1024 * 1024  # jsonb refuses containers above 255 MiB
MAX_DEPTH = 500  # the json module gives up near 1,000 levels, PostgreSQL near 7,000
MAX_INTEGER_DIGITS = 4_300  # what int() reads by default
MAX_FRACTION_DIGITS = 16_000  # numeric holds 16,383 digits after the point, exponent included
MAX_EXPONENT = 380  # beyond it a float is infinite or zero
MAX_REASON = 500


@dataclass(frozen=True, slots=True)
class Limits:
    """How large one record may be.

    Attributes:
        record_bytes: Length of its JSON text in bytes, 1 to 134,217,728.
        depth: Levels of nested objects and arrays, 1 to 500; a flat object has one.
    """

    record_bytes: int = 1_048_576
    depth: int = 64

    def __post_init__(self) -> None:
        if not (1 <= self.record_bytes <= MAX_RECORD_BYTES and 1 <= self.depth <= MAX_DEPTH):
            raise ConfigurationError(
                f"Limits of {self.record_bytes} bytes and depth {self.depth} are not valid.",
                hint=f"record_bytes is 1 to {MAX_RECORD_BYTES}, depth is 1 to {MAX_DEPTH}.",
            )


class StoredRecord(NamedTuple):  # a frozen dataclass takes three times as long to make
    """One record of a source, storable or not.

    Attributes:
        text: The record as a JSON object in UTF-8 that jsonb stores unaltered; None if there is
            none.
        raw: The record's bytes as they came, if `text` is None.
        line: The physical line (from 1) of the source on which the record starts.
        reason: Why the record cannot be stored; None if it can.
    """

    text: bytes | None
    raw: bytes | None
    line: int | None
    reason: str | None


DEFAULT_LIMITS = Limits()


def from_value(
    value: object,
    *,
    line: int | None = None,
    raw: bytes | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> StoredRecord:
    """The record for a Python value: a dict, a pydantic model, a dataclass, a mapping.

    Args:
        value: Anything that pydantic serialises to a JSON object.
        line: The line of the source on which it starts.
        raw: The bytes it was read from; kept if it cannot be stored.
        limits: Its largest size and depth.

    Returns:
        The record; with `reason` and `raw` if it cannot be stored. Nothing is raised.
    """
    text = None
    try:
        text = to_json(value, inf_nan_mode="constants", fallback=_fields)
        if not _is_plain(value, text, limits):
            if b"." in text and exact_json.holds_exact(value):
                text = exact_json.write(value, inf_nan_mode="constants", fallback=_fields)
            text = _checked(text, limits)
            if b"null" in text:  # a pydantic model always writes null for NaN
                _refuse_hidden_nan(value)
        return StoredRecord(text, None, line, None)
    except _UnstorableError as error:
        reason = str(error)
    except Exception as error:  # noqa: BLE001  a user's object may raise anything; only its record fails
        reason = _why_not_json(error)
    kept = raw if raw is not None else text if text is not None else _rendition(value)
    return unreadable(kept, line=line, reason=reason, limits=limits)


def from_json(raw: bytes, *, line: int | None, limits: Limits = DEFAULT_LIMITS) -> StoredRecord:
    """The record for JSON text, which is checked and stored as it is; 1.10 keeps its scale.

    Only a whole number in exponent notation that jsonb would return as a different Python number
    (1e23) is written out (100000000000000000000000.0).

    Args:
        raw: The text of one JSON object; whitespace around it is fine.
        line: The line of the source on which it starts.
        limits: Its largest size and depth.

    Returns:
        The record; with `reason` and `raw` if it cannot be stored. Nothing is raised.
    """
    try:
        return StoredRecord(_checked(raw, limits), None, line, None)
    except _UnstorableError as error:
        return unreadable(raw, line=line, reason=str(error), limits=limits)


def from_parsed(text: bytes, value: object, *, limits: Limits = DEFAULT_LIMITS) -> StoredRecord:
    """The same as `from_json`, without parsing the text again if the parsed value is simple.

    Args:
        text: JSON text, UTF-8.
        value: The value that the json module parsed from exactly this text.
        limits: Its largest size and depth.

    Returns:
        The record; with `reason` and `raw` if it cannot be stored. Nothing is raised.
    """
    if _is_plain(value, text, limits) and _names_each_once(value, text):
        return StoredRecord(text, None, None, None)
    return from_json(text, line=None, limits=limits)


def unreadable(
    raw: bytes, *, line: int | None, reason: str, limits: Limits = DEFAULT_LIMITS
) -> StoredRecord:
    """The record for bytes that cannot be stored as JSON, e.g. a CSV row with too few fields.

    Args:
        raw: The record as it came; its first `limits.record_bytes` bytes are kept.
        line: The line of the source on which it starts.
        reason: Why it cannot be stored, for the user.
        limits: How much of `raw` to keep.
    """
    reason = reason.encode(errors="backslashreplace").decode().replace("\0", "\\0")[:MAX_REASON]
    if len(raw) > limits.record_bytes:
        reason = f"{reason} (only its first {limits.record_bytes:,} bytes are kept)"
    return StoredRecord(None, raw[: limits.record_bytes], line, reason)


class _UnstorableError(ValueError):
    """The record cannot be stored; the message is the reason."""


class _NeedsPlainNotationError(ValueError):
    """A number in exponent notation would come back from jsonb as another number."""


_PLAIN = frozenset({str, int, bool, type(None)})
_TEXT = frozenset({str})
_PLAIN_BYTES = MAX_INTEGER_DIGITS  # a shorter text holds no integer that is too long
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)'
_BRACKET = re.compile(_STRING + rb"|[\[{]|[\]}]", re.DOTALL)
_EXPONENT = re.compile(_STRING + rb"|(?<![\d.-])-?\d++(?:\.\d++)?+[eE][+-]?\d++", re.DOTALL)
_HARD_ESCAPES = (b'\\"', b"\\\\", b"\\ud", b"\\uD")  # of quotes, backslashes and surrogates
# Whole escapes from left to right, so that an escaped backslash before "u0000" counts as such.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|(u0000|u[dD][89a-fA-F]..)|.)", re.DOTALL
)


def _is_plain(value: object, text: bytes, limits: Limits) -> bool:
    """Whether a value is so simple that its text needs no further check: the fast, usual case."""
    return (
        len(text) <= _PLAIN_BYTES
        and len(text) <= limits.record_bytes
        and type(value) is dict
        and _TEXT.issuperset(map(type, value))
        and _PLAIN.issuperset(map(type, value.values()))
        and (b"\\" not in text or b"\\u0000" not in text)
    )


def _names_each_once(plain: Any, text: bytes) -> bool:
    """Whether no key occurs twice in the text of a plain value, which then has all its strings.

    Without certain escapes, each string in the text has exactly two quotation marks.
    """
    if b"\\" in text and any(escape in text for escape in _HARD_ESCAPES):
        return False
    strings = len(plain) + sum(type(value) is str for value in plain.values())
    return text.count(b'"') == 2 * strings


def _checked(text: bytes, limits: Limits) -> bytes:
    """The text to store for a JSON text, or an _UnstorableError."""
    if len(text) > limits.record_bytes:
        raise _UnstorableError(
            f"it is {len(text):,} bytes long as JSON; at most {limits.record_bytes:,} are allowed"
        )
    if text.count(b"{") + text.count(b"[") > limits.depth and _depth(text) > limits.depth:
        raise _UnstorableError(f"it is nested more than {limits.depth} levels deep")
    try:
        value = _parsed(text)
    except _NeedsPlainNotationError:
        return _checked(_EXPONENT.sub(lambda match: _plain_notation(match[0]), text), limits)
    if type(value) is not dict:
        raise _UnstorableError(f"it is {_kind(value)}, not a JSON object")
    if b"\\u" in text:
        _refuse_escapes(text)
    return text


def _parsed(text: bytes) -> Any:
    try:
        return (_SHORT if len(text) <= MAX_INTEGER_DIGITS else _LONG).decode(text.decode())
    except UnicodeDecodeError as error:
        offset, byte = error.start, text[error.start]
        raise _UnstorableError(f"it is not UTF-8: byte {offset} is 0x{byte:02x}") from None
    except json.JSONDecodeError as error:
        raise _UnstorableError(f"it is not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise _UnstorableError("it is nested too deeply") from None
    except (_UnstorableError, _NeedsPlainNotationError):
        raise
    except ValueError:  # int() under a digit limit lower than the default
        raise _UnstorableError("a number in it has too many digits") from None


def _refuse_escapes(text: bytes) -> None:
    for match in _ESCAPE.finditer(text):
        if match[1] == b"u0000":
            raise _UnstorableError("it contains a NUL character, which PostgreSQL cannot store")
        if match[1]:
            raise _UnstorableError(
                f"it contains half a character (the lone surrogate \\{match[1].decode()})"
            )


def _refuse_hidden_nan(value: object) -> None:
    """Refuse NaN and infinities that a pydantic model inside the value would write as null."""
    pending, seen = [value], set()
    while pending:
        part = pending.pop()
        if isinstance(part, float) and not math.isfinite(part):
            _refuse_constant("NaN" if math.isnan(part) else "Infinity")
        if id(part) not in seen:
            seen.add(id(part))
            pending.extend(_parts(part))


def _parts(value: object) -> Iterable[object]:
    if isinstance(value, BaseModel):
        return (value.model_dump(),)
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, list | tuple | set | frozenset):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    return ()


def _depth(text: bytes) -> int:
    depth = deepest = 0
    for match in _BRACKET.finditer(text):
        if match[0] in b"[{":
            depth += 1
            deepest = max(depth, deepest)
        elif match[0] in b"]}":
            depth -= 1
    return deepest


def _plain_notation(token: bytes) -> bytes:
    """A number written without its exponent if necessary; other tokens as they are."""
    if token[:1] == b'"' or not _is_changed_by_jsonb(token.decode()):
        return token
    plain = f"{Decimal(token.decode()):f}".encode()
    return plain if b"." in plain else plain + b".0"


def _is_changed_by_jsonb(token: str) -> bool:
    """Whether jsonb would turn a float into an int of another value (1e23 is not 10**23)."""
    value = float(token)
    if abs(value) < 2**53 or not math.isfinite(value):
        return False
    exact = Decimal(token)
    return exact == exact.to_integral_value() and exact != value


def _float(token: str) -> float:
    value = float(token)
    if len(token) < 300 and "e" not in token and "E" not in token:
        return value
    mantissa, _, exponent = token.lower().partition("e")
    fraction = len(mantissa) - mantissa.find(".") if "." in mantissa else 0
    if not math.isfinite(value) or fraction > MAX_FRACTION_DIGITS or len(exponent) > 20:
        raise _UnstorableError(f"the number {_short(token)} cannot be stored without loss")
    if exponent:
        lost = value == 0 and mantissa.strip("-0.") != ""
        if lost or abs(int(exponent)) > MAX_EXPONENT:
            raise _UnstorableError(f"the number {_short(token)} cannot be stored without loss")
        if _is_changed_by_jsonb(token):
            raise _NeedsPlainNotationError
    return value


def _int(token: str) -> int:
    digits = len(token.lstrip("-"))
    if digits > MAX_INTEGER_DIGITS:
        raise _UnstorableError(
            f"a number in it has {digits:,} digits; at most {MAX_INTEGER_DIGITS:,} are allowed"
        )
    return int(token)


def _refuse_constant(token: str) -> NoReturn:
    raise _UnstorableError(f"it contains {token}, which JSON cannot represent")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise _UnstorableError(f"key {_short(twice)!r} occurs twice")
    return result


_SHORT = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_float, parse_constant=_refuse_constant
)
_LONG = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_float, parse_int=_int, parse_constant=_refuse_constant
)


def _fields(value: Any) -> dict[Any, Any]:
    """The fields of a mapping that pydantic does not know, such as an asyncpg Record."""
    if not callable(getattr(value, "keys", None)):
        raise TypeError(f"objects of {type(value).__name__} have no JSON form")
    return dict(value)


def _rendition(value: object) -> bytes:
    """A value that has no JSON form, as readable bytes."""
    for render in (_as_json, repr):
        try:
            return render(value).encode(errors="surrogatepass")
        except Exception:  # noqa: BLE001, S112  a user's object may raise anything
            continue
    return b"(a value that cannot be shown)"


def _as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=repr)


def _kind(value: object) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}…"


def _why_not_json(error: Exception) -> str:
    try:
        message = str(error)
    except Exception:  # noqa: BLE001  even this may be a user's code
        message = type(error).__name__
    if "surrogates not allowed" in message:
        return "it contains half a character (a lone surrogate)"
    return f"it cannot be written as JSON: {message}"
