"""What the tests reach of `processors` beyond its public face; nothing else names its modules."""

from reliable_imports_async.processors.keys import key_text
from reliable_imports_async.processors.registry import Registry, batch_type_of
from reliable_imports_async.processors.thresholds import FailureLimits, Thresholds

__all__ = [
    "FailureLimits",
    "Registry",
    "Thresholds",
    "batch_type_of",
    "key_text",
]
