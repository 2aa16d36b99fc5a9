"""db start, stop, psql: the embedded PostgreSQL, which runs as long as a process uses it."""

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

DATABASE = "imports"  # the default of BatchManager.embedded()

Directory = Annotated[
    Path | None,
    typer.Option("--directory", metavar="PATH", help="The server's folder.", show_default=False),
]
DatabaseName = Annotated[
    str | None,
    typer.Argument(metavar="[DATABASE]", help="Created if missing.", show_default=DATABASE),
]


async def start(
    cli: Invocation, *, database: DatabaseName = None, directory: Directory = None
) -> None:
    """Start the server if it is not running, and keep it running until Ctrl-C."""
    server, name = _server(cli, directory, database)
    async with server:
        url = await server.ensure_database(name)
        if cli.output.json:
            cli.output.record({"url": url, "directory": server.directory, "log": server.log_file})
        else:
            cli.output.lines([cli.output.result.render_str(url)])
            cli.output.note(f"The server runs until Ctrl-C. Its data: {server.directory}", "dim")
        cli.output.flush()
        await until_stopped(cli.output)
    _report_state(cli, server)


async def stop(cli: Invocation, *, directory: Directory = None) -> None:
    """Stop the server, unless another process uses it."""
    server, _ = _server(cli, directory, None)
    if not _runs(server):
        _report(cli, "The server is not running.", running=False)
        return
    async with server:  # the last user stops it, even if an earlier user crashed
        pass
    _report_state(cli, server)


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
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # psql handles Ctrl-C
        try:
            return await process.wait()
        finally:
            signal.signal(signal.SIGINT, before)


def _server(
    cli: Invocation, directory: Path | None, database: str | None
) -> tuple[EmbeddedServer, str]:
    """The server and the database to use; an `embedded:` URL in the settings gives the defaults."""
    secret = cli.settings(discover=False).database_url
    url = secret.get_secret_value() if secret else ""
    if is_embedded_url(url):
        configured, place = parse_embedded_url(url)
        return EmbeddedServer(directory or place), database or configured
    return EmbeddedServer(directory), database or DATABASE


def _runs(server: EmbeddedServer) -> bool:
    return os.path.lexists(server.directory / "data" / "postmaster.pid")


def _report_state(cli: Invocation, server: EmbeddedServer) -> None:
    if _runs(server):
        text = "Other processes still use the server; it stops when the last of them ends."
        _report(cli, text, running=True)
    else:
        _report(cli, "The server has stopped.", running=False)


def _report(cli: Invocation, text: str, *, running: bool) -> None:
    if cli.output.json:
        cli.output.record({"running": running})
    else:
        cli.output.note(text)
