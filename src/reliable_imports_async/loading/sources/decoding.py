"""The encoding of a text file, and its bytes as UTF-8 where lines cannot be cut out of it."""

import codecs
import zlib
from collections import deque
from dataclasses import dataclass

from reliable_imports_async.errors import SourceError

from .source import Read

UTF_8 = "utf-8"
_MARKS = (  # UTF-32 first: its mark begins with the one of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, UTF_8),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ASCII = bytes(range(128))
_OF_NO_FILE = frozenset({"unicode-escape", "raw-unicode-escape", "punycode", "idna", "undefined"})


def marked_encoding(sample: bytes) -> str | None:
    """The encoding that a byte order mark tells."""
    return next((name for mark, name in _MARKS if sample.startswith(mark)), None)


def known_encoding(name: str) -> str:
    """The codec's own name of an encoding.

    Raises:
        SourceError: Python has no such text encoding.
    """
    try:
        "a".encode(name)  # refuses codecs that are no encodings of text
        codecs.getincrementaldecoder(name)
        found = codecs.lookup(name).name
        if found in _OF_NO_FILE:
            raise LookupError(name)
    except (LookupError, ValueError):
        raise SourceError(
            f"There is no encoding {name!r}.", hint="use e.g. 'utf-8', 'cp1252' or 'utf-16'."
        ) from None
    return UTF_8 if found == "utf-8-sig" else found


def extends_ascii(encoding: str) -> bool:
    """Whether newlines, quotes and delimiters are the same bytes as in ASCII."""
    try:
        return _ASCII.decode(encoding) == _ASCII.decode("ascii")
    except UnicodeError:
        return False


class AsUtf8:
    """Reads a file of another encoding as UTF-8.

    What does not decode becomes bytes that are no UTF-8 either, so that only its record suffers.
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
            SourceError: the bytes cannot be read in this encoding at all.
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
        except UnicodeError as error:  # some codecs raise no more than that
            if self._ended and isinstance(error, UnicodeDecodeError):  # the last character is cut
                return b"\xff" + error.object[error.start :]
            reason = error.reason if isinstance(error, UnicodeDecodeError) else str(error)
            raise SourceError(
                f"The file cannot be read as {self._encoding}: {reason}.",
                hint="pass encoding= with the encoding it was written in.",
                cli_hint="name the encoding that it was written in with --encoding.",
                web_hint="name the encoding that it was written in (`encoding`), or use UTF-8.",
            ) from error
        return text.encode(UTF_8, self._errors)


def without_mark(read: Read) -> Read:
    """Skip a byte order mark at the beginning of UTF-8 text."""
    head = read_up_to(read, len(codecs.BOM_UTF8))
    return _Prefixed(head.removeprefix(codecs.BOM_UTF8), read).read


def read_up_to(read: Read, size: int) -> bytes:
    """As many bytes as asked for, fewer only at the end."""
    parts: list[bytes] = []
    while size > 0 and (part := read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


class _Prefixed:
    """Reads some bytes once more before the rest."""

    def __init__(self, head: bytes, read: Read) -> None:
        self._head = head
        self._read = read

    def read(self, size: int) -> bytes:
        head, self._head = self._head, b""
        return head or self._read(size)


MAGIC = b"\x1f\x8b"
GZIP_BLOCK = 64 * 1024
_UNPACKED = {
    "cli_hint": "if the file is to be trusted, unpack it first and import what comes out.",
    "web_hint": "if the file is to be trusted, send it unpacked.",
}
RATIO_JUDGED_FROM = 1_048_576  # small files may well compress better than the limit


@dataclass(frozen=True, slots=True)
class OutputLimits:
    """How far a compressed file may unfold.

    Attributes:
        total: Bytes it may unfold to.
        ratio: Bytes of output per byte of input, judged after the first MiB of output.
    """

    total: int
    ratio: float


class Gunzip:
    """Reads what a gzip file holds; several gzip files in a row count as one."""

    def __init__(self, read: Read, limits: OutputLimits) -> None:
        self._read = read
        self._limits = limits
        self._input = b""  # read, and not yet unfolded
        self._taken = 0  # bytes read of the compressed file
        self._given = 0  # bytes unfolded
        self._member = _decompressor()

    def read(self, size: int) -> bytes:
        """At most `size` bytes, none at the end.

        Raises:
            SourceError: the file is corrupt, ends too early or unfolds beyond the limits.
        """
        while not self._member.eof or self._next_member():
            self._refill()
            output = self._unfold(size)
            if output:
                return output
            if not self._input and not self._member.eof and not self._refill():
                raise SourceError(
                    f"The gzip data ends too early, at byte {self._taken:,}.",
                    hint="the file is incomplete; fetch it once more.",
                )
        return b""

    def _refill(self) -> bool:
        if not self._input:
            self._input = self._read(GZIP_BLOCK)
            self._taken += len(self._input)
        return bool(self._input)

    def _unfold(self, size: int) -> bytes:
        member = self._member
        try:
            output = member.decompress(self._input, size)
        except zlib.error as error:
            raise SourceError(
                f"The gzip data is corrupt within the {len(self._input):,} bytes before byte "
                f"{self._taken:,}: {error}",
                hint="fetch the file once more.",
            ) from error
        self._input = member.unused_data if member.eof else member.unconsumed_tail
        self._given += len(output)
        self._require_limits()
        return output

    def _require_limits(self) -> None:
        limits, consumed = self._limits, self._taken - len(self._input)
        if self._given > limits.total:
            raise SourceError(
                f"The gzip data unfolds to more than {limits.total:,} bytes.",
                hint="raise max_output_bytes if the file is to be trusted.",
                **_UNPACKED,
            )
        if self._given > max(RATIO_JUDGED_FROM, consumed * limits.ratio):
            raise SourceError(
                f"The gzip data unfolds to more than {limits.ratio:g} times its size.",
                hint="raise max_ratio if the file is to be trusted.",
                **_UNPACKED,
            )

    def _next_member(self) -> bool:
        """Go on with the next gzip file in the file, past zero padding."""
        while self._refill():
            self._input = self._input.lstrip(b"\0")
            if self._input:
                self._member = _decompressor()
                return True
        return False


def _decompressor() -> "zlib._Decompress":
    return zlib.decompressobj(wbits=31)


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
