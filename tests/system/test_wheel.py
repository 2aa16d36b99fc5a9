"""What users install: the wheel is complete, and works far away from the repository."""

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

pytestmark = pytest.mark.long

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "src" / "reliable_imports_async"

SMOKE = """
import asyncio, sys
import reliable_imports_async as ri

class WordProcessor(ri.BaseProcessor):
    async def process_item(self, item, ctx):
        assert len(item.source_data["word"]) < 6, "too long"

async def main(url):
    applied = await ri.BatchManager(url).migrate()
    async with ri.BatchManager(url) as manager:
        manager.registry.register(WordProcessor)
        batch_id = await manager.create_batch("word", [{"word": "short"}, {"word": "longer"}])
        summary = await manager.process_batch(batch_id)
        print(len(applied), summary.status, summary.completed_items, summary.failed_items)

print(ri.__file__)
asyncio.run(main(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    options = ["--wheel", "--no-isolation", "--outdir", directory]
    run([sys.executable, "-m", "build", *options, REPOSITORY], directory)
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has nothing but the wheel and what it requires."""
    environment = tmp_path_factory.mktemp("installed") / "venv"
    run([sys.executable, "-m", "venv", "--without-pip", environment], environment.parent)
    pip = [sys.executable, "-m", "pip", "--python", environment / "bin" / "python"]
    run([*pip, "install", "--quiet", "--no-compile", f"{wheel}[embedded]"], environment.parent)
    return environment / "bin"


def test_the_wheel_has_every_file_of_the_package_and_no_other(wheel: Path) -> None:
    written = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    migrations = {f"migrations/{path.name}" for path in (REPOSITORY / "migrations").glob("*.sql")}
    packed = set(ZipFile(wheel).namelist())

    assert {name for name in packed if ".dist-info/" not in name} == {
        f"{PACKAGE.name}/{name}" for name in written | migrations
    }
    assert {"py.typed", "store/sql/items.sql"} <= written
    assert "migrations/0001_tables.sql" in migrations
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in packed)


def test_the_installed_package_migrates_and_imports(installed: Path, empty_dsn: str) -> None:
    output = run([installed / "python", "-I", "-c", SMOKE, empty_dsn], installed.parent)

    place, result = output.splitlines()
    assert Path(place).is_relative_to(installed.parent)
    migrations = len(list((REPOSITORY / "migrations").glob("*.sql")))
    assert result == f"{migrations} partial 1 1"


def test_the_installed_command_explains_itself(installed: Path) -> None:
    assert "migrate" in run([installed / "reliable-imports", "--help"], installed.parent)
    module = [installed / "python", "-I", "-m", "reliable_imports_async", "--help"]
    assert "migrate" in run(module, installed.parent)


def run(command: list[str | Path], directory: Path) -> str:
    """What a program prints when it runs in a directory, without settings of ours."""
    ours = ("RELIABLE_IMPORTS_", "PYTHON", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
