"""Template filters: values as text, with invisible and direction-changing characters visible."""

import json
import re
from datetime import datetime, timedelta
from typing import Any

from markupsafe import Markup, escape

from ... import exact_json

LONGEST = 2_000
NOTHING = "\u2013"
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ud800-\udfff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def has_invisible(text: str) -> bool:
    """Whether a text has invisible characters, or characters that change its direction."""
    return _INVISIBLE.search(text) is not None


def shown(value: object, longest: int = LONGEST) -> Markup:
    """Escape any text: a long one is cut, and invisible characters are shown by name."""
    text = str(value)
    rest = len(text) - longest
    parts: list[Markup] = []
    position = 0
    for match in _INVISIBLE.finditer(cut := text[:longest]):
        parts.append(escape(cut[position : match.start()]))
        parts.append(Markup('<span class="hidden-char">U+{:04X}</span>').format(ord(match[0])))
        position = match.end()
    parts.append(escape(cut[position:]))
    more = Markup('<span class="more"> … {} more characters</span>').format(f"{rest:,}")
    return Markup("<bdi>{}</bdi>{}").format(Markup("").join(parts), more if rest > 0 else "")


def brief(value: object, longest: int) -> Markup:
    """Escape any text for a list: a long one is cut, without saying how much is missing."""
    text = str(value)
    return shown(text if len(text) <= longest else f"{text[:longest].rstrip()}…", longest + 1)


def plain(value: object, longest: int = 80) -> str:
    """Text for places without markup, such as titles and options."""
    text = str(value)
    named = _INVISIBLE.sub(lambda match: f"U+{ord(match[0]):04X}", text[:longest])
    return named if len(text) <= longest else f"{named}…"


def json_text(value: Any, *, indent: int | None = 2) -> str:
    """JSON to read or edit; invisible characters are written as escapes."""
    text = exact_json.write_readable(value, indent=indent)
    return _INVISIBLE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    return match[0] if match[0] in "\n\r\t" else json.dumps(match[0])[1:-1]


def value_text(value: Any) -> str:
    """The value of a field: text unchanged, anything else as JSON."""
    return value if isinstance(value, str) else json_text(value, indent=None)


def count(value: float | None) -> str:
    """A number with thousands separators."""
    return NOTHING if value is None else f"{value:,.0f}"


def rate(value: float | None) -> str:
    """Items per second."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}/s" if value >= 10 else f"{value:,.1f}/s"


def size(value: int | None) -> str:
    """A number of bytes, with a unit."""
    if value is None:
        return NOTHING
    amount = float(value)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:,.0f} {unit}" if unit == "B" else f"{amount:,.1f} {unit}"
        amount /= 1000
    return f"{amount:,.1f} GB"


def span(value: timedelta | float | None) -> str:
    """A duration in its two largest units."""
    if value is None:
        return NOTHING
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def moment(value: datetime | None) -> Markup:
    """A time in UTC, the same for every reader."""
    if value is None:
        return escape(NOTHING)
    return Markup('<time datetime="{}">{}</time>').format(
        value.isoformat(), value.strftime("%Y-%m-%d %H:%M:%S")
    )


def percent(part: float, whole: float) -> str:
    """A share in percent; 100 % and 0 % only if they are exact."""
    if not whole:
        return NOTHING
    share = 100 * part / whole
    if 0 < share < 0.1:
        return "< 0.1 %"
    if 99.9 < share < 100:
        return "> 99.9 %"
    return f"{share:.1f} %".replace(".0 %", " %")
