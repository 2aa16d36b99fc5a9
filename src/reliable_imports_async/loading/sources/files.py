"""Reads files of records: CSV, TSV, JSON Lines and JSON arrays, each also compressed.

`read_file` makes the source. `OpenedFile` finds out the file's compression, encoding and format,
and reads its records with the reader for that format.
"""

import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import BinaryIO, Protocol

from anyio import to_thread
from typing_extensions import Unpack

from ...errors import SourceError
from ..records import Limits, StoredRecord
from .charset import guessed_encoding, wide_encoding
from .compression import (
    LONGEST_MAGIC,
    Decompress,
    OutputLimits,
    ZipMember,
    chosen_member,
    compression_of,
    opened_archive,
    uncompressed_name,
)
from .csv_dialect import known_columns, known_delimiter
from .csv_file import CsvFile
from .decoding import (
    UTF_8,
    AsUtf8,
    extends_ascii,
    known_encoding,
    marked_encoding,
    read_up_to,
    without_mark,
)
from .json_file import JsonFile
from .layout import Layout, LayoutOptions, without_last
from .signatures import (
    is_archive,
    refuse_binary,
    refuse_markup,
    refuse_other_files,
)
from .source import Read, Source, SourceInfo, in_chunks
from .spool import FileLike, StoredFile, require_file, stored

FORMATS = ("csv", "tsv", "jsonl", "json")
_SUFFIXES = {
    ".csv": "csv",
    ".txt": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
}
SAMPLE_BYTES = 1_048_576


@dataclass(frozen=True, slots=True)
class FileOptions:
    """The caller's description of a file; None means "detect" (see `read_file`)."""

    name: str | None
    format: str | None
    delimiter: str | None
    encoding: str | None
    columns: tuple[str, ...] | None
    output: OutputLimits
    layout: Layout


class RecordReader(Protocol):
    """Reads the records of a file in one format.

    Attributes:
        kind: The format.
        columns: The names of the columns of a table.
        notes: Notes for the user about how the file is read.
        head: The first lines of a table.
    """

    kind: str
    columns: tuple[str, ...] | None
    notes: tuple[str, ...]
    head: tuple[str, ...]

    @property
    def late_notes(self) -> tuple[str, ...]:
        """Notes that are known when all records were read."""
        ...

    def records(self, limits: Limits) -> Iterator[StoredRecord]:
        """The records in order; blocks."""
        ...


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
    **layout: Unpack[LayoutOptions],
) -> Source:
    """Read records from a file, in constant memory.

    The rows of a CSV file become objects of strings: nothing is converted, and leading zeros are
    kept. JSON text is kept as it is written. A record that cannot be read becomes a failed item
    with its raw bytes and its line; blank lines are skipped. The raw bytes of a file that is
    neither UTF-8 nor an extension of ASCII (such as UTF-16) are kept as UTF-8.

    Args:
        file: A path, a binary file (read from its beginning if possible, and left open), or an
            asynchronous iterable of bytes such as the body of a request. A file that can be read
            only once is received into a temporary file first.
        name: The file's name, if `file` does not have it.
        format: "csv", "tsv", "jsonl" or "json"; by default, the name or the first bytes decide.
        delimiter: The character between the fields of a CSV file; detected by default.
        encoding: The file's encoding; detected by default.
        columns: The column names of a table without a header, or to replace its header.
        max_output_bytes: How many bytes a compressed file may expand to.
        max_ratio: How many times its size a compressed file may expand to, after the first MiB.
        layout: Where the table in the file is, if it is not found (see `LayoutOptions`).

    Returns:
        A source; nothing is read before it is opened.

    Raises:
        SourceError: The file does not exist, or an option is not valid. Opening and reading the
            source also raise it, if the file cannot be read at all.
        TypeError: There is no such option.
    """
    options = FileOptions(
        name=name,
        format=None if format is None else known_format(format),
        delimiter=None if delimiter is None else known_delimiter(delimiter),
        encoding=None if encoding is None else known_encoding(encoding),
        columns=None if columns is None else known_columns(columns),
        output=OutputLimits(max_output_bytes, max_ratio),
        layout=Layout.of(layout),
    )
    return FileSource(require_file(file), options)


@dataclass(slots=True)
class FileSource:
    """A source over a file."""

    file: FileLike
    options: FileOptions
    was_opened: bool = False

    @property
    def is_local(self) -> bool:
        """Whether the file is on disk."""
        return isinstance(self.file, Path) and self.file.is_file()

    @asynccontextmanager
    async def open(self) -> AsyncIterator["OpenedFile"]:
        """Receive and hash the file, and detect how it is written.

        Raises:
            SourceError: The file cannot be read at all.
        """
        if self.was_opened and isinstance(self.file, AsyncIterable):
            raise SourceError("This file was already read.", hint="a stream can be read only once.")
        self.was_opened = True
        async with stored(self.file) as file:
            name = self.options.name or _own_name(self.file)
            yield await to_thread.run_sync(OpenedFile, file, name, self.options)


def _own_name(file: FileLike) -> str | None:
    name = file if isinstance(file, Path) else getattr(file, "name", None)
    if not isinstance(name, str | os.PathLike) or str(name).startswith("<"):  # <stdin>, <fdopen>
        return None
    return Path(name).name


class OpenedFile:
    """A file whose records are being read; its constructor blocks, so it runs in a thread."""

    def __init__(self, file: StoredFile, name: str | None, options: FileOptions) -> None:
        self._file = file
        self._options = options
        self._position = 0
        self._content, inner_name = self._unpacked(name)
        self._encoding: str | None = None
        self._notes: list[str] = []
        sample = read_up_to(self._content(), SAMPLE_BYTES)
        self._reader = self._opened_text(sample, inner_name)
        self.info = SourceInfo(
            name and name.encode("utf-8", "backslashreplace").decode(),  # names are bytes on disk
            file.size,
            file.sha256,
            self._reader.columns,
            self._reader.kind,
            self._encoding,
            (*self._notes, *self._reader.notes),
            self._reader.head,
        )

    @property
    def bytes_read(self) -> int:
        """How many bytes of the file were read, before decompression."""
        return self._position

    @property
    def late_notes(self) -> tuple[str, ...]:
        """Notes for the user that are known when all records were read."""
        return self._reader.late_notes

    async def chunks(self, limits: Limits) -> AsyncIterator[list[StoredRecord]]:
        """The records in order, in lists of about 500 records or 1 MiB of text.

        Raises:
            SourceError: The file is corrupt, or was changed while it was read.
        """
        chunks = in_chunks(self._records(limits))
        while (chunk := await to_thread.run_sync(next, chunks, None)) is not None:
            yield chunk
        self._file.require_unchanged()

    def _records(self, limits: Limits) -> Iterator[StoredRecord]:
        """All records; a generator, so that even the first read happens in a thread."""
        yield from without_last(self._reader.records(limits), self._options.layout.skip_footer)

    def _unpacked(self, name: str | None) -> tuple[Callable[[], Read], str | None]:
        """What gives the decompressed bytes of the file from their beginning, and its name."""
        self._file.file.seek(0)
        head = self._file.file.read(LONGEST_MAGIC)
        self._is_plain = True
        compression = compression_of(head, name)
        member = self._options.layout.member
        if compression is None and is_archive(head, self._file.file):
            archive = opened_archive(self._file.file)
            chosen = chosen_member(archive, member)
            self._is_plain = False
            return ZipMember(archive, chosen, self._options.output).open, chosen
        if member is not None:
            raise SourceError(
                "The file is not a ZIP archive, but a file in it was named.",
                hint="leave out member=.",
                cli_hint="leave out --member.",
                web_hint="leave out `member`.",
            )
        if compression is None:
            return self._from_beginning, name
        self._is_plain = False
        limits = self._options.output
        return (
            lambda: Decompress(self._from_beginning(), compression, limits).read,
            name and uncompressed_name(name),
        )

    def _from_beginning(self) -> Read:
        self._file.file.seek(0)
        self._position = 0
        return self._read

    def _read(self, size: int) -> bytes:
        data = self._file.file.read(size)
        self._position += len(data)
        return data

    def _opened_text(self, sample: bytes, name: str | None) -> RecordReader:
        given = self._options
        refuse_other_files(sample, self._file.file if self._is_plain else None)
        declared = self._declared_encoding(sample)
        self._encoding = declared or UTF_8
        self._converts = not extends_ascii(self._encoding)
        text = read_up_to(self._text(), SAMPLE_BYTES)
        if given.format is None:
            refuse_markup(text)
        refuse_binary(text)
        kind = given.format or format_by_name(name) or format_by_content(text)
        if kind in {"csv", "tsv"}:
            return self._opened_csv(text, kind, guess=declared is None)
        self._converts = self._encoding != UTF_8
        self._refuse_table_options(kind)
        return JsonFile(
            self._text,
            text,
            kind=kind,
            is_lines=given.format == "jsonl",
            complete=len(text) < SAMPLE_BYTES,
        )

    def _opened_csv(self, text: bytes, kind: str, *, guess: bool) -> RecordReader:
        if guess:
            self._encoding, note = guessed_encoding(self._content())
            self._notes += [note] if note else []
        return CsvFile(
            self._text,
            text,
            kind=kind,
            encoding=self._encoding or UTF_8,
            converts=self._converts,
            delimiter=self._options.delimiter,
            columns=self._options.columns,
            layout=self._options.layout,
        )

    def _declared_encoding(self, sample: bytes) -> str | None:
        """The encoding that the caller names, else that of the first bytes."""
        named, marked = self._options.encoding, marked_encoding(sample)
        if named is not None:
            if marked is not None and marked != named.removesuffix("-le").removesuffix("-be"):
                self._notes.append(
                    f"The file was read as {named}, as requested, although its byte order mark "
                    f"says {marked}."
                )
            return named
        wide = None if marked else wide_encoding(sample)
        if wide is not None:
            self._notes.append(f"The file does not declare its encoding. It was read as {wide}.")
        return marked or wide

    def _text(self) -> Read:
        """The text of the file from its beginning, in an encoding that extends ASCII."""
        content = self._content()
        if self._converts:
            content = AsUtf8(content, self._encoding or UTF_8).read
        return without_mark(content)

    def _refuse_table_options(self, kind: str) -> None:
        given = self._options
        if given.columns or given.delimiter or given.layout.is_table:
            raise SourceError(
                f"Columns, a delimiter and the lines of a header apply only to tables; this file "
                f"is {kind}.",
                hint='leave them out, or pass format="csv".',
                cli_hint="leave them out, or add --format csv.",
                web_hint="leave them out, or set `format` to csv.",
            )


def known_format(name: str) -> str:
    """Check a format that the caller names.

    Raises:
        SourceError: The format does not exist.
    """
    if name not in FORMATS:
        raise SourceError(
            f"The format {name!r} is not supported.", hint=f"use one of {', '.join(FORMATS)}."
        )
    return name


def format_by_name(name: str | None) -> str | None:
    """The format according to a file's name, with or without .gz."""
    if name is None:
        return None
    return _SUFFIXES.get(PurePath(uncompressed_name(name)).suffix)


def format_by_content(sample: bytes) -> str:
    """The format that the first bytes suggest."""
    return "json" if sample.lstrip()[:1] in {b"[", b"{"} else "csv"
