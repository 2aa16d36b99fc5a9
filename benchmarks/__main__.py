"""The one entry to all benchmarks: `make bench NAME=…`, or ``python -m benchmarks NAME [options]``.

An option may be written as make writes its variables: ``ROUNDS=3`` for ``--rounds=3``.
"""

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer

DEFAULT = "engine"
LISTING = ("list", "help", "--help", "-h")


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark.

    Attributes:
        module: The module of this package whose `main` runs it.
        summary: One line for the list.
        given: Options that it always has.
    """

    module: str
    summary: str
    given: tuple[str, ...] = ()

    @property
    def main(self) -> Callable[..., Any]:
        """What runs it; imported only now, because some need optional packages."""
        main: Callable[..., Any] = import_module(f"benchmarks.{self.module}").main
        return main


BENCHMARKS = {
    DEFAULT: Benchmark(
        "engine", "the three modes next to a hand-written loop and other libraries (the default)"
    ),
    "compare": Benchmark(
        "compare", "the three modes, this tree next to an earlier commit (BASE=…)"
    ),
    "limit": Benchmark(
        "engine", "the machine's limit: pgbench next to the loop", ("--contenders=pgbench (limit)",)
    ),
    "bulk": Benchmark(
        "bulk", "a CSV file into a table: next to a bare COPY and to a script with the same model"
    ),
    "creation": Benchmark("creation", "creating a batch next to a bare COPY of the same rows"),
    "million": Benchmark(
        "million", "a million rows: cost of an item, memory, summaries (MODE=item|interval|set)"
    ),
    "scaling": Benchmark("scaling", "one batch, drained in process and by 1, 2 and 4 workers"),
    "hot_rows": Benchmark(
        "hot_rows", "items that update a few rows: adaptive concurrency next to fixed numbers"
    ),
    "reprocess": Benchmark("reprocess", "the first of 100,000 failures of ten million items"),
    "unchanged": Benchmark("unchanged", "a file imported twice; the second time nothing changed"),
    "api": Benchmark("api", "the REST API next to bare endpoints with the same SQL"),
    "upload": Benchmark("upload", "a 1 GB upload, and the memory that the server takes for it"),
    "dashboard": Benchmark(
        "big_dashboard", "every page with ten million items; needs 8 GB of disk"
    ),
}


def run(arguments: Sequence[str]) -> None:
    """Run the benchmark that the first argument names, or list all."""
    name, *options = arguments or [DEFAULT]
    if name in LISTING:
        print(listing())
        return
    if "=" in name or name.startswith("-"):
        name, options = DEFAULT, list(arguments)
    if name not in BENCHMARKS:
        sys.exit(f"There is no benchmark {name!r}.\n\n{listing()}")
    benchmark = BENCHMARKS[name]
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=help_of(benchmark.main))(benchmark.main)
    spelled = [as_option(benchmark.main, option) for option in options]
    app(args=[*benchmark.given, *spelled], prog_name=f"python -m benchmarks {name}")


def listing() -> str:
    """The names with one line each."""
    lines = [f"  {name:10} {each.summary}" for name, each in BENCHMARKS.items()]
    usage = "make bench NAME=engine ROUNDS=5; options: python -m benchmarks NAME --help"
    return "\n".join(["Benchmarks:", *lines, "", usage])


def help_of(main: Callable[..., Any]) -> str:
    """Its docstring, with the lines about its options left as they are."""
    return inspect.cleandoc(main.__doc__ or "").replace("Args:", "\b\nOptions:")


def as_option(main: Callable[..., Any], argument: str) -> str:
    """``ROUNDS=3`` as ``--rounds=3``, and ``PEERS=0`` as ``--no-peers``; others as they are."""
    variable, equals, value = argument.partition("=")
    if not equals or not variable.isupper():
        return argument
    option = variable.lower().replace("_", "-")
    parameter = inspect.signature(main).parameters.get(variable.lower())
    if parameter is not None and parameter.annotation is bool:
        return f"--{option}" if value not in ("", "0", "no", "false") else f"--no-{option}"
    return f"--{option}={value}"


if __name__ == "__main__":
    run(sys.argv[1:])
