"""Holds the log lines of one item or hook until they are stored, limited in number and size."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic_core import from_json, to_json

from .models import LogLevel
from .sanitize import (
    Redact,
    glimpse,
    redact_json,
    redact_patterns,
    redacted,
    storable,
    storable_json,
)
from .wording import counted

LOG_LINES = 100
LOG_BYTES = 65_536
LOG_MESSAGE_BYTES = 4_096
MOST_DETAILS = 16_384
LEVELS = {
    LogLevel.DEBUG: logging.DEBUG,
    LogLevel.INFO: logging.INFO,
    LogLevel.WARNING: logging.WARNING,
    LogLevel.ERROR: logging.ERROR,
}

LogLine = tuple[str, str, str | None, datetime]
"""Level, message, details as JSON text, time."""


@dataclass(slots=True)
class LogBuffer:
    """The log lines of one item or hook.

    Attributes:
        threshold: The lowest level that is kept.
        redact: Masks secrets.
        lines: The lines so far.
        size: Their size in bytes.
        dropped: How many lines were dropped because there was no room.
    """

    threshold: LogLevel = LogLevel.INFO
    redact: Redact = redact_patterns
    lines: list[LogLine] = field(default_factory=list)
    size: int = 0
    dropped: int = 0

    def add(self, level: LogLevel, message: str, details: Mapping[str, Any]) -> None:
        """Keep a line if its level is high enough and there is room."""
        if LEVELS[level] < LEVELS[self.threshold]:
            return
        text = redacted(message, self.redact, LOG_MESSAGE_BYTES)
        extra = self._json(details) if details else None
        line = (level.value, text, extra, datetime.now(UTC))
        if len(self.lines) >= LOG_LINES or self.size + _size(line) > LOG_BYTES:
            self.dropped += 1
            return
        self.size += _size(line)
        self.lines.append(line)

    def readable(self, details: Mapping[str, Any]) -> Any:
        """The details as JSON data without secrets."""
        try:
            text = to_json(dict(details), fallback=repr, inf_nan_mode="strings")
            if len(text) > MOST_DETAILS:  # parsing it would take long, and it is cut anyway
                return {"cut": redacted(text.decode(), self.redact, LOG_MESSAGE_BYTES)}
            data = from_json(text)
        except Exception:  # noqa: BLE001 - a user's object may raise anything; the line is kept
            data = {"unreadable": storable(glimpse(sorted(map(str, details)), 1_000), 1_000)}
        return redact_json(data, self.redact)

    def _json(self, details: Mapping[str, Any]) -> str:
        text = storable_json(to_json(self.readable(details)).decode())
        if len(text.encode()) <= LOG_MESSAGE_BYTES:
            return text
        return to_json({"cut": storable(text, LOG_MESSAGE_BYTES)}).decode()

    def truncate(self, mark: int) -> None:
        """Forget the lines after a mark, when an attempt is repeated."""
        del self.lines[mark:]
        self.size = sum(map(_size, self.lines))
        self.dropped = 0

    def finished(self) -> list[LogLine]:
        """The lines to store, with a last line about dropped lines."""
        if self.dropped:
            verb = "was" if self.dropped == 1 else "were"
            dropped = counted(self.dropped, "more log line")
            note = f"{dropped} {verb} dropped: too many or too long"
            return [*self.lines, (LogLevel.WARNING.value, note, None, datetime.now(UTC))]
        return self.lines


class LogMethods:
    """The methods by which user code writes log lines, one for each level."""

    __slots__ = ()

    def debug(self, message: str, **details: Any) -> None:
        """Add a log line of level debug."""
        self._write(LogLevel.DEBUG, message, details)

    def info(self, message: str, **details: Any) -> None:
        """Add a log line of level info."""
        self._write(LogLevel.INFO, message, details)

    def warning(self, message: str, **details: Any) -> None:
        """Add a log line of level warning."""
        self._write(LogLevel.WARNING, message, details)

    def error(self, message: str, **details: Any) -> None:
        """Add a log line of level error; it does not fail the item."""
        self._write(LogLevel.ERROR, message, details)

    def _write(self, level: LogLevel, message: str, details: Mapping[str, Any]) -> None:
        raise NotImplementedError


def _size(line: LogLine) -> int:
    _, message, details, _ = line
    return len(message.encode()) + len((details or "").encode())
