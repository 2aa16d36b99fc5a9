"""Converts Python values for the columns of a table, in the same way for every kind of write.

Each value becomes a fragment of JSON text, which `json_to_recordset` turns into the column's type.
So the type codecs of the driver, and of the caller's own pool, have no effect. Each column type has
a mapping from Python types to functions; other types are refused, and nothing is guessed.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from json.encoder import encode_basestring
from math import isfinite, isnan
from typing import Any, TypeAlias
from uuid import UUID

from pydantic_core import from_json, to_json, to_jsonable_python

Handler: TypeAlias = Callable[[Any], str]
Handlers: TypeAlias = Mapping[type, Handler]


class Refused(Exception):
    """A value does not fit its column.

    Attributes:
        reason: Why, as the end of a sentence about the value.
        hint: What to do.
    """

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


class NotPlain(ValueError):
    """A value, or the values of a row, must be converted one by one."""


def plain_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """The JSON text of rows whose values are all `as_is`, or have passed their checks.

    Raises:
        NotPlain: A text or a number must be converted by itself.
    """
    text = to_json(rows, inf_nan_mode="constants").decode()
    if "\\u0000" in text or "NaN" in text or "Infinity" in text:
        raise NotPlain
    return text


@dataclass(frozen=True, slots=True)
class Converter:
    """Turns values into JSON text for one type of column.

    Attributes:
        handlers: The functions, by the exact class of a value.
        as_is: Classes whose values pydantic writes as the same JSON, which is faster.
        checks: Classes of which this is true for some values only, each with a function that
            raises NotPlain for the other values.
    """

    handlers: Handlers
    as_is: frozenset[type] = field(init=False)
    checks: Mapping[type, Callable[[Any], None]] = field(init=False)

    def __post_init__(self) -> None:
        as_is = {cls for cls, handler in self.handlers.items() if handler in _PLAIN}
        if self.handlers.get(date) is _iso:
            as_is.add(date)
        checks = {datetime: _CHECKS.get(self.handlers.get(datetime, _iso), _never_plain)}
        object.__setattr__(self, "as_is", frozenset(as_is))
        object.__setattr__(self, "checks", checks)

    def __call__(self, value: Any) -> str:
        """The JSON text of a value.

        Raises:
            Refused: It does not fit the column.
        """
        handler = self.handlers.get(type(value))
        return self.unusual(value) if handler is None else handler(value)

    def unusual(self, value: Any) -> str:
        """The same for a value whose class is not listed: enums, subclasses, models."""
        if isinstance(value, Enum):
            return self(value.value)
        for cls in type(value).__mro__[1:-1]:
            if (handler := self.handlers.get(cls)) is not None:
                return handler(value)
        handler = self.handlers.get(object)
        if handler is None:
            raise Refused(f"{_named(value)} does not fit", "convert the value first.")
        return handler(value)


def _named(value: Any) -> str:
    """A value's class with its article."""
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeio' else 'a'} {name}"


def _refusing(reason: str, hint: str) -> Handler:
    def refuse(value: Any) -> str:
        raise Refused(reason.format(_named(value)), hint)

    return refuse


def _null(_value: None) -> str:
    return "null"


def _text(value: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Refused(
                "the text contains half a character (a lone surrogate)",
                "decode the source with the right encoding.",
            ) from None
    if "\0" in value:
        raise Refused(
            "the text contains a NUL character, which PostgreSQL cannot store",
            "remove it in the source or in the model.",
        )
    return encode_basestring(value)


def _quoted_text(value: Any) -> str:
    """The text of a value that needs no escapes."""
    return f'"{value}"'


def _whole(value: int) -> str:
    try:
        return int.__repr__(value)
    except ValueError:  # more digits than Python writes
        raise Refused("the number has too many digits", "store it as text.") from None


def _float(value: float) -> str:
    if isfinite(value):
        return float.__repr__(value)
    if isnan(value):
        return '"NaN"'
    return '"Infinity"' if value > 0 else '"-Infinity"'


def _bool(value: bool) -> str:  # noqa: FBT001 - the value that is converted
    return "true" if value else "false"


def _whole_decimal(value: Decimal) -> str:
    if value.is_finite() and value.adjusted() < 20 and value == value.to_integral_value():
        return str(int(value))
    raise Refused(f"{value} is not a whole number of this size", "round it first.")


def _zero_or_one(value: int) -> str:
    if value in (0, 1):
        return _bool(bool(value))
    raise Refused("only the numbers 0 and 1 are truth values", "pass True or False.")


def _bytes(value: bytes) -> str:
    return f'"\\\\x{bytes(value).hex()}"'


def _jsonable(value: Any) -> str:
    """The JSON text of a value as pydantic writes it, if nothing would be masked or lost."""
    _refuse_secret(value)
    try:
        text = to_json(value, inf_nan_mode="constants", bytes_mode="utf8").decode()
    except Exception as exc:  # noqa: BLE001 - a user's class may raise anything
        raise Refused(f"{_named(value)} is not JSON: {exc}", "convert the value first.") from None
    if "NaN" in text or "Infinity" in text:
        try:
            json.loads(text, parse_constant=_no_constant)
        except ValueError:
            raise Refused(
                "JSON cannot represent NaN and Infinity", "pass None or a text instead."
            ) from None
    return text


def _refuse_secret(value: Any) -> None:
    if hasattr(value, "get_secret_value"):
        raise Refused(
            "a secret would be stored as asterisks",
            "pass the value of the secret (get_secret_value) if it may be stored.",
        )


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _other(value: Any) -> str:
    """The text of a class that is not listed, such as a URL or an IP address, by pydantic."""
    _refuse_secret(value)
    try:
        plain = to_jsonable_python(value)
    except Exception as exc:  # noqa: BLE001 - a user's class may raise anything
        raise Refused(f"{_named(value)} does not fit: {exc}", "convert the value first.") from None
    return _text(plain) if isinstance(plain, str) else _jsonable(value)


def _hstore(value: Mapping[Any, Any]) -> str:
    pairs = (f"{_hstore_part(key)}=>{_hstore_part(element)}" for key, element in value.items())
    return _text(", ".join(pairs))


def _hstore_part(value: Any) -> str:
    if value is None:
        return "NULL"
    if not isinstance(value, str):
        raise Refused("hstore stores only texts", "pass str values, or make the column jsonb.")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _json_text(value: str) -> str:
    """A str for a JSON column: an object or array is JSON text, anything else a JSON string."""
    if not value.lstrip().startswith(("{", "[")):
        return _text(value)
    try:
        from_json(value, allow_inf_nan=False)
    except ValueError as exc:
        raise Refused(
            f"the text begins like JSON but is not valid: {exc}",
            "pass the value itself (a dict, a list), or valid JSON text.",
        ) from None
    return value


# Dates and times. A text must be ISO 8601, which is read in the same way under all settings of the
# session, and its year must be one that Python can read back.

_DAY = r"\d{4}-\d\d-\d\d"
_CLOCK = r"\d\d:\d\d(?::\d\d(?:\.\d+)?)?"
_OFFSET = r"(?:Z|[+-]\d\d(?::?\d\d(?::\d\d)?)?)"
_DATE = re.compile(_DAY, re.ASCII)
_LOCAL = re.compile(f"{_DAY}(?:[T ]{_CLOCK})?", re.ASCII)
_INSTANT = re.compile(f"{_DAY}[T ]{_CLOCK} ?{_OFFSET}", re.ASCII)
_TIME = re.compile(_CLOCK, re.ASCII)
_TIME_WITH_ZONE = re.compile(f"{_CLOCK} ?{_OFFSET}", re.ASCII)
_INFINITE = frozenset({"infinity", "-infinity"})

_NO_ZONE = "{} without a time zone does not determine an instant"
_NO_ZONE_HINT = (
    "give it a time zone, in the source or in the model (AwareDatetime), or make the column a "
    "timestamp without time zone."
)
_ZONE = "{} with a time zone would lose its time zone"
_ZONE_HINT = (
    "make the column a timestamptz, or convert the value to local time without a zone in the model "
    "(NaiveDatetime refuses zones)."
)
_CLOCK_LOST = "{} would lose its time of day"
_CLOCK_LOST_HINT = "make the field a date in the model, or the column a timestamp."


def _iso_text(pattern: re.Pattern[str], *, infinite: bool = True) -> Callable[[str], str | None]:
    def matching(value: str) -> str | None:
        text = value.strip()
        known = pattern.fullmatch(text) or (infinite and text.lower() in _INFINITE)
        return f'"{text}"' if known else None

    return matching


_AS_DATE, _AS_LOCAL, _AS_INSTANT = map(_iso_text, (_DATE, _LOCAL, _INSTANT))
_AS_TIME = _iso_text(_TIME, infinite=False)
_AS_TIME_WITH_ZONE = _iso_text(_TIME_WITH_ZONE, infinite=False)


def _not_iso(value: str, example: str) -> Refused:
    return Refused(
        f"the text {value[:60]!r} is not in ISO 8601 with a year from 1 to 9999",
        f"write it like {example}, or parse it with a field of type date or datetime in the model.",
    )


def _text_to_date(value: str) -> str:
    if (text := _AS_DATE(value)) is not None:
        return text
    if _AS_LOCAL(value) or _AS_INSTANT(value):
        raise Refused(_CLOCK_LOST.format("the text"), _CLOCK_LOST_HINT)
    raise _not_iso(value, "2026-01-31")


def _text_to_timestamp(value: str) -> str:
    if (text := _AS_LOCAL(value)) is not None:
        return text
    if _AS_INSTANT(value):
        raise Refused(_ZONE.format("a text"), _ZONE_HINT)
    raise _not_iso(value, "2026-01-31T12:00:00")


def _text_to_timestamptz(value: str) -> str:
    if (text := _AS_INSTANT(value)) is not None:
        return text
    if _AS_LOCAL(value):
        raise Refused(_NO_ZONE.format("a text"), _NO_ZONE_HINT)
    raise _not_iso(value, "2026-01-31T12:00:00Z")


def _text_to_time(value: str) -> str:
    if (text := _AS_TIME(value)) is not None:
        return text
    if _AS_TIME_WITH_ZONE(value):
        raise Refused(_ZONE.format("a text"), "pass the time without its zone.")
    raise _not_iso(value, "12:00:00")


def _text_to_timetz(value: str) -> str:
    if (text := _AS_TIME_WITH_ZONE(value)) is not None:
        return text
    if _AS_TIME(value):
        raise Refused(_NO_ZONE.format("a text"), "give it a time zone.")
    raise _not_iso(value, "12:00:00Z")


def _datetime_to_date(value: datetime) -> str:
    if value.tzinfo is None and value.time() == time():
        return _quoted_text(value.date().isoformat())
    raise Refused(_CLOCK_LOST.format("a datetime"), _CLOCK_LOST_HINT)


def _iso(value: date | time) -> str:
    return f'"{value.isoformat()}"'


def _without_zone(value: datetime | time) -> str:
    if value.tzinfo is not None:
        raise Refused(_ZONE.format(_named(value)), _ZONE_HINT)
    return _iso(value)


def _with_zone(value: datetime | time) -> str:
    if value.utcoffset() is None:
        raise Refused(_NO_ZONE.format(_named(value)), _NO_ZONE_HINT)
    return _iso(value)


def _has_zone(value: datetime) -> None:
    offset = value.utcoffset()
    if offset is None or offset.seconds % 60 or offset.microseconds:
        raise NotPlain


def _has_no_zone(value: datetime) -> None:
    if value.tzinfo is not None:
        raise NotPlain


def _never_plain(_value: Any) -> None:
    raise NotPlain


_CHECKS: dict[Handler, Callable[[Any], None]] = {
    _with_zone: _has_zone,
    _without_zone: _has_no_zone,
}


def _interval(value: timedelta) -> str:
    """Days and seconds, as in the driver, in a form that is read alike in every IntervalStyle."""
    seconds = f"{value.seconds}.{value.microseconds:06d}"
    return f'"{value.days:+d} days +{seconds} seconds"'


_PLAIN = frozenset({_null, _text, _whole, _bool, _quoted_text, _float})
_NOT_A_TIME = _refusing("{} is not a date or time", "convert it first.")
_NOT_TEXT = _refusing("bytes are not a text", "decode them first, or make the column bytea.")
_NUMBERS: dict[type, Handler] = {
    type(None): _null,
    str: _text,
    int: _whole,
    Decimal: _quoted_text,
    float: _float,
    bool: _refusing(
        "a truth value is not a number", "convert it to 0 or 1 first, or make the column boolean."
    ),
}
_WHOLE: dict[type, Handler] = _NUMBERS | {
    Decimal: _whole_decimal,
    float: _refusing(
        "a float is not a whole number", "make the field an int in the model, or round it first."
    ),
}
_TEXTS: dict[type, Handler] = {
    type(None): _null,
    str: _text,
    int: _whole,
    float: _float,
    Decimal: _quoted_text,
    bool: _bool,
    UUID: _quoted_text,
    date: _iso,
    datetime: _iso,
    time: _iso,
    timedelta: _refusing(
        "{} has no standard text form", "convert it to text first, or make the column an interval."
    ),
    dict: _jsonable,
    list: _jsonable,
    tuple: _jsonable,
    object: _other,
    **dict.fromkeys((bytes, bytearray, memoryview), _NOT_TEXT),
}
_OTHERS: dict[type, Handler] = _TEXTS | {timedelta: _interval}
_TIMES: dict[type, Handler] = {
    type(None): _null,
    int: _NOT_A_TIME,
    float: _NOT_A_TIME,
    Decimal: _NOT_A_TIME,
    bool: _NOT_A_TIME,
}
_JSON: dict[type, Handler] = {
    type(None): _null,
    str: _json_text,
    int: _whole,
    bool: _bool,
    bytes: _refusing("bytes are not JSON", "decode them, or use a bytea column."),
    object: _jsonable,
}

_HANDLERS: dict[str, dict[type, Handler]] = {
    **dict.fromkeys(("int2", "int4", "int8", "oid"), _WHOLE),
    **dict.fromkeys(("float4", "float8", "numeric", "money"), _NUMBERS),
    **dict.fromkeys(("json", "jsonb"), _JSON),
    "bool": {
        type(None): _null,
        bool: _bool,
        int: _zero_or_one,
        str: _text,
        float: _refusing("{} is not a truth value", "pass True or False."),
    },
    "hstore": {type(None): _null, str: _text, dict: _hstore},
    "uuid": {type(None): _null, UUID: _quoted_text, str: _text},
    "bytea": {
        type(None): _null,
        bytes: _bytes,
        bytearray: _bytes,
        memoryview: _bytes,
        str: _refusing("a text is not bytes", "encode it first, or make the column text."),
    },
    "date": _TIMES | {str: _text_to_date, date: _iso, datetime: _datetime_to_date},
    "timestamp": _TIMES | {str: _text_to_timestamp, datetime: _without_zone, date: _iso},
    "timestamptz": _TIMES
    | {
        str: _text_to_timestamptz,
        datetime: _with_zone,
        date: _refusing("a date is not an instant", _NO_ZONE_HINT),
    },
    "time": _TIMES | {str: _text_to_time, time: _without_zone},
    "timetz": _TIMES | {str: _text_to_timetz, time: _with_zone},
    "interval": _TIMES
    | {
        str: _text,
        timedelta: _interval,
        **dict.fromkeys(
            (int, float, Decimal),
            _refusing("a number has no unit of time", "pass a timedelta, or '5 seconds'."),
        ),
    },
}
_BOUNDS = {
    "int4range": "int4",
    "int8range": "int8",
    "numrange": "numeric",
    "tsrange": "timestamp",
    "tstzrange": "timestamptz",
    "daterange": "date",
}


@lru_cache(maxsize=256)
def converter(base: str, kind: str = "b", *, array: bool = False) -> Converter:
    """The converter for a column type.

    Args:
        base: The type's name in pg_type, without the array and the domains around it.
        kind: Its ``typtype``: "c" for a composite, "r" for a range, "m" for a multirange, or "b".
        array: Whether the column is an array of the type.
    """
    if array:
        return Converter(_array(converter(base, kind), is_json=base in ("json", "jsonb")))
    if kind in ("r", "m"):
        return Converter(_ranges(base, many=kind == "m"))
    if kind == "c":
        return Converter(_COMPOSITE)
    return Converter(_HANDLERS.get(base, _TEXTS if base in _TEXT_TYPES else _OTHERS))


_TEXT_TYPES = frozenset({"text", "varchar", "bpchar", "name", "citext", "char"})


def _array(element: Converter, *, is_json: bool) -> dict[type, Handler]:
    def array_text(values: Any) -> str:
        return f"[{','.join(map(element_text, values))}]"

    def element_text(value: Any) -> str:
        if isinstance(value, list | tuple):
            if is_json:
                raise Refused(
                    "PostgreSQL would read a list in an array of JSON as a further dimension",
                    "make the column jsonb, not an array of it.",
                )
            return array_text(value)
        text = element(value)
        if is_json and text.startswith("["):
            raise Refused("an array of JSON cannot contain a JSON array", "use a jsonb column.")
        return text

    return {
        type(None): _null,
        str: _text,  # PostgreSQL's own text of an array
        **dict.fromkeys((list, tuple, set, frozenset), array_text),
    }


def _ranges(base: str, *, many: bool) -> dict[type, Handler]:
    """Handlers for ranges as text, or as objects such as asyncpg's Range."""
    subtype = _BOUNDS.get(base.replace("multirange", "range"))

    def bound(value: Any) -> str:
        return "" if value is None else converter(subtype or "")(value).strip('"')

    def text(value: Any) -> str:
        if subtype is None or not hasattr(value, "lower_inc"):
            raise Refused(
                f"{_named(value)} is not a range", "pass the range as text, like '[1,5)'."
            )
        if value.isempty:
            return "empty"
        low, high = "[" if value.lower_inc else "(", "]" if value.upper_inc else ")"
        return f"{low}{bound(value.lower)},{bound(value.upper)}{high}"

    def single(value: Any) -> str:
        return f'"{text(value)}"'

    def several(values: Any) -> str:
        return f'"{{{",".join(map(text, values))}}}"'

    usual: dict[type, Handler] = {type(None): _null, str: _text}
    if many:
        return usual | dict.fromkeys((list, tuple), several)
    return usual | {object: single}


def _composite(value: Any) -> str:
    for part in _parts(value):
        if isinstance(part, datetime | time):
            raise Refused(
                "the time zones of the parts of a composite value are unknown",
                "pass the value as PostgreSQL's own text, like '(1,2026-01-31)'.",
            )
    text = _jsonable(value)
    if not text.startswith("{"):
        raise Refused(f"{_named(value)} does not name the attributes", "pass a dict or a model.")
    return text


def _parts(value: Any) -> list[Any]:
    """The parts of a composite value, on all levels."""
    inner = value if isinstance(value, Mapping | list | tuple) else getattr(value, "__dict__", None)
    if inner is None:
        return [value]
    members = inner.values() if isinstance(inner, Mapping) else inner
    return [part for member in members for part in _parts(member)]


_COMPOSITE: dict[type, Handler] = {type(None): _null, str: _text, object: _composite}
