"""Formats numbers, times and JSON for people, and makes foreign text safe for a terminal."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID

from .. import exact_json
from ..sanitize import Redact

TAIL_DIGITS = 12

# Control characters except tab and newline (a terminal obeys ESC and C1 codes), and characters
# that reorder text.
_STEERING = "\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069"
_CONTROL = re.compile(f"[{_STEERING}]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_DURATION = re.compile(r"(\d{1,9})\s*([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def plain(text: object) -> str:
    """The text with visible signs in place of control characters."""
    return _SURROGATE.sub("\ufffd", _CONTROL.sub(_sign, str(text)))


def one_line(text: object, limit: int = 2_000) -> str:
    """The same on one line, cut to `limit` characters."""
    words = " ".join(plain(text).split())
    return words if len(words) <= limit else words[: limit - 1] + "…"


def tail(batch_id: UUID) -> str:
    """The end of a batch's id: short, unique in practice, and accepted in place of the id."""
    return batch_id.hex[-TAIL_DIGITS:]


def number(count: int) -> str:
    """A count with thousands separators."""
    return f"{count:,}"


def rate(per_second: float | None) -> str:
    """Items per second."""
    if per_second is None:
        return ""
    return f"{per_second:,.0f}" if per_second >= 10 else f"{per_second:.1f}"


def duration(span: timedelta) -> str:
    """A time span in its two largest units."""
    seconds = max(0.0, span.total_seconds())
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def duration_left(seconds: float) -> str:
    """An estimated time span, in whole seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02} left" if hours else f"{minutes}:{seconds:02} left"


def age(moment: datetime) -> str:
    """The time since a moment, in one unit."""
    seconds = max(0.0, (datetime.now(UTC) - moment).total_seconds())
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


def clock(moment: datetime) -> str:
    """A moment in this machine's time zone."""
    return moment.astimezone().isoformat(sep=" ", timespec="milliseconds")


def parse_duration(text: str) -> timedelta:
    """``30d``, ``12h``, ``90m``, ``2w`` or ``45s``; raises ValueError for anything else."""
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is not a duration; write 30d, 12h, 90m, 2w or 45s")
    unit = _UNITS[match[2]]
    try:
        span = timedelta(**{unit: int(match[1])})
        datetime.now(UTC) - span
    except OverflowError:
        raise ValueError(f"{text!r} is too long") from None
    return span


def json_text(value: object, redact: Redact = str) -> str:
    """Compact JSON whose control characters are escaped: safe on a terminal, the same JSON."""
    text = exact_json.write(
        value, inf_nan_mode="strings", bytes_mode="base64", fallback=_fallback
    ).decode()
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", redact(text))


def pretty_json(value: object) -> str:
    """Indented JSON for people; invisible characters are escaped."""
    text = exact_json.write_readable(exact_json.read(json_text(value)), indent=2)
    visible = (
        char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text
    )
    return plain("".join(visible))


def _sign(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)  # the control pictures: ESC is ␛
    return "\u2421" if code == 0x7F else "\ufffd"


def _fallback(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else str(value)
