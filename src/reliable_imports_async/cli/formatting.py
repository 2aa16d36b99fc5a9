"""Words and numbers as people read them, and foreign text that cannot drive a terminal."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID

from .. import exact_json
from ..sanitize import Redact

TAIL_DIGITS = 12

# Controls but tab and newline, and what reorders text: ESC and C1 codes are orders to a terminal.
_STEERING = "\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069"
_CONTROL = re.compile(f"[{_STEERING}]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_DURATION = re.compile(r"(\d{1,9})\s*([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def plain(text: object) -> str:
    """Text whose control characters are visible signs, so that a terminal obeys none of them."""
    return _SURROGATE.sub("\ufffd", _CONTROL.sub(_sign, str(text)))


def one_line(text: object, limit: int = 2_000) -> str:
    """The same on one line."""
    words = " ".join(plain(text).split())
    return words if len(words) <= limit else words[: limit - 1] + "…"


def tail(batch_id: UUID) -> str:
    """The end of a batch's id: unique in practice, short, and accepted wherever an id is."""
    return batch_id.hex[-TAIL_DIGITS:]


def number(count: int) -> str:
    """A count with its thousands apart."""
    return f"{count:,}"


def rate(per_second: float | None) -> str:
    """Items a second."""
    if per_second is None:
        return ""
    return f"{per_second:,.0f}" if per_second >= 10 else f"{per_second:.1f}"


def duration(span: timedelta) -> str:
    """How long something took, in its two largest units."""
    seconds = max(0.0, span.total_seconds())
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def duration_left(seconds: float) -> str:
    """An estimate, so without fractions."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02} left" if hours else f"{minutes}:{seconds:02} left"


def age(moment: datetime) -> str:
    """How long ago something was, in one unit."""
    seconds = max(0.0, (datetime.now(UTC) - moment).total_seconds())
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


def clock(moment: datetime) -> str:
    """A moment in the time zone of this machine."""
    return moment.astimezone().isoformat(sep=" ", timespec="milliseconds")


def parse_duration(text: str) -> timedelta:
    """``30d``, ``12h``, ``90m``, ``2w`` or ``45s``; raises ValueError for anything else."""
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is no duration; write 30d, 12h, 90m, 2w or 45s")
    span = _UNITS[match[2]]
    try:
        result = timedelta(**{span: int(match[1])})
        datetime.now(UTC) - result
    except OverflowError:
        raise ValueError(f"{text!r} is longer than time itself") from None
    return result


def json_text(value: object, redact: Redact = str) -> str:
    """Compact JSON with steering characters escaped: safe on a terminal, equal to any reader."""
    text = exact_json.write(
        value, inf_nan_mode="strings", bytes_mode="base64", fallback=_fallback
    ).decode()
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", redact(text))


def pretty_json(value: object) -> str:
    """JSON over several lines, to be read; what cannot be seen stands there as its escape."""
    text = exact_json.write_readable(exact_json.read(json_text(value)), indent=2)
    shown = (one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in text)
    return plain("".join(shown))


def _sign(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)  # the control pictures: ESC is ␛
    return "\u2421" if code == 0x7F else "\ufffd"


def _fallback(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else str(value)
