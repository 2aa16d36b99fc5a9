"""A file of JSON: whether its records are lines, an array, or any other sequence of objects."""

import json
import re
from collections.abc import Callable, Iterator

from ...errors import SourceError
from ..records import Limits, StoredRecord
from .json_records import json_array, json_lines, json_stream
from .source import Read

_SAMPLE_LINES = 20
_USUAL_LISTS = frozenset(
    {"data", "entries", "hits", "items", "list", "objects", "records", "results", "rows", "value"}
)
_LIST = re.compile(rb'(?<!\\)"((?:[^"\\]|\\.)*+)"\s*:\s*\[\s*\{')
_READERS = {"lines": json_lines, "array": json_array, "stream": json_stream}


class JsonFile:
    """Reads a file of JSON; the constructor finds out how it is written."""

    columns: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    late_notes: tuple[str, ...] = ()
    head: tuple[str, ...] = ()

    def __init__(
        self, text: Callable[[], Read], sample: bytes, *, kind: str, is_lines: bool, complete: bool
    ) -> None:
        """See the class.

        Args:
            text: Gives the text from its beginning.
            sample: The first bytes of the text.
            kind: "json" or "jsonl", according to the name or the content.
            is_lines: Whether the caller says that it is JSON Lines.
            complete: Whether the sample is the whole text.

        Raises:
            SourceError: The records are in a list inside of a single object.
        """
        self._text = text
        self._layout = "lines"
        if not is_lines:
            self._layout = json_layout(sample, complete=complete, named=kind == "jsonl")
            if self._layout != "array":
                refuse_wrapped(sample, complete=complete)
        self.kind = "jsonl" if self._layout == "lines" else "json"

    def records(self, limits: Limits) -> Iterator[StoredRecord]:
        """The records in order."""
        return _READERS[self._layout](self._text(), limits)


def json_layout(sample: bytes, *, complete: bool, named: bool = False) -> str:
    """The layout of a JSON file: "array", "lines", or "stream" for any other sequence of objects.

    Args:
        sample: The first bytes of the file.
        complete: Whether they are the whole file.
        named: Whether the file's name says that it is JSON Lines.
    """
    match sample.lstrip()[:1]:
        case b"[":
            return "array"
        case b"{":
            return "lines" if _has_object_lines(sample, complete, named) else "stream"
        case _:
            return "lines"


def _has_object_lines(sample: bytes, complete: bool, named: bool) -> bool:  # noqa: FBT001
    """Whether most of the first lines are complete objects; with `named`, at least one of them."""
    lines = sample.split(b"\n")
    if not complete:
        lines.pop()  # it may be cut
    lines = [line for line in lines if line.strip()][:_SAMPLE_LINES]
    objects = sum(map(_is_object, lines))
    return objects * 2 > len(lines) or not lines or (named and objects > 0)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def refuse_wrapped(sample: bytes, *, complete: bool) -> None:
    """Refuse a file whose records are in a list inside of a single object.

    Args:
        sample: The first bytes of the file.
        complete: Whether they are the whole file.

    Raises:
        SourceError: The file is one object with a list of objects in it.
    """
    names = _wrapped_list(sample) if complete else _first_list(sample)
    if names is None:
        return
    path = ".".join(names)
    raise SourceError(
        f"The file contains a single object, and the records are in its list {path!r}.",
        hint=f"import the list itself, json.load(file){''.join(f'[{name!r}]' for name in names)}; "
        "if the object is the only record, put it in a list: [{…}].",
        cli_hint=f"import the list itself, e.g. `jq -c '.{path}[]' FILE | reliable-imports import "
        "- …`; if the object is the only record, put it in a list: [{…}].",
        web_hint="send the list itself: [{…}, {…}].",
    )


def _wrapped_list(sample: bytes) -> tuple[str, ...] | None:
    """The names that lead to the list of records in a file's only object."""
    try:
        value = json.loads(sample)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    parts = {(name,): part for name, part in value.items()}
    for name, part in value.items():
        if isinstance(part, dict):
            parts |= {(name, inner): deeper for inner, deeper in part.items()}
    return next((names for names, part in parts.items() if _has_records(names[-1], part)), None)


def _first_list(sample: bytes) -> tuple[str, ...] | None:
    """The same for an object whose end is not in the sample: the name of its first list."""
    match = _LIST.search(sample)
    if match is None or sample.count(b"}", 0, match.start()) > sample.count(b"{", 1, match.start()):
        return None  # the first object ends before the list
    try:
        json.JSONDecoder().raw_decode(sample.decode(errors="replace").lstrip())
    except (ValueError, RecursionError):
        return (match[1].decode(errors="replace"),)
    return None


def _has_records(name: str, value: object) -> bool:
    if not isinstance(value, list):
        return False
    if not value:
        return name.lower() in _USUAL_LISTS
    return all(isinstance(element, dict) for element in value)
