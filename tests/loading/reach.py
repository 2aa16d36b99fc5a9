"""What the tests reach of `loading` beyond its public face; nothing else names its modules."""

import pytest

from reliable_imports_async.loading import binary_copy
from reliable_imports_async.loading.columns import check_columns
from reliable_imports_async.loading.records import (
    DEFAULT_LIMITS,
    Limits,
    from_json,
    from_parsed,
    from_value,
    unreadable,
)
from reliable_imports_async.loading.sources import (
    OpenedSource,
    Source,
    SourceInfo,
    as_source,
    json_records,
    read_file,
)
from reliable_imports_async.loading.sources.charset import guessed_encoding, is_plausible
from reliable_imports_async.loading.sources.csv_records import CsvReader, Dialect, usual_row

__all__ = [
    "DEFAULT_LIMITS",
    "CsvReader",
    "Dialect",
    "Limits",
    "OpenedSource",
    "Source",
    "SourceInfo",
    "as_source",
    "binary_copy",
    "check_columns",
    "from_json",
    "from_parsed",
    "from_value",
    "guessed_encoding",
    "is_plausible",
    "read_file",
    "read_in_blocks",
    "unreadable",
    "usual_row",
]


def read_in_blocks(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Read a JSON array in blocks of so many characters."""
    monkeypatch.setattr(json_records, "BLOCK", size)
