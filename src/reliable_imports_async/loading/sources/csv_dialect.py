"""The delimiter, the line ends and the columns of a CSV file, found in its first rows."""

import io
import re
from collections import Counter
from collections.abc import Sequence

from reliable_imports_async.errors import SourceError
from reliable_imports_async.loading.records import Limits

from .csv_records import CsvReader, Dialect, Row

CANDIDATES = ",;\t|"  # in doubt, the first one
_SAMPLE_BYTES = 64 * 1024
_SAMPLE_ROWS = 50
_MARK = "\ufeff"  # written twice, or by a program that does not know it
_QUOTED = re.compile(rb'"[^"]*+"')
_RETURN = re.compile(rb"(?<!\r)\r++(?!\n)")
_SEPARATOR = re.compile(r'"?sep=(.)"?', re.IGNORECASE)


def known_delimiter(delimiter: str) -> str:
    """Check a delimiter that the caller names.

    Raises:
        SourceError: it cannot separate fields.
    """
    if len(delimiter) != 1 or delimiter in '"\r\n\0':
        raise SourceError(
            f"{delimiter!r} cannot separate fields.",
            hint="a delimiter is one character, e.g. ',', ';', '|' or a tab.",
        )
    return delimiter


def known_columns(columns: Sequence[str]) -> tuple[str, ...]:
    """Check names of columns that the caller gives.

    Raises:
        SourceError: there are none, or one is empty or occurs twice.
    """
    if isinstance(columns, str) or not columns or not all(isinstance(n, str) for n in columns):
        raise SourceError(
            "The columns are not a list of names.", hint='pass e.g. ["name", "price"].'
        )
    _require_names(list(columns), "The list of columns")
    return tuple(columns)


def found_newline(sample: bytes) -> bytes:
    """What ends most lines outside of quotes: a newline, or a carriage return alone."""
    if b"\r" not in sample:
        return b"\n"
    outside = _QUOTED.sub(b"", sample[:_SAMPLE_BYTES])
    newlines = outside.count(b"\n")
    return b"\r" if sum(map(len, _RETURN.findall(outside))) > newlines else b"\n"


def refuse_separator_line(sample: bytes) -> None:
    """Refuse a file that begins with the line by which Excel is told the delimiter.

    Raises:
        SourceError: It begins so.
    """
    line = sample[:20].split(b"\n")[0].split(b"\r")[0].decode("latin-1")
    if match := _SEPARATOR.fullmatch(line):
        name = repr(match[1])
        raise SourceError(
            f"The first line of the file is {line!r}: it tells Excel the delimiter and is not the "
            "header.",
            hint=f"delete that line and pass delimiter={name}.",
            cli_hint=f"delete that line, e.g. with `tail -n +2`, and pass --delimiter {name}.",
            web_hint=f"delete that line; the delimiter {name} is detected without it.",
        )


def found_delimiter(sample: bytes, encoding: str, newline: bytes, width: int | None) -> str:
    """The delimiter that splits the first rows most consistently.

    Args:
        sample: The first bytes of the file.
        encoding: The codec of its lines.
        newline: What ends its lines.
        width: How many fields a row has, when that is known.
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
        SourceError: it cannot be read, or a name is empty or occurs twice.
    """
    where = f"The header in line {header.line}"
    if header.problem is not None:
        raise SourceError(f"{where} cannot be read: {header.problem}.", **_HINTS)
    names = [name.removeprefix(_MARK) for name in header.fields[:1]] + header.fields[1:]
    _require_names(names, where)
    return tuple(names)


def _require_names(names: list[str], where: str) -> None:
    empty = [str(number) for number, name in enumerate(names, 1) if not name.strip()]
    twice = [repr(name) for name, count in Counter(names).items() if count > 1 and name.strip()]
    bad = [repr(name) for name in names if "\0" in name]
    for kind, found in (("no name in column", empty), ("twice", twice), ("with NUL", bad)):
        if found:
            raise SourceError(f"{where} has {kind} {', '.join(found[:20])}.", **_HINTS)


_RENAME = (
    "give every column a name of its own in the first line of the file, and delete whatever lines "
    "are above it"
)
_HINTS = {
    "hint": f"{_RENAME}; pass columns= if the file has no header line at all.",
    "cli_hint": f"{_RENAME}; pass --columns A,B,… if the file has no header line at all.",
    "web_hint": f"{_RENAME}.",
}
