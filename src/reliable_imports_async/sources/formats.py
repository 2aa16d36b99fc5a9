"""Which format a file has: by what the caller says, by its name, by its first bytes."""

import json
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


def json_layout(sample: bytes, *, complete: bool) -> str:
    """How a JSON file holds its records: "array", "lines" or "object".

    Args:
        sample: The first bytes of the file.
        complete: Whether they are the whole file.
    """
    match sample.lstrip()[:1]:
        case b"[":
            return "array"
        case b"{":
            return "lines" if _are_objects(sample, complete=complete) else "object"
        case _:
            return "lines"


def _are_objects(sample: bytes, *, complete: bool) -> bool:
    """Whether most of the first lines are JSON objects of their own."""
    lines = sample.split(b"\n")
    if not complete:
        lines.pop()  # it may be cut
    lines = [line for line in lines if line.strip()][:_SAMPLE_LINES]
    return sum(map(_is_object, lines)) * 2 > len(lines) or not lines


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
