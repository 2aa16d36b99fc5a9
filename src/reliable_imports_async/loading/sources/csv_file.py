"""A CSV file: its dialect, its header and its records."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

from ...wording import counted
from ..records import DEFAULT_LIMITS, Limits, StoredRecord
from .csv_dialect import (
    columns_of,
    detected_delimiter,
    detected_newline,
    separator_line,
    with_escapes,
)
from .csv_records import CsvReader, Dialect, Row
from .decoding import UTF_8
from .layout import SAMPLE_ROWS, Header, Layout, header_index, is_blank, repeats
from .source import Read

HEAD_BYTES, HEAD_LINES = 16_384, 30


class CsvFile:
    """Reads a CSV file; the constructor finds out how it is written."""

    def __init__(
        self,
        text: Callable[[], Read],
        sample: bytes,
        *,
        kind: str,
        encoding: str,
        converts: bool,
        delimiter: str | None,
        columns: tuple[str, ...] | None,
        layout: Layout,
    ) -> None:
        """See the class.

        Args:
            text: Gives the text from its beginning.
            sample: The first bytes of the text.
            kind: "csv" or "tsv".
            encoding: The encoding of the file.
            converts: Whether the text was converted to UTF-8.
            delimiter: The delimiter, if the caller names it.
            columns: The names of the columns, if the caller gives them.
            layout: Where the table is.

        Raises:
            SourceError: The header cannot be used.
        """
        self._text = text
        self._layout = layout
        self._opened: CsvReader | None = None
        self.kind = kind
        codec = UTF_8 if converts else encoding
        separator = separator_line(sample)
        self._first_line = max(layout.first_line, 2 if separator else 1)
        newline = detected_newline(sample)
        delimiter = delimiter or separator or ("\t" if kind == "tsv" else None)
        if delimiter is None:
            body = _without_lines(sample, self._first_line - 1, newline)
            delimiter = detected_delimiter(body, codec, newline, len(columns) if columns else None)
        origin = encoding if converts else None
        self._dialect = with_escapes(sample, Dialect(delimiter, codec, newline, origin))
        self._header = self._find_header(columns)
        self.columns: tuple[str, ...] | None = self._header.columns or None
        self.notes = self._header.notes
        self.head = _head(sample, codec)

    @property
    def late_notes(self) -> tuple[str, ...]:
        """Notes that are known when all records were read."""
        if self._opened is None or not self._opened.separator_rows:
            return ()
        rows = counted(self._opened.separator_rows, "row")
        return (f"{rows} without values {'was' if rows == '1 row' else 'were'} skipped.",)

    def records(self, limits: Limits) -> Iterator[StoredRecord]:
        """The records below the header."""
        self._opened = self._reader(limits, self._header.line)
        return self._opened.records(self._header.names)

    def _reader(self, limits: Limits, skipped: int) -> CsvReader:
        reader = CsvReader(self._text(), self._dialect, limits, comment=self._layout.comment)
        for _ in range(skipped):
            reader.lines.next()
        return reader

    def _find_header(self, columns: tuple[str, ...] | None) -> Header:
        reader = self._reader(DEFAULT_LIMITS, self._first_line - 1)
        rows = list(islice(iter(reader.row, None), SAMPLE_ROWS))
        while rows and not rows[0].problem and is_blank(rows[0].fields):
            del rows[0]  # spreadsheets write empty rows as well
        if columns is not None:
            return self._given_header(rows, columns)
        if not rows:
            return Header((), self._first_line - 1)
        index = 0 if self._layout.header_row else header_index(rows)
        header = columns_of(rows, index)
        return replace(header, line=self._last_line(rows[index]))

    def _given_header(self, rows: Sequence[Row], columns: tuple[str, ...]) -> Header:
        """The names that the caller gives; they replace a header that the file has."""
        if self._layout.header_row is not None:
            return Header(columns, self._layout.header_row)
        if rows and not rows[0].problem and repeats(rows[0].fields, columns):
            note = f"Line {rows[0].line} repeats the names of the columns and was skipped."
            return Header(columns, self._last_line(rows[0]), (note,))
        return Header(columns, self._first_line - 1)

    def _last_line(self, row: Row) -> int:
        return row.line + row.raw.count(self._dialect.newline)


def _without_lines(sample: bytes, count: int, newline: bytes) -> bytes:
    for _ in range(count):
        _, found, rest = sample.partition(newline)
        if not found:
            break
        sample = rest
    return sample


def _head(sample: bytes, codec: str) -> tuple[str, ...]:
    """The first lines, for error messages."""
    lines = sample[:HEAD_BYTES].decode(codec, "replace").splitlines()
    return tuple(line[:1000] for line in lines[:HEAD_LINES])
