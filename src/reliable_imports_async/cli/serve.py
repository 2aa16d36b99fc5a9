"""serve, api-key: starting the REST API, and making keys for it."""

from typing import Annotated

import typer

from ..manager import BatchManager
from ..web.api_manager import APIManager
from ..web.http.authentication import hash_of, new_api_key
from .invocation import Invocation, make_working_directory_importable

Host = Annotated[str, typer.Option("--host", metavar="ADDRESS", help="The address to listen on.")]
Port = Annotated[int, typer.Option("--port", min=1, max=65_535, help="The port to listen on.")]
Anonymous = Annotated[
    bool,
    typer.Option(
        "--allow-anonymous",
        help="Serve without authentication: anyone who can reach the address has full access.",
    ),
]
NoWorker = Annotated[
    bool,
    typer.Option("--no-worker", help="Leave background batches to `reliable-imports worker`."),
]
KeyName = Annotated[str, typer.Argument(metavar="NAME", help="The name of the key's user.")]


async def serve(
    cli: Invocation,
    *,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    allow_anonymous: Anonymous = False,
    no_worker: NoWorker = False,
) -> None:
    """Serve the REST API until Ctrl-C, and process batches in the background."""
    settings = cli.settings()
    make_working_directory_importable()
    api = APIManager(BatchManager(settings=settings), worker=not no_worker)
    await api.serve(host, port, allow_anonymous=allow_anonymous)


async def api_key(cli: Invocation, *, name: KeyName) -> None:
    """Create an API key: the key for its user, and its hash for the server's settings."""
    key = new_api_key()
    entry = f"{name}:{hash_of(key)}"
    if cli.output.json:
        cli.output.record({"name": name, "key": key, "entry": entry})
        return
    cli.output.show(f"Key of {name}, shown only once: {key}")
    cli.output.show(f"RELIABLE_IMPORTS_API_KEYS={entry}")
