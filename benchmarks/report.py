"""What was measured, as a table of ratios and as JSON."""

import json
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from .ground import cores
from .spent import Spent

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("asyncpg", "uvloop", "pydantic-core", "pgqueuer", "procrastinate", "psycopg")


@dataclass(frozen=True, slots=True)
class Measured:
    """One contender on one workload in one round.

    Attributes:
        items: How many items it imported.
        spent: What that took.
    """

    items: int
    spent: Spent

    @property
    def rate(self) -> float:
        """Items a second."""
        return self.items / self.spent.seconds

    @property
    def processor(self) -> float:
        """Processor seconds of client and server for an item."""
        return (self.spent.client + self.spent.server) / self.items


@dataclass(frozen=True, slots=True)
class Ratio:
    """Over all rounds, each compared with the reference of the same round."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def ratio(ones: Sequence[float], others: Sequence[float]) -> Ratio:
    """One by one, and then their median: what troubles a round troubles both."""
    found = [one / other for one, other in zip(ones, others, strict=True)]
    return Ratio(statistics.median(found), min(found), max(found))


def verdict(found: float, bar: float) -> str:
    """Whether a figure reaches its bar: "met", or "short by" so much."""
    return "met" if found >= bar else f"short by {bar - found:.2f}"


def chosen(known: Iterable[str], given: str) -> list[str]:
    """The names that were given, separated by semicolons; all of them where none was.

    Raises:
        typer.BadParameter: A name is unknown.
    """
    names = [name.strip() for name in given.split(";") if name.strip()]
    if unknown := [name for name in names if name not in known]:
        raise typer.BadParameter(f"{', '.join(unknown)}: choose from {'; '.join(known)}.")
    return [name for name in known if not names or name in names]


def versions(postgresql: str) -> dict[str, str]:
    """What the figures depend on."""
    found = {"postgresql": postgresql, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found | {"cores": str(cores()), "machine": platform.platform()}


def terminal() -> Console:
    """Wide enough for the table, in a file too."""
    console = Console()
    return console if console.is_terminal else Console(width=140)


def save(name: str, content: dict[str, Any]) -> Path:
    """Beside the other results, under the time."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return path


class Report:
    """Collects as it goes: what fails later loses nothing."""

    def __init__(self, reference: str) -> None:
        self._reference = reference
        self._rounds: dict[str, dict[str, dict[int, Measured]]] = {}
        self._remarks: dict[str, dict[str, str]] = {}

    def add(self, workload: str, contender: str, number: int, measured: Measured) -> None:
        """One result."""
        self._rounds.setdefault(workload, {}).setdefault(contender, {})[number] = measured

    def remark(self, workload: str, contender: str, why: str) -> None:
        """Why there is none, or one less."""
        self._remarks.setdefault(workload, {})[contender] = why

    def show(self, console: Console, rounds: int) -> None:
        """The table."""
        table = Table(title=f"Ratio to the {self._reference}, median of {rounds} (min to max)")
        table.add_column("workload")
        table.add_column("contender")
        for heading in ("speed", "items/s", "CPU", "CPU µs an item", "client + server"):
            table.add_column(heading, justify="right")
        for workload, contenders in self._rounds.items():
            for name in contenders:
                table.add_row(workload, name, *self._cells(workload, name))
            table.add_section()
        console.print(table)
        console.print("Larger is better: speed by the clock; CPU, the processor time of the")
        console.print(
            "reference for an item over that of the contender, client and server together"
        )
        for workload, remarks in self._remarks.items():
            for name, why in remarks.items():
                console.print(f"{workload}, {name}: {why}", markup=False)

    def _cells(self, workload: str, name: str) -> list[str]:
        found = list(self._rounds[workload][name].values())
        rate = statistics.median(one.rate for one in found)
        client = statistics.median(one.spent.client / one.items for one in found)
        server = statistics.median(one.spent.server / one.items for one in found)
        speed, processor = self._ratios(workload, name)
        parts = f"{client * 1e6:,.0f} + {server * 1e6:,.0f}"
        total = f"{(client + server) * 1e6:,.0f}"
        return [str(speed or "-"), f"{rate:,.0f}", str(processor or "-"), total, parts]

    def _ratios(self, workload: str, name: str) -> tuple[Ratio | None, Ratio | None]:
        """Of speed and of processor time, over the rounds in which both came through."""
        ones = self._rounds[workload][name]
        others = self._rounds[workload].get(self._reference, {})
        both = sorted(ones.keys() & others.keys())
        if not both:
            return None, None
        speed = ratio([ones[n].rate for n in both], [others[n].rate for n in both])
        processor = ratio([others[n].processor for n in both], [ones[n].processor for n in both])
        return speed, processor

    def as_json(self) -> dict[str, Any]:
        """Every figure of the table, and every round."""
        found: dict[str, dict[str, Any]] = {}
        for workload, contenders in self._rounds.items():
            for name, rounds in contenders.items():
                speed, processor = self._ratios(workload, name)
                found.setdefault(workload, {})[name] = {
                    "speed": speed and asdict(speed),
                    "cpu": processor and asdict(processor),
                    "rounds": {number: asdict(one) for number, one in rounds.items()},
                }
        return {"reference": self._reference, "results": found, "remarks": self._remarks}
