"""Files of records: CSV, TSV, JSON Lines and JSON arrays, each also gzipped."""

import os
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from anyio import to_thread

from reliable_imports_async.errors import SourceError

from .compression import OutputLimits
from .dialect import known_columns, known_delimiter
from .encoding import known_encoding
from .formats import known_format
from .opened_file import FileOptions, OpenedFile
from .source import Source
from .spool import FileLike, require_file, stored


def read_file(
    file: str | os.PathLike[str] | BinaryIO | AsyncIterable[bytes],
    *,
    name: str | None = None,
    format: str | None = None,  # noqa: A002  the word that users know
    delimiter: str | None = None,
    encoding: str | None = None,
    columns: Sequence[str] | None = None,
    max_output_bytes: int = 10 * 1024**3,
    max_ratio: float = 200,
) -> Source:
    """Read records from a file, in constant memory.

    The rows of CSV files become objects of strings: nothing is converted, leading zeros survive.
    JSON text is kept as it is written. A record that cannot be read becomes an unstorable record
    with its raw bytes and its line; blank lines are no records. Of a file that is neither UTF-8
    nor an extension of ASCII (UTF-16, for example), raw bytes are kept as UTF-8.

    Args:
        file: A path, a binary file (read from its beginning when it can be, and left open), or an
            asynchronous iterable of bytes such as the body of a request. What cannot be read
            twice is received into a temporary file first.
        name: The file's name, where `file` does not tell it.
        format: "csv", "tsv", "jsonl" or "json"; by default told by the name or the first bytes.
        delimiter: The one character between the fields of a CSV file; detected by default.
        encoding: By default told by a byte order mark, else UTF-8; CSV files that do not begin
            as valid UTF-8 are read as Windows-1252.
        columns: Names for the columns of a CSV file without a header.
        max_output_bytes: Bytes that a gzip file may unfold to.
        max_ratio: Times its size that a gzip file may unfold to, after its first MiB.

    Returns:
        A source; nothing is read before it is opened.

    Raises:
        SourceError: there is no such file, or an option cannot work. Opening and reading raise
            it as well when the file as a whole cannot be read.
    """
    options = FileOptions(
        name=name,
        format=None if format is None else known_format(format),
        delimiter=None if delimiter is None else known_delimiter(delimiter),
        encoding=None if encoding is None else known_encoding(encoding),
        columns=None if columns is None else known_columns(columns),
        output=OutputLimits(max_output_bytes, max_ratio),
    )
    return FileSource(require_file(file), options)


@dataclass(slots=True)
class FileSource:
    """A source over a file."""

    file: FileLike
    options: FileOptions
    was_opened: bool = False

    @property
    def at_hand(self) -> bool:
        """Whether the file is on disk."""
        return isinstance(self.file, Path) and self.file.is_file()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[OpenedFile]:
        """Receive and hash the file, and find out how it is written.

        Raises:
            SourceError: it cannot be read as a whole.
        """
        if self.was_opened and isinstance(self.file, AsyncIterable):
            raise SourceError("This file was already read.", hint="it can be received only once.")
        self.was_opened = True
        async with stored(self.file) as file:
            name = self.options.name or _own_name(self.file)
            yield await to_thread.run_sync(OpenedFile, file, name, self.options)


def _own_name(file: FileLike) -> str | None:
    name = file if isinstance(file, Path) else getattr(file, "name", None)
    if not isinstance(name, str | os.PathLike) or str(name).startswith("<"):  # <stdin>, <fdopen>
        return None
    return Path(name).name
