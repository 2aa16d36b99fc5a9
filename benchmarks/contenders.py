"""Who imports: the loop a developer would write by hand, and this library."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import anyio
import asyncpg

from .ground import Ground
from .modes import CONNECTIONS, MODES, Mode, measure
from .spent import Spent
from .workloads import Workload

Run: TypeAlias = Callable[[Ground, Workload], Awaitable[Spent]]


class NotForThis(Exception):
    """A contender that cannot run a workload says why."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One who takes part.

    Attributes:
        run: Brings a workload's records in; only the work itself is timed, not its preparation.
        share: The part of the records it is given: the slow ones would take minutes.
        ours: Whether its database has our tables.
    """

    run: Run
    share: float = 1.0
    ours: bool = False


async def plain_loop(ground: Ground, workload: Workload) -> Spent:
    """Semaphore, pool.acquire, transaction; no tracking at all."""
    async with asyncpg.create_pool(ground.dsn, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:
        semaphore = anyio.Semaphore(CONNECTIONS)

        async def one(record: dict[str, Any]) -> None:
            async with semaphore:
                try:
                    async with pool.acquire() as conn, conn.transaction():
                        await workload.write(record, conn)
                except asyncpg.PostgresError:
                    pass  # this is the point: nothing is kept of it

        with ground.spending() as spent:
            async with anyio.create_task_group() as group:
                for record in workload.records:
                    group.start_soon(one, record)
        return spent


async def plain_workers(ground: Ground, workload: Workload) -> Spent:
    """The same with a task for each connection instead of one for each record: a little leaner."""
    async with asyncpg.create_pool(ground.dsn, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:
        records = iter(workload.records)

        async def work() -> None:
            for record in records:
                try:
                    async with pool.acquire() as conn, conn.transaction():
                        await workload.write(record, conn)
                except asyncpg.PostgresError:
                    pass

        with ground.spending() as spent:
            async with anyio.create_task_group() as group:
                for _ in range(CONNECTIONS):
                    group.start_soon(work)
        return spent


def _in(mode: Mode) -> Run:
    """This library in one of its modes."""

    async def run(ground: Ground, workload: Workload) -> Spent:
        return await measure(ground.dsn, ground.postmaster, workload, mode)

    return run


REFERENCE = "plain loop"
OURS = {
    REFERENCE: Contender(plain_loop),
    "plain workers": Contender(plain_workers),
    **{name: Contender(_in(mode), ours=True) for name, mode in MODES.items()},
}
