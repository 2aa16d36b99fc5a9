"""Advice is given in the words of the place where it is read: Python, a terminal, HTTP or a browser."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import reliable_imports_async
from reliable_imports_async import errors, hints

PACKAGE = Path(reliable_imports_async.__file__).parent
PYTHON = re.compile(
    r"\w\((?!s\))|(?<!\?directory)(?<=[a-z_])=(?![=>])|\bawait\b|\basync with\b|\bmanager\b|BatchManager"
    r"|\bpass (a|an|the|it|one|either|[a-z_]+=)|\.py\b|'rb'"
)
COMMAND = re.compile(r"reliable-imports [a-z]|(?<!\w)(?<!useradd )--[a-z]")
OWN_CODE = (errors.RegistryError, errors.NotAProcessor, errors.NotAnEndpoint)
"""Raised at start, about a class that whoever reads them has written: Python is their language."""

ONLY_PYTHON = {
    "loading/sources/iterables.py": "records in memory",
    "loading/sources/spool.py": "file objects; of paths the hints have no Python",
    "loading/create.py": "a connection was passed",
    "web/api_manager.py": "an application mounts the API",
    "testing/items.py": "tests call it",
}
"""Modules whose Python advice is about objects that only Python code can pass."""
ONLY_TERMINAL = "cli/"


@dataclass(frozen=True)
class Advice:
    """The three hints of one place that raises, each None where it is not given."""

    where: str
    error: str
    hint: str
    cli: str | None
    web: str | None

    @property
    def in_a_terminal(self) -> str:
        return self.hint if self.cli is None else self.cli

    @property
    def on_the_web(self) -> str:
        return self.hint if self.web is None else self.web


def text_of(node: ast.expr | None) -> str | None:
    """The text of a literal, with … for what is put in; of two by a condition, both."""
    match node:
        case None:
            return None
        case ast.Constant(value=str()):
            return str(node.value)
        case ast.JoinedStr():
            return "".join(
                str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values
            )
        case ast.BinOp():
            return (text_of(node.left) or "") + (text_of(node.right) or "")
        case ast.IfExp():
            return f"{text_of(node.body)} {text_of(node.orelse)}"
        case _:
            return None


def constants(tree: ast.Module) -> dict[str, str]:
    """The texts that names stand for, in a module and in its functions."""
    return {
        target.id: text
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and (text := text_of(node.value)) is not None
    }


def advices() -> Iterator[Advice]:
    """Every call in the sources that gives a hint in words."""
    for file in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        names = constants(tree)
        classes = {
            id(node): cls.name
            for cls in ast.walk(tree)
            if isinstance(cls, ast.ClassDef)
            for node in ast.walk(cls)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            given = {one.arg: one.value for one in node.keywords if one.arg is not None}
            if "hint" not in given:
                continue
            texts = {
                name: names.get(value.id) if isinstance(value, ast.Name) else text_of(value)
                for name, value in given.items()
            }
            called = ast.unparse(node.func)
            name = classes.get(id(node), "") if called.startswith("super()") else called
            where = f"{file.relative_to(PACKAGE)}:{node.lineno}"
            hint = texts.get("hint")
            if hint is not None:
                yield Advice(where, name, hint, texts.get("cli_hint"), texts.get("web_hint"))


ADVICES = list(advices())


def about_own_code(advice: Advice) -> bool:
    kind = getattr(errors, advice.error, None)
    if kind is errors.UnknownBatchType or kind is None:
        return False
    return issubclass(kind, OWN_CODE)


def test_the_sources_are_understood() -> None:
    """Else the tests below would pass over what they do not see."""
    assert len(ADVICES) > 100
    assert {"DatabaseUrlMissing", "SourceError", "ConfigurationError"} <= {
        one.error for one in ADVICES
    }


@pytest.mark.parametrize("advice", ADVICES, ids=lambda one: one.where)
def test_a_hint_speaks_the_language_of_its_place(advice: Advice) -> None:
    if about_own_code(advice) or advice.where.partition(":")[0] in ONLY_PYTHON:
        return
    assert not PYTHON.search(advice.in_a_terminal), advice.in_a_terminal
    if advice.where.startswith(ONLY_TERMINAL):
        return
    assert not PYTHON.search(advice.on_the_web), advice.on_the_web
    assert not COMMAND.search(advice.on_the_web), advice.on_the_web


@pytest.mark.parametrize(
    "hint", [*(hint for _, hint in hints._MESSAGES + hints._FIELDS), hints._EMPTY, hints._MISSING]
)
def test_what_is_stored_with_a_failure_fits_every_place(hint: str) -> None:
    assert not PYTHON.search(hint), hint
    assert not COMMAND.search(hint), hint
