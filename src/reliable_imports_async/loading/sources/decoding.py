"""The bytes of a file as lines of text: encodings, byte order marks and line ends.

Everything here reads from a `Read` and is a `Read` itself, except `Lines` at the end of the chain.
"""

import codecs
from collections import deque

from ...errors import SourceError
from .source import Read

UTF_8 = "utf-8"
_MARKS = (  # UTF-32 first: its mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, UTF_8),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ASCII = bytes(range(128))
_UNSUITABLE = frozenset({"unicode-escape", "raw-unicode-escape", "punycode", "idna", "undefined"})
BLOCK = 256 * 1024


def marked_encoding(sample: bytes) -> str | None:
    """The encoding of the sample's byte order mark, if it has one."""
    return next((name for mark, name in _MARKS if sample.startswith(mark)), None)


def known_encoding(name: str) -> str:
    """The canonical name of an encoding.

    Raises:
        SourceError: Python has no such text encoding.
    """
    try:
        "a".encode(name)  # refuses codecs that are not text encodings
        codecs.getincrementaldecoder(name)
        canonical = codecs.lookup(name).name
        if canonical in _UNSUITABLE:
            raise LookupError(name)
    except (LookupError, ValueError):
        raise SourceError(
            f"The encoding {name!r} does not exist.",
            hint="use e.g. 'utf-8', 'cp1252' or 'utf-16'.",
        ) from None
    return UTF_8 if canonical == "utf-8-sig" else canonical


def extends_ascii(encoding: str) -> bool:
    """Whether newlines, quotes and delimiters have the same bytes as in ASCII."""
    try:
        return _ASCII.decode(encoding) == _ASCII.decode("ascii")
    except UnicodeError:
        return False


class AsUtf8:
    """Reads a file of another encoding as UTF-8.

    Bytes that cannot be decoded become invalid UTF-8, so that only their record fails.
    """

    def __init__(self, read: Read, encoding: str) -> None:
        wide = encoding.startswith(("utf-16", "utf-32"))
        self._errors = "surrogatepass" if wide else "surrogateescape"
        self._decoder = codecs.getincrementaldecoder(encoding)(self._errors)
        self._encoding = encoding
        self._read = read
        self._ended = False

    def read(self, size: int) -> bytes:
        """About `size` bytes, none at the end.

        Raises:
            SourceError: The bytes cannot be read in this encoding at all.
        """
        while not self._ended:
            data = self._read(size)
            self._ended = not data
            if output := self._converted(data):
                return output
        return b""

    def _converted(self, data: bytes) -> bytes:
        try:
            text = self._decoder.decode(data, final=self._ended)
        except UnicodeError as error:  # some codecs do not raise the subclass
            if self._ended and isinstance(error, UnicodeDecodeError):  # the last character is cut
                return b"\xff" + error.object[error.start :]
            reason = error.reason if isinstance(error, UnicodeDecodeError) else str(error)
            raise SourceError(
                f"The file cannot be read as {self._encoding}: {reason}.",
                hint="pass encoding= with the file's encoding.",
                cli_hint="name the file's encoding with --encoding.",
                web_hint="set `encoding` to the file's encoding, or save the file as UTF-8.",
            ) from error
        return text.encode(UTF_8, self._errors)


def without_mark(read: Read) -> Read:
    """The same text without a UTF-8 byte order mark at its beginning."""
    head = read_up_to(read, len(codecs.BOM_UTF8))
    return _Prefixed(head.removeprefix(codecs.BOM_UTF8), read).read


def read_up_to(read: Read, size: int) -> bytes:
    """Exactly `size` bytes; fewer only at the end."""
    parts: list[bytes] = []
    while size > 0 and (part := read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


class _Prefixed:
    """Reads some bytes again before the rest."""

    def __init__(self, head: bytes, read: Read) -> None:
        self._head = head
        self._read = read

    def read(self, size: int) -> bytes:
        head, self._head = self._head, b""
        return head or self._read(size)


class Lines:
    """Reads the lines of a text and counts them; lines can be given back.

    Lines come without the newline byte, but with a carriage return before it. A line longer than
    `longest` bytes is cut after its first `longest` bytes.
    """

    def __init__(self, read: Read, *, longest: int, newline: bytes = b"\n") -> None:
        self.number = 0  # of the last line that was returned
        self._read = read
        self._longest = longest
        self._newline = newline
        self._ready: deque[bytes] = deque()
        self._partial: list[bytes] = []  # the beginning of the next line
        self._partial_size = 0
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
        """Take back the last lines that were returned; `next` returns them again."""
        self._ready.extendleft(reversed(lines))
        self.number -= len(lines)

    def put(self, lines: list[bytes]) -> None:
        """Continue with these lines, which were parts of the last line."""
        self._ready.extendleft(reversed(lines))

    def _refill(self) -> None:
        block = self._read(BLOCK)
        if not block:
            self._ended = True
            if self._partial_size:
                self._finish_line()
            return
        first, *lines = block.split(self._newline)
        self._add_part(first)
        if lines:
            self._finish_line()
            last = lines.pop()
            self._ready.extend(
                lines if len(block) <= self._longest else [line[: self._longest] for line in lines]
            )
            self._add_part(last)

    def _add_part(self, part: bytes) -> None:
        kept = part[: max(0, self._longest - self._partial_size)]
        if kept:
            self._partial.append(kept)
            self._partial_size += len(kept)

    def _finish_line(self) -> None:
        self._ready.append(b"".join(self._partial))
        self._partial, self._partial_size = [], 0


def without_return(line: bytes) -> bytes:
    """A line without the carriage return of a CRLF line end."""
    return line[:-1] if line.endswith(b"\r") else line
