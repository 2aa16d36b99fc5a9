"""JSON Lines: one object per line, split on the newline byte only."""

import io
from collections.abc import Iterator

from reliable_imports_async.records import Limits, StoredRecord, from_json, unreadable

from .json_array import json_stream
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
            yield from _records(raw, lines.number, limits)


def _records(raw: bytes, line: int, limits: Limits) -> list[StoredRecord]:
    """The record of a line; several where several objects follow each other in it."""
    record = from_json(raw, line=line, limits=limits)
    if record.text is not None or raw.count(b"{") < 2:
        return [record]
    several = list(json_stream(io.BytesIO(raw).read, limits))
    if len(several) > 1 and all(one.text is not None for one in several):
        return [one._replace(line=line) for one in several]
    return [record]
