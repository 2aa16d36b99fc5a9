"""Where records come from: files of several formats, and iterables of this process.

Every source is opened to a stream of chunks of `StoredRecord`; one input record gives one of them,
readable or not. A source that cannot be read as a whole raises `SourceError`.
"""

from .files import read_file
from .iterables import as_source
from .source import OpenedSource, Source, SourceInfo

__all__ = ["OpenedSource", "Source", "SourceInfo", "as_source", "read_file"]
