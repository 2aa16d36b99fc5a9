"""The map in CONTRIBUTING.md is the contract, and docs/architecture.md names what is there."""

import ast
import itertools
import re
import tomllib
from pathlib import Path

import pytest

import reliable_imports_async

ROOT = Path(__file__).parents[2]
PACKAGE = Path(reliable_imports_async.__file__).parent
FACES = {"__main__", "embedded"}  # names for users, no rooms: they are not on the map
MOST_ROWS, MOST_FILES, MOST_VISITS = 12, 8, 2

WALKS = re.findall(
    r"^## (?P<title>Walk \d[^\n]*)\n(?P<text>.*?)(?=^## |\Z)",
    (ROOT / "docs/architecture.md").read_text(encoding="utf-8"),
    re.MULTILINE | re.DOTALL,
)
STEP = re.compile(r"`(?P<file>[a-z_/]+\.(?:py|sql))` `(?P<name>[\w.]+)`")


def contract() -> list[list[str]]:
    """The rows of the layers contract, highest first, without the names for users."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    (rooms,) = (one for one in tool["importlinter"]["contracts"] if one["name"] == "Rooms")
    assert not tool["importlinter"].get("exclude_type_checking_imports")
    assert rooms["exhaustive"]
    assert len(rooms["layers"]) <= MOST_ROWS
    rows = [re.findall(r"\w+", row) for row in rooms["layers"]]
    return [kept for row in rows if (kept := [name for name in row if name not in FACES])]


def test_the_map_is_the_contract() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (drawn,) = re.findall(r"```mermaid\n(.*?)```", text, re.DOTALL)
    edges = set(re.findall(r'(\w+)(?:\["[^"]*"\])? --> (\w+)', drawn))
    *rows, words = contract()
    assert "errors" in words  # the last row is drawn as one node
    wanted = [*rows, ["words"]]
    pairs = itertools.pairwise(wanted)
    assert edges == {(upper, lower) for above, below in pairs for upper in above for lower in below}


def test_every_room_says_what_it_owns() -> None:
    for row in contract()[:-1]:
        for name in row:
            if name != "manager":
                doc = ast.get_docstring(ast.parse((PACKAGE / name / "__init__.py").read_text()))
                assert doc, name
                assert "Owns" in doc, name
                assert "may import" in doc, name


def test_the_root_is_small() -> None:
    entries = [path for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    folders = {path.name for path in entries if path.is_dir()}
    assert folders - {"migrations"} == {
        *("cli", "testing", "web", "workers", "runner", "repair", "loading", "execution"),
        *("processors", "store", "database"),
    }
    assert len([path for path in entries if path.suffix == ".py"]) <= 15


def test_there_are_five_walks() -> None:
    assert len(WALKS) == 5


@pytest.mark.parametrize(("title", "text"), WALKS, ids=[title for title, _ in WALKS])
def test_a_walk_is_short_and_names_what_is_there(title: str, text: str) -> None:
    steps = STEP.findall(text)
    assert len(steps) >= 4
    for file, name in steps:
        assert name in _names(PACKAGE / file), f"{file} has no {name}"
    files = [file for file, _ in steps]
    visits = [file for before, file in zip(["", *files], files, strict=False) if file != before]
    assert len(set(visits)) <= MOST_FILES
    assert max(visits.count(file) for file in visits) <= MOST_VISITS, visits


def _names(path: Path) -> set[str]:
    """Functions, classes and their methods; of SQL, the statements."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".sql":
        return set(re.findall(r"^-- name: (\w+)$", text, re.MULTILINE))
    names: set[str] = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {
                f"{node.name}.{one.name}"
                for one in node.body
                if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
            }
    return names
