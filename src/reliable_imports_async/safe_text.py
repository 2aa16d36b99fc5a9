"""Texts made safe to store and to show: secrets out, NUL and lone surrogates escaped, capped."""

import re
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote, unquote, urlsplit

_URL_PASSWORD = re.compile(r"(?P<head>://[^\s:/@]*:)[^\s@]+(?=@)")
_NAMED_PASSWORD = re.compile(
    r"(?P<head>(?:password|passwd|\bpwd)\b['\"]?\s*[=:]\s*)(?:'[^']*'|\"[^\"]*\"|[^\s,;)&]+)",
    re.IGNORECASE,
)
_PASSWORD_NAME = re.compile(r"(?:password|passwd|\bpwd)\b", re.IGNORECASE)

Redact = Callable[[str], str]


def redact_patterns(text: str) -> str:
    """Mask what looks like a password in a URL or behind the word password."""
    if "://" in text:  # most texts hold neither, and the patterns are slow
        text = _URL_PASSWORD.sub(r"\g<head>***", text)
    lower = text.lower()
    if "passw" in lower or "pwd" in lower:
        text = _NAMED_PASSWORD.sub(r"\g<head>***", text)
    return text


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


def storable(text: str, limit: int) -> str:
    """The text as PostgreSQL can store it, at most `limit` bytes of UTF-8."""
    clean = text[:limit].replace("\x00", "\\x00")
    data = clean.encode("utf-8", "backslashreplace")
    if len(data) <= limit and len(text) <= limit:
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


_JSON_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def storable_json(text: str) -> str:
    """JSON text as jsonb accepts it: an escaped NUL, which jsonb refuses, becomes visible text."""
    return _JSON_NUL.sub(r"\1\\\\x00", text) if "\\u0000" in text else text
