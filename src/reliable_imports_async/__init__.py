"""Bring records into PostgreSQL without losing or doubling any of them."""

from .context import ImportContext
from .endpoints import BaseEndpoint, EndpointContext
from .errors import ReliableImportsError
from .manager import BatchManager
from .models import (
    BatchStatus,
    BatchSummary,
    FailureGroup,
    ImportBatch,
    ImportBatchItem,
    ItemStatus,
    LogEntry,
    LogLevel,
    Visible,
)
from .outcomes import Failure, FailureKind, Retry, Skip
from .processors import BaseProcessor
from .registry import Registry
from .settings import Settings
from .sources import read_file
from .triage import CorrectedFile, ItemEdit, RefusedRow

__all__ = [
    "BaseEndpoint",
    "BaseProcessor",
    "BatchManager",
    "BatchStatus",
    "BatchSummary",
    "CorrectedFile",
    "EndpointContext",
    "Failure",
    "FailureGroup",
    "FailureKind",
    "ImportBatch",
    "ImportBatchItem",
    "ImportContext",
    "ItemEdit",
    "ItemStatus",
    "LogEntry",
    "LogLevel",
    "RefusedRow",
    "Registry",
    "ReliableImportsError",
    "Retry",
    "Settings",
    "Skip",
    "Visible",
    "read_file",
]
