"""The command's streams: results go to stdout, everything else to stderr."""

import logging
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NoReturn

from rich.console import Console, RenderableType
from rich.text import Text

from ..errors import ReliableImportsError
from ..sanitize import Redact, redact_patterns
from .formatting import json_text, plain

PIPED_WIDTH = 160
STEPS = "reliable_imports_async.worker"  # the logger of a worker's steps, batch by batch


class ReaderGone(Exception):
    """The reader of stdout has gone, as in ``reliable-imports logs latest | head``."""


class _Console(Console):
    """Prints text literally: no markup and no emoji codes, so that records cannot style it."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)
        if not self.is_terminal and "COLUMNS" not in os.environ:
            self.width = PIPED_WIDTH

    def on_broken_pipe(self) -> NoReturn:
        """Raise ReaderGone."""
        _reader_gone()


@dataclass
class Output:
    """The command's two streams and its verbosity.

    Attributes:
        json: Results are JSON objects, one per line.
        quiet: No progress and no notes.
        verbose: Informative log lines too.
    """

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    redact: Redact = redact_patterns
    result: Console = field(default_factory=_Console)
    notes: Console = field(default_factory=lambda: _Console(stderr=True))

    @property
    def animated(self) -> bool:
        """Whether a progress bar may be drawn."""
        return self.notes.is_terminal and not (self.json or self.quiet)

    def record(self, value: object) -> None:
        """Write a result as one line of JSON."""
        self.write(json_text(value).encode() + b"\n")

    def write(self, data: bytes) -> None:
        """Write the bytes of a result."""
        try:
            sys.stdout.buffer.write(data)
        except BrokenPipeError:
            _reader_gone()

    def show(self, *renderables: RenderableType) -> None:
        """Print a result for people."""
        for renderable in renderables:
            self.result.print(renderable)

    def lines(self, texts: Iterable[Text]) -> None:
        """Print results whose long lines are wrapped by the terminal, never cut."""
        for text in texts:
            self.result.print(text, soft_wrap=True)

    def note(self, text: str, style: str = "") -> None:
        """Print a note to stderr, unless the user wants none."""
        if not (self.quiet or self.json):
            self.notes.print(Text(self.redact(plain(text)), style), soft_wrap=True)

    def error(self, exc: ReliableImportsError, code: int) -> None:
        """Print an error and its hint to stderr, as text or as one JSON object."""
        name = type(exc).__name__
        if self.json:
            values = {
                "error": name,
                "message": exc.message,
                "hint": exc.cli_hint,
                "exit_code": code,
            }
            sys.stderr.write(json_text(values, self.redact) + "\n")
            return
        mark = ("Stopped. ", "bold yellow") if name == "Stopped" else ("Error: ", "bold red")
        text = Text.assemble(mark, self.redact(plain(exc.message)))
        if exc.cli_hint:
            text.append("\nHint: ", "bold cyan").append(self.redact(plain(exc.cli_hint)))
        self.notes.print(text, soft_wrap=True)

    def flush(self) -> None:
        """Flush stdout."""
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            _reader_gone()


class LogHandler(logging.Handler):
    """Shows the library's log: warnings, errors and a worker's steps; all of it with --verbose.

    Log lines about an item are left out unless --verbose is given: `logs` shows them.
    """

    def __init__(self, output: Output) -> None:
        super().__init__(logging.INFO)
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        """Print one log record."""
        of_an_item = getattr(record, "item_number", None) is not None
        if of_an_item and not self._output.verbose:
            return
        if record.name == STEPS:
            moment = datetime.fromtimestamp(record.created).astimezone()
            self._output.note(f"{moment:%H:%M:%S} {record.getMessage()}")
            return
        style = "yellow" if record.levelno >= logging.WARNING else "dim"
        self._output.note(f"{record.levelname.lower()}: {record.getMessage()}", style)


def _reader_gone() -> NoReturn:
    with open(os.devnull, "wb") as nothing:  # noqa: PTH123 - a device
        os.dup2(nothing.fileno(), sys.stdout.fileno())  # discards what is still buffered
    raise ReaderGone
