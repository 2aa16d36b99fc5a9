"""Where the table in a file begins and ends: the line of the header, and the names in it.

Works on rows of texts.
"""

import re
import unicodedata
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from typing_extensions import TypedDict

from ...errors import SourceError
from ...wording import counted
from ..options import require_names

T = TypeVar("T")
SAMPLE_ROWS = 100
LARGEST_ROW = 10_000_000
SHOWN = 10
BLANKS = " \t\u00a0"
_NUMERIC = re.compile(
    r"[-+(]?\s*+(?:[$€£¥]\s*+)?\d[\d.,'\u2019\s]*+(?:[eE][-+]?\d++\s*+)?[%)€$£-]?"
    r"|\d{1,4}[-./]\d{1,2}[-./]\d{1,4}(?:[T ].*+)?"
)
_MOST = 0.8  # the share of values that shows what a column contains
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"))


class LayoutOptions(TypedDict, total=False):
    """Where the table in a file is, if it is not found by itself.

    Attributes:
        skip_rows: How many lines to skip at the beginning.
        header_row: The line of the header, from 1.
        skip_footer: How many records to leave out at the end.
        comment: Lines that begin with this text are skipped.
        member: The file in a ZIP archive; only necessary if there are several.
    """

    skip_rows: int | None
    header_row: int | None
    skip_footer: int | None
    comment: str | None
    member: str | None


@dataclass(frozen=True, slots=True)
class Layout:
    """The checked values of `LayoutOptions`."""

    skip_rows: int = 0
    header_row: int | None = None
    skip_footer: int = 0
    comment: str | None = None
    member: str | None = None

    @classmethod
    def of(cls, given: LayoutOptions) -> "Layout":
        """Check the options that the caller gives.

        Raises:
            SourceError: One of them is not valid.
            TypeError: There is no such option of `read_file`.
        """
        require_names("read_file", given, LayoutOptions)
        header_row = given.get("header_row")
        skip_rows = given.get("skip_rows") or 0
        _require_number("skip_rows", skip_rows, least=0)
        _require_number("skip_footer", given.get("skip_footer") or 0, least=0)
        if header_row is not None:
            _require_number("header_row", header_row, least=1)
            if skip_rows >= header_row:
                raise SourceError(
                    f"The header cannot be in line {header_row} if skip_rows is {skip_rows}.",
                    hint="lines are counted from the beginning of the file; leave one of them out.",
                )
        comment = given.get("comment") or None
        if comment is not None and (not comment.strip() or any(c in comment for c in '\r\n"')):
            raise SourceError(
                f"{comment!r} cannot mark comments.", hint="write e.g. # or //, without quotes."
            )
        return cls(
            skip_rows,
            header_row,
            given.get("skip_footer") or 0,
            comment,
            given.get("member") or None,
        )

    @property
    def first_line(self) -> int:
        """The first line (from 1) that may be the header."""
        return self.header_row or self.skip_rows + 1

    @property
    def is_table(self) -> bool:
        """Whether an option is given that only tables have."""
        return bool(self.skip_rows or self.header_row or self.comment)


def _require_number(name: str, value: object, *, least: int) -> None:
    if type(value) is not int or not least <= value <= LARGEST_ROW:
        raise SourceError(
            f"{name}={value!r} is not valid.", hint=f"use a whole number from {least} on."
        )


class TableRow(Protocol):
    """A row of a file."""

    @property
    def line(self) -> int:
        """The line, from 1."""
        ...

    @property
    def fields(self) -> Sequence[str]:
        """The values."""
        ...


@dataclass(frozen=True, slots=True)
class Header:
    """The names of the columns of a table.

    Attributes:
        names: A name for each column; None for a column without a name.
        line: The last line before the first record.
        notes: Notes for the user about them.
        valued: The names of columns without a name that have values in the first rows.
    """

    names: tuple[str | None, ...]
    line: int
    notes: tuple[str, ...] = ()
    valued: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns that have one, and of those that have values."""
        return (*(name for name in self.names if name is not None), *self.valued)


def is_blank(cells: Sequence[str]) -> bool:
    """Whether no cell has a value."""
    return not any(cell.strip(BLANKS) for cell in cells)


def header_index(rows: Sequence[TableRow]) -> int:
    """The index of the header: 0, unless a later row is the header without doubt.

    That is a row with more values than each row above it, which are titles, and below which there
    are rows of the same width. Either the titles have only one value, or some column contains
    numbers or dates only below the header.
    """
    filled = [sum(not is_blank((cell,)) for cell in row.fields) for row in rows]
    most = filled[0] if filled else 0
    for index in range(1, len(rows) - 1):
        if filled[index] > most and filled[index] >= 2:
            if _is_header(rows, index) and _are_titles(rows, filled, index):
                return index
            if filled[index] > 2 * most and most > 1:
                return 0  # too few names for the rows below it, but no title either
        most = max(most, filled[index])
    return 0


def _are_titles(rows: Sequence[TableRow], filled: Sequence[int], index: int) -> bool:
    """Whether the rows above the header are titles, and not a header and its records."""
    above = max(filled[:index])
    gap = rows[index].line > rows[index - 1].line + 1 or not filled[index - 1]
    if above <= 1 and (filled[index] >= 3 or gap):
        return True
    few = above * 2 <= filled[index] or gap
    return few and _has_typed_column(rows, index)


def _is_header(rows: Sequence[TableRow], index: int) -> bool:
    """Whether a row consists of different names, and the rows below it have its width."""
    cells = [cell.strip() for cell in rows[index].fields]
    names = [cell for cell in cells if cell]
    if len({name.casefold() for name in names}) < len(names) or any(map(_is_numeric, names)):
        return False
    below = [row.fields for row in rows[index + 1 :] if not is_blank(row.fields)]
    fitting = sum(_extent(fields) <= len(cells) and _is_wide(fields, names) for fields in below)
    return bool(below) and fitting >= _MOST * len(below)


def _is_wide(fields: Sequence[str], names: Sequence[str]) -> bool:
    return len(names) == 2 or sum(not is_blank((cell,)) for cell in fields) * 2 >= len(names)


def _has_typed_column(rows: Sequence[TableRow], index: int) -> bool:
    """Whether the values below some name are numbers or dates."""
    for column, name in enumerate(rows[index].fields):
        values = [
            row.fields[column].strip()
            for row in rows[index + 1 :]
            if column < len(row.fields) and row.fields[column].strip()
        ]
        numeric = sum(map(_is_numeric, values))
        if name.strip() and values and numeric >= _MOST * len(values):
            return True
    return False


def _is_numeric(cell: str) -> bool:
    return _NUMERIC.fullmatch(cell) is not None


def _extent(fields: Sequence[str]) -> int:
    """How many fields there are, without the blank ones at the end."""
    return next((n for n in range(len(fields), 0, -1) if not is_blank((fields[n - 1],))), 0)


def header_of(row: TableRow, below: Sequence[Sequence[str]], *, above: int) -> Header:
    """The header in a row.

    Args:
        row: The row.
        below: The values of the first rows below it.
        above: How many lines above it are skipped, although the caller did not say so.
    """
    notes = []
    if above:
        verb = "was" if above == 1 else "were"
        skipped = f"the {counted(above, 'line')} above it {verb} skipped"
        notes.append(f"The header is in line {row.line}; {skipped}.")
    cells = [clean_name(cell) for cell in row.fields]
    width = _padded_width(len(cells), below)
    names, repeated = _unique(cells + [""] * (width - len(cells)))
    if repeated:
        notes.append(f"The header repeats names; the columns were named {', '.join(repeated)}.")
    valued = []
    for position, name in enumerate(names):
        cells_below = [fields[position] for fields in below if position < len(fields)]
        if name is None and not is_blank(cells_below):
            valued.append(unnamed(position, names))
    if valued:
        noun = "column has" if len(valued) == 1 else "columns have"
        notes.append(f"{len(valued)} {noun} values but no name: {', '.join(valued[:SHOWN])}.")
    return Header(names, row.line, tuple(notes), tuple(valued))


def _padded_width(width: int, below: Sequence[Sequence[str]]) -> int:
    """The width of the rows, if all of them end with the same number of blank fields."""
    widths = {len(fields) for fields in below}
    if len(widths) != 1 or (wider := widths.pop()) <= width:
        return width
    return wider if all(is_blank(fields[width:]) for fields in below) else width


def clean_name(cell: str) -> str:
    """A name without blanks at its ends, invisible characters and line ends."""
    visible = cell.translate(_INVISIBLE)
    if any(unicodedata.category(char) in {"Zs", "Zl", "Zp", "Cc"} for char in visible):
        visible = " ".join(visible.split()) if "\0" not in visible else visible
    return visible.strip()


def _unique(cells: Sequence[str]) -> tuple[tuple[str | None, ...], list[str]]:
    """A different name for each column, and the names that were invented for repeated ones."""
    taken, names, invented = set(cells), [], []
    seen: set[str] = set()
    for cell in cells:
        name: str | None = cell or None
        if cell in seen:
            number = 2
            while f"{cell}_{number}" in taken:
                number += 1
            name = f"{cell}_{number}"
            taken.add(name)
            invented.append(name)
        if cell:
            seen.add(cell)
        names.append(name)
    return tuple(names), invented


def unnamed(position: int, names: Sequence[str | None]) -> str:
    """The name of a column without a name, by its position (from 0)."""
    name = f"column_{position + 1}"
    while name in names:
        name += "_"
    return name


def repeats(fields: Sequence[str], columns: Sequence[str]) -> bool:
    """Whether a row is the header of columns that the caller names: most cells are the same."""
    pairs = zip((clean_name(cell).casefold() for cell in fields), columns, strict=False)
    return sum(cell == name.casefold() for cell, name in pairs) * 2 > len(columns)


def without_last(items: Iterator[T], count: int) -> Iterator[T]:
    """All items but the last `count`."""
    return _held_back(items, count) if count else items


def _held_back(items: Iterator[T], count: int) -> Iterator[T]:
    held: deque[T] = deque()
    for item in items:
        held.append(item)
        if len(held) > count:
            yield held.popleft()
