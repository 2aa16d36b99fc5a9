"""Detects the delimiter, the line ends and the columns of a CSV file from its first rows."""

import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from ...errors import SourceError
from ..records import Limits
from .csv_records import CsvReader, Dialect, Row
from .layout import Header, header_of

CANDIDATES = ",;\t|"  # the first of equally good ones is taken
_SAMPLE_BYTES = 64 * 1024
_SAMPLE_ROWS = 50
_QUOTED = re.compile(rb'"[^"]*+"')
_RETURN = re.compile(rb"(?<!\r)\r++(?!\n)")
_SEPARATOR = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_HINTS = {
    "hint": "pass header_row= with the line that contains the names of the columns; if the file "
    "has no header, pass columns=.",
    "cli_hint": "name the line that contains the names of the columns with --header-row; if the "
    "file has no header, use --columns A,B,….",
    "web_hint": "set `header_row` to the line that contains the names of the columns.",
}


def known_delimiter(delimiter: str) -> str:
    """Check a delimiter that the caller names.

    Raises:
        SourceError: It cannot separate fields.
    """
    if len(delimiter) != 1 or delimiter in '"\r\n\0':
        raise SourceError(
            f"{delimiter!r} is not a valid delimiter.",
            hint="a delimiter is one character, e.g. ',', ';', '|' or a tab.",
        )
    return delimiter


def known_columns(columns: Sequence[str]) -> tuple[str, ...]:
    """Check column names that the caller passes.

    Raises:
        SourceError: There are none, or a name is empty or occurs twice.
    """
    if isinstance(columns, str) or not columns or not all(isinstance(n, str) for n in columns):
        raise SourceError(
            "The columns are not a list of names.", hint='pass e.g. ["name", "price"].'
        )
    _require_names(list(columns), "The list of columns")
    return tuple(columns)


def detected_newline(sample: bytes) -> bytes:
    """The end of most lines outside of quotes: a newline, or a single carriage return."""
    if b"\r" not in sample:
        return b"\n"
    outside = _QUOTED.sub(b"", sample[:_SAMPLE_BYTES])
    newlines = outside.count(b"\n")
    return b"\r" if sum(map(len, _RETURN.findall(outside))) > newlines else b"\n"


def separator_line(sample: bytes) -> str | None:
    """The delimiter in a first line such as ``sep=;``, which Excel understands."""
    line = sample[:20].split(b"\n")[0].split(b"\r")[0].decode("latin-1")
    match = _SEPARATOR.fullmatch(line.rstrip(",;\t"))
    match = match or _SEPARATOR.fullmatch(line)
    return match[1] if match else None


def detected_delimiter(sample: bytes, encoding: str, newline: bytes, width: int | None) -> str:
    """The delimiter that splits the first rows most consistently.

    Args:
        sample: The first bytes of the file.
        encoding: The codec of its lines.
        newline: The end of its lines.
        width: The number of fields in a row, if it is known.
    """
    sample = _beginning(sample, newline)

    def consistency(delimiter: str) -> tuple[float, int]:
        widths = _widths(sample, Dialect(delimiter, encoding, newline))
        wide = [number for number in widths if number > 1]
        expected = width or (max(set(wide), key=lambda n: (wide.count(n), n)) if wide else 0)
        share = widths.count(expected) / max(1, len(widths))
        if expected < 2 or (widths[0] != expected and share < 0.5):
            return 0.0, 0
        return share, expected

    return max(CANDIDATES, key=consistency)


def with_escapes(sample: bytes, dialect: Dialect) -> Dialect:
    """The dialect in which quotes in values follow a backslash, if more rows can be read so."""
    if b'\\"' not in sample:
        return dialect
    sample, escaped = _beginning(sample, dialect.newline), replace(dialect, escape="\\")
    usual = _problems(sample, dialect)
    return escaped if usual and _problems(sample, escaped) < usual else dialect


def _problems(sample: bytes, dialect: Dialect) -> int:
    reader = CsvReader(io.BytesIO(sample).read, dialect, Limits())
    rows = [row for row in islice(iter(reader.row, None), 20 * _SAMPLE_ROWS) if row.fields]
    width = Counter(len(row.fields) for row in rows).most_common(1)[0][0] if rows else 0
    return sum(row.problem is not None or len(row.fields) != width for row in rows)


def _beginning(sample: bytes, newline: bytes) -> bytes:
    """The first whole lines of a sample."""
    if newline in sample[:_SAMPLE_BYTES] and len(sample) > _SAMPLE_BYTES:
        sample = sample[: sample.rindex(newline, 0, _SAMPLE_BYTES)]
    return sample[:_SAMPLE_BYTES]


def _widths(sample: bytes, dialect: Dialect) -> list[int]:
    reader = CsvReader(io.BytesIO(sample).read, dialect, Limits())
    widths: list[int] = []
    while len(widths) < _SAMPLE_ROWS and (row := reader.row()):
        widths.append(0 if row.problem and not row.fields else len(row.fields))
    return widths


def columns_of(rows: Sequence[Row], index: int) -> Header:
    """The header at an index of the first rows.

    Raises:
        SourceError: It cannot be read, or has no usable names.
    """
    row = rows[index]
    place = f"The header in line {row.line}"
    if row.problem is not None:
        raise SourceError(f"{place} cannot be read: {row.problem}.", **_HINTS)
    below = [each.fields for each in rows[index + 1 :] if not each.problem]
    header = header_of(row, below, above=row.line - 1 if index else 0)
    if not header.columns:
        raise SourceError(f"{place} contains no names.", **_HINTS)
    _require_names(list(header.columns), place)
    return header


def _require_names(names: list[str], place: str) -> None:
    empty = [str(number) for number, name in enumerate(names, 1) if not name.strip()]
    duplicate = [repr(name) for name, count in Counter(names).items() if count > 1 and name.strip()]
    with_nul = [repr(name) for name in names if "\0" in name]
    for noun, problem, wrong in (
        ("column", "has no name in", empty),
        ("name", "repeats the", duplicate),
        ("name", "has a NUL character in the", with_nul),
    ):
        if wrong:
            plural = noun if len(wrong) == 1 else f"{noun}s"
            raise SourceError(f"{place} {problem} {plural} {', '.join(wrong[:20])}.", **_HINTS)
