"""The cells of a CSV file of failures: harmless in a spreadsheet, and the way back."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .. import exact_json

CONTROL = ("batch", "item", "line", "group", "error", "detail", "raw")
"""What an exported row says beside its record; each name gets underscores in front."""

# What a spreadsheet would run as a formula, behind any number of apostrophes: with one more it is
# text, and taking one away gives exactly what it was.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")


def harmless(text: str) -> str:
    """The text as a cell that no spreadsheet takes for a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def original(cell: str) -> str:
    """The text behind a harmless cell."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def shown(value: object) -> str:
    """A value of a record as a cell: text as it is, nothing for None, else JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return harmless(value)
    return harmless(exact_json.write_readable(value))


def control_names(columns: Sequence[str]) -> dict[str, str]:
    """The names of the columns beside the record's own, with none of which they collide."""
    taken = [re.fullmatch(f"(_*)(?:{'|'.join(CONTROL)})", original(name)) for name in columns]
    marks = "_" * (1 + max((len(found[1]) for found in taken if found), default=0))
    return {name: f"{marks}{name}" for name in CONTROL}


def found_control_names(columns: Sequence[str]) -> dict[str, str] | None:
    """The same for a file that came back, whose columns may have been moved; None: it has none."""
    marks = [re.fullmatch("(_+)item", name) for name in columns]
    deepest = max((found[1] for found in marks if found), key=len, default=None)
    return None if deepest is None else {name: f"{deepest}{name}" for name in CONTROL}


def changes(cells: Mapping[str, str], record: Mapping[str, Any] | None) -> dict[str, Any]:
    """What somebody has changed in a row, as the new values of the record's own columns.

    A cell as it was exported keeps its value exactly, also where a spreadsheet has misread it and
    wrote down what it read. A changed one is text; where the value was
    no text, the changed cell is read as JSON, if it is any.

    Args:
        cells: The row without what it says beside the record, by the columns' own names.
        record: The record as it is stored; None for one that could not be read.
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
    """What a cell was, if a spreadsheet has read its UTF-8 as Windows-1252."""
    if cell.isascii():
        return cell
    try:
        return b"".join(map(_byte, cell)).decode()
    except UnicodeError:
        return cell


def _byte(char: str) -> bytes:
    """A character in Windows-1252; the five that it lacks are kept as control characters."""
    return char.encode("latin-1" if "\x80" <= char <= "\x9f" else "cp1252")


def _value(cell: str, before: object) -> object:
    text = original(cell)
    if before is None or isinstance(before, str):
        return text
    try:
        return exact_json.read_unchecked(text)
    except ValueError:
        return text
