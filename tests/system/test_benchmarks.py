"""Benchmarks are run seldom: here every one is imported and given options, so that none rots."""

import ast
import inspect
import re
import shutil
import subprocess
from functools import wraps
from importlib import import_module
from pathlib import Path

import asyncpg
import pytest
import typer
from benchmarks import __main__ as entry
from benchmarks import big_data, compare, engine
from benchmarks.report import Measured, chosen
from benchmarks.spent import Spent

import reliable_imports_async

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks"
OPTIONAL = {"peers": ("procrastinate", "psycopg")}
FOR_ANY_VERSION = ("modes", "spent", "workloads")


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.py")))
def test_every_module_can_be_imported(name):
    for package in OPTIONAL.get(name, ()):
        pytest.importorskip(package)
    import_module(f"benchmarks.{name}")


@pytest.mark.parametrize("name", FOR_ANY_VERSION)
def test_what_an_earlier_version_runs_has_public_names_only(name):
    tree = ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert all("reliable_imports_async." not in one.name for one in node.names)
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            assert not module.startswith("reliable_imports_async.")
            assert not node.level or module in FOR_ANY_VERSION
            if module == "reliable_imports_async":
                assert {one.name for one in node.names} <= set(reliable_imports_async.__all__)


def test_the_list_names_all(capsys):
    for word in entry.LISTING:
        entry.run([word])
        said = capsys.readouterr().out
        assert all(f"  {name} " in said for name in entry.BENCHMARKS)
    with pytest.raises(SystemExit, match=r"There is no benchmark 'nothing'.\n\nBenchmarks:"):
        entry.run(["nothing"])


@pytest.mark.parametrize("name", entry.BENCHMARKS)
def test_each_explains_its_options(name, capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        entry.run([name, "--help"])
    said = capsys.readouterr().out
    for option in inspect.signature(entry.BENCHMARKS[name].main).parameters:
        assert f"\n      {option}: " in said, option
        assert f"--{option}" in said


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        ([], {}),
        (["ROUNDS=2", "PEERS=0"], {"rounds": 2, "peers": False}),
        (["engine", "ONLY=flights, all failing;flights"], {"only": "flights, all failing;flights"}),
        (["--items", "7", "PEERS=1"], {"items": 7}),
        (["limit", "ITEMS=7"], {"items": 7, "contenders": "pgbench (limit)"}),
    ],
)
def test_options_may_be_written_as_variables_of_make(arguments, changed, monkeypatch):
    given = {}

    @wraps(engine.main)
    def main(**options):
        given.update(options)

    monkeypatch.setattr(engine, "main", main)
    with pytest.raises(SystemExit, match=r"^0$"):
        entry.run(arguments)
    usual = inspect.signature(engine.main).parameters.items()
    assert given == {name: one.default for name, one in usual} | changed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare"], "Missing option '--base'"),
        (["compare", "BASE=nothing-is-called-so"], "no commit 'nothing-is-called-so'"),
        (["ONLY=nothing"], "nothing: choose from customers; "),
        (["million", "MODE=nothing"], "choose from item, interval, set"),
        (["upload", "ROUNDS=2"], "No such option: --rounds"),
    ],
)
def test_wrong_options_are_refused(arguments, said, capsys):
    with pytest.raises(SystemExit, match=r"^2$"):
        entry.run(arguments)
    assert said in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_make_hands_on_what_its_command_line_says(monkeypatch):
    monkeypatch.setenv("NAME", "of the machine")
    monkeypatch.setenv("MODE", "of something else")
    assert _made() == "python -m benchmarks engine"
    assert _made("NAME=limit") == "python -m benchmarks limit"
    names = {
        name for one in entry.BENCHMARKS.values() for name in inspect.signature(one.main).parameters
    }
    for name in names:
        assert (
            _made(f"{name.upper()}=a b;c") == f"python -m benchmarks engine {name.upper()}='a b;c'"
        )


def _made(*variables):
    """The command that `make bench` would run."""
    command = ["make", "--no-print-directory", "--dry-run", "bench", *variables]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return " ".join(said.splitlines()[-1].split()).removeprefix(".venv/bin/")


def test_the_documents_name_what_there_is():
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"`make bench NAME=(\w+)", text)) <= entry.BENCHMARKS.keys(), path
        assert not re.search(r"make bench-|-m benchmarks\.", text), path


def test_names_are_chosen():
    assert chosen(["a", "b, c", "d"], "d; b, c") == ["b, c", "d"]
    assert chosen(["a", "b"], "") == ["a", "b"]
    with pytest.raises(typer.BadParameter, match="c: choose from a; b"):
        chosen(["a", "b"], "a;c")


def test_trees_are_compared_round_by_round():
    pair = compare.Pair({compare.BASE: _measured(1, 2, 4), compare.THIS: _measured(1.1, 2.2)})
    time = compare.spread([pair], compare.COSTS["time"])
    assert time.ratio.median == pytest.approx(1.1)
    assert time.best == pytest.approx(1.1)
    assert compare.comparison(time.ratio.median) == "slower by 10.0 %"
    assert compare.comparison(0.98) == "faster by 2.0 %"
    assert compare.comparison(1.0001) == "as fast"
    pairs = {("customers", "item mode"): pair, ("flights", "item mode"): compare.Pair()}
    assert compare.too_slow(pairs, 9) == ["item mode (time)", "item mode (processor time)"]
    assert compare.too_slow(pairs, 11) == []
    assert compare.spread([compare.Pair()], compare.COSTS["time"]) is None
    assert list(compare.by_mode(pairs)["item mode"]) == ["customers", "flights", compare.ALL]


def _measured(*seconds):
    return [Measured(10, Spent(one, one / 2, one / 2)) for one in seconds]


async def test_the_large_database_fits_the_schema(dsn):
    conn = await asyncpg.connect(dsn)
    made = big_data.plan(3_000, 300)
    await big_data.fill(conn, made)
    counted = "SELECT count(*), sum(total_items) FROM reliable_imports.import_batches"
    assert tuple(await conn.fetchrow(counted)) == (300, sum(one.total for one in made))
    await conn.close()
