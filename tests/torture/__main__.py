"""python -m tests.torture --seconds 20 --seed 7 --workers 3 [--items N] [--json result.json]."""

import argparse
import asyncio
import secrets
import sys
from pathlib import Path

from .run import torture


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long faults strike")
    parser.add_argument("--seed", type=int, help="replays the same schedule of faults")
    parser.add_argument("--workers", type=int, default=3, help="worker processes")
    parser.add_argument("--items", type=int, help="items in all; by default as many as fit")
    parser.add_argument("--json", type=Path, help="where to store the result")
    given = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    report = asyncio.run(torture(seed, given.seconds, given.workers, given.items))
    print(report.table())
    if given.json:
        report.write(given.json)
    return bool(report.violations)


if __name__ == "__main__":
    sys.exit(main())
