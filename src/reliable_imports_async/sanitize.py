"""Makes texts safe to store and to show: masks secrets, escapes NUL and surrogates, cuts length."""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import quote, unquote, urlsplit

# Every pattern takes linear time: repetitions are possessive, and no character is examined from two
# starting points.
_URL_HEAD = re.compile(r"://[^\s:/@]*+:")
_NAMED_PASSWORD = re.compile(
    r"(?P<head>(?:password|passwd|\bpwd)\b['\"]?+\s*+[=:]\s*+)(?:'[^']*+'|\"[^\"]*+\"|[^\s,;)&]++)",
    re.IGNORECASE,
)
_PASSWORD_NAME = re.compile(r"(?:password|passwd|\bpwd)\b", re.IGNORECASE)
LONGEST_SECRET = 1_024  # characters
Redact = Callable[[str], str]
_JSON_NUL = re.compile(r"(?<!\\)((?:\\\\)*+)\\u0000")


def redactor(secrets: Iterable[str]) -> Redact:
    """A function that masks passwords by pattern, and the given secrets everywhere."""
    known = {form for secret in secrets if len(secret) > 3 for form in _spellings(secret)}
    longest_first = sorted(known, key=len, reverse=True)

    def redact(text: str) -> str:
        for secret in longest_first:
            text = text.replace(secret, "***")
        return redact_patterns(text)

    return redact


def redact_patterns(text: str) -> str:
    """Mask the passwords in URLs and after the word password."""
    if "://" in text and "@" in text:  # most texts have neither, and the patterns are slow
        text = _without_url_passwords(text)
    lower = text.lower()
    if "passw" in lower or "pwd" in lower:
        text = _NAMED_PASSWORD.sub(r"\g<head>***", text)
    return text


def redacted(text: str, redact: Redact, limit: int) -> str:
    """The text without secrets, as PostgreSQL can store it, in at most `limit` bytes of UTF-8.

    A long text is cut before the secrets are masked, so that it costs no more than a short text.
    This cut leaves `LONGEST_SECRET` characters more than the limit, which are dropped later: part
    of a secret, which the patterns do not recognise, can only be in those.
    """
    room = limit + LONGEST_SECRET
    if len(text) <= room:
        return storable(redact(text), limit)
    return storable(redact(text[:room])[:-LONGEST_SECRET], limit, cut=True)


def redact_json(value: Any, redact: Redact) -> Any:
    """JSON data in which every text is masked, and every value whose key names a password."""
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


def password_of(url: str) -> str | None:
    """The decoded password of a connection URL; None if it has none."""
    try:
        password = urlsplit(url).password
    except ValueError:
        return None
    return unquote(password) if password else None


def storable(text: str, limit: int, *, cut: bool = False) -> str:
    """The text as PostgreSQL can store it, in at most `limit` bytes of UTF-8.

    Args:
        text: The text.
        limit: The largest number of bytes.
        cut: Whether the text was already cut, so that this has to be marked.
    """
    if text.isascii() and len(text) <= limit and not cut and "\x00" not in text:
        return text  # nearly always
    clean = text[:limit].replace("\x00", "\\x00")
    data = clean.encode("utf-8", "backslashreplace")
    if len(data) <= limit and len(text) <= limit and not cut:
        return data.decode()
    mark = " … (cut)"
    return data[: max(0, limit - len(mark.encode()))].decode("utf-8", "ignore") + mark


def storable_json(text: str) -> str:
    """JSON text that jsonb accepts: an escaped NUL becomes visible text."""
    return _JSON_NUL.sub(r"\1\\\\x00", text) if "\\u0000" in text else text


def visible(text: str) -> str:
    """The text with escapes in place of invisible characters (zero-width, no-break, control)."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode()
        for char in text
    )


def glimpse(value: object, limit: int) -> str:
    """The first `limit` characters of a value's repr(), without computing the rest."""
    text = ""
    for piece in _pieces(value, limit):
        text += piece
        if len(text) > limit:
            break
    return text[:limit]


def _without_url_passwords(text: str) -> str:
    """Mask the text between ``://user:`` and the next @, if there is no white space in it."""
    *parts, last = text.split("@")
    for index, part in enumerate(parts):
        words = part.rsplit(maxsplit=1)
        word = words[-1] if words and not part[-1].isspace() else ""
        head = _URL_HEAD.search(word)
        if head and head.end() < len(word):
            parts[index] = part[: len(part) - len(word) + head.end()] + "***"
    return "@".join([*parts, last])


def _spellings(secret: str) -> set[str]:
    return {secret, quote(secret, safe=""), quote(secret)}


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
