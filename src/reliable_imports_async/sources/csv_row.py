"""One CSV record with quotes, fed one physical line at a time.

Fields may be enclosed in double quotes; a quote inside is doubled, line ends inside are kept. A
quote that is not the first character of its field is a character like any other. This is what the
csv module reads with `strict=True`; here a quote that is never closed can be given up on, and no
limit of field length is shared with the rest of the process.
"""

import re
from functools import cache

_QUOTED = r"[^\"]*+(?:\"\"[^\"]*+)*+"
_UNTIL_CLOSED = re.compile(_QUOTED)


@cache
def _field(delimiter: str) -> re.Pattern[str]:
    """A whole field up to its delimiter: (quoted content, plain content, delimiter)."""
    end = re.escape(delimiter)
    return re.compile(rf"(?:\"({_QUOTED})\"|((?!\")[^{end}]*+))({end}|\Z)")


class CsvRow:
    """The fields of one record.

    Attributes:
        fields: The complete fields so far.
        is_open: Whether the last line ended inside quotes.
        opened_in: The line (from 0) in which the last field that was not complete at once began.
        stray: What is wrong with text behind a closing quote, or None.
        is_broken: Whether a line end is in a field without quotes.
    """

    __slots__ = (
        "_delimiter", "_lines", "_parts", "fields", "is_broken", "is_open", "opened_in", "stray",
    )  # fmt: skip

    def __init__(self, delimiter: str) -> None:
        self.fields: list[str] = []
        self.is_open = False
        self.opened_in = 0
        self.stray: str | None = None
        self.is_broken = False
        self._delimiter = delimiter
        self._lines = 0
        self._parts: list[str] = []

    @property
    def is_never_closed(self) -> bool:
        """Whether giving up now means that a quote was opened which nothing closes."""
        return self.is_open or (self.stray is not None and self.opened_in < self._lines - 1)

    def feed(self, line: str, ending: str) -> None:
        """Read the next physical line, given without its line end."""
        self._lines += 1
        position: int | None = 0
        if self.is_open:
            position = self._close(line, ending)
        while position is not None:
            position = self._next_field(line, position, ending)

    def _close(self, line: str, ending: str) -> int | None:
        """Go on with an open field; the position behind it and its delimiter if more follows."""
        end = _UNTIL_CLOSED.match(line).end()  # type: ignore[union-attr]  # matches nothing, too
        self._parts.append(line[:end])
        if end == len(line):
            self._parts.append(ending)
            return None
        self.is_open = False
        self._add_quoted("".join(self._parts))
        after = line[end + 1 : end + 2]
        if after not in {"", self._delimiter}:
            self.stray = f"text follows the closing quote of field {len(self.fields)}"
        return end + 2 if after == self._delimiter else None

    def _next_field(self, line: str, position: int, ending: str) -> int | None:
        match = _field(self._delimiter).match(line, position)
        if match is None:
            self._begin_open_field(line, position + 1, ending)
            return None
        quoted, plain, delimiter = match.groups()
        if quoted is None:
            self.fields.append(plain)
            self.is_broken = self.is_broken or "\r" in plain or "\n" in plain
        else:
            self._add_quoted(quoted)
        return match.end() if delimiter else None

    def _begin_open_field(self, line: str, position: int, ending: str) -> None:
        self.opened_in = self._lines - 1
        if _UNTIL_CLOSED.fullmatch(line, position):
            self.is_open = True
            self._parts = [line[position:], ending]
        else:
            self.stray = f"text follows the closing quote of field {len(self.fields) + 1}"

    def _add_quoted(self, content: str) -> None:
        self.fields.append(content.replace('""', '"'))
