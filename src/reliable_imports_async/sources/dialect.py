"""The delimiter, the line ends and the columns of a CSV file, found in its first rows."""

import io
from collections import Counter
from collections.abc import Sequence

from reliable_imports_async.errors import SourceError
from reliable_imports_async.records import Limits

from .csv_lines import CsvReader, Dialect, Row

CANDIDATES = ",;\t|"  # in doubt, the first one
_SAMPLE_BYTES = 64 * 1024
_SAMPLE_ROWS = 50


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
        raise SourceError("columns= is no list of names.", hint='pass e.g. ["name", "price"].')
    _require_names(list(columns), "columns=")
    return tuple(columns)


def found_newline(sample: bytes) -> bytes:
    """What ends the lines: a newline, or a carriage return in files that have no newline."""
    return b"\r" if b"\n" not in sample and b"\r" in sample.rstrip(b"\r") else b"\n"


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
        message = f"{where} cannot be read: {header.problem}."
        raise SourceError(message, hint=_HINT, cli_hint=_CLI_HINT, web_hint=_WEB_HINT)
    _require_names(header.fields, where)
    return tuple(header.fields)


def _require_names(names: list[str], where: str) -> None:
    empty = [str(number) for number, name in enumerate(names, 1) if not name.strip()]
    twice = [repr(name) for name, count in Counter(names).items() if count > 1 and name.strip()]
    bad = [repr(name) for name in names if "\0" in name]
    for kind, found in (("no name in column", empty), ("twice", twice), ("with NUL", bad)):
        if found:
            message = f"{where} has {kind} {', '.join(found[:20])}."
            raise SourceError(message, hint=_HINT, cli_hint=_CLI_HINT, web_hint=_WEB_HINT)


_HINT = "give every column a name of its own, or pass columns= if the file has no header."
_CLI_HINT = "give every column a name of its own; if the file has no header, use --columns A,B,C."
_WEB_HINT = "the first line of the file must contain the column names, each of them once."
