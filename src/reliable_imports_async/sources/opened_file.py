"""A file whose format is known, and the stream of its records."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from anyio import to_thread

from reliable_imports_async.errors import SourceError
from reliable_imports_async.records import DEFAULT_LIMITS, Limits, StoredRecord

from .compression import MAGIC, Gunzip, OutputLimits
from .csv_lines import CsvReader, Dialect
from .detection import guessed_encoding, wide_encoding
from .dialect import columns_of, found_delimiter, found_newline, refuse_separator_line
from .encoding import UTF_8, AsUtf8, extends_ascii, marked_encoding, read_up_to, without_mark
from .formats import format_by_content, format_by_name, is_gzip_name, json_layout, refuse_wrapped
from .json_array import json_array, json_stream
from .json_lines import json_lines
from .signatures import refuse_binary, refuse_markup, refuse_other_files
from .source import Read, SourceInfo, in_chunks
from .spool import StoredFile

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
