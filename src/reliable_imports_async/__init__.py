"""Bring records into PostgreSQL without losing or doubling any of them."""

from typing import TYPE_CHECKING, Any

from .context import ImportContext
from .endpoints import BaseEndpoint, EndpointContext
from .errors import ReliableImportsError
from .hosting import register
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
)
from .outcomes import Defer, Failure, FailureKind, Retry, Skip
from .processors import BaseProcessor
from .registry import Registry
from .settings import Settings
from .sources import read_file
from .tallying import DryRun, TableChanges
from .triage import CorrectedFile, ItemEdit, RefusedRow
from .visibility import Visible

if TYPE_CHECKING:
    from .api import APIManager, OuterUser, progress_response

__all__ = [
    "APIManager",
    "BaseEndpoint",
    "BaseProcessor",
    "BatchManager",
    "BatchStatus",
    "BatchSummary",
    "CorrectedFile",
    "Defer",
    "DryRun",
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
    "OuterUser",
    "RefusedRow",
    "Registry",
    "ReliableImportsError",
    "Retry",
    "Settings",
    "Skip",
    "TableChanges",
    "Visible",
    "progress_response",
    "read_file",
    "register",
]


def __getattr__(name: str) -> Any:
    """Import the web framework only where the API is used."""
    if name in ("APIManager", "OuterUser", "progress_response"):
        from . import api  # noqa: PLC0415 - so that the engine alone needs no web framework

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
