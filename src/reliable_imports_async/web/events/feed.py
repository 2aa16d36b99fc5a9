"""The progress feed: one poller for all clients that follow batches in this event loop.

A client needs the current state of its batch, not every step. Each followed batch has one slot with
its latest event, shared by all its clients. Nothing grows with a slow client, and an event is
serialised once, however many clients follow.
"""

import asyncio
import json
import logging
import signal
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass, field
from hashlib import blake2s
from typing import Self
from uuid import UUID
from weakref import WeakValueDictionary

import anyio

from ...errors import BatchNotFound, ConfigurationError, TooManyClients
from ...manager import BatchManager
from ...models import BatchSummary

INTERVAL = 0.5
PING_SECONDS = 15.0
RETRY = b"retry: 2000\n\n"
PING = b": ping\n\n"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """An event as it is sent.

    Attributes:
        id: Changes with the content.
        data: The bytes to send.
        final: Whether it is the last event.
    """

    id: str
    data: bytes
    final: bool


@dataclass(slots=True)
class _Watch:
    """A followed batch: its latest event, and a signal for the next."""

    batch_id: UUID
    clients: int = 0
    latest: Event | None = None
    error: Exception | None = None
    ended: bool = False
    changed: anyio.Event = field(default_factory=anyio.Event)

    def publish(self, event: Event) -> None:
        """Make an event the latest, unless it is equal to it."""
        if self.latest is None or self.latest.id != event.id:
            self.latest = event
            self.wake()

    def end(self, error: Exception | None = None) -> None:
        """End the watch; clients that have had no event yet get the error."""
        self.ended, self.error = True, error
        self.wake()

    def wake(self) -> None:
        """Wake the waiting clients."""
        self.changed.set()
        self.changed = anyio.Event()


class ProgressFeed:
    """Tells any number of clients about the progress of batches, with one query for all.

    The poller runs while there are clients. As an async context manager, the feed ends all streams
    when the block is left; otherwise it stops with the last client.

    Args:
        manager: An open manager.
        interval: Seconds between two queries.
        max_clients: How many clients may follow at once; by default as in the settings.

    Attributes:
        clients: How many clients follow now.
        closed: Whether `close` was called.
    """

    def __init__(
        self,
        manager: BatchManager,
        *,
        interval: float = INTERVAL,
        max_clients: int | None = None,
    ) -> None:
        self._manager = manager
        self._interval = interval
        self._max_clients = max_clients or manager.settings.max_event_clients
        self._watches: dict[UUID, _Watch] = {}
        self._poller: asyncio.Task[None] | None = None
        self._changed = anyio.Event()  # a client joined, or the last one left
        self.closed = False
        self.clients = 0

    @classmethod
    def shared(cls, manager: BatchManager) -> "ProgressFeed":
        """Return the feed of this manager in this event loop; make it if there is none."""
        key = id(manager), id(asyncio.get_running_loop())
        feed = _SHARED.get(key)
        if feed is None or feed.closed:
            feed = _SHARED[key] = cls(manager)
        return feed

    async def __aenter__(self) -> Self:
        self.closed = False
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self.close()
        if self._poller is not None:
            with anyio.CancelScope(shield=True):
                await asyncio.wait([self._poller])

    def close(self) -> None:
        """End all streams and accept no new ones. Clients reconnect by themselves and resume."""
        self.closed = True
        self._end_all()
        self._changed.set()

    async def stream(
        self, batch_id: UUID, last_event_id: str | None = None
    ) -> AsyncGenerator[bytes]:
        """Yield the events of one batch, as bytes, until ``finished`` or shutdown.

        ``progress`` is `BatchSummary.as_dict` without the failure groups; ``finished`` has them. It
        is sent once the batch has settled, which includes a paused batch. Nothing is yielded to a
        client that already has ``finished``.

        Args:
            batch_id: Any batch.
            last_event_id: The id of the last event that the client has received.

        Raises:
            BatchNotFound: The batch does not exist.
            TooManyClients: The limit of clients is reached.
            Exception: The first query failed, for example because the database is down.
        """
        if self.closed:
            yield RETRY
            return
        with self._joined(batch_id) as watch:
            event = await self._first(watch)
            if event is None or event.id != last_event_id:
                yield RETRY + (event.data if event else b"")
            elif event.final:
                return
            else:
                yield RETRY
            while event is not None and not event.final:
                following = await self._following(watch, event)
                if following is not event and following is not None:
                    yield following.data
                elif following is event:
                    yield PING
                event = following

    async def _first(self, watch: _Watch) -> Event | None:
        """Return the first event of a batch; None at shutdown."""
        while watch.latest is None and not watch.ended:
            await watch.changed.wait()
        if watch.latest is None and watch.error is not None:
            raise watch.error
        return watch.latest

    async def _following(self, watch: _Watch, event: Event) -> Event | None:
        """Return the next event; the same one again if a ping is due, and None at the end."""
        with anyio.move_on_after(PING_SECONDS):
            while watch.latest is event and not watch.ended:
                await watch.changed.wait()
        return None if watch.ended and watch.latest is event else watch.latest

    @contextmanager
    def _joined(self, batch_id: UUID) -> Iterator[_Watch]:
        """Count a client, and give it the watch of its batch, for this block."""
        if self.clients >= self._max_clients:
            raise TooManyClients(self._max_clients)
        watch = self._watches.setdefault(batch_id, _Watch(batch_id))
        watch.clients += 1
        self.clients += 1
        if watch.latest is None:
            self._changed.set()
        if self._poller is None:  # in its own context, since it outlives this request
            self._poller = asyncio.create_task(self._poll(), context=Context())
        try:
            yield watch
        finally:
            watch.clients -= 1
            self.clients -= 1
            if not watch.clients:
                self._forget(watch)

    def _forget(self, watch: _Watch) -> None:
        """Stop polling a batch. Clients that join later get a new watch."""
        if self._watches.get(watch.batch_id) is watch:
            del self._watches[watch.batch_id]
        if not self._watches:
            self._changed.set()

    def _end(self, watch: _Watch, error: Exception | None = None) -> None:
        self._forget(watch)
        watch.end(error)

    def _end_all(self, error: Exception | None = None) -> None:
        for watch in list(self._watches.values()):
            self._end(watch, error)

    async def _poll(self) -> None:
        """Query all followed batches at intervals, and new ones at once, until there are none."""
        try:
            due = 0.0
            while self._watches and not _server_is_stopping():
                self._changed = anyio.Event()
                if anyio.current_time() >= due:
                    await self._query(list(self._watches.values()))
                    due = anyio.current_time() + self._interval
                else:
                    await self._query([each for each in self._watches.values() if not each.latest])
                with anyio.move_on_after(due - anyio.current_time()):
                    await self._changed.wait()
        finally:
            self._poller = None
            self._end_all()

    async def _query(self, watches: Sequence[_Watch]) -> None:
        """Query some batches once. Clients wait out an outage, except those without any event."""
        if not watches:
            return
        try:
            known = await self._manager.batch_progress([watch.batch_id for watch in watches])
            for watch in watches:
                await self._publish(watch, known.get(watch.batch_id))
        except ConfigurationError as exc:  # the manager was closed
            self._end_all(exc)
        except Exception as exc:  # noqa: BLE001 - the poller survives any failed query
            _log.warning("progress cannot be read and is queried again", exc_info=exc)
            for watch in [each for each in watches if each.latest is None]:
                self._end(watch, exc)

    async def _publish(self, watch: _Watch, summary: BatchSummary | None) -> None:
        """Publish the state of a batch; None for a batch that does not exist."""
        if summary is not None and summary.status.settled:
            try:
                summary = await self._manager.get_batch_summary(watch.batch_id)
            except BatchNotFound:
                summary = None
        if summary is None:
            self._end(watch, BatchNotFound(watch.batch_id))
            return
        watch.publish(_event(summary))
        if summary.status.settled:
            self._forget(watch)


_SHARED: WeakValueDictionary[tuple[int, int], ProgressFeed] = WeakValueDictionary()


def _event(summary: BatchSummary) -> Event:
    """Make an event whose id changes with its content, except rates and durations."""
    counts = summary.completed_items, summary.skipped_items, summary.failed_items
    times = summary.started_at, summary.finished_at
    state = summary.status, counts, summary.outstanding_items, times, summary.pause_reason
    digest = blake2s(repr((*state, summary.error)).encode(), digest_size=6).hexdigest()
    final = summary.status.settled
    content = summary.as_dict()
    if not final:
        del content["groups"]  # not queried while the batch runs
    name, identity = "finished" if final else "progress", f"{summary.settled_items}-{digest}"
    text = f"event: {name}\nid: {identity}\ndata: {json.dumps(content)}\n\n"
    return Event(identity, text.encode(), final)


def _server_is_stopping() -> bool:
    """Whether the uvicorn that serves this process is stopping and waits for the streams to end.

    The application is not told: its lifespan ends only after the last response.
    """
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(server, "should_exit", False) is True
