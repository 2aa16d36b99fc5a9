"""The API keeps to its own document, whatever is sent: no 5xx, no answer it does not describe.

``EXAMPLES=500 python -m pytest tests/web/api/test_contract.py`` looks longer (``make fuzz``).
"""

import asyncio
import os
import re
import signal
import socket
import sys
from pathlib import Path

import asyncpg
import httpx
import pytest
import pytest_asyncio
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from ...support.trying import PATIENCE
from ..reach import OPERATIONS, CreateBatch

FEW = 8
EXAMPLES = int(os.environ.get("EXAMPLES", FEW))
SEED = ("--seed", "1") if EXAMPLES == FEW else ()


def _name(operation):
    return operation.handler.__name__


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def served(server, template):
    """The API in a process of its own: its threads would disturb hypothesis."""
    name = f"{template}_contract"
    admin = await asyncpg.connect(server("postgres"))
    await admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.web.api.api_server", server(name), str(port)
    )
    url = f"http://127.0.0.1:{port}"
    async with asyncio.timeout(PATIENCE), httpx.AsyncClient() as client:
        while not await _answers(client, f"{url}/health"):
            await asyncio.sleep(0.05)
    yield url
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == -signal.SIGTERM  # uvicorn stops in order, then as it was told
    await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    await admin.close()


async def _answers(client, url):
    try:
        return (await client.get(url)).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def schema_of_the_api(served):
    return schemathesis.openapi.from_url(f"{served}/openapi.json")


DESCRIBED = [
    (one, mode)
    for one in OPERATIONS
    for mode in GenerationMode
    if not one.hidden
    # Where nothing is sent, nothing of it can be wrong.
    and (mode is GenerationMode.POSITIVE or one.query or one.body or "{" in one.path)
]


@pytest.mark.parametrize(
    ("operation", "mode"),
    DESCRIBED,
    ids=[f"{_name(one)}-{mode.value}" for one, mode in DESCRIBED],
)
def test_it_answers_as_described(schema_of_the_api, operation, mode):
    path = re.sub(r":\w+}", "}", operation.path)
    # Which bytes are a readable file, and what `strict` refuses, no JSON schema can say.
    judged = operation.takes_file or operation.body is CreateBatch
    excluded = [positive_data_acceptance] if judged else []
    # What does not fit is refused or understood all the same ("1" is a number in a query).
    excluded += [negative_data_rejection]
    described = schema_of_the_api[path][operation.method]

    @given(case=described.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=EXAMPLES == FEW,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def look(case):
        case.call_and_validate(excluded_checks=excluded)

    look()


@pytest.mark.timeout(60 + 60 * EXAMPLES)
@pytest.mark.long
async def test_all_phases_find_nothing(served, tmp_path):
    """Examples, every boundary of every parameter, generated requests, and chains of operations."""
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("schemathesis")), "run", f"{served}/openapi.json",
        "--phases", "examples,coverage,fuzzing,stateful", "--max-examples", str(EXAMPLES),
        "--generation-database", "none", "--suppress-health-check", "all",
        "--exclude-checks", "positive_data_acceptance,negative_data_rejection", *SEED,
        cwd=tmp_path,  # where it would leave a report
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    print(output.decode())
