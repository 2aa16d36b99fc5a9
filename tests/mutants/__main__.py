"""Applies each mutant to a copy of the sources; tests, and for some the torture, must notice it."""

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
TORTURE = ("--seconds", "12", "--seed", "7", "--batch-items", "400", "--max-wait", "60")
SURVIVED = "SURVIVED"


def main() -> int:
    """Run all mutants, or those whose name contains the first argument."""
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    table = Table("mutant", "tests", "torture", "seconds")
    survivors = 0
    for mutant in MUTANTS:
        if wanted not in mutant.name:
            continue
        began = time.monotonic()
        results = attempt(mutant)
        survivors += not all(outcome.startswith(("killed", "-")) for outcome in results)
        table.add_row(mutant.name, *results, f"{time.monotonic() - began:.0f}")
        print(f"{mutant.name}: {'; '.join(results)}", flush=True)
    Console(width=160).print(table)
    return 1 if survivors else 0


def attempt(mutant: Mutant) -> tuple[str, str]:
    """What the tests and the torture made of one mutant."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "src")
        shutil.copytree(ROOT / "src", source)
        shutil.copytree(ROOT / "migrations", source / PACKAGE / "migrations")
        intact = torture(mutant, source) if mutant.torture else ""
        for edit in mutant.edits:
            file = source / PACKAGE / edit.file
            text = file.read_text(encoding="utf-8")
            if text.count(edit.old) != edit.times:
                return f"STALE: its text occurs {text.count(edit.old)} times in {edit.file}", "-"
            file.write_text(text.replace(edit.old, edit.new), encoding="utf-8")
        tested = run(mutant, source)
        if not mutant.torture:
            return tested, "-"
        if intact != SURVIVED:
            return tested, f"STALE: without the mutant: {intact}"
        return tested, torture(mutant, source)


def torture(mutant: Mutant, source: Path) -> str:
    """Torture the broken copy, with as little max_wait as does."""
    command = [sys.executable, "-m", "tests.torture", *TORTURE, *mutant.torture]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=300,
        check=False,
    )
    violated = [line for line in done.stdout.splitlines() if line.startswith("VIOLATED")]
    if violated:
        return f"killed: {violated[0].removeprefix('VIOLATED: ')[:60]}"
    return SURVIVED if done.returncode == 0 else f"STALE: {done.stderr[-200:]}"


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
        return SURVIVED
    return f"STALE: pytest ended with {done.returncode}"


if __name__ == "__main__":
    sys.exit(main())
