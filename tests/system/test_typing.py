"""The types that users write against: their file passes mypy --strict, their mistakes do not."""

import subprocess
import sys
from pathlib import Path

import pytest

TYPED_USER = Path(__file__).with_name("typed_user.py")
ROOT = TYPED_USER.parents[2]

MISTAKES = {
    "item.data.price, int)": ("item.data.prize, int)", '"Product" has no attribute "prize"'),
    'item.data["lines"]': ('item.data["line"]', 'TypedDict "Order" has no key "line"'),
    "ctx.savepoint()": ("ctx.savepoints()", '"ImportContext" has no attribute "savepoints"'),
    "ImportBatchItem[Product], ctx: ImportContext) -> bool": (
        "ImportBatchItem[Customer], ctx: ImportContext) -> bool",
        'incompatible with supertype "reliable_imports_async.processors.processor.BaseProcessor"',
    ),
    "self, item: ImportBatchItem[Order], ctx: ImportContext\n    ) -> Mapping[str, object]": (
        "self, item: ImportBatchItem[Order], ctx: ImportContext\n    ) -> int",
        'Return type "Coroutine[Any, Any, int]" of "process_item" incompatible',
    ),
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mypy")


def mypy(file: Path, cache: Path) -> "subprocess.CompletedProcess[str]":
    """Check one file as a user would, against the library's source."""
    options = ["--strict", f"--cache-dir={cache}", "--config-file=", "--no-error-summary"]
    return subprocess.run(
        [sys.executable, "-m", "mypy", *options, str(file)],
        cwd=ROOT,
        env={"MYPYPATH": str(ROOT / "src"), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.long
def test_a_users_file_passes(cache: Path) -> None:
    result = mypy(TYPED_USER, cache)
    assert (result.returncode, result.stdout) == (0, ""), result.stdout + result.stderr


@pytest.mark.long
def test_a_users_mistakes_do_not(cache: Path, tmp_path: Path) -> None:
    source = TYPED_USER.read_text()
    for right, (wrong, _) in MISTAKES.items():
        assert source.count(right) == 1, right
        source = source.replace(right, wrong)
    file = tmp_path / "mistaken_user.py"
    file.write_text(source)
    found = mypy(file, cache).stdout
    for _, message in MISTAKES.values():
        assert message in found, found
