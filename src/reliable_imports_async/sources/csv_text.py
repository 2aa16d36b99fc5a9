"""The JSON text of a usual CSV row: its fields between quotes, where none needs an escape."""

from collections.abc import Callable
from typing import TypeAlias

from pydantic_core import to_json

AsText: TypeAlias = Callable[[bytes], bytes | None]


def usual_row(columns: tuple[str, ...], delimiter: str, encoding: str) -> AsText:
    """What makes of a row the very text that a serialiser would, or None where it is not usual.

    Usual is a row on one line, without quotes and backslashes, of characters that can be printed
    (a serialiser escapes none of these) and with a field for each column.
    """
    width = len(columns)
    names = [to_json(name).decode().replace("%", "%%") for name in columns]
    layout = "{" + ",".join(f'{name}:"%s"' for name in names) + "}"
    prints = delimiter.isprintable()

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
        return (layout % tuple(fields)).encode()

    return text
