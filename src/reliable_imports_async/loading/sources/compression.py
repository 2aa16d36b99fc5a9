"""Compressed files: gzip, bzip2, xz, and the files in a ZIP archive.

Each is a `Read` over a `Read` or a file, bounded by `OutputLimits`: a small file may expand to
terabytes.
"""

import bz2
import lzma
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO, Protocol

from ...errors import SourceError
from .source import Read

BLOCK = 64 * 1024
RATIO_APPLIES_FROM = 1_048_576  # bytes of output; small files may well compress better
SHOWN = 20
_UNPACKED = {
    "cli_hint": "if you trust the file, unpack it first and import the unpacked file.",
    "web_hint": "if you trust the file, upload it unpacked.",
}


@dataclass(frozen=True, slots=True)
class OutputLimits:
    """How far a compressed file may expand.

    Attributes:
        total: Bytes of output.
        ratio: Bytes of output per byte of input, checked after the first MiB of output.
    """

    total: int
    ratio: float

    def require(self, kind: str, size_in: int, size_out: int) -> None:
        """Refuse data that has expanded too far.

        Raises:
            SourceError: It has more bytes, or a larger ratio.
        """
        if size_out > self.total:
            raise SourceError(
                f"The {kind} data expands to more than {self.total:,} bytes.",
                hint="increase max_output_bytes if you trust the file.",
                **_UNPACKED,
            )
        if size_out > max(RATIO_APPLIES_FROM, size_in * self.ratio):
            raise SourceError(
                f"The {kind} data expands to more than {self.ratio:g} times its size.",
                hint="increase max_ratio if you trust the file.",
                **_UNPACKED,
            )


class _Decompressor(Protocol):
    """What the decompressors of the standard library have in common."""

    def decompress(self, data: bytes, max_length: int) -> bytes: ...
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...


class _GzipDecompressor:
    """A gzip member, with the interface of the other decompressors."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._member.decompress(self._member.unconsumed_tail + data, max_length)

    @property
    def eof(self) -> bool:
        return self._member.eof

    @property
    def needs_input(self) -> bool:
        return not self._member.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._member.unused_data


@dataclass(frozen=True, slots=True)
class Compression:
    """A way in which a file is compressed.

    Attributes:
        name: Its name, for messages.
        suffixes: The ends of the names of such files.
        magic: The first bytes of such files.
        new: Makes a decompressor.
    """

    name: str
    suffixes: tuple[str, ...]
    magic: tuple[bytes, ...]
    new: Callable[[], _Decompressor]


_BZIP2 = tuple(
    b"BZh%d%s" % (level, block) for level in range(1, 10) for block in (b"1AY&SY", b"\x17rE8P\x90")
)
COMPRESSIONS = (
    Compression("gzip", (".gz", ".gzip"), (b"\x1f\x8b",), _GzipDecompressor),
    Compression("bzip2", (".bz2",), _BZIP2, bz2.BZ2Decompressor),
    Compression("xz", (".xz",), (b"\xfd7zXZ\0",), lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ)),
)
LONGEST_MAGIC = 16


def compression_of(head: bytes, name: str | None) -> Compression | None:
    """How a file is compressed, according to its first bytes.

    Raises:
        SourceError: The file is not compressed, although its name says so.
    """
    if (found := compression_by_magic(head)) is not None:
        return found
    named = compression_by_name(name)
    if named is not None:
        raise SourceError(
            f"{name} is not {named.name} data, although its name says so.",
            hint="rename the file, or download it again.",
        )
    return None


def compression_by_magic(head: bytes) -> Compression | None:
    """How a file is compressed, if its first bytes say so."""
    return next((each for each in COMPRESSIONS if head.startswith(each.magic)), None)


def compression_by_name(name: str | None) -> Compression | None:
    """How a file is compressed, according to its name."""
    lowered = (name or "").lower()
    return next((each for each in COMPRESSIONS if lowered.endswith(each.suffixes)), None)


def uncompressed_name(name: str) -> str:
    """A file's name without the end that says how it is compressed, in lower case."""
    lowered = name.lower()
    compression = compression_by_name(name)
    suffixes = (".zip",) if compression is None else compression.suffixes
    for suffix in suffixes:
        lowered = lowered.removesuffix(suffix)
    return lowered


class Decompress:
    """Decompresses a file, which may consist of several members (frames, streams)."""

    def __init__(self, read: Read, compression: Compression, limits: OutputLimits) -> None:
        self._read = read
        self._kind = compression
        self._limits = limits
        self._input = b""  # read, and not yet given to the decompressor
        self._bytes_in = 0  # bytes read from the compressed file
        self._bytes_out = 0  # bytes decompressed
        self._member = compression.new()

    def read(self, size: int) -> bytes:
        """At most `size` bytes, none at the end.

        Raises:
            SourceError: The file is corrupt, ends too early or expands beyond the limits.
        """
        while not self._member.eof or self._next_member():
            if self._member.needs_input and not self._refill() and not self._member.eof:
                raise SourceError(
                    f"The {self._kind.name} data ends too early, at byte {self._bytes_in:,}.",
                    hint="the file is incomplete; download it again.",
                )
            if output := self._decompress(size):
                return output
        return b""

    def _refill(self) -> bool:
        if not self._input:
            self._input = self._read(BLOCK)
            self._bytes_in += len(self._input)
        return bool(self._input)

    def _decompress(self, size: int) -> bytes:
        data, self._input = self._input, b""
        try:
            output = self._member.decompress(data, size)
        except (zlib.error, OSError, ValueError, EOFError, lzma.LZMAError) as error:
            raise self._corrupt(error, len(data)) from error
        if self._member.eof:
            self._input = self._member.unused_data
        self._bytes_out += len(output)
        self._limits.require(self._kind.name, self._bytes_in, self._bytes_out)
        return output

    def _corrupt(self, error: Exception, size: int) -> SourceError:
        return SourceError(
            f"The {self._kind.name} data is corrupt within the {size:,} bytes before byte "
            f"{self._bytes_in:,}: {error}",
            hint="download the file again.",
        )

    def _next_member(self) -> bool:
        """Continue with the next member, after any zero padding."""
        while self._refill():
            self._input = self._input.lstrip(b"\0")
            if self._input:
                self._member = self._kind.new()
                return True
        return False


class ZipMember:
    """Reads one file in a ZIP archive."""

    def __init__(self, archive: zipfile.ZipFile, name: str, limits: OutputLimits) -> None:
        self._archive = archive
        self._name = name
        self._limits = limits

    def open(self) -> Read:
        """Read the file from its beginning.

        Raises:
            SourceError: It is encrypted, or damaged, or expands beyond the limits; reading
                raises it too.
        """
        size_in = self._archive.getinfo(self._name).compress_size
        size_out = 0
        with_errors = _ZipErrors(self._name)
        with with_errors:
            file = self._archive.open(self._name)

        def read(size: int) -> bytes:
            nonlocal size_out
            with with_errors:
                data = file.read(size)
            size_out += len(data)
            self._limits.require("ZIP", size_in, size_out)
            return data

        return read


class _ZipErrors:
    """Turns the errors of the zipfile module into ours."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, RuntimeError) and "password" in str(error):
            raise SourceError(
                f"{self._name} in the ZIP archive is encrypted.",
                hint="unpack it with its password, and import the unpacked file.",
            ) from error
        kinds = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError)
        if isinstance(error, (*kinds, RuntimeError, lzma.LZMAError)):
            raise SourceError(
                f"{self._name} in the ZIP archive cannot be read: {error}",
                hint="download the file again, or unpack it first.",
            ) from error


def chosen_member(archive: zipfile.ZipFile, wanted: str | None) -> str:
    """The name of the file to read in an archive.

    Args:
        archive: The archive.
        wanted: Its name, if the caller gives it; the end of the path is enough.

    Raises:
        SourceError: There is no such file, or there are several.
    """
    every = [info.filename for info in archive.infolist() if not info.is_dir()]
    names = [name for name in every if not _is_hidden(name)]
    if wanted is not None:
        matching = [name for name in names if name == wanted]
        names = matching or [name for name in names if PurePosixPath(name).name == wanted]
    if len(names) == 1:
        return names[0]
    shown = ", ".join(_printable(name) for name in every[:SHOWN]) or "nothing"
    if wanted is not None:
        problem = f"has {'several files' if names else 'no file'} {wanted!r}: it contains {shown}"
    else:
        problem = f"contains {shown}" if names else "contains no file"
    example = _printable(names[0]) if names else None
    raise SourceError(
        f"The file is a ZIP archive that {problem}.",
        hint=f"name the file to read, e.g. member={example!r}."
        if example
        else "check that it is the right file.",
        cli_hint=f"name the file to read, e.g. --member {example}." if example else None,
        web_hint=f"name the file to read, e.g. `member` = {example}." if example else None,
    )


def _printable(name: str) -> str:
    return name.encode(errors="replace").decode()


def _is_hidden(name: str) -> bool:
    """Whether it is a file that operating systems add to archives."""
    path = PurePosixPath(name)
    return path.parts[:1] == ("__MACOSX",) or path.name.startswith(".") or path.name == "Thumbs.db"


def opened_archive(file: BinaryIO) -> zipfile.ZipFile:
    """Open a ZIP archive.

    Raises:
        SourceError: It is damaged.
    """
    try:
        file.seek(0)
        return zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise SourceError(
            f"The file looks like a ZIP archive but cannot be read: {error}",
            hint="the file is incomplete or damaged; download it again.",
        ) from error
