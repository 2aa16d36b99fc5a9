"""python -m tests.torture --seconds 20 --seed 7 --workers 3 [--items N] [--json result.json]."""

import argparse
import asyncio
import secrets
import sys
from pathlib import Path

from .processor import FLIGHTS
from .run import Plan, torture


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long faults strike")
    parser.add_argument("--seed", type=int, help="replays the same schedule of faults")
    parser.add_argument("--workers", type=int, default=3, help="worker processes")
    parser.add_argument("--items", type=int, help="items in all; by default as many as fit")
    parser.add_argument("--batch-items", type=int, default=2_000, help="items in a batch")
    parser.add_argument("--pace", type=float, default=1.0, help="times as many faults as usual")
    parser.add_argument("--flights", type=Path, default=FLIGHTS, help="gzipped CSV of flights")
    parser.add_argument("--json", type=Path, help="where to store the result")
    given = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    plan = Plan(
        seed=seed,
        seconds=given.seconds,
        workers=given.workers,
        items=given.items,
        batch_items=given.batch_items,
        pace=given.pace,
        flights=given.flights,
    )
    report = asyncio.run(torture(plan))
    print(report.table())
    if given.json:
        report.write(given.json)
    return bool(report.violations)


if __name__ == "__main__":
    sys.exit(main())
