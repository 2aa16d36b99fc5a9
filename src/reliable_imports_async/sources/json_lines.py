"""JSON Lines: one object per line, split on the newline byte only. Or one object per file."""

from collections.abc import Iterator

from reliable_imports_async.records import Limits, StoredRecord, from_json, unreadable

from .encoding import read_up_to
from .lines import Lines, without_return
from .source import Read


def json_lines(read: Read, limits: Limits) -> Iterator[StoredRecord]:
    """One record per line that is not blank."""
    lines = Lines(read, longest=limits.record_bytes + 2)
    while (line := lines.next()) is not None:
        raw = without_return(line)
        if len(raw) > limits.record_bytes:
            reason = "the line is longer than a record may be"
            yield unreadable(raw, line=lines.number, reason=reason, limits=limits)
        elif raw and not raw.isspace():
            yield from_json(raw, line=lines.number, limits=limits)


def json_object(read: Read, limits: Limits) -> Iterator[StoredRecord]:
    """The one record of a file that holds a single object."""
    raw = read_up_to(read, limits.record_bytes + 1)
    start = len(raw) - len(raw.lstrip())
    line = raw.count(b"\n", 0, start) + 1
    if len(raw) > limits.record_bytes:
        reason = "the file holds one object that is longer than a record may be"
        yield unreadable(raw, line=line, reason=reason, limits=limits)
    elif start < len(raw):
        yield from_json(raw.strip(), line=line, limits=limits)
