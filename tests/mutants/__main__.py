"""Applies each mutant to a copy of the sources and runs the tests that must notice it."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .catalogue import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
PACKAGE = "reliable_imports_async"


def main() -> int:
    """Run all mutants, or those whose name contains the first argument."""
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    table = Table("mutant", "verdict", "seconds")
    survivors = 0
    for mutant in MUTANTS:
        if wanted not in mutant.name:
            continue
        began = time.monotonic()
        verdict = attempt(mutant)
        survivors += not verdict.startswith("killed")
        table.add_row(mutant.name, verdict, f"{time.monotonic() - began:.0f}")
    Console(width=140).print(table)
    return 1 if survivors else 0


def attempt(mutant: Mutant) -> str:
    """What became of one mutant."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "src")
        shutil.copytree(ROOT / "src", source)
        shutil.copytree(ROOT / "migrations", source / PACKAGE / "migrations")
        file = source / PACKAGE / mutant.file
        text = file.read_text(encoding="utf-8")
        if text.count(mutant.old) != mutant.times:
            return f"STALE: its text occurs {text.count(mutant.old)} times"
        file.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        return run(mutant, source)


def run(mutant: Mutant, source: Path) -> str:
    """Run the tests on the broken copy; the copy must be what they import."""
    environment = {**os.environ, "PYTHONPATH": str(source)}
    where = [sys.executable, "-c", f"import {PACKAGE}; print({PACKAGE}.__file__)"]
    imported = subprocess.run(where, env=environment, capture_output=True, text=True, check=True)
    if not imported.stdout.startswith(str(source)):
        return f"STALE: the tests would import {imported.stdout.strip()}"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", *mutant.tests]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=120,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "killed: the tests hang"
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    if done.returncode == 1 and failed:
        return "killed by " + failed[0].removeprefix("FAILED tests/").split(" - ")[0]
    if done.returncode == 0:
        return "SURVIVED"
    return f"STALE: pytest ended with {done.returncode}"


if __name__ == "__main__":
    sys.exit(main())
