"""The cells of an exported CSV file: safe for a spreadsheet, and read back without changes.

A cell must not run as a formula, and a file that comes back from a spreadsheet must change only the
values that a person changed.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .. import exact_json

CONTROL = ("batch", "item", "line", "group", "error", "detail", "raw")
"""The columns that an export adds to those of the records; underscores precede each name."""

# A text that a spreadsheet would run as a formula, after any number of apostrophes. With one more
# apostrophe it is text, and removing that apostrophe gives exactly the original.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")


def harmless(text: str) -> str:
    """The cell for a text that no spreadsheet may run as a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def original(cell: str) -> str:
    """The text of a harmless cell."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def shown(value: object) -> str:
    """The cell for a value of a record: text as it is, empty for None, otherwise JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return harmless(value)
    return harmless(exact_json.write_readable(value))


def control_names(columns: Sequence[str]) -> dict[str, str]:
    """The names of the control columns, which differ from all names in the record."""
    taken = [re.fullmatch(f"(_*)(?:{'|'.join(CONTROL)})", original(name)) for name in columns]
    prefix = "_" * (1 + max((len(match[1]) for match in taken if match), default=0))
    return {name: f"{prefix}{name}" for name in CONTROL}


def read_control_names(columns: Sequence[str]) -> dict[str, str] | None:
    """The names of the control columns in a corrected file, in any order; None if it has none."""
    items = [re.fullmatch("(_+)item", name) for name in columns]
    prefix = max((match[1] for match in items if match), key=len, default=None)
    return None if prefix is None else {name: f"{prefix}{name}" for name in CONTROL}


def changes(cells: Mapping[str, str], record: Mapping[str, Any] | None) -> dict[str, Any]:
    """The changed values of a corrected row, by the record's columns.

    An unchanged cell keeps its value exactly, even if a spreadsheet has misread its encoding. A
    changed cell is text; if the old value was not a text, the cell is read as JSON if it is JSON.

    Args:
        cells: The cells of the row by column, without the control columns.
        record: The stored record; None if it could not be read.
    """
    known = record or {}
    named = {
        misread if (misread := _misread(name)) in known and name not in known else name: cell
        for name, cell in cells.items()
    }
    return {
        name: _value(cell, known.get(name))
        for name, cell in named.items()
        if record is None or shown(known.get(name)) not in {cell, _misread(cell)}
    }


def _misread(cell: str) -> str:
    """The original of a cell whose UTF-8 a spreadsheet has read as Windows-1252."""
    if cell.isascii():
        return cell
    try:
        return b"".join(map(_byte, cell)).decode()
    except UnicodeError:
        return cell


def _byte(char: str) -> bytes:
    """A character's byte in Windows-1252; the five bytes without a character are kept."""
    return char.encode("latin-1" if "\x80" <= char <= "\x9f" else "cp1252")


def _value(cell: str, before: object) -> object:
    text = original(cell)
    if before is None or isinstance(before, str):
        return text
    try:
        return exact_json.read_unchecked(text)
    except ValueError:
        return text
