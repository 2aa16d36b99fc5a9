"""Gzip as a stream, in constant memory, with limits against files that explode."""

import zlib
from dataclasses import dataclass

from reliable_imports_async.errors import SourceError

from .source import Read

MAGIC = b"\x1f\x8b"
BLOCK = 64 * 1024
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
            self._input = self._read(BLOCK)
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
