"""Builds the tree of commands, and runs one of them with the library's log on stderr."""

import functools
import inspect
import logging
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass
from importlib import metadata
from typing import Annotated, Any

import anyio
import typer
from stamina.instrumentation import RetryDetails, RetryHook, set_on_retry_hooks

from ..errors import ReliableImportsError
from . import change, embedded, import_file, migrate, repair, serve, show, worker
from .exit_codes import report
from .invocation import Invocation
from .options import global_options
from .output import LogHandler, Output, ReaderGone

NAME = "reliable-imports"
EPILOG = (
    "Exit codes: 0 completed, 1 some items failed, 2 usage error, 3 database unavailable, "
    "4 stopped, paused or cancelled, or another batch is running, 5 no records in the file."
)

Command = Callable[..., Awaitable[int | None] | Awaitable[None]]

COMMANDS: dict[str, Command] = {
    "import": import_file.import_file,
    "process": import_file.process,
    "worker": worker.worker,
    "failures": repair.failures,
    "edit": repair.edit,
    "reprocess": repair.reprocess,
    "list": show.list_batches,
    "show": show.show,
    "items": show.items,
    "item": show.item,
    "logs": show.logs,
    "types": show.types,
    "pause": change.pause,
    "resume": change.resume,
    "cancel": change.cancel,
    "purge": change.purge,
    "serve": serve.serve,
    "api-key": serve.api_key,
    "migrate": migrate.migrate,
}
DATABASE_COMMANDS: dict[str, Command] = {
    "start": embedded.start,
    "stop": embedded.stop,
    "psql": embedded.psql,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    output = Output(json="--json" in given)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _app(output)(given or ["--help"], prog_name=NAME, standalone_mode=False)
        output.flush()
    except ReaderGone:
        return 0
    except (Exception, KeyboardInterrupt) as exc:  # noqa: BLE001 - the outermost caller
        return report(exc, output)
    return code or 0


def _app(output: Output) -> typer.Typer:
    """Build the tree of commands."""
    app = typer.Typer(name=NAME, epilog=EPILOG)
    app.callback()(_with_global_options(_start, output))
    database = typer.Typer()
    for name, command in COMMANDS.items():
        app.command(name)(_as_typer_command(command, output))
    for name, command in DATABASE_COMMANDS.items():
        database.command(name)(_as_typer_command(command, output))
    app.add_typer(database, name="db", help="The embedded PostgreSQL, for developers.")
    return app


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it
    if wanted:
        typer.echo(f"{NAME} {metadata.version('reliable-imports-async')}")
        raise typer.Exit


def _start(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_show_version,
            is_eager=True,
            help="Show the version and exit.",
        ),
    ] = False,
) -> None:
    """Import CSV and JSON into PostgreSQL so that every row is imported exactly once."""


def _as_typer_command(command: Command, output: Output) -> Callable[..., None]:
    """Wrap a command for typer: synchronous, with the global options, without `cli`."""

    def run(arguments: dict[str, Any], options: dict[str, Any]) -> None:
        cli = Invocation(options, output)
        code = anyio.run(
            functools.partial(command, cli, **arguments),
            backend_options={"use_uvloop": sys.platform != "win32"},
        )
        raise typer.Exit(code or 0)

    return _with_global_options(command, output, run)


def _with_global_options(
    function: Callable[..., Any],
    output: Output,
    run: Callable[[dict[str, Any], dict[str, Any]], None] | None = None,
) -> Callable[..., None]:
    """Add the global options to a function's own; they count before the command's name as well."""
    own, groups = _own_options(function)
    shared = _parameters(global_options)
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)

    @functools.wraps(function)
    def wrapped(context: typer.Context, **arguments: Any) -> None:
        before = context.obj or {}
        options = {
            option.name: arguments.pop(option.name) or before.get(option.name) for option in shared
        }
        context.obj = options
        for name, group in groups.items():
            values = {option.name: arguments.pop(option.name) for option in _parameters(group)}
            arguments[name] = group(**values)
        if run is not None:
            for name in ("json", "quiet", "verbose"):
                setattr(output, name, bool(options[name]))
            with _logging(output):
                run(arguments, options)

    wrapped.__signature__ = inspect.Signature([context, *own, *shared])  # type: ignore[attr-defined]
    return wrapped


def _own_options(
    function: Callable[..., Any],
) -> tuple[list[inspect.Parameter], dict[str, type[Any]]]:
    """The options of a command, and the groups of options by the parameter that takes them."""
    own: list[inspect.Parameter] = []
    groups: dict[str, type[Any]] = {}
    for parameter in _parameters(function):
        if is_dataclass(parameter.annotation) and isinstance(parameter.annotation, type):
            groups[parameter.name] = parameter.annotation
            own += _parameters(parameter.annotation)
        elif parameter.name != "cli":
            own.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    return own, groups


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(function, eval_str=True).parameters.values())


@contextmanager
def _logging(output: Output) -> Iterator[None]:
    """Show the library's log on stderr while a command runs."""
    logger, handler = logging.getLogger("reliable_imports_async"), LogHandler(output)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if output.verbose else logging.WARNING)
    set_on_retry_hooks([_retry_reporter(logger, output)])
    try:
        yield
    finally:
        set_on_retry_hooks(None)
        logger.removeHandler(handler)
        logger.setLevel(level)


def _retry_reporter(logger: logging.Logger, output: Output) -> RetryHook:
    """Log each reason for waiting once, not once for each retry."""
    reported: set[str] = set()

    def report_retry(details: RetryDetails) -> None:
        exc = details.caused_by
        text = exc.message if isinstance(exc, ReliableImportsError) else str(exc)
        reason = output.redact(text) or type(exc).__name__
        if reason not in reported:
            reported.add(reason)
            logger.warning("waiting for the database: %s", reason)

    return report_retry
