"""What a run has shown: for people, for machines, and as the tables of docs/torture.md.

python -m tests.torture.report result.json prints the latter.
"""

import json
import statistics
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

KILL = "kill"
SERVER_THERE = "kill, server there"
MEANINGS = {
    KILL: "kill -9: each of its ranges taken over",
    SERVER_THERE: "… of those, the server reachable all the time",
    "restart": "PostgreSQL restarted, from when it takes connections",
    "freeze": "SIGSTOP for longer than the lease",
    "terminate": "pg_terminate_backend",
    "lose_commit": "COMMIT lost on its way",
    "lose_answer": "answer to a COMMIT lost",
    "abandon_commit": "client cut during a COMMIT",
    "cut_request": "connection cut, a request lost",
    "cut_reply": "connection cut, an answer lost",
    "silence": "nothing passes for 1 to 3 s",
    "fill_disk": "disk full for 1 to 3 s",
    "alter": "ALTER TABLE",
    "poison": "item that kills its process",
}


@dataclass(frozen=True)
class Recovery:
    """In how many seconds work went on after a kind of fault."""

    times: int
    median: float
    percentile: float | None  # 99 % of them were as fast; None: there are too few to say
    longest: float

    @classmethod
    def of(cls, seconds: list[float]) -> "Recovery":
        """From what was measured."""
        many = len(seconds) >= 100
        percentile = round(statistics.quantiles(seconds, n=100)[98], 2) if many else None
        median = round(statistics.median(seconds), 2)
        return cls(len(seconds), median, percentile, round(max(seconds), 2))


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
    settled_after: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    recovery: dict[str, Recovery] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    @property
    def all_faults(self) -> int:
        """How many there were."""
        return sum(self.faults.values())

    def facts(self) -> dict[str, object]:
        """What there is to know beside faults and recoveries."""
        return {
            "seed": self.seed,
            "commit": self.commit,
            "PostgreSQL": self.postgresql,
            "worker processes": self.workers,
            "lease (s)": self.lease,
            "seconds under fire": self.seconds,
            "seconds in all": self.elapsed,
            "all settled after the last fault (s)": self.settled_after,
            "faults": self.all_faults,
        } | {name.replace("_", " "): count for name, count in self.counts.items()}

    def table(self) -> str:
        """For people."""
        lines = [f"{name:<44} {value:>14}" for name, value in self.facts().items()]
        lines += [f"{'':<44} {'times':>8} {'measured':>9} {'median':>7} {'99 %':>7} {'max':>7}"]
        for kind, times, one in self._rows():
            row = f"{kind:<44} {times:>8}"
            if one is not None:
                shown = "" if one.percentile is None else f"{one.percentile:g}"
                row += f" {one.times:>9} {one.median:>7g} {shown:>7} {one.longest:>7g}"
            lines.append(row)
        lines += [f"VIOLATED: {one}" for one in self.violations] or ["every invariant holds"]
        return "\n".join(lines)

    def markdown(self) -> str:
        """For docs/torture.md."""
        lines = ["| | |", "|---|---|"]
        lines += [f"| {name} | {value} |" for name, value in self.facts().items()]
        lines += ["", "| fault | times | measured | median (s) | 99 % (s) | max (s) |"]
        lines += ["|---|---|---|---|---|---|"]
        for kind, times, one in self._rows():
            cells = [MEANINGS.get(kind, kind), str(times)]
            if one is None:
                cells += ["", "", "", ""]
            else:
                shown = "" if one.percentile is None else f"{one.percentile:g}"
                cells += [str(one.times), f"{one.median:g}", shown, f"{one.longest:g}"]
            lines.append(f"| {' | '.join(cells)} |")
        lines += ["", *(f"**Violated: {one}**" for one in self.violations)]
        return "\n".join(lines if self.violations else [*lines, "Every invariant holds."])

    def _rows(self) -> list[tuple[str, int | str, Recovery | None]]:
        kinds = [kind for kind in MEANINGS if kind in self.faults or kind in self.recovery]
        return [(kind, self.faults.get(kind, ""), self.recovery.get(kind)) for kind in kinds]

    def write(self, path: Path) -> None:
        """For machines."""
        facts = asdict(self) | {"all_faults": self.all_faults}
        path.write_text(json.dumps(facts, indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Report":
        """What `write` has written."""
        facts = json.loads(path.read_text())
        del facts["all_faults"]
        facts["recovery"] = {kind: Recovery(**one) for kind, one in facts["recovery"].items()}
        return cls(**facts)


if __name__ == "__main__":
    print(Report.read(Path(sys.argv[1])).markdown())
