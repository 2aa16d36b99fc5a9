"""Which format a file has: by what the caller says, by its name, by its first bytes."""

import json
import re
from pathlib import PurePath

from reliable_imports_async.errors import SourceError

FORMATS = ("csv", "tsv", "jsonl", "json")
_SUFFIXES = {
    ".csv": "csv",
    ".txt": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
}
_SAMPLE_LINES = 20
_USUAL_LISTS = frozenset(
    {"data", "entries", "hits", "items", "list", "objects", "records", "results", "rows", "value"}
)
_LIST = re.compile(rb'(?<!\\)"((?:[^"\\]|\\.)*+)"\s*:\s*\[\s*\{')


def known_format(name: str) -> str:
    """Check a format that the caller names.

    Raises:
        SourceError: there is no such format.
    """
    if name not in FORMATS:
        raise SourceError(f"There is no format {name!r}.", hint=f"use one of {', '.join(FORMATS)}.")
    return name


def format_by_name(name: str | None) -> str | None:
    """The format that a file's name tells, with or without .gz behind it."""
    if name is None:
        return None
    lowered = name.lower().removesuffix(".gz")
    return _SUFFIXES.get(PurePath(lowered).suffix)


def is_gzip_name(name: str | None) -> bool:
    """Whether a file's name says that it is compressed."""
    return name is not None and name.lower().endswith(".gz")


def format_by_content(sample: bytes) -> str:
    """The format that the first bytes look like."""
    return "json" if sample.lstrip()[:1] in {b"[", b"{"} else "csv"


def json_layout(sample: bytes, *, complete: bool, named: bool = False) -> str:
    """How a JSON file holds its records: "array", "lines", or in a "stream" of any layout.

    Args:
        sample: The first bytes of the file.
        complete: Whether they are the whole file.
        named: Whether the file's name says that it has lines.
    """
    match sample.lstrip()[:1]:
        case b"[":
            return "array"
        case b"{":
            return "lines" if _are_objects(sample, complete=complete, named=named) else "stream"
        case _:
            return "lines"


def _are_objects(sample: bytes, *, complete: bool, named: bool) -> bool:
    """Whether most of the first lines are JSON objects of their own; any, where so named."""
    lines = sample.split(b"\n")
    if not complete:
        lines.pop()  # it may be cut
    lines = [line for line in lines if line.strip()][:_SAMPLE_LINES]
    objects = sum(map(_is_object, lines))
    return objects * 2 > len(lines) or not lines or (named and objects > 0)


def refuse_wrapped(sample: bytes, *, complete: bool) -> None:
    """Refuse a file with one object around the list of its records: that is not one record.

    Args:
        sample: The first bytes of the file.
        complete: Whether they are the whole file.

    Raises:
        SourceError: The file is one object with a list of objects in it.
    """
    name = _wrapped_list(sample) if complete else _begun_list(sample)
    if name is None:
        return
    path = ".".join(name)
    raise SourceError(
        f"The file holds one object, and its records are in the list {path!r} inside.",
        hint=f"import the list itself, json.load(file){''.join(f'[{one!r}]' for one in name)}; "
        "if the object is the one record, put it in a list: [{…}].",
        cli_hint=f"import the list itself, e.g. `jq -c '.{path}[]' FILE | reliable-imports import "
        "- …`; if the object is the one record, put it in a list: [{…}].",
        web_hint="send the list itself: [{…}, {…}].",
    )


def _wrapped_list(sample: bytes) -> tuple[str, ...] | None:
    """The names that lead to the list of records in the only object of a file."""
    try:
        value = json.loads(sample)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    inner = {(one,): part for one, part in value.items()}
    for one, part in value.items():
        if isinstance(part, dict):
            inner |= {(one, two): deeper for two, deeper in part.items()}
    return next((name for name, part in inner.items() if _is_list(name[-1], part)), None)


def _is_list(name: str, value: object) -> bool:
    if not isinstance(value, list):
        return False
    if not value:
        return name.lower() in _USUAL_LISTS
    return all(isinstance(one, dict) for one in value)


def _begun_list(sample: bytes) -> tuple[str, ...] | None:
    """The same for an object that is not whole: its first list of objects, if it has no end."""
    match = _LIST.search(sample)
    if match is None or sample.count(b"}", 0, match.start()) > sample.count(b"{", 1, match.start()):
        return None  # the first object has ended before
    try:
        json.JSONDecoder().raw_decode(sample.decode(errors="replace").lstrip())
    except (ValueError, RecursionError):
        return (match[1].decode(errors="replace"),)
    return None


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
