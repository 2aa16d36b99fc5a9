"""Files of records: CSV, TSV, JSON Lines and JSON arrays, each also gzipped."""

import json
import os
import re
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import BinaryIO

from anyio import to_thread

from reliable_imports_async.errors import SourceError
from reliable_imports_async.loading.records import DEFAULT_LIMITS, Limits, StoredRecord

from .charset import guessed_encoding, wide_encoding
from .csv_dialect import (
    columns_of,
    found_delimiter,
    found_newline,
    known_columns,
    known_delimiter,
    refuse_separator_line,
)
from .csv_records import CsvReader, Dialect
from .decoding import (
    MAGIC,
    UTF_8,
    AsUtf8,
    Gunzip,
    OutputLimits,
    extends_ascii,
    known_encoding,
    marked_encoding,
    read_up_to,
    without_mark,
)
from .json_records import json_array, json_lines, json_stream
from .signatures import refuse_binary, refuse_markup, refuse_other_files
from .source import Read, Source, SourceInfo, in_chunks
from .spool import FileLike, StoredFile, require_file, stored

FORMATS = ("csv", "tsv", "jsonl", "json")
_SUFFIXES = {
    ".csv": "csv",
    ".txt": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
}
_SAMPLE_LINES = 20
_USUAL_LISTS = frozenset(
    {"data", "entries", "hits", "items", "list", "objects", "records", "results", "rows", "value"}
)
_LIST = re.compile(rb'(?<!\\)"((?:[^"\\]|\\.)*+)"\s*:\s*\[\s*\{')


def known_format(name: str) -> str:
    """Check a format that the caller names.

    Raises:
        SourceError: there is no such format.
    """
    if name not in FORMATS:
        raise SourceError(f"There is no format {name!r}.", hint=f"use one of {', '.join(FORMATS)}.")
    return name


def format_by_name(name: str | None) -> str | None:
    """The format that a file's name tells, with or without .gz behind it."""
    if name is None:
        return None
    lowered = name.lower().removesuffix(".gz")
    return _SUFFIXES.get(PurePath(lowered).suffix)


def is_gzip_name(name: str | None) -> bool:
    """Whether a file's name says that it is compressed."""
    return name is not None and name.lower().endswith(".gz")


def format_by_content(sample: bytes) -> str:
    """The format that the first bytes look like."""
    return "json" if sample.lstrip()[:1] in {b"[", b"{"} else "csv"


def json_layout(sample: bytes, *, complete: bool, named: bool = False) -> str:
    """How a JSON file holds its records: "array", "lines", or in a "stream" of any layout.

    Args:
        sample: The first bytes of the file.
        complete: Whether they are the whole file.
        named: Whether the file's name says that it has lines.
    """
    match sample.lstrip()[:1]:
        case b"[":
            return "array"
        case b"{":
            return "lines" if _are_objects(sample, complete=complete, named=named) else "stream"
        case _:
            return "lines"


def _are_objects(sample: bytes, *, complete: bool, named: bool) -> bool:
    """Whether most of the first lines are JSON objects of their own; any, where so named."""
    lines = sample.split(b"\n")
    if not complete:
        lines.pop()  # it may be cut
    lines = [line for line in lines if line.strip()][:_SAMPLE_LINES]
    objects = sum(map(_is_object, lines))
    return objects * 2 > len(lines) or not lines or (named and objects > 0)


def refuse_wrapped(sample: bytes, *, complete: bool) -> None:
    """Refuse a file with one object around the list of its records: that is not one record.

    Args:
        sample: The first bytes of the file.
        complete: Whether they are the whole file.

    Raises:
        SourceError: The file is one object with a list of objects in it.
    """
    name = _wrapped_list(sample) if complete else _begun_list(sample)
    if name is None:
        return
    path = ".".join(name)
    raise SourceError(
        f"The file holds one object, and its records are in the list {path!r} inside.",
        hint=f"import the list itself, json.load(file){''.join(f'[{one!r}]' for one in name)}; "
        "if the object is the one record, put it in a list: [{…}].",
        cli_hint=f"import the list itself, e.g. `jq -c '.{path}[]' FILE | reliable-imports import "
        "- …`; if the object is the one record, put it in a list: [{…}].",
        web_hint="send the list itself: [{…}, {…}].",
    )


def _wrapped_list(sample: bytes) -> tuple[str, ...] | None:
    """The names that lead to the list of records in the only object of a file."""
    try:
        value = json.loads(sample)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    inner = {(one,): part for one, part in value.items()}
    for one, part in value.items():
        if isinstance(part, dict):
            inner |= {(one, two): deeper for two, deeper in part.items()}
    return next((name for name, part in inner.items() if _is_list(name[-1], part)), None)


def _is_list(name: str, value: object) -> bool:
    if not isinstance(value, list):
        return False
    if not value:
        return name.lower() in _USUAL_LISTS
    return all(isinstance(one, dict) for one in value)


def _begun_list(sample: bytes) -> tuple[str, ...] | None:
    """The same for an object that is not whole: its first list of objects, if it has no end."""
    match = _LIST.search(sample)
    if match is None or sample.count(b"}", 0, match.start()) > sample.count(b"{", 1, match.start()):
        return None  # the first object has ended before
    try:
        json.JSONDecoder().raw_decode(sample.decode(errors="replace").lstrip())
    except (ValueError, RecursionError):
        return (match[1].decode(errors="replace"),)
    return None


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


SAMPLE_BYTES = 1_048_576
HEAD_BYTES, HEAD_LINES = 16_384, 30


@dataclass(frozen=True, slots=True)
class FileOptions:
    """What the caller says about a file; None is for "find out" (see `read_file`)."""

    name: str | None
    format: str | None
    delimiter: str | None
    encoding: str | None
    columns: tuple[str, ...] | None
    output: OutputLimits


_JSON_READERS = {"lines": json_lines, "array": json_array, "stream": json_stream}


class OpenedFile:
    """A file whose records are being read. Its constructor reads: not for the event loop."""

    def __init__(self, file: StoredFile, name: str | None, options: FileOptions) -> None:
        self._file = file
        self._options = options
        self._position = 0
        self._is_gzip = self._found_gzip(name)
        self._notes: list[str] = []
        sample = read_up_to(self._content(), SAMPLE_BYTES)
        refuse_other_files(sample, None if self._is_gzip else file.file)
        encoding = self._told_encoding(sample)
        self._encoding = encoding or UTF_8
        self._converts = not extends_ascii(self._encoding)
        text = read_up_to(self._text(), SAMPLE_BYTES)
        if options.format is None:
            refuse_markup(text)
        refuse_binary(text)
        kind = options.format or format_by_name(name) or format_by_content(text)
        columns = None
        if kind in {"csv", "tsv"}:
            if encoding is None:
                self._encoding, note = guessed_encoding(self._content())
                self._notes += [note] if note else []
            self._layout = "csv"
            self._dialect = self._found_dialect(text, kind)
            columns, self._header_lines = self._found_columns()
        else:
            self._layout = self._found_json_layout(text, kind)
            self._converts = self._encoding != UTF_8
            kind = "jsonl" if self._layout == "lines" else "json"
        self.info = SourceInfo(
            name and name.encode("utf-8", "backslashreplace").decode(),  # names are bytes on disk
            file.size,
            file.sha256,
            columns,
            kind,
            self._encoding,
            tuple(self._notes),
            self._head(text) if self._layout == "csv" else (),
        )

    @property
    def bytes_read(self) -> int:
        """How far reading is, in bytes of the file as stored."""
        return self._position

    async def chunks(self, limits: Limits) -> AsyncIterator[list[StoredRecord]]:
        """The records in their order, in lists of about 500 records or 1 MiB of text.

        Raises:
            SourceError: the file is corrupt as a whole, or was changed meanwhile.
        """
        chunks = in_chunks(self._records(limits))
        while (chunk := await to_thread.run_sync(next, chunks, None)) is not None:
            yield chunk
        self._file.require_unchanged()

    def _records(self, limits: Limits) -> Iterator[StoredRecord]:
        """All records; a generator, so that already its first read happens in a thread."""
        if self._layout == "csv":
            reader = CsvReader(self._text(), self._dialect, limits)
            for _ in range(self._header_lines):
                reader.lines.next()
            yield from reader.records(self.info.columns or ())
        else:
            yield from _JSON_READERS[self._layout](self._text(), limits)

    def _head(self, text: bytes) -> tuple[str, ...]:
        """The first lines, for messages about them."""
        encoding = UTF_8 if self._converts else self._encoding
        lines = text[:HEAD_BYTES].decode(encoding, "replace").splitlines()
        return tuple(line[:1000] for line in lines[:HEAD_LINES])

    def _told_encoding(self, sample: bytes) -> str | None:
        """The encoding that the caller names, else the one that the first bytes tell."""
        asked, marked = self._options.encoding, marked_encoding(sample)
        if asked is not None:
            if marked is not None and marked != asked.removesuffix("-le").removesuffix("-be"):
                self._notes.append(
                    f"The file was read as {asked}, as asked, though its byte order mark says "
                    f"{marked}."
                )
            return asked
        wide = None if marked else wide_encoding(sample)
        if wide is not None:
            self._notes.append(f"The file does not say its encoding. It was read as {wide}.")
        return marked or wide

    def _content(self) -> Read:
        """The bytes of the file from its beginning, unfolded."""
        self._file.file.seek(0)
        self._position = 0
        return Gunzip(self._read, self._options.output).read if self._is_gzip else self._read

    def _text(self) -> Read:
        """The text of the file from its beginning, in an encoding that extends ASCII."""
        content = self._content()
        return without_mark(AsUtf8(content, self._encoding).read if self._converts else content)

    def _read(self, size: int) -> bytes:
        data = self._file.file.read(size)
        self._position += len(data)
        return data

    def _found_gzip(self, name: str | None) -> bool:
        self._file.file.seek(0)
        found = self._file.file.read(len(MAGIC)) == MAGIC
        if is_gzip_name(name) and not found:
            raise SourceError(
                f"{name} is not gzip data, though its name says so.",
                hint="rename it, or fetch it once more.",
            )
        return found

    def _found_json_layout(self, text: bytes, kind: str) -> str:
        if self._options.columns or self._options.delimiter:
            raise SourceError(
                f"Columns and a delimiter are for CSV; this file is {kind}.",
                hint='leave them out, or pass format="csv".',
                cli_hint="leave out --columns and --delimiter, or add --format csv.",
                web_hint="leave out `delimiter`, or set `format` to csv.",
            )
        if self._options.format == "jsonl":
            return "lines"
        complete = len(text) < SAMPLE_BYTES
        layout = json_layout(text, complete=complete, named=kind == "jsonl")
        if layout != "array":
            refuse_wrapped(text, complete=complete)
        return layout

    def _found_dialect(self, text: bytes, kind: str) -> Dialect:
        encoding = UTF_8 if self._converts else self._encoding
        refuse_separator_line(text)
        newline = found_newline(text)
        width = len(self._options.columns) if self._options.columns else None
        delimiter = self._options.delimiter or ("\t" if kind == "tsv" else None)
        delimiter = delimiter or found_delimiter(text, encoding, newline, width)
        origin = self._encoding if self._converts else None
        return Dialect(delimiter, encoding, newline, origin)

    def _found_columns(self) -> tuple[tuple[str, ...] | None, int]:
        """The names of the columns, and the physical lines that they take."""
        if self._options.columns:
            return self._options.columns, 0
        reader = CsvReader(self._text(), self._dialect, DEFAULT_LIMITS)
        header = reader.row()
        while header and not header.problem and not any(map(str.strip, header.fields)):
            header = reader.row()  # a spreadsheet writes its empty rows as well
        return (columns_of(header) if header else None), reader.lines.number


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
