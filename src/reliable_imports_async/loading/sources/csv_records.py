"""Reads CSV: physical lines become rows, and rows become records with the line they start on.

`CsvReader` reads the usual rows, which are one line without quotes, in a fast way; `CsvRow` parses
all other rows field by field, so that a broken row costs no other row.
"""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

from pydantic_core import to_json

from ...wording import counted
from ..records import Limits, StoredRecord, from_value, unreadable
from .decoding import UTF_8, Lines
from .layout import is_blank, unnamed
from .source import Read

_QUOTED = r"[^\"]*+(?:\"\"[^\"]*+)*+"
_ESCAPED = r"[^\"\\]*+(?:(?:\"\"|\\.|\\\Z)[^\"\\]*+)*+"  # a quote may be written as \"
_UNTIL_CLOSED = re.compile(_QUOTED)
_UNTIL_CLOSED_ESCAPED = re.compile(_ESCAPED)
_UNESCAPE = re.compile(r"\"\"|\\([\"\\])")
AsText: TypeAlias = Callable[[bytes], bytes | None]
MAX_ROW_LINES = 1_000
SWALLOWED_LINES, SWALLOWED_WIDTH = 2, 3  # this many lines of this many fields are not quoted text
_BROKEN = "a line end outside quotes: either it ends a row, or the value needs quotes"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the rows of a CSV file are written.

    Attributes:
        delimiter: The character between fields.
        encoding: The codec of its lines, which extends ASCII.
        newline: The end of a physical line.
        converted_from: The file's encoding, if its text was converted to UTF-8 before.
        escape: The character before a quote in a value, if quotes are not doubled.
    """

    delimiter: str
    encoding: str = UTF_8
    newline: bytes = b"\n"
    converted_from: str | None = None
    escape: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a CSV file.

    Attributes:
        line: The physical line on which it starts.
        raw: Its bytes, without the last line end.
        fields: Its values.
        problem: Why it cannot be read, or None if it can.
    """

    line: int
    raw: bytes
    fields: list[str]
    problem: str | None = None


class CsvReader:
    """Reads the rows of one CSV file."""

    def __init__(
        self, read: Read, dialect: Dialect, limits: Limits, *, comment: str | None = None
    ) -> None:
        self.separator_rows = 0  # rows without a value, which are no records
        self.lines = Lines(read, longest=limits.record_bytes + 2, newline=dialect.newline)
        self._dialect = dialect
        self._limits = limits
        self._width: int | None = None  # of the header
        self._comment = _encoded(comment, dialect.encoding) if comment else None
        # A line may also end with the other character: CR LF, CR CR LF, or LF in a file of CRs.
        self._strips, self._foreign = (b"\r", b"\r") if dialect.newline == b"\n" else (b"\n", b"\n")

    def records(self, names: Sequence[str | None]) -> Iterator[StoredRecord]:
        """The remaining rows as records; blank lines, comments and rows of separators are skipped.

        Args:
            names: The names of the columns; the value of a column without a name is left out if it
                is blank.
        """
        limits, lines, width, comment = self._limits, self.lines, len(names), self._comment
        self._width = width
        as_text = usual_row(names, self._dialect.delimiter, self._dialect.encoding)
        while (line := lines.next()) is not None:
            raw = line.rstrip(self._strips) if line[-1:] == self._strips else line
            if comment is not None and raw.startswith(comment):
                continue
            text = as_text(raw)
            if text is not None and len(text) <= limits.record_bytes:
                yield StoredRecord(text, None, lines.number, None)
                continue
            fields = self._simple_fields(raw)
            if fields and len(fields) == width and len(raw) <= limits.record_bytes:
                row: Row | None = Row(lines.number, raw, fields)
            else:
                row = self._row(line)
            if row is not None and (record := self._record(row, names)) is not None:
                yield record

    def _simple_fields(self, raw: bytes) -> list[str]:
        """The fields of a row that is one valid line, in a fast way; no fields for other rows."""
        try:
            text = raw.decode(self._dialect.encoding)
            if self._foreign in raw:
                return []
            if b'"' not in raw:
                return text.split(self._dialect.delimiter) if raw else []
            if text[-1] in "\r\n" or (self._dialect.escape and "\\" in text):
                return []  # the csv module would drop the one, and read the other as text
            return next(csv.reader((text,), delimiter=self._dialect.delimiter, strict=True))
        except (UnicodeDecodeError, csv.Error):
            return []

    def row(self) -> Row | None:
        """The next row that is not blank; None at the end."""
        while (line := self.lines.next()) is not None:
            if self._comment is not None and line.startswith(self._comment):
                continue
            if row := self._row(line):
                return row
        return None

    def _record(self, row: Row, names: Sequence[str | None]) -> StoredRecord | None:
        """The record in a row; None if the row has no value."""
        problem, width = row.problem, len(row.fields)
        if problem is None and width > 1 and is_blank(row.fields):
            self.separator_rows += 1
            return None
        if problem is None and width != len(names):
            fields = counted(width, "field")
            problem = f"line {row.line}: {fields}, the header has {len(names)}"
        if problem is not None:
            return unreadable(row.raw, line=row.line, reason=problem, limits=self._limits)
        value = named_values(names, row.fields)
        return from_value(value, line=row.line, raw=row.raw, limits=self._limits)

    def _row(self, line: bytes) -> Row | None:
        """The row that begins with a line, which may take more lines; None for a blank line."""
        number = self.lines.number
        raw = self._bare(line)
        if not raw or self._is_blank(raw):
            return None
        if len(raw) > self._limits.record_bytes:
            return Row(number, raw, [], f"line {number} is longer than a record may be")
        lines = [line]
        parsed, problem = self._parse(lines)
        if parsed.is_never_closed or self._swallows(lines):
            keep = parsed.opened_in + 1
            self.lines.give_back(lines[keep:])
            del lines[keep:]
            problem = f"line {number + parsed.opened_in}: a quote opened here is never closed"
        elif parsed.stray:
            problem = f"line {number + len(lines) - 1}: {parsed.stray}"
        elif parsed.is_broken:
            if len(lines) == 1 and (first := self._split(raw)) is not None:
                return Row(number, *first)
            problem = problem or f"line {number}: {_BROKEN}"
        raw = self._bare(self._dialect.newline.join(lines))
        return Row(number, raw, parsed.fields, problem)

    def _bare(self, line: bytes) -> bytes:
        """A line without the rest of its own line end and of that of the line before."""
        return line.strip(b"\n") if self._strips == b"\n" else line.rstrip(b"\r")

    def _is_blank(self, raw: bytes) -> bool:
        """Whether a line has only spaces, and no delimiters."""
        if self._width == 1 or not raw.isspace():
            return False
        return self._dialect.delimiter.encode() not in raw

    def _swallows(self, lines: list[bytes]) -> bool:
        """Whether the inner lines of a row are rows themselves, because a quote is missing."""
        width = self._width or 0
        if width < SWALLOWED_WIDTH or len(lines) < SWALLOWED_LINES + 2:
            return False
        delimiter = self._dialect.delimiter.encode()
        return all(line.count(delimiter) == width - 1 for line in lines[1:-1])

    def _split(self, raw: bytes) -> tuple[bytes, list[str]] | None:
        """The first of several rows in a line with two kinds of line ends; the others follow."""
        pieces = [piece for piece in raw.split(self._foreign) if piece]
        rows = [self._simple_fields(piece) for piece in pieces]
        if self._width in {None, 1} or any(len(row) != self._width for row in rows):
            return None
        self.lines.put(pieces[1:])
        return pieces[0], rows[0]

    def _parse(self, lines: list[bytes]) -> tuple["CsvRow", str | None]:
        """Parse a row, append its further lines to `lines`, and return the first decoding error."""
        row, problem = CsvRow(self._dialect.delimiter, self._dialect.escape), None
        size, line = 0, lines[0]
        while True:
            text, error = self._decode(line)
            problem = problem or error
            row.feed(*text)
            size += len(line) + 1
            if not row.is_open or size > self._limits.record_bytes or len(lines) >= MAX_ROW_LINES:
                return row, problem
            following = self.lines.next()
            if following is None:
                return row, problem
            lines.append(line := following)

    def _decode(self, line: bytes) -> tuple[tuple[str, str], str | None]:
        """A line and its line end as text, and the error if the line cannot be decoded."""
        content = line.rstrip(self._strips)
        ending = (line[len(content) :] + self._dialect.newline).decode()
        try:
            return (content.decode(self._dialect.encoding), ending), None
        except UnicodeDecodeError as error:
            place = f"byte {error.start} (0x{content[error.start]:02x})"
            if self._dialect.converted_from:  # the original bytes were different
                place = "a part of it"
            encoding = self._dialect.converted_from or self._dialect.encoding
            problem = f"line {self.lines.number}: {place} is not valid {encoding}"
            readable = content.decode(self._dialect.encoding, "surrogateescape")
            return (readable, ending), problem


def _encoded(text: str, encoding: str) -> bytes | None:
    """A text as it is written in a file; None if it cannot be in it."""
    try:
        return text.encode(encoding)
    except UnicodeEncodeError:
        return None


def named_values(names: Sequence[str | None], fields: Sequence[str]) -> dict[str, str]:
    """A record: the values by name, and those without a name that are not blank."""
    return {
        unnamed(position, names) if name is None else name: value
        for position, (name, value) in enumerate(zip(names, fields, strict=True))
        if name is not None or not is_blank((value,))
    }


def usual_row(columns: Sequence[str | None], delimiter: str, encoding: str) -> AsText:
    """A function that turns a usual row into the JSON text that a serialiser would write.

    A usual row is one line of printable characters (which no serialiser escapes), without quotes
    and backslashes, and with a field for each column. Columns without a name are at the end and
    blank. For any other row, the function returns None.
    """
    width, named = len(columns), [name for name in columns if name is not None]
    if not named or None in columns[: len(named)]:
        return lambda _: None
    names = [to_json(name).decode().replace("%", "%%") for name in named]
    layout = "{" + ",".join(f'{name}:"%s"' for name in names) + "}"
    prints = delimiter.isprintable()
    used = len(named)

    def text(raw: bytes) -> bytes | None:
        if b'"' in raw or b"\\" in raw:
            return None
        try:
            line = raw.decode(encoding)
        except UnicodeDecodeError:
            return None
        fields = line.split(delimiter)
        if len(fields) != width or not line:
            return None
        if not (line if prints else "".join(fields)).isprintable():
            return None
        if (used < width and not is_blank(fields[used:])) or (fields[0] < "!" and is_blank(fields)):
            return None
        return (layout % tuple(fields if used == width else fields[:used])).encode()

    return text


class CsvRow:
    """The parser of one row, which is fed line by line.

    Attributes:
        fields: The complete fields so far.
        is_open: Whether the last line ended inside quotes.
        opened_in: The line (from 0) on which the last field of several lines began.
        stray: The problem with text after a closing quote, or None.
        is_broken: Whether there is a line end in a field without quotes.
    """

    __slots__ = (
        "_delimiter", "_escape", "_lines", "_parts", "fields", "is_broken",
        "is_open", "opened_in", "stray",
    )  # fmt: skip

    def __init__(self, delimiter: str, escape: str | None = None) -> None:
        self.fields: list[str] = []
        self.is_open = False
        self.opened_in = 0
        self.stray: str | None = None
        self.is_broken = False
        self._delimiter = delimiter
        self._escape = escape
        self._lines = 0
        self._parts: list[str] = []

    @property
    def is_never_closed(self) -> bool:
        """Whether a quote was opened and is not closed, if the row has no more lines."""
        return self.is_open or (self.stray is not None and self.opened_in < self._lines - 1)

    def feed(self, line: str, ending: str) -> None:
        """Parse the next physical line, without its line end."""
        self._lines += 1
        position: int | None = 0
        if self.is_open:
            position = self._close(line, ending)
        while position is not None:
            position = self._next_field(line, position, ending)

    def _close(self, line: str, ending: str) -> int | None:
        """Continue an open field; the position after its delimiter, if another field follows."""
        end = _quoted(self._escape).match(line).end()  # type: ignore[union-attr]  # it always matches
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
        match = _field(self._delimiter, self._escape).match(line, position)
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
        if _quoted(self._escape).fullmatch(line, position):
            self.is_open = True
            self._parts = [line[position:], ending]
        else:
            self.stray = f"text follows the closing quote of field {len(self.fields) + 1}"

    def _add_quoted(self, content: str) -> None:
        if self._escape is None:
            self.fields.append(content.replace('""', '"'))
        else:
            self.fields.append(_UNESCAPE.sub(lambda match: match[1] or '"', content))


def _quoted(escape: str | None) -> re.Pattern[str]:
    """The content of a quoted field, up to the closing quote."""
    return _UNTIL_CLOSED if escape is None else _UNTIL_CLOSED_ESCAPED


@cache
def _field(delimiter: str, escape: str | None) -> re.Pattern[str]:
    """A whole field up to its delimiter: (quoted content, plain content, delimiter)."""
    end, quoted = re.escape(delimiter), _quoted(escape).pattern
    return re.compile(rf"(?:\"({quoted})\"|((?!\")[^{end}]*+))({end}|\Z)")
