"""What the tests reach of `web` beyond its public face; nothing else names its modules."""

from collections.abc import Callable

import pytest

from reliable_imports_async import BatchManager
from reliable_imports_async.web import server
from reliable_imports_async.web.api.routes import OPERATIONS
from reliable_imports_async.web.dashboard.actions import ACTIONS
from reliable_imports_async.web.dashboard.charts import timeline
from reliable_imports_async.web.dashboard.filters import percent, shown, size, span
from reliable_imports_async.web.dashboard.record_fields import wrong_fields
from reliable_imports_async.web.dashboard.routes import PAGES
from reliable_imports_async.web.events import feed, stream
from reliable_imports_async.web.events.feed import ProgressFeed
from reliable_imports_async.web.events.stream import EventStream, progress_response
from reliable_imports_async.web.http import middleware
from reliable_imports_async.web.http.authentication import ApiKeys, hash_of, new_api_key
from reliable_imports_async.web.http.browser_sessions import BrowserSessions
from reliable_imports_async.web.http.middleware import (
    BodyPace,
    RequestIdFilter,
    RequestIds,
    request_id,
    without_ticket,
)
from reliable_imports_async.web.http.payloads import CreateBatch
from reliable_imports_async.web.metrics import BOUNDS, render
from reliable_imports_async.web.server import (
    MAX_HEADER_BYTES,
    Server,
    configuration,
    is_loopback,
    refuse_open_door,
    run,
)

__all__ = [
    "ACTIONS",
    "BOUNDS",
    "MAX_HEADER_BYTES",
    "OPERATIONS",
    "PAGES",
    "ApiKeys",
    "BodyPace",
    "BrowserSessions",
    "CreateBatch",
    "EventStream",
    "ProgressFeed",
    "RequestIdFilter",
    "RequestIds",
    "Server",
    "configuration",
    "forget",
    "hash_of",
    "is_loopback",
    "look_again_every",
    "new_api_key",
    "percent",
    "ping_every",
    "polls",
    "progress_response",
    "refuse_open_door",
    "render",
    "request_id",
    "run",
    "server",
    "set_the_clock",
    "shared_feeds",
    "shown",
    "size",
    "span",
    "timeline",
    "watches",
    "without_ticket",
    "wrong_fields",
]


def polls(progress: feed.ProgressFeed) -> bool:
    """Whether a feed asks the database."""
    return progress._poller is not None


def watches(progress: feed.ProgressFeed) -> int:
    """How many batches a feed watches."""
    return len(progress._watches)


def shared_feeds() -> list[feed.ProgressFeed]:
    """The feeds that the routes of applications share."""
    return list(feed._SHARED.values())


def ping_every(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """How long a stream stays silent."""
    monkeypatch.setattr(feed, "PING_SECONDS", seconds)


def look_again_every(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """How often a stream looks whether its caller may still see it."""
    monkeypatch.setattr(stream, "RECHECK_SECONDS", seconds)


def set_the_clock(monkeypatch: pytest.MonkeyPatch, now: Callable[[], float]) -> None:
    """The clock by which a body is slow."""
    monkeypatch.setattr(middleware.anyio, "current_time", now)


def forget(manager: BatchManager, batch_type: str) -> None:
    """Unregister a processor."""
    del manager.registry._processors[batch_type]
