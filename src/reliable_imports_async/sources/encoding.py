"""The encoding of a text file, and its bytes as UTF-8 where lines cannot be cut out of it."""

import codecs

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
