"""Reads files of records: CSV, TSV, JSON Lines and JSON arrays, each also gzipped.

`read_file` makes the source. `OpenedFile` finds out the file's compression, encoding, format and
layout, and reads its records with the reader for that layout.
"""

import json
import os
import re
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import BinaryIO

from anyio import to_thread

from ...errors import SourceError
from ..records import DEFAULT_LIMITS, Limits, StoredRecord
from .charset import guessed_encoding, wide_encoding
from .csv_dialect import (
    columns_of,
    detected_delimiter,
    detected_newline,
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
SAMPLE_BYTES = 1_048_576
HEAD_BYTES, HEAD_LINES = 16_384, 30
_JSON_READERS = {"lines": json_lines, "array": json_array, "stream": json_stream}


@dataclass(frozen=True, slots=True)
class FileOptions:
    """The caller's description of a file; None means "detect" (see `read_file`)."""

    name: str | None
    format: str | None
    delimiter: str | None
    encoding: str | None
    columns: tuple[str, ...] | None
    output: OutputLimits


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
        columns: The column names of a CSV file without a header.
        max_output_bytes: How many bytes a gzip file may expand to.
        max_ratio: How many times its size a gzip file may expand to, after the first MiB.

    Returns:
        A source; nothing is read before it is opened.

    Raises:
        SourceError: The file does not exist, or an option is not valid. Opening and reading the
            source also raise it, if the file cannot be read at all.
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
        self._is_gzip = self._detect_gzip(name)
        self._notes: list[str] = []
        sample = read_up_to(self._content(), SAMPLE_BYTES)
        refuse_other_files(sample, None if self._is_gzip else file.file)
        encoding = self._declared_encoding(sample)
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
            self._dialect = self._detect_dialect(text, kind)
            columns, self._header_lines = self._read_columns()
        else:
            self._layout = self._detect_json_layout(text, kind)
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
        """How many bytes of the file were read, before decompression."""
        return self._position

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
        if self._layout == "csv":
            reader = CsvReader(self._text(), self._dialect, limits)
            for _ in range(self._header_lines):
                reader.lines.next()
            yield from reader.records(self.info.columns or ())
        else:
            yield from _JSON_READERS[self._layout](self._text(), limits)

    def _head(self, text: bytes) -> tuple[str, ...]:
        """The first lines, for error messages."""
        encoding = UTF_8 if self._converts else self._encoding
        lines = text[:HEAD_BYTES].decode(encoding, "replace").splitlines()
        return tuple(line[:1000] for line in lines[:HEAD_LINES])

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

    def _content(self) -> Read:
        """The decompressed bytes of the file, from its beginning."""
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

    def _detect_gzip(self, name: str | None) -> bool:
        self._file.file.seek(0)
        is_gzip = self._file.file.read(len(MAGIC)) == MAGIC
        if is_gzip_name(name) and not is_gzip:
            raise SourceError(
                f"{name} is not gzip data, although its name says so.",
                hint="rename the file, or download it again.",
            )
        return is_gzip

    def _detect_json_layout(self, text: bytes, kind: str) -> str:
        if self._options.columns or self._options.delimiter:
            raise SourceError(
                f"Columns and a delimiter apply only to CSV; this file is {kind}.",
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

    def _detect_dialect(self, text: bytes, kind: str) -> Dialect:
        encoding = UTF_8 if self._converts else self._encoding
        refuse_separator_line(text)
        newline = detected_newline(text)
        width = len(self._options.columns) if self._options.columns else None
        delimiter = self._options.delimiter or ("\t" if kind == "tsv" else None)
        delimiter = delimiter or detected_delimiter(text, encoding, newline, width)
        origin = self._encoding if self._converts else None
        return Dialect(delimiter, encoding, newline, origin)

    def _read_columns(self) -> tuple[tuple[str, ...] | None, int]:
        """The names of the columns, and the number of physical lines before the first record."""
        if self._options.columns:
            return self._options.columns, 0
        reader = CsvReader(self._text(), self._dialect, DEFAULT_LIMITS)
        header = reader.row()
        while header and not header.problem and not any(map(str.strip, header.fields)):
            header = reader.row()  # spreadsheets write empty rows as well
        return (columns_of(header) if header else None), reader.lines.number


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
    lowered = name.lower().removesuffix(".gz")
    return _SUFFIXES.get(PurePath(lowered).suffix)


def is_gzip_name(name: str | None) -> bool:
    """Whether a file is compressed according to its name."""
    return name is not None and name.lower().endswith(".gz")


def format_by_content(sample: bytes) -> str:
    """The format that the first bytes suggest."""
    return "json" if sample.lstrip()[:1] in {b"[", b"{"} else "csv"


def json_layout(sample: bytes, *, complete: bool, named: bool = False) -> str:
    """The layout of a JSON file: "array", "lines", or "stream" for any other sequence of objects.

    Args:
        sample: The first bytes of the file.
        complete: Whether they are the whole file.
        named: Whether the file's name says that it is JSON Lines.
    """
    match sample.lstrip()[:1]:
        case b"[":
            return "array"
        case b"{":
            return "lines" if _has_object_lines(sample, complete, named) else "stream"
        case _:
            return "lines"


def _has_object_lines(sample: bytes, complete: bool, named: bool) -> bool:  # noqa: FBT001
    """Whether most of the first lines are complete objects; with `named`, at least one of them."""
    lines = sample.split(b"\n")
    if not complete:
        lines.pop()  # it may be cut
    lines = [line for line in lines if line.strip()][:_SAMPLE_LINES]
    objects = sum(map(_is_object, lines))
    return objects * 2 > len(lines) or not lines or (named and objects > 0)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def refuse_wrapped(sample: bytes, *, complete: bool) -> None:
    """Refuse a file whose records are in a list inside of a single object.

    Args:
        sample: The first bytes of the file.
        complete: Whether they are the whole file.

    Raises:
        SourceError: The file is one object with a list of objects in it.
    """
    names = _wrapped_list(sample) if complete else _first_list(sample)
    if names is None:
        return
    path = ".".join(names)
    raise SourceError(
        f"The file contains a single object, and the records are in its list {path!r}.",
        hint=f"import the list itself, json.load(file){''.join(f'[{name!r}]' for name in names)}; "
        "if the object is the only record, put it in a list: [{…}].",
        cli_hint=f"import the list itself, e.g. `jq -c '.{path}[]' FILE | reliable-imports import "
        "- …`; if the object is the only record, put it in a list: [{…}].",
        web_hint="send the list itself: [{…}, {…}].",
    )


def _wrapped_list(sample: bytes) -> tuple[str, ...] | None:
    """The names that lead to the list of records in a file's only object."""
    try:
        value = json.loads(sample)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    parts = {(name,): part for name, part in value.items()}
    for name, part in value.items():
        if isinstance(part, dict):
            parts |= {(name, inner): deeper for inner, deeper in part.items()}
    return next((names for names, part in parts.items() if _has_records(names[-1], part)), None)


def _first_list(sample: bytes) -> tuple[str, ...] | None:
    """The same for an object whose end is not in the sample: the name of its first list."""
    match = _LIST.search(sample)
    if match is None or sample.count(b"}", 0, match.start()) > sample.count(b"{", 1, match.start()):
        return None  # the first object ends before the list
    try:
        json.JSONDecoder().raw_decode(sample.decode(errors="replace").lstrip())
    except (ValueError, RecursionError):
        return (match[1].decode(errors="replace"),)
    return None


def _has_records(name: str, value: object) -> bool:
    if not isinstance(value, list):
        return False
    if not value:
        return name.lower() in _USUAL_LISTS
    return all(isinstance(element, dict) for element in value)
