"""Numbers and nouns agree, everywhere: there is one way to say how many there are."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import reliable_imports_async
from reliable_imports_async.wording import counted

PACKAGE = Path(reliable_imports_async.__file__).parent
NOUNS = (
    "items|records|rows|batches|fields|columns|attempts|clients|connections|causes|failures|lines"
    "|results|seconds of|minutes|groups|edits|characters more"
)
AFTER_A_NUMBER = re.compile(rf"^ (further |more |pending |failed )?({NOUNS})\b(?!/)")
IN_A_TEMPLATE = re.compile(
    rf"(\|count|\|length) *\}}\}}(</\w+>)? (further |more )?({NOUNS})\b(?!/)"
)


@pytest.mark.parametrize(
    ("count", "noun", "plural", "expected"),
    [
        (0, "item", None, "0 items"),
        (1, "item", None, "1 item"),
        (1.0, "batch", None, "1 batch"),
        (2, "batch", None, "2 batches"),
        (1_234, "record", None, "1,234 records"),
        (2, "failed try", "failed tries", "2 failed tries"),
    ],
)
def test_a_count_with_its_noun(count, noun, plural, expected):
    assert counted(count, noun, plural) == expected


def by_hand(tree: ast.Module) -> Iterator[str]:
    """The f-strings that put a number in front of a plural themselves."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            for value, text in zip(node.values, node.values[1:], strict=False):
                if (
                    isinstance(value, ast.FormattedValue)
                    and isinstance(text, ast.Constant)
                    and AFTER_A_NUMBER.match(str(text.value))
                ):
                    yield ast.unparse(node)


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda one: one.name)
def test_no_message_counts_by_hand(file: Path):
    assert list(by_hand(ast.parse(file.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.html")), ids=lambda one: one.name)
def test_no_page_counts_by_hand(file: Path):
    assert IN_A_TEMPLATE.search(file.read_text(encoding="utf-8")) is None
