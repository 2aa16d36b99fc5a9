"""serve, api-key: the REST API from a terminal."""

from typing import Annotated

import typer

from ..manager import BatchManager
from ..web.api_manager import APIManager
from ..web.http.authentication import hash_of, new_api_key
from .invocation import Invocation, make_working_directory_importable

Host = Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Where to listen.")]
Port = Annotated[int, typer.Option("--port", min=1, max=65_535, help="The port.")]
Anonymous = Annotated[
    bool,
    typer.Option("--allow-anonymous", help="Let everybody in who can reach the address."),
]
NoWorker = Annotated[
    bool, typer.Option("--no-worker", help="Leave background work to `reliable-imports worker`.")
]
KeyName = Annotated[str, typer.Argument(metavar="NAME", help="Who will use the key.")]


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
    """Make an API key: the key for whoever uses it, its hash for the server's settings."""
    key = new_api_key()
    entry = f"{name}:{hash_of(key)}"
    if cli.output.json:
        cli.output.record({"name": name, "key": key, "entry": entry})
        return
    cli.output.show(f"Key of {name}, shown only now: {key}")
    cli.output.show(f"RELIABLE_IMPORTS_API_KEYS={entry}")
