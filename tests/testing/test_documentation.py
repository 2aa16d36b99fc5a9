"""docs/testing.md is run as it stands, by a pytest of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from reliable_imports_async import BaseProcessor, FailureKind, Retry, Skip
from reliable_imports_async.errors import ConfigurationError
from reliable_imports_async.outcomes import Failed, Postponed
from reliable_imports_async.testing import run_item

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_the_documentation_runs(tmp_path, server):
    text = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    (tmp_path / "test_documented.py").write_text("\n\n".join(blocks), encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n", encoding="utf-8")
    environment = {**os.environ, "RELIABLE_IMPORTS_TEST_DATABASE_URL": server("postgres")}
    without = [f"-pno:{name}" for name in ("cacheprovider", "schemathesis", "hypothesispytest")]
    command = [sys.executable, "-m", "pytest", "-q", *without, str(tmp_path)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert "5 passed" in done.stdout, done.stdout + done.stderr


class OddProcessor(BaseProcessor):
    async def process_item(self, item, ctx):
        await ctx.execute("CREATE TABLE IF NOT EXISTS trace (n integer)")
        match item.source_data["do"]:
            case "skip":
                return Skip("unchanged")
            case "retry":
                raise Retry("429", after=3)
            case "unknown key":
                return {"id": 1}
            case "raise":
                raise ValueError("no")


async def test_outcomes(conn: asyncpg.Connection):
    async with conn.transaction():
        assert await run_item(OddProcessor, {"do": "skip"}, conn=conn) == Skip("unchanged")
        postponed = await run_item(OddProcessor(), {"do": "retry"}, conn=conn)
        assert isinstance(postponed, Postponed)
        assert postponed.after == 3
        last = await run_item(OddProcessor, {"do": "retry"}, conn=conn, attempts=4)
        assert isinstance(last, Failed)
        for do in ("unknown key", "raise"):
            failed = await run_item(OddProcessor, {"do": do}, conn=conn)
            assert isinstance(failed, Failed)
            assert failed.failure.kind is FailureKind.EXCEPTION


async def test_a_transaction_is_needed(conn: asyncpg.Connection):
    with pytest.raises(ConfigurationError, match="inside a transaction"):
        await run_item(OddProcessor, {"do": "skip"}, conn=conn)
