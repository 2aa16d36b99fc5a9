"""Tests know the rooms of the package by one module a room: `reach.py`, which moves with the room."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import reliable_imports_async

PACKAGE = Path(reliable_imports_async.__file__).parent
NAME = PACKAGE.name
ROOMS = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} - {"testing"}  # is public
TESTS = Path(__file__).parents[1]
PROGRAMS = {"torture", "mutants"}  # beside the suite
FILES = [
    path
    for path in sorted(TESTS.rglob("*.py"))
    if path.name != "reach.py" and path.relative_to(TESTS).parts[0] not in PROGRAMS
]
QUOTED = {"system/test_typing.py": "processors"}  # by mypy, in a message


def rooms_in(text: str) -> set[str]:
    """The rooms that a file names, in code or in texts such as programs and paths to patch."""
    named = set(re.findall(rf"\b{NAME}\.(\w+)", text))
    for names in re.findall(rf"\bfrom {NAME} import \(?([^)\n]*)", text):
        named.update(re.findall(r"\w+", names))
    return named & ROOMS


def private_names(tree: ast.Module) -> Iterator[str]:
    """The private attributes of others that a file reads."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and re.match("_[a-z]", node.attr):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            if owner not in {"self", "cls", "os"}:
                yield node.attr


def test_no_test_names_a_room():
    found = {str(path.relative_to(TESTS)): rooms_in(path.read_text("utf-8")) for path in FILES}
    assert {name: rooms for name, rooms in found.items() if rooms - {QUOTED.get(name)}} == {}


def test_no_test_reads_what_is_private():
    source = "".join(path.read_text("utf-8") for path in PACKAGE.rglob("*.py"))
    ours = set(re.findall(r"(?:self|cls)\.(_[a-z]\w*)", source)) - {
        "_run",
        "_writer",
    }  # asyncio has the first, a client of the tests the other
    found = {
        f"{path.relative_to(TESTS)}: {name}"
        for path in FILES
        for name in private_names(ast.parse(path.read_text("utf-8")))
        if name in ours
    }
    assert found == set()
