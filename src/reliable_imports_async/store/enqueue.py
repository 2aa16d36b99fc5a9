"""PgQueuer jobs that tell workers about a batch, written in the library's own transactions."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from pgqueuer.models import Job
from pydantic_core import from_json, to_json

from ..database import pgqueuer_tables
from ..database.guard import Connection
from ..errors import QueueMissing
from . import batches

PREFIX = "reliable_imports."
RANGES_PER_JOB = 4
MOST_JOBS = 16


@dataclass(frozen=True, slots=True)
class Place:
    """The number of a job among the jobs of its batch; at most one job has it."""

    batch_id: UUID
    number: int

    @property
    def key(self) -> str:
        """PgQueuer's dedupe key."""
        return f"{PREFIX}{self.batch_id}/{self.number}"

    @property
    def priority(self) -> int:
        """Every waiting batch gets one process before any gets a second."""
        return -1 if self.number else 0

    def payload(self) -> bytes:
        """The job's payload."""
        return to_json({"batch_id": str(self.batch_id), "number": self.number})

    @classmethod
    def of(cls, job: Job) -> "Place":
        """The place of a job that was taken."""
        payload = from_json(job.payload or b"{}")
        return cls(UUID(payload["batch_id"]), payload["number"])


def entrypoint(batch_type: str) -> str:
    """PgQueuer's name for the jobs of a batch type."""
    return f"{PREFIX}{batch_type}"


def jobs_for(unfinished_ranges: int) -> int:
    """The number of jobs for a batch: several processes share a large batch."""
    return max(1, min(MOST_JOBS, unfinished_ranges // RANGES_PER_JOB))


async def enqueue(conn: Connection, batch_id: UUID) -> bool:
    """Enqueue a batch that has not ended, in the transaction that `conn` is in.

    Jobs that are already waiting or running are not enqueued again.

    Returns:
        False if the batch does not exist, or is finished, paused or cancelled.

    Raises:
        QueueMissing: PgQueuer's tables do not exist.
    """
    if not await pgqueuer_tables.is_installed(conn):
        raise QueueMissing
    marked = await batches.mark_enqueued(conn, batch_id)
    if marked is None:
        return False
    batch_type, unfinished = marked
    places = [Place(batch_id, number) for number in range(jobs_for(unfinished))]
    await _insert(conn, batch_type, places, timedelta(0))
    return True


async def replace(conn: Connection, job: Job, batch_type: str, seconds: float) -> None:
    """End a job and enqueue another for its place, due in `seconds`.

    May be repeated if the answer was lost.
    """
    async with conn.transaction():
        await (await pgqueuer_tables.queries(conn)).log_jobs([(job, "successful", None)])
        await _insert(conn, batch_type, [Place.of(job)], timedelta(seconds=seconds))


async def _insert(
    conn: Connection, batch_type: str, places: Sequence[Place], delay: timedelta
) -> None:
    count = len(places)
    on_connection = await pgqueuer_tables.queries(conn)
    await on_connection.enqueue(
        [entrypoint(batch_type)] * count,
        [place.payload() for place in places],
        [place.priority for place in places],
        [delay] * count,
        [place.key for place in places],
        on_conflict="skip",
    )
