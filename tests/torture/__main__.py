"""python -m tests.torture --seconds 20 --seed 7 --workers 3 [--faults N] [--items N] [--json FILE]."""

import argparse
import asyncio
import secrets
import subprocess
import sys
from pathlib import Path

from ..support.proxy import Fault
from .processor import FLIGHTS, PROCESSORS, rows
from .run import LIVENESS_SECONDS, Plan, torture
from .schedule import FURY, STEALTH

ALL = "all"
ALL_KINDS = {*STEALTH, *FURY, str(Fault.ABANDON_COMMIT)}


def commit() -> str:
    """Which sources are tortured; empty where git does not know."""
    try:
        command = ["git", "describe", "--always", "--dirty"]
        folder = Path(__file__).parent
        return subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def duration(text: str) -> float:
    """Seconds, or minutes like `15m`."""
    return float(text[:-1]) * 60 if text.endswith("m") else float(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=duration, default=20.0, help="how long faults strike")
    parser.add_argument("--seed", type=int, help="replays the same schedule of faults")
    parser.add_argument("--workers", type=int, default=3, help="worker processes")
    parser.add_argument("--faults", type=int, default=0, help="how many at least, spread over it")
    parser.add_argument("--items", help="how many at least, or `all` of the file")
    parser.add_argument("--batch-items", type=int, default=2_000, help="items in a batch")
    parser.add_argument("--flights", type=Path, default=FLIGHTS, help="gzipped CSV of flights")
    parser.add_argument("--json", type=Path, help="where to store the result")
    modes = ", ".join(PROCESSORS)
    parser.add_argument("--mode", choices=[*PROCESSORS, ALL], default="item", help=modes)
    parser.add_argument("--kinds", help="only these faults, separated by commas")
    parser.add_argument(
        "--max-wait", type=float, default=LIVENESS_SECONDS, help="seconds without progress"
    )
    parser.add_argument("--foreground", action="store_true", help="process_batch instead of jobs")
    parser.add_argument("--slow-commits", action="store_true", help="a COMMIT takes 0.1 s")
    parser.add_argument(
        "--isolation",
        default="read committed",
        choices=("read committed", "repeatable read", "serializable"),
        help="the database's default",
    )
    given = parser.parse_args()
    kinds = tuple(given.kinds.split(",")) if given.kinds else ()
    if unknown := set(kinds) - ALL_KINDS:
        parser.error(f"no such fault: {', '.join(unknown)}; there are {', '.join(ALL_KINDS)}")
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    items = len(rows(given.flights, None)) if given.items == ALL else given.items
    plan = Plan(
        seed=seed,
        seconds=given.seconds,
        workers=given.workers,
        faults=given.faults,
        items=None if items is None else int(items),
        batch_items=given.batch_items,
        flights=given.flights,
        kinds=kinds,
        calm=given.max_wait,
        foreground=given.foreground,
        slow_commits=given.slow_commits,
        isolation=given.isolation,
        modes=tuple(PROCESSORS) if given.mode == ALL else (given.mode,),
    )
    report = asyncio.run(torture(plan))
    report.commit = commit()
    print(report.table())
    if given.json:
        report.write(given.json)
    return bool(report.violations)


if __name__ == "__main__":
    sys.exit(main())
