"""db start, stop, psql: the embedded PostgreSQL. It runs for as long as somebody uses it."""

import os
import shutil
import signal
from pathlib import Path
from typing import Annotated

import anyio
import typer

from ..database.embedded import EmbeddedServer, is_embedded_url, parse_embedded_url
from ..errors import ConfigurationError
from .invocation import Invocation
from .signals import until_stopped

DATABASE = "imports"  # as BatchManager.embedded() has it

Directory = Annotated[
    Path | None,
    typer.Option("--directory", metavar="PATH", help="Where the server lives.", show_default=False),
]
DatabaseName = Annotated[
    str | None,
    typer.Argument(metavar="[DATABASE]", help="Created if missing.", show_default=DATABASE),
]


async def start(
    cli: Invocation, *, database: DatabaseName = None, directory: Directory = None
) -> None:
    """Start the server, or join it, and keep it running until Ctrl-C."""
    server, name = _server(cli, directory, database)
    async with server:
        url = await server.ensure_database(name)
        if cli.output.json:
            cli.output.record({"url": url, "directory": server.directory, "log": server.log_file})
        else:
            cli.output.lines([cli.output.result.render_str(url)])
            cli.output.note(f"It runs until Ctrl-C. Data: {server.directory}", "dim")
        cli.output.flush()
        await until_stopped(cli.output)
    _say_what_is_left(cli, server)


async def stop(cli: Invocation, *, directory: Directory = None) -> None:
    """Stop the server if nobody uses it. Each process that uses it keeps it running."""
    server, _ = _server(cli, directory, None)
    if not _runs(server):
        _say(cli, "It does not run.", running=False)
        return
    async with server:  # the last one to leave stops it, also one that nobody had left properly
        pass
    _say_what_is_left(cli, server)


async def psql(
    cli: Invocation, *, database: DatabaseName = None, directory: Directory = None
) -> int:
    """Open psql on the server."""
    program = shutil.which("psql")
    if program is None:
        raise ConfigurationError(
            "psql is not on the PATH.",
            hint="install the PostgreSQL client, e.g. postgresql-client.",
        )
    server, name = _server(cli, directory, database)
    async with server:
        url = await server.ensure_database(name)
        process = await anyio.open_process([program, url], stdin=None, stdout=None, stderr=None)
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for psql
        try:
            return await process.wait()
        finally:
            signal.signal(signal.SIGINT, before)


def _server(
    cli: Invocation, directory: Path | None, database: str | None
) -> tuple[EmbeddedServer, str]:
    """The server and the database that the setting names, where it is about the embedded server."""
    secret = cli.settings(discover=False).database_url
    url = secret.get_secret_value() if secret else ""
    if is_embedded_url(url):
        configured, place = parse_embedded_url(url)
        return EmbeddedServer(directory or place), database or configured
    return EmbeddedServer(directory), database or DATABASE


def _runs(server: EmbeddedServer) -> bool:
    return os.path.lexists(server.directory / "data" / "postmaster.pid")


def _say_what_is_left(cli: Invocation, server: EmbeddedServer) -> None:
    if _runs(server):
        _say(cli, "Others use it, so it goes on; it stops with the last of them.", running=True)
    else:
        _say(cli, "It is stopped.", running=False)


def _say(cli: Invocation, text: str, *, running: bool) -> None:
    if cli.output.json:
        cli.output.record({"running": running})
    else:
        cli.output.note(text)
