"""Texts made safe to store and to show: secrets out, NUL and lone surrogates escaped, capped."""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import quote, unquote, urlsplit

# Each pattern takes time in proportion to its text: repetitions are possessive, and no two starts
# look at the same characters.
_URL_HEAD = re.compile(r"://[^\s:/@]*+:")
_NAMED_PASSWORD = re.compile(
    r"(?P<head>(?:password|passwd|\bpwd)\b['\"]?+\s*+[=:]\s*+)(?:'[^']*+'|\"[^\"]*+\"|[^\s,;)&]++)",
    re.IGNORECASE,
)
_PASSWORD_NAME = re.compile(r"(?:password|passwd|\bpwd)\b", re.IGNORECASE)

LONGEST_SECRET = 1_024  # characters; what is cut is cut so far behind what is kept

Redact = Callable[[str], str]


def redact_patterns(text: str) -> str:
    """Mask what looks like a password in a URL or behind the word password."""
    if "://" in text and "@" in text:  # most texts hold neither, and the patterns are slow
        text = _without_url_passwords(text)
    lower = text.lower()
    if "passw" in lower or "pwd" in lower:
        text = _NAMED_PASSWORD.sub(r"\g<head>***", text)
    return text


def _without_url_passwords(text: str) -> str:
    """Mask what stands between ``://user:`` and the next @, with no white space in it."""
    *parts, last = text.split("@")
    for place, part in enumerate(parts):
        words = part.rsplit(maxsplit=1)
        word = words[-1] if words and not part[-1].isspace() else ""
        head = _URL_HEAD.search(word)
        if head and head.end() < len(word):
            parts[place] = part[: len(part) - len(word) + head.end()] + "***"
    return "@".join([*parts, last])


def redacted(text: str, redact: Redact, limit: int) -> str:
    """The text without secrets, as PostgreSQL can store it: at most `limit` bytes of UTF-8.

    What is too long is cut first, so that a long text costs no more than a short one. The cut is
    far enough behind the limit that no half of a secret is left, which nothing would recognise.
    """
    room = limit + LONGEST_SECRET
    if len(text) <= room:
        return storable(redact(text), limit)
    return storable(redact(text[:room])[:-LONGEST_SECRET], limit, cut=True)


def glimpse(value: object, limit: int) -> str:
    """The beginning of what repr() says, at most `limit` characters; the rest is not written."""
    text = ""
    for piece in _pieces(value, limit):
        text += piece
        if len(text) > limit:
            break
    return text[:limit]


def _pieces(value: object, limit: int) -> Iterator[str]:
    match value:
        case str() | bytes() if len(value) > limit:
            yield repr(value[:limit])
        case dict() if value:
            yield "{"
            for place, (key, element) in enumerate(value.items()):
                yield f"{', ' if place else ''}{glimpse(key, limit)}: "
                yield from _pieces(element, limit)
            yield "}"
        case list() if value:
            yield "["
            for place, element in enumerate(value):
                yield ", " if place else ""
                yield from _pieces(element, limit)
            yield "]"
        case int() if value.bit_length() > 8 * limit:
            yield hex(
                value >> (value.bit_length() - 4 * limit)
            )  # int() writes 4,300 digits at most
        case _:
            yield repr(value)


def redact_json(value: Any, redact: Redact) -> Any:
    """JSON data with every text in it masked, and what a key calls a password."""
    match value:
        case str():
            return redact(value)
        case list():
            return [redact_json(element, redact) for element in value]
        case dict():
            return {
                redact(key): "***" if _PASSWORD_NAME.search(key) else redact_json(element, redact)
                for key, element in value.items()
            }
    return value


def redactor(secrets: Iterable[str]) -> Redact:
    """A function that masks passwords by pattern, and the given secrets wherever they stand."""
    known = {form for secret in secrets if len(secret) > 3 for form in _spellings(secret)}
    longest_first = sorted(known, key=len, reverse=True)

    def redact(text: str) -> str:
        for secret in longest_first:
            text = text.replace(secret, "***")
        return redact_patterns(text)

    return redact


def password_of(url: str) -> str | None:
    """The password inside a connection URL, decoded; None where there is none."""
    try:
        password = urlsplit(url).password
    except ValueError:
        return None
    return unquote(password) if password else None


def _spellings(secret: str) -> set[str]:
    return {secret, quote(secret, safe=""), quote(secret)}


def storable(text: str, limit: int, *, cut: bool = False) -> str:
    """The text as PostgreSQL can store it, at most `limit` bytes of UTF-8.

    Args:
        text: Any text.
        limit: Bytes.
        cut: Whether the text is only the beginning of what there was.
    """
    clean = text[:limit].replace("\x00", "\\x00")
    data = clean.encode("utf-8", "backslashreplace")
    if len(data) <= limit and len(text) <= limit and not cut:
        return data.decode()
    mark = " … (cut)"
    return data[: max(0, limit - len(mark.encode()))].decode("utf-8", "ignore") + mark


def visible(text: str) -> str:
    """The text with characters that cannot be seen (zero-width, no-break, control) as escapes."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one in "\n\t" else one.encode("unicode_escape").decode()
        for one in text
    )


_JSON_NUL = re.compile(r"(?<!\\)((?:\\\\)*+)\\u0000")


def storable_json(text: str) -> str:
    """JSON text as jsonb accepts it: an escaped NUL, which jsonb refuses, becomes visible text."""
    return _JSON_NUL.sub(r"\1\\\\x00", text) if "\\u0000" in text else text
