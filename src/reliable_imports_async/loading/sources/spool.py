"""Turns a path, a binary file or a stream of bytes into a seekable file with size and SHA-256."""

import hashlib
import inspect
import io
import os
import tempfile
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias, cast

from anyio import to_thread

from ...errors import SourceError

BLOCK = 256 * 1024

FileLike: TypeAlias = str | os.PathLike[str] | BinaryIO | AsyncIterable[bytes]


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A seekable binary file with its hash.

    Attributes:
        file: The file; read it from its beginning.
        size: Its length in bytes.
        sha256: The hex digest of its bytes.
        version: The size and modification time of a file that other processes may change.
    """

    file: BinaryIO
    size: int
    sha256: str
    version: tuple[int, int] | None = None

    def require_unchanged(self) -> None:
        """Check that the file was not changed after its hash was computed.

        Raises:
            SourceError: The file has another size or modification time.
        """
        if self.version is not None and _version(self.file) != self.version:
            raise SourceError(
                "The file was changed while it was read.",
                hint="import it again when no program writes to it any more.",
            )


def require_file(file: object) -> FileLike:
    """Check an argument that should be a file, without reading it.

    Raises:
        SourceError: It is not a file, is a folder, or was opened in text mode.
    """
    if isinstance(file, str | os.PathLike):
        return _require_path(Path(file))
    if isinstance(file, io.TextIOBase):
        raise _opened_as_text()
    if isinstance(file, AsyncIterable):
        return file
    if inspect.iscoroutinefunction(getattr(file, "read", None)):
        raise SourceError(
            f"{type(file).__name__} has an asynchronous read().",
            hint="pass the binary file behind it (for Starlette's UploadFile: upload.file).",
        )
    if callable(getattr(file, "read", None)):
        return cast("BinaryIO", file)
    raise SourceError(
        f"A value of type {type(file).__name__} is not a file.",
        hint="pass a path, a file opened in binary mode ('rb') or an async iterable of bytes; "
        "for bytes in memory, pass io.BytesIO(data).",
    )


def _require_path(path: Path) -> Path:
    if path.is_dir():
        raise SourceError(f"{path} is a folder.", hint="name a file in it.")
    if not path.exists():
        raise SourceError(f"The file {path} does not exist.", hint="check the path.")
    return path


@asynccontextmanager
async def stored(file: FileLike) -> AsyncIterator[StoredFile]:
    """Open and hash a file; a stream is first received into an unlinked temporary file.

    Args:
        file: A path, a binary file (it stays open) or an async iterable of bytes.

    Raises:
        SourceError: The file cannot be opened, or does not return bytes.
    """
    if isinstance(file, str | os.PathLike):
        with await to_thread.run_sync(_open, Path(file)) as opened:
            async with _stored_file(opened, watched=True) as result:
                yield result
    elif isinstance(file, AsyncIterable):
        async with _spooled(file) as result:
            yield result
    else:
        async with _stored_file(file, watched=False) as result:
            yield result


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise SourceError(f"{path} cannot be opened: {error.strerror or error}") from error


@asynccontextmanager
async def _stored_file(file: BinaryIO, *, watched: bool) -> AsyncIterator[StoredFile]:
    seekable = getattr(file, "seekable", None)
    if seekable is None or not seekable():
        async with _spooled(_blocks(file)) as result:
            yield result
    else:
        version = _version(file) if watched else None
        size, sha256 = await to_thread.run_sync(_hash, file)
        yield StoredFile(file, size, sha256, version)


def _version(file: BinaryIO) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _hash(file: BinaryIO) -> tuple[int, str]:
    file.seek(0)
    size, digest = 0, hashlib.sha256()
    while block := _require_bytes(file.read(BLOCK)):
        size += len(block)
        digest.update(block)
    return size, digest.hexdigest()


async def _blocks(file: BinaryIO) -> AsyncIterator[bytes]:
    """The blocks of a pipe; waiting for the next one can be cancelled."""
    while block := await to_thread.run_sync(file.read, BLOCK, abandon_on_cancel=True):
        yield block


@asynccontextmanager
async def _spooled(blocks: AsyncIterable[bytes]) -> AsyncIterator[StoredFile]:
    size, digest = 0, hashlib.sha256()

    def keep(data: bytes) -> None:
        digest.update(data)
        file.write(data)

    with tempfile.TemporaryFile() as file:
        buffer = bytearray()
        async for block in blocks:
            buffer += _require_bytes(block)
            if len(buffer) >= BLOCK:
                size += len(buffer)
                await to_thread.run_sync(keep, bytes(buffer))
                buffer.clear()
        size += len(buffer)
        await to_thread.run_sync(keep, bytes(buffer))
        yield StoredFile(cast("BinaryIO", file), size, digest.hexdigest())


def _require_bytes(block: object) -> bytes:
    if isinstance(block, str):
        raise _opened_as_text()
    if not isinstance(block, bytes | bytearray | memoryview):
        raise SourceError(f"The file returned {type(block).__name__} instead of bytes.")
    return bytes(block)


def _opened_as_text() -> SourceError:
    return SourceError(
        "The file returns text instead of bytes.",
        hint="open it in binary mode: open(path, 'rb'), or sys.stdin.buffer.",
    )
