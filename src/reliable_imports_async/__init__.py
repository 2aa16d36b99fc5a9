"""Bring records into PostgreSQL without losing or doubling any of them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import ReliableImportsError
from .loading.sources import read_file
from .manager import BatchManager
from .models import (
    BatchStatus,
    BatchSummary,
    CorrectedFile,
    FailureGroup,
    ImportBatch,
    ImportBatchItem,
    ItemEdit,
    ItemStatus,
    LogEntry,
    LogLevel,
    RefusedRow,
)
from .outcomes import Defer, Failure, FailureKind, Retry, Skip
from .processors.context import ImportContext
from .processors.processor import BaseProcessor
from .processors.registry import Registry
from .runner.dry_run_report import DryRun, TableChanges
from .settings import Settings
from .store.visibility import Visible
from .web.endpoints import BaseEndpoint, EndpointContext
from .workers.pgqueuer_host import register

if TYPE_CHECKING:
    from .web.api_manager import APIManager
    from .web.events.stream import progress_response
    from .web.http.authentication import OuterUser

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

_NEEDS_WEB = {
    "APIManager": ".web.api_manager",
    "OuterUser": ".web.http.authentication",
    "progress_response": ".web.events.stream",
}


def __getattr__(name: str) -> Any:
    """Import the web framework only where the API is used."""
    if module := _NEEDS_WEB.get(name):
        return getattr(import_module(module, __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
