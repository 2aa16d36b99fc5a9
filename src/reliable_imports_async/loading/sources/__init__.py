"""The sources of records: files in several formats, and iterables of this process.

An opened source is a stream of chunks of `StoredRecord`; each input record becomes one of them,
readable or not. A source that cannot be read at all raises `SourceError`.
"""

from .files import read_file
from .iterables import as_source
from .layout import LARGEST_ROW, LayoutOptions
from .source import OpenedSource, Source, SourceInfo

__all__ = [
    "LARGEST_ROW",
    "LayoutOptions",
    "OpenedSource",
    "Source",
    "SourceInfo",
    "as_source",
    "read_file",
]
