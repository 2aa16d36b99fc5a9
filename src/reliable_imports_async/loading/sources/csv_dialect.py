"""Detects the delimiter, the line ends and the columns of a CSV file from its first rows."""

import io
import re
from collections import Counter
from collections.abc import Sequence

from ...errors import SourceError
from ..records import Limits
from .csv_records import CsvReader, Dialect, Row

CANDIDATES = ",;\t|"  # the first of equally good ones is taken
_SAMPLE_BYTES = 64 * 1024
_SAMPLE_ROWS = 50
_MARK = "\ufeff"  # a second byte order mark
_QUOTED = re.compile(rb'"[^"]*+"')
_RETURN = re.compile(rb"(?<!\r)\r++(?!\n)")
_SEPARATOR = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_RENAME = (
    "the first line of the file must contain a unique name for every column, with no lines above it"
)
_HINTS = {
    "hint": f"{_RENAME}; if the file has no header, pass columns=.",
    "cli_hint": f"{_RENAME}; if the file has no header, use --columns A,B,….",
    "web_hint": f"{_RENAME}.",
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


def refuse_separator_line(sample: bytes) -> None:
    """Refuse a file that begins with a line such as ``sep=;``, which is meant for Excel.

    Raises:
        SourceError: The file begins with such a line.
    """
    line = sample[:20].split(b"\n")[0].split(b"\r")[0].decode("latin-1")
    if match := _SEPARATOR.fullmatch(line):
        name = repr(match[1])
        raise SourceError(
            f"The first line of the file is {line!r}, which tells Excel the delimiter and is not "
            "the header.",
            hint=f"delete that line and pass delimiter={name}.",
            cli_hint=f"delete that line, e.g. with `tail -n +2`, and pass --delimiter {name}.",
            web_hint=f"delete that line; the delimiter {name} is detected without it.",
        )


def detected_delimiter(sample: bytes, encoding: str, newline: bytes, width: int | None) -> str:
    """The delimiter that splits the first rows most consistently.

    Args:
        sample: The first bytes of the file.
        encoding: The codec of its lines.
        newline: The end of its lines.
        width: The number of fields in a row, if it is known.
    """
    if newline in sample[:_SAMPLE_BYTES] and len(sample) > _SAMPLE_BYTES:
        sample = sample[: sample.rindex(newline, 0, _SAMPLE_BYTES)]
    sample = sample[:_SAMPLE_BYTES]

    def consistency(delimiter: str) -> tuple[float, int]:
        widths = _widths(sample, Dialect(delimiter, encoding, newline))
        expected = width or (widths[0] if widths else 0)
        if expected < 2 or not widths:
            return 0.0, 0
        return widths.count(expected) / len(widths), expected

    return max(CANDIDATES, key=consistency)


def _widths(sample: bytes, dialect: Dialect) -> list[int]:
    reader = CsvReader(io.BytesIO(sample).read, dialect, Limits())
    widths: list[int] = []
    while len(widths) < _SAMPLE_ROWS and (row := reader.row()):
        widths.append(0 if row.problem and not row.fields else len(row.fields))
    return widths


def columns_of(header: Row) -> tuple[str, ...]:
    """The names in a header.

    Raises:
        SourceError: The header cannot be read, or a name is empty or occurs twice.
    """
    place = f"The header in line {header.line}"
    if header.problem is not None:
        raise SourceError(f"{place} cannot be read: {header.problem}.", **_HINTS)
    names = [name.removeprefix(_MARK) for name in header.fields[:1]] + header.fields[1:]
    _require_names(names, place)
    return tuple(names)


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
