"""Physical lines of bytes, in constant memory however long a line is."""

from collections import deque

from .source import Read

BLOCK = 256 * 1024


class Lines:
    """Hands out line after line and counts them; lines can be given back.

    Lines come without the newline byte, but with a carriage return before it. A line longer than
    `longest` bytes is cut after its first `longest` bytes.
    """

    def __init__(self, read: Read, *, longest: int, newline: bytes = b"\n") -> None:
        self.number = 0  # of the line handed out last
        self._read = read
        self._longest = longest
        self._newline = newline
        self._ready: deque[bytes] = deque()
        self._begun: list[bytes] = []  # the beginning of the next line
        self._begun_size = 0
        self._ended = False

    def next(self) -> bytes | None:
        """The next line; None at the end."""
        while not self._ready:
            if self._ended:
                return None
            self._refill()
        self.number += 1
        return self._ready.popleft()

    def give_back(self, lines: list[bytes]) -> None:
        """Take back the lines handed out last; `next` gives them again."""
        self._ready.extendleft(reversed(lines))
        self.number -= len(lines)

    def put(self, lines: list[bytes]) -> None:
        """Go on with these lines, which were one."""
        self._ready.extendleft(reversed(lines))

    def _refill(self) -> None:
        block = self._read(BLOCK)
        if not block:
            self._ended = True
            if self._begun_size:
                self._finish_line()
            return
        first, *others = block.split(self._newline)
        self._begin_line(first)
        if others:
            self._finish_line()
            last = others.pop()
            self._ready.extend(
                others
                if len(block) <= self._longest
                else [line[: self._longest] for line in others]
            )
            self._begin_line(last)

    def _begin_line(self, part: bytes) -> None:
        kept = part[: max(0, self._longest - self._begun_size)]
        if kept:
            self._begun.append(kept)
            self._begun_size += len(kept)

    def _finish_line(self) -> None:
        self._ready.append(b"".join(self._begun))
        self._begun, self._begun_size = [], 0


def without_return(line: bytes) -> bytes:
    """A line without the carriage return of a CRLF line end."""
    return line[:-1] if line.endswith(b"\r") else line
