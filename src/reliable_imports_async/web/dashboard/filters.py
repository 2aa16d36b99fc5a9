"""Values as pages show them. What would change how text around it looks is made visible."""

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


def hides_something(text: str) -> bool:
    """Whether a text has characters that cannot be seen, or that turn the text around."""
    return _INVISIBLE.search(text) is not None


def shown(value: object, longest: int = LONGEST) -> Markup:
    """Any text as text: cut when it is long, in isolation, with invisible characters named."""
    text = str(value)
    rest = len(text) - longest
    parts: list[Markup] = []
    position = 0
    for found in _INVISIBLE.finditer(cut := text[:longest]):
        parts.append(escape(cut[position : found.start()]))
        parts.append(Markup('<span class="hidden-char">U+{:04X}</span>').format(ord(found[0])))
        position = found.end()
    parts.append(escape(cut[position:]))
    more = Markup('<span class="more"> … {} more characters</span>').format(f"{rest:,}")
    return Markup("<bdi>{}</bdi>{}").format(Markup("").join(parts), more if rest > 0 else "")


def brief(value: object, longest: int) -> Markup:
    """Any text in one place of a list: cut short without saying by how much."""
    text = str(value)
    return shown(text if len(text) <= longest else f"{text[:longest].rstrip()}…", longest + 1)


def plain(value: object, longest: int = 80) -> str:
    """A text for where no markup can be: a title, an option."""
    text = str(value)
    named = _INVISIBLE.sub(lambda found: f"U+{ord(found[0]):04X}", text[:longest])
    return named if len(text) <= longest else f"{named}…"


def json_text(value: Any, *, indent: int | None = 2) -> str:
    """JSON to read or edit; characters that hide are written as escapes."""
    text = exact_json.write_readable(value, indent=indent)
    return _INVISIBLE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return found[0] if found[0] in "\n\r\t" else json.dumps(found[0])[1:-1]


def value_text(value: Any) -> str:
    """A field's value: a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json_text(value, indent=None)


def count(value: float | None) -> str:
    """A number with its thousands apart."""
    return NOTHING if value is None else f"{value:,.0f}"


def rate(value: float | None) -> str:
    """Items a second."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}/s" if value >= 10 else f"{value:,.1f}/s"


def size(value: int | None) -> str:
    """Bytes."""
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
    """A time, in UTC: every reader sees the same."""
    if value is None:
        return escape(NOTHING)
    return Markup('<time datetime="{}">{}</time>').format(
        value.isoformat(), value.strftime("%Y-%m-%d %H:%M:%S")
    )


def percent(part: float, whole: float) -> str:
    """A share; never 100 % or 0 % when it is not quite."""
    if not whole:
        return NOTHING
    share = 100 * part / whole
    if 0 < share < 0.1:
        return "< 0.1 %"
    if 99.9 < share < 100:
        return "> 99.9 %"
    return f"{share:.1f} %".replace(".0 %", " %")
