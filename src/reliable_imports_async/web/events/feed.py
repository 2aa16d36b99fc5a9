"""One poller for all who watch how batches come along, in this process and event loop.

A watcher needs where its batch stands, not every step on the way. So each watched batch has one
slot with its latest event, which its watchers share: a queue of one that drops the older. Nothing
grows with a slow client, and an event is written out once, however many follow.
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
    """One event, as it goes over the line."""

    id: str
    data: bytes
    final: bool


@dataclass(slots=True)
class _Watch:
    """A batch that is followed: its latest event, and who waits for the next."""

    batch_id: UUID
    watchers: int = 0
    latest: Event | None = None
    error: Exception | None = None
    ended: bool = False
    changed: anyio.Event = field(default_factory=anyio.Event)

    def publish(self, event: Event) -> None:
        """Make an event the latest, unless it says the same again."""
        if self.latest is None or self.latest.id != event.id:
            self.latest = event
            self.wake()

    def end(self, error: Exception | None = None) -> None:
        """No further event comes; who has none yet gets the error."""
        self.ended, self.error = True, error
        self.wake()

    def wake(self) -> None:
        """Let the watchers look."""
        self.changed.set()
        self.changed = anyio.Event()


class ProgressFeed:
    """Tells any number of clients how batches come along, with one query for all of them.

    The poller runs while somebody watches. As an async context manager the feed ends all streams
    when the block is left; without one, it is done when the last client has gone.

    Args:
        manager: An open manager.
        interval: Seconds between two looks.
        max_clients: How many may follow at once; by default as the settings say.

    Attributes:
        clients: How many follow now.
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
        self._news = anyio.Event()  # somebody joined, or nobody is left
        self.closed = False
        self.clients = 0

    @classmethod
    def shared(cls, manager: BatchManager) -> "ProgressFeed":
        """The feed of this manager in this event loop, made when there is none in use."""
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
        """End every stream; clients reconnect by themselves, and resume. Takes no new ones."""
        self.closed = True
        self._end_all()
        self._news.set()

    async def stream(
        self, batch_id: UUID, last_event_id: str | None = None
    ) -> AsyncGenerator[bytes]:
        """The events of one batch, as bytes to send; ends after ``finished``, or at shutdown.

        Nothing at all is yielded to a client that has had ``finished``. Without the failure
        groups, ``progress`` is the batch as `BatchSummary.as_dict` gives it; ``finished`` has
        them. It is sent once nothing more happens by itself: also for a paused batch.

        Args:
            batch_id: Any batch.
            last_event_id: The id of the last event the client has had.

        Raises:
            BatchNotFound: There is no such batch.
            TooManyClients: As many follow already as may.
            Exception: The first look at the batch failed, e.g. without a database.
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
        """The first event of a batch; None at shutdown."""
        while watch.latest is None and not watch.ended:
            await watch.changed.wait()
        if watch.latest is None and watch.error is not None:
            raise watch.error
        return watch.latest

    async def _following(self, watch: _Watch, event: Event) -> Event | None:
        """What comes after an event: the same again when it is time for a ping; None at the end."""
        with anyio.move_on_after(PING_SECONDS):
            while watch.latest is event and not watch.ended:
                await watch.changed.wait()
        return None if watch.ended and watch.latest is event else watch.latest

    @contextmanager
    def _joined(self, batch_id: UUID) -> Iterator[_Watch]:
        """A client's slot, and its share of a watch, for as long as it follows."""
        if self.clients >= self._max_clients:
            raise TooManyClients(self._max_clients)
        watch = self._watches.setdefault(batch_id, _Watch(batch_id))
        watch.watchers += 1
        self.clients += 1
        if watch.latest is None:
            self._news.set()
        if self._poller is None:  # in a context of its own: it works for more than this request
            self._poller = asyncio.create_task(self._poll(), context=Context())
        try:
            yield watch
        finally:
            watch.watchers -= 1
            self.clients -= 1
            if not watch.watchers:
                self._forget(watch)

    def _forget(self, watch: _Watch) -> None:
        """Look at a batch no more. Who joins from now on gets a new watch."""
        if self._watches.get(watch.batch_id) is watch:
            del self._watches[watch.batch_id]
        if not self._watches:
            self._news.set()

    def _end(self, watch: _Watch, error: Exception | None = None) -> None:
        self._forget(watch)
        watch.end(error)

    def _end_all(self, error: Exception | None = None) -> None:
        for watch in list(self._watches.values()):
            self._end(watch, error)

    async def _poll(self) -> None:
        """Look at all batches at intervals, at new ones at once, until none is left."""
        try:
            due = 0.0
            while self._watches and not _server_is_stopping():
                self._news = anyio.Event()
                if anyio.current_time() >= due:
                    await self._look(list(self._watches.values()))
                    due = anyio.current_time() + self._interval
                else:
                    await self._look([one for one in self._watches.values() if not one.latest])
                with anyio.move_on_after(due - anyio.current_time()):
                    await self._news.wait()
        finally:
            self._poller = None
            self._end_all()

    async def _look(self, watches: Sequence[_Watch]) -> None:
        """One query; an outage is waited out, except by those who have heard nothing yet."""
        if not watches:
            return
        try:
            found = await self._manager.batch_progress([one.batch_id for one in watches])
            for watch in watches:
                await self._tell(watch, found.get(watch.batch_id))
        except ConfigurationError as exc:  # the manager was closed
            self._end_all(exc)
        except Exception as exc:  # noqa: BLE001 - the poller outlives whatever a look meets
            _log.warning("progress cannot be read; trying again", exc_info=exc)
            for watch in [one for one in watches if one.latest is None]:
                self._end(watch, exc)

    async def _tell(self, watch: _Watch, summary: BatchSummary | None) -> None:
        """Publish what was found about a batch."""
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
    """An event whose id changes whenever what it says does; rates and durations aside."""
    counts = summary.completed_items, summary.skipped_items, summary.failed_items
    times = summary.started_at, summary.finished_at
    state = summary.status, counts, summary.outstanding_items, times, summary.pause_reason
    digest = blake2s(repr((*state, summary.error)).encode(), digest_size=6).hexdigest()
    final = summary.status.settled
    content = summary.as_dict()
    if not final:
        del content["groups"]  # not read, which is not the same as none
    name, identity = "finished" if final else "progress", f"{summary.settled_items}-{digest}"
    text = f"event: {name}\nid: {identity}\ndata: {json.dumps(content)}\n\n"
    return Event(identity, text.encode(), final)


def _server_is_stopping() -> bool:
    """Whether the uvicorn that runs us was told to stop; it waits for the streams to end.

    It tells nobody: the lifespan ends only after the last response.
    """
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(server, "should_exit", False) is True
