"""Reads JSON: arrays, lines and streams of objects, and records that came in a request's body.

The elements of an array or a stream are cut out at their boundaries and kept as they are written.
Only brackets, strings and commas are examined, so that a broken element costs no other element,
and at most one record is held in memory.
"""

import io
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from anyio import to_thread

from ..records import (
    Limits,
    StoredRecord,
    from_json,
    from_value,
    unreadable,
)
from .decoding import Lines, without_return
from .source import CHUNK_RECORDS, Read, SourceInfo

BLOCK = 256 * 1024
_LOST_DEPTH = 10_000
_SPACE = re.compile(rb"[ \t\r\n]*+")
_STRINGS = rb'(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"%b)*'  # complete strings and the text between them
_NESTED = re.compile(rb'[^"\[\]{}]*+' + _STRINGS % rb'[^"\[\]{}]*+', re.DOTALL)
_TOP = re.compile(rb'[^",\[\]{}]*+' + _STRINGS % rb'[^",\[\]{}]*+', re.DOTALL)
_IN_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
AT_ONCE = 20  # up to this many records are converted in the event loop; a thread would cost more
_STEP = 65_536  # bytes per match, because nothing else in the process runs while a pattern matches
_BETWEEN = re.compile(rb'[^"\[\]{}]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^"\[\]{}]*+)*', re.DOTALL)
_SCALAR = re.compile(rb'[^\s,:"\[\]{}]*+')


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


def json_array(read: Read, limits: Limits) -> Iterator[StoredRecord]:
    """One record per element; the rest of the file after a lost boundary is one unreadable record.

    Args:
        read: Reads the file, whose first character is the opening bracket.
        limits: The largest size and depth of an element.
    """
    scanner = _Scanner(read, limits.record_bytes + 1)
    scanner.skip_space()
    scanner.skip_byte()
    while (byte := scanner.skip_space()) not in {b"]", b""}:
        line = scanner.line
        raw = scanner.element()
        stop = scanner.peek()
        record = _element(raw, line, limits)
        if not scanner.is_between or (not stop and record.text is None):
            yield _last(scanner, raw, line, limits)
            return
        yield record
        if stop != b",":
            byte = stop
            break
        scanner.skip_byte()
    yield from _after_last(scanner, limits, ended=byte == b"]")


def json_stream(read: Read, limits: Limits) -> Iterator[StoredRecord]:
    """One record per object, for a file in which objects follow each other in any layout.

    Args:
        read: Reads the file.
        limits: The largest size and depth of an object.
    """
    scanner = _Scanner(read, limits.record_bytes + 1, alone=True)
    while byte := scanner.skip_space():
        if byte == b",":
            scanner.skip_byte()
            continue
        line = scanner.line
        raw = scanner.element()
        if not scanner.is_between:
            yield _last(scanner, raw, line, limits)
            return
        yield _element(raw, line, limits)


class JsonRecords:
    """A source of records that are ready to be stored, and of values that are not.

    Args:
        records: Values that are not a `StoredRecord` are converted like the records of a list.
    """

    is_local = True

    def __init__(self, records: Sequence[StoredRecord | Any]) -> None:
        self._records = records

    @asynccontextmanager
    async def open(self) -> AsyncIterator["OpenedRecords"]:
        """Begin to iterate; may be repeated."""
        yield OpenedRecords(self._records)


class OpenedRecords:
    """Records that are being read."""

    info = SourceInfo()
    bytes_read = 0
    late_notes: tuple[str, ...] = ()

    def __init__(self, records: Sequence[StoredRecord | Any]) -> None:
        self._records = records

    async def chunks(self, limits: Limits) -> AsyncIterator[list[StoredRecord]]:
        """The records in order, in lists of about 500."""
        for start in range(0, len(self._records), CHUNK_RECORDS):
            chunk = self._records[start : start + CHUNK_RECORDS]
            if sum(type(record) is not StoredRecord for record in chunk) <= AT_ONCE:
                yield _stored(chunk, limits)
            else:
                yield await to_thread.run_sync(_stored, chunk, limits)


def value_end(data: bytes, start: int) -> int:
    """The position after the value that starts at `start`; the end of the data if it is open.

    Only brackets and strings are examined, so the value may still be invalid JSON.
    """
    first = data[start : start + 1]
    if first == b'"':
        return _string_end(data, start + 1)
    if first not in (b"{", b"["):
        return _scalar_end(data, start)
    depth, at = 0, start
    while at < len(data):
        at = _step(_BETWEEN, data, at)
        byte = data[at : at + 1]
        if byte == b'"':
            at = _string_end(data, at + 1)
        elif byte in (b"{", b"["):
            depth += 1
            at += 1
        elif byte in (b"}", b"]"):
            depth -= 1
            at += 1
            if depth == 0:
                return at
    return len(data)


def _records(raw: bytes, line: int, limits: Limits) -> list[StoredRecord]:
    """The record of a line, or the records of several objects in the same line."""
    record = from_json(raw, line=line, limits=limits)
    if record.text is not None or raw.count(b"{") < 2:
        return [record]
    records = list(json_stream(io.BytesIO(raw).read, limits))
    if len(records) > 1 and all(each.text is not None for each in records):
        return [each._replace(line=line) for each in records]
    return [record]


def _element(raw: bytes, line: int, limits: Limits) -> StoredRecord:
    if len(raw) > limits.record_bytes:
        reason = "the element is longer than a record may be"
    elif not raw:
        reason = "an element is missing before this comma"
    else:
        return from_json(raw, line=line, limits=limits)
    return unreadable(raw, line=line, reason=reason, limits=limits)


def _last(scanner: "_Scanner", raw: bytes, line: int, limits: Limits) -> StoredRecord:
    """The record of an element without an end, together with the rest of the file."""
    if scanner.is_lost:
        reason = (
            "the end of this element and the records after it cannot be found: too many brackets"
        )
    else:
        reason = "the file ends inside this element"
    return unreadable(raw + scanner.rest(), line=line, reason=reason, limits=limits)


def _after_last(scanner: "_Scanner", limits: Limits, *, ended: bool) -> Iterator[StoredRecord]:
    """An unreadable record for the problem after the last element, if there is one."""
    line = scanner.line
    if not ended:
        reason = "the file ends without the closing ]; records may be missing from here on"
        yield unreadable(b"", line=line, reason=reason, limits=limits)
        return
    scanner.skip_byte()
    if scanner.skip_space():
        line, reason = scanner.line, "there is more text after the end of the array"
        yield unreadable(scanner.rest(), line=line, reason=reason, limits=limits)


class _Scanner:
    """A position in a file, with its line and its depth inside of an element."""

    def __init__(self, read: Read, longest: int, *, alone: bool = False) -> None:
        self.line = 1
        self._alone = alone  # elements follow each other without a comma
        self._read = read
        self._longest = longest  # bytes of an element that are kept
        self._data = b""
        self._position = 0
        self._depth = 0
        self._in_string = False
        self._escaped = False  # the last byte was a backslash in a string

    @property
    def is_between(self) -> bool:
        """Whether the position is outside of every object, array and string of an element."""
        return self._depth == 0 and not self._in_string

    @property
    def is_lost(self) -> bool:
        """Whether so many brackets are open that the search for the element's end stops."""
        return self._depth >= _LOST_DEPTH

    def peek(self) -> bytes:
        """The byte at the position; none at the end."""
        if self._position == len(self._data):
            self._data, self._position = self._read(BLOCK), 0
        return self._data[self._position : self._position + 1]

    def skip_byte(self) -> None:
        self._move(self._position + 1)

    def skip_space(self) -> bytes:
        """Go to the next byte that is not white space, and return it."""
        while byte := self.peek():
            self._move(_end(_SPACE, self._data, self._position))
            if self._position < len(self._data):
                return self.peek()
        return byte

    def element(self) -> bytes:
        """Go to the comma or bracket after an element; the element's text or its beginning."""
        kept = bytearray()
        while self.peek():
            end, is_end = self._scan(self._data, self._position, begun=bool(kept))
            kept += self._data[self._position : min(end, self._position + self._room(kept))]
            self._move(end)
            if is_end:
                break
        return bytes(kept) if len(kept) >= self._longest else bytes(kept).rstrip(b" \t\r\n")

    def rest(self) -> bytes:
        """The beginning of the rest of the file."""
        kept = bytearray()
        while self.peek() and self._room(kept):
            kept += self._data[self._position : self._position + self._room(kept)]
            self._position = len(self._data)
        return bytes(kept)

    def _room(self, kept: bytearray) -> int:
        return self._longest - len(kept)

    def _move(self, position: int) -> None:
        self.line += self._data.count(b"\n", self._position, position)
        self._position = position

    def _scan(self, data: bytes, position: int, *, begun: bool) -> tuple[int, bool]:
        """The end of the element or of the data, and whether it is that of the element."""
        size, start = len(data), position
        while position < size:
            if self._in_string:
                position = self._scan_string(data, position)
                continue
            position = _end(_NESTED if self._depth else _TOP, data, position)
            byte = data[position : position + 1]
            if self._depth == 0 and byte in {b",", b"]"} and not (self._alone and byte == b"]"):
                return position, True
            if byte in {b"{", b"["}:
                if self._alone and not self._depth and (begun or position > start):
                    return position, True  # the text before it is another element
                self._depth += 1
                if self.is_lost:
                    return position, True
            elif byte in {b"}", b"]"}:
                self._depth = max(0, self._depth - 1)
                if self._alone and not self._depth:
                    return position + 1, True
            elif byte:
                self._in_string = True  # the string continues in the next block
            position = min(position + 1, size)
        return position, False

    def _scan_string(self, data: bytes, position: int) -> int:
        end = _end(_IN_STRING, data, position + self._escaped)
        self._escaped = False
        byte = data[end : end + 1]
        if byte == b"\\":
            self._escaped = True  # the escaped byte is in the next block
        elif byte:
            self._in_string = False
        return min(end + 1, len(data))


def _end(pattern: re.Pattern[bytes], data: bytes, position: int) -> int:
    match = pattern.match(data, position)
    return match.end() if match else position


def _stored(records: Sequence[StoredRecord | Any], limits: Limits) -> list[StoredRecord]:
    return [
        record if type(record) is StoredRecord else from_value(record, limits=limits)
        for record in records
    ]


def _string_end(data: bytes, at: int) -> int:
    while at < len(data):
        at = _step(_IN_STRING, data, at)
        byte = data[at : at + 1]
        if byte == b'"':
            return at + 1
        if byte == b"\\":
            at += 2  # with the escaped byte
    return len(data)


def _scalar_end(data: bytes, at: int) -> int:
    while (end := _step(_SCALAR, data, at)) > at:
        at = end
    return at


def _step(pattern: re.Pattern[bytes], data: bytes, at: int) -> int:
    match = pattern.match(data, at, at + _STEP)
    return match.end() if match else at
