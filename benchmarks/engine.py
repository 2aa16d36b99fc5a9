"""Runs every contender on every workload, interleaved, and prints ratios to the plain loop."""

from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec

import anyio
import uvloop
from rich.console import Console
from rich.progress import Progress

from .contenders import OURS, REFERENCE, Contender, NotForThis
from .ground import Ground, ground
from .limit import LIMIT
from .modes import CONNECTIONS
from .report import Measured, Report, chosen, save, terminal, versions
from .workloads import WORKLOADS, Workload

PATIENCE = 600.0  # seconds for one contender on one workload


def main(
    rounds: int = 5,
    items: int = 20_000,
    only: str = "",
    contenders: str = "",
    peers: bool = True,  # noqa: FBT001, FBT002 - the way typer spells --no-peers
) -> None:
    """Measure.

    Args:
        rounds: Interleaved rounds; the median is shown.
        items: Records in each workload; the slow contenders take the first fifth of them.
        only: Names of workloads, separated by semicolons; all by default.
        contenders: Names of contenders, likewise; the plain loop always takes part.
        peers: Also PgQueuer, Procrastinate, psycopg and pgbench.
    """
    console = terminal()
    workloads = [WORKLOADS[name](items) for name in chosen(WORKLOADS, only)]
    known = _everyone(console, peers=peers)
    named = {REFERENCE, *chosen(known, contenders)}
    taking_part = {name: one for name, one in known.items() if name in named}
    report = Report(REFERENCE)
    version = "unknown"
    try:
        version = uvloop.run(_measure(workloads, taking_part, rounds, report))
    finally:  # whatever stops it, an interrupt too, what was measured is shown
        report.show(console, rounds)
        about = {"versions": versions(version), "connections": CONNECTIONS, "items": items}
        path = save("engine", about | report.as_json())
        console.print(", ".join(f"{name} {value}" for name, value in about["versions"].items()))
        console.print(f"{path}")


def _everyone(console: Console, *, peers: bool) -> dict[str, Contender]:
    if not peers:
        return dict(OURS)
    missing = [name for name in ("procrastinate", "psycopg") if find_spec(name) is None]
    if missing:
        console.print(
            f"Without the peers: {', '.join(missing)} missing (pip install --group peers)"
        )
        return OURS | LIMIT
    from .peers import PEERS  # noqa: PLC0415 - needs what is optional

    return OURS | PEERS | LIMIT


async def _measure(
    workloads: list[Workload], contenders: dict[str, Contender], rounds: int, report: Report
) -> str:
    """All of it; the version of the server."""
    async with ground() as place:
        with Progress(transient=True) as progress:
            task = progress.add_task("", total=rounds * len(workloads) * len(contenders))
            for number in range(rounds):
                for workload in workloads:
                    for name, contender in _rotated(contenders, number):
                        progress.update(task, description=f"{workload.name}: {name}")
                        await _once(place, workload, (name, contender), number, report)
                        progress.advance(task)
        return place.version


async def _once(
    place: Ground, workload: Workload, one: tuple[str, Contender], number: int, report: Report
) -> None:
    """One contender on a fresh database; its failure is its own."""
    name, contender = one
    part = workload.part(contender.share)
    remark = partial(report.remark, workload.name, name)
    try:
        with anyio.fail_after(PATIENCE):
            await place.renew(workload.schema, ours=contender.ours)
            spent = await contender.run(place, part)
    except NotForThis as exc:
        remark(f"left out: {exc}")
    except Exception as exc:  # noqa: BLE001 - it is reported, and the others go on
        remark(f"round {number + 1} failed: {type(exc).__name__}: {exc}")
    else:
        report.add(workload.name, name, number, Measured(len(part.records), spent))


def _rotated(contenders: dict[str, Contender], number: int) -> Iterator[tuple[str, Contender]]:
    """The contenders, each round beginning with another one."""
    pairs = list(contenders.items())
    shift = number % len(pairs)
    yield from pairs[shift:] + pairs[:shift]
