"""What the tests reach of `testing` beyond its public face; nothing else names its modules."""

from reliable_imports_async.testing.plugin import _other_database

__all__ = [
    "_other_database",
]
