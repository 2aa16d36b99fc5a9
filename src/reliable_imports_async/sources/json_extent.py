"""Where a JSON value ends, without reading it: what is too long is never made into objects."""

import re

_STEP = 65_536  # bytes looked at in one go; a pattern lets nothing else in the process run
_IN_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_BETWEEN = re.compile(rb'[^"\[\]{}]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^"\[\]{}]*+)*', re.DOTALL)
_SCALAR = re.compile(rb'[^\s,:"\[\]{}]*+')


def value_end(data: bytes, start: int) -> int:
    """The position behind the value that starts at a position; the end of the data if it is open.

    Only brackets and strings are looked at, so what is in between may still be no JSON.
    """
    first = data[start : start + 1]
    if first == b'"':
        return _string_end(data, start + 1)
    if first not in (b"{", b"["):
        return _scalar_end(data, start)
    depth, at = 0, start
    while at < len(data):
        at = _end(_BETWEEN, data, at)
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


def _string_end(data: bytes, at: int) -> int:
    while at < len(data):
        at = _end(_IN_STRING, data, at)
        byte = data[at : at + 1]
        if byte == b'"':
            return at + 1
        if byte == b"\\":
            at += 2  # what it escapes is in the next step
    return len(data)


def _scalar_end(data: bytes, at: int) -> int:
    while (end := _end(_SCALAR, data, at)) > at:
        at = end
    return at


def _end(pattern: re.Pattern[bytes], data: bytes, at: int) -> int:
    match = pattern.match(data, at, at + _STEP)
    return match.end() if match else at
