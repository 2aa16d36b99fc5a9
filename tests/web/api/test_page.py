"""docs/REST_API.md: every endpoint is on it, and every command on it runs."""

import asyncio
import re
import shutil
import signal
import socket
import sys
from pathlib import Path

import httpx
import pytest

from reliable_imports_async import BaseEndpoint

from ...support.trying import PATIENCE
from ..reach import OPERATIONS

PAGE = (Path(__file__).parents[3] / "docs" / "REST_API.md").read_text(encoding="utf-8")
COMMANDS = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL))
CONFLICTS = ("/cancel", "/session")  # which the page says are 409


def test_every_endpoint_is_called():
    for one in OPERATIONS:
        if not one.hidden:
            path = one.path.replace("/api/batches/{batch_id:uuid}", "BATCH")
            path = path.replace("{item_number:number}", "2")
            pattern = rf"\$API({re.escape(path)})[\"?]".replace("BATCH", r"(?:\$BATCH|\$CREATED)")
            assert re.search(pattern, COMMANDS), path


def test_every_hook_is_described():
    hooks = {name for name in vars(BaseEndpoint) if not name.startswith("_")}
    for name in hooks - {"overrides", "batch_type"}:
        assert f"| `{name}(" in PAGE, name


@pytest.mark.long
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_every_command_runs(dsn, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = f"from examples.api_example import api; api({dsn!r}).run(port={port}, log_level='error')"
    server = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    try:
        await _until_it_answers(f"http://127.0.0.1:{port}/health")
        # Each command says the status of its answer behind a line of its own.
        script = COMMANDS.replace("curl -s", r"curl -s -w '\n=%{http_code} %{url}\n'")
        shell = await asyncio.create_subprocess_exec(
            "bash",
            "-euo",
            "pipefail",
            "-c",
            script,
            cwd=tmp_path,
            env={"API": f"http://127.0.0.1:{port}", "PATH": "/usr/bin:/bin"},
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await asyncio.wait_for(shell.communicate(), 120)
    finally:
        server.send_signal(signal.SIGTERM)
        await server.wait()
    answers = re.findall(r"^=(\d+) (\S+)$", output.decode(), re.MULTILINE)
    assert shell.returncode == 0, output.decode()
    assert len(answers) >= len(re.findall("curl -s", COMMANDS)) - 3  # those into files are silent
    for status, url in answers:
        assert int(status) < 400 or (status == "409" and url.endswith(CONFLICTS)), (status, url)


async def _until_it_answers(url):
    async with asyncio.timeout(PATIENCE), httpx.AsyncClient() as client:
        while True:
            try:
                if (await client.get(url)).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)
