"""The engine's modes, this tree next to an earlier commit: `make bench NAME=compare BASE=main`.

Every measurement runs in a fresh process that imports the library of one of the two trees. They
take turns in every round, so that whatever else the machine does slows both. The workload comes
from this tree and uses public names only. On a busy machine the median of a few rounds says little:
take more rounds, and look at the processor time and at the best rounds of the two trees.
"""

import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import anyio
import typer
import uvloop
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from .ground import Ground, ground
from .modes import MODES
from .report import Measured, Ratio, chosen, save, terminal, versions
from .spent import Spent
from .workloads import ROOT, WORKLOADS

BASE, THIS = "base", "this tree"
ALL = "all workloads"
TIMEOUT = 600.0  # seconds for one measurement

Cost: TypeAlias = Callable[[Measured], float]
COSTS: dict[str, Cost] = {
    "time": lambda measured: 1 / measured.rate,
    "processor time": lambda measured: measured.processor,
}


@dataclass
class Pair:
    """What one mode took on one workload in both trees, round by round."""

    rounds: dict[str, list[Measured]] = field(default_factory=lambda: {BASE: [], THIS: []})

    def costs(self, cost: Cost) -> list[tuple[float, float]]:
        """What an item cost in this tree and in the base, in each round that both have finished."""
        finished = zip(self.rounds[THIS], self.rounds[BASE], strict=False)
        return [(cost(this), cost(base)) for this, base in finished]


Pairs: TypeAlias = dict[tuple[str, str], Pair]
"""By workload and mode."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Ratios of this tree to the base.

    Attributes:
        ratio: Over all rounds.
        best: The best round of this tree over the best of the base; the median of the workloads.
    """

    ratio: Ratio
    best: float


def main(
    base: Annotated[str, typer.Option()],
    rounds: int = 5,
    items: int = 20_000,
    only: str = "",
    modes: str = "",
    limit: float | None = None,
) -> None:
    """Compare this tree with an earlier commit.

    Args:
        base: The commit to compare with.
        rounds: Interleaved rounds; the median ratio is shown.
        items: Records in each workload.
        only: Names of workloads, separated by semicolons; all by default.
        modes: Names of modes, likewise.
        limit: Exit with status 1 if a mode is slower by more than this many percent.
    """
    names = [
        (workload, mode) for workload in chosen(WORKLOADS, only) for mode in chosen(MODES, modes)
    ]
    commit, pairs, console = commit_of(base), {name: Pair() for name in names}, terminal()
    version = "unknown"
    with tempfile.TemporaryDirectory(prefix="reliable-imports-base-") as folder:
        trees = {BASE: Path(folder).resolve(), THIS: ROOT}
        unpack(commit, trees[BASE])
        try:
            version = uvloop.run(_measure(trees, pairs, rounds, items))
        finally:  # an interrupted run shows what it has measured
            show(console, pairs, base if commit.startswith(base) else f"{base} ({commit[:7]})")
            _save(console, pairs, {"versions": versions(version), "items": items, "base": commit})
    if limit is not None and (slower := too_slow(pairs, limit)):
        console.print(f"Slower by more than {limit:g} %: {', '.join(slower)}.")
        raise typer.Exit(1)


def commit_of(base: str) -> str:
    """The full name of a commit.

    Raises:
        typer.BadParameter: This repository has no such commit.
    """
    command = ["git", "rev-parse", "--verify", "--quiet", f"{base}^{{commit}}"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode:
        raise typer.BadParameter(f"this repository has no commit {base!r}.")
    return found.stdout.strip()


def unpack(commit: str, folder: Path) -> None:
    """The library and the migrations of a commit, as files."""
    command = ["git", "archive", commit, "src", "migrations"]
    archive = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")


async def _measure(trees: dict[str, Path], pairs: Pairs, rounds: int, items: int) -> str:
    """All of it; the version of the server."""
    async with ground() as place:
        with Progress(transient=True) as progress:
            task = progress.add_task("", total=rounds * len(pairs) * len(trees))
            for number in range(rounds):
                for (workload, mode), pair in pairs.items():
                    for name in sorted(trees, reverse=bool(number % 2)):
                        progress.update(task, description=f"{workload}: {mode}, {name}")
                        measured = await _once(place, trees[name], workload, items, mode)
                        pair.rounds[name].append(measured)
                        progress.advance(task)
        return place.version


async def _once(place: Ground, tree: Path, workload: str, items: int, mode: str) -> Measured:
    """One measurement in a process of its own, on a new database.

    Raises:
        RuntimeError: The process imported the library of another tree.
    """
    await place.renew(ours=False)
    arguments = [place.dsn, str(place.postmaster.pid), workload, str(items), mode]
    command = [sys.executable, "-m", "benchmarks.modes", *arguments]
    environment = os.environ | {"PYTHONPATH": str(tree / "src")}
    with anyio.fail_after(TIMEOUT):
        said = await anyio.run_process(command, cwd=ROOT, env=environment, stderr=None)
    found = json.loads(said.stdout)
    if not Path(found["library"]).is_relative_to(tree):
        raise RuntimeError(f"{found['library']} was measured instead of {tree}")
    return Measured(found["items"], Spent(**found["spent"]))


def show(console: Console, pairs: Pairs, base: str) -> None:
    """The ratios of each mode on each workload, and what they mean."""
    table = Table(title=f"This tree over {base}, median of the rounds (least to most)")
    for heading in ("mode", "workload"):
        table.add_column(heading)
    for name in COSTS:
        table.add_column(f"{name} an item", justify="right")
        table.add_column("best rounds", justify="right")
    for mode, rows in by_mode(pairs).items():
        for workload, some in rows.items():
            table.add_row(mode, workload, *_cells(some))
        table.add_section()
    console.print(table)
    for mode, rows in by_mode(pairs).items():
        found = [(name, spread([*rows.values()][-1], cost)) for name, cost in COSTS.items()]
        told = [f"{comparison(one.ratio.median)} in {name}" for name, one in found if one]
        console.print(f"{mode}: {', '.join(told) or 'not measured'}.", highlight=False)


def by_mode(pairs: Pairs) -> dict[str, dict[str, list[Pair]]]:
    """By mode the pairs of each workload; last those of all, where there are several."""
    found: dict[str, dict[str, list[Pair]]] = {}
    for (workload, mode), pair in pairs.items():
        found.setdefault(mode, {})[workload] = [pair]
    for rows in found.values():
        if len(rows) > 1:
            rows[ALL] = [pair for (pair,) in rows.values()]
    return found


def _cells(pairs: list[Pair]) -> list[str]:
    cells = []
    for cost in COSTS.values():
        one = spread(pairs, cost)
        if one is None:
            cells += ["not measured", ""]
        else:
            ratio = one.ratio
            cells += [
                f"{ratio.median:.3f} ({ratio.low:.3f} to {ratio.high:.3f})",
                f"{one.best:.3f}",
            ]
    return cells


def spread(pairs: list[Pair], cost: Cost) -> Spread | None:
    """How the ratios of some pairs spread; None where no round has finished."""
    measured = [costs for pair in pairs if (costs := pair.costs(cost))]
    if not measured:
        return None
    ratios = [this / base for costs in measured for this, base in costs]
    best = [min(this for this, _ in costs) / min(base for _, base in costs) for costs in measured]
    ratio = Ratio(statistics.median(ratios), min(ratios), max(ratios))
    return Spread(ratio, statistics.median(best))


def comparison(ratio: float) -> str:
    """A ratio of costs in words."""
    percent = 100 * (ratio - 1)
    if abs(percent) < 0.05:
        return "as fast"
    return f"{'slower' if percent > 0 else 'faster'} by {abs(percent):.1f} %"


def too_slow(pairs: Pairs, limit: float) -> list[str]:
    """The modes that are slower by more than so many percent, over all of their workloads."""
    found = []
    for mode, rows in by_mode(pairs).items():
        over = {name: spread([*rows.values()][-1], cost) for name, cost in COSTS.items()}
        found += [
            f"{mode} ({name})"
            for name, one in over.items()
            if one and one.ratio.median > 1 + limit / 100
        ]
    return found


def _save(console: Console, pairs: Pairs, about: dict[str, Any]) -> None:
    rounds = {
        f"{mode}, {workload}": {
            name: [asdict(one) for one in some] for name, some in pair.rounds.items()
        }
        for (workload, mode), pair in pairs.items()
    }
    console.print(f"All figures: {save('compare', about | {'rounds': rounds})}", soft_wrap=True)
