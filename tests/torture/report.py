"""What a run has shown: for people, for machines, and as the table in docs/torture.md."""

import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass
class Report:
    """The result of a run."""

    seed: int
    seconds: float
    workers: int
    lease: float
    commit: str = ""
    postgresql: str = ""
    elapsed: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    recovery: dict[str, float] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    @property
    def all_faults(self) -> int:
        """How many there were."""
        return sum(self.faults.values())

    def recovered(self, kind: str, seconds: list[float]) -> None:
        """Note how long it took to recover from a kind of fault."""
        name = f"recovery from {kind}"
        self.recovery[f"{name}, times"] = len(seconds)
        self.recovery[f"{name}, median (s)"] = round(statistics.median(seconds), 2)
        if len(seconds) >= 100:
            percentiles = statistics.quantiles(seconds, n=100)
            self.recovery[f"{name}, 99 % (s)"] = round(percentiles[98], 2)
        self.recovery[f"{name}, max (s)"] = round(max(seconds), 2)

    def table(self) -> str:
        """For people."""
        rows = {
            "seed": self.seed,
            "commit": self.commit,
            "seconds under fire": self.seconds,
            "worker processes": self.workers,
            "lease (s)": self.lease,
            "PostgreSQL": self.postgresql,
            "seconds in all": self.elapsed,
            "faults": self.all_faults,
        }
        rows |= self.faults | self.counts | self.recovery
        lines = [f"{name.replace('_', ' '):<44} {value:>10}" for name, value in rows.items()]
        lines += [f"VIOLATED: {one}" for one in self.violations] or ["every invariant holds"]
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        """For machines."""
        facts = asdict(self) | {"all_faults": self.all_faults}
        path.write_text(json.dumps(facts, indent=2) + "\n")
