"""Where words go: results to stdout, everything else to stderr."""

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
STEPS = "reliable_imports_async.worker"  # the logger of what a worker does, batch by batch


class ReaderGone(Exception):
    """Nobody reads stdout any more, as in ``reliable-imports logs latest | head``."""


class _Console(Console):
    """Shows strings as they are: no markup, no emoji codes, nothing from records interpreted."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)
        if not self.is_terminal and "COLUMNS" not in os.environ:
            self.width = PIPED_WIDTH

    def on_broken_pipe(self) -> NoReturn:
        """Carry on without a reader."""
        _reader_gone()


@dataclass
class Output:
    """The two streams of the command, and how much is said on them.

    Attributes:
        json: Results are JSON objects, one a line.
        quiet: No progress and no notes.
        verbose: Also what is informative only.
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
        """A result as one line of JSON."""
        self.write(json_text(value).encode() + b"\n")

    def write(self, data: bytes) -> None:
        """A result as it is."""
        try:
            sys.stdout.buffer.write(data)
        except BrokenPipeError:
            _reader_gone()

    def show(self, *renderables: RenderableType) -> None:
        """A result for people."""
        for one in renderables:
            self.result.print(one)

    def lines(self, texts: Iterable[Text]) -> None:
        """Results that a terminal may wrap but nobody cuts."""
        for one in texts:
            self.result.print(one, soft_wrap=True)

    def note(self, text: str, style: str = "") -> None:
        """Something worth knowing that is no result."""
        if not (self.quiet or self.json):
            self.notes.print(Text(self.redact(plain(text)), style), soft_wrap=True)

    def error(self, exc: ReliableImportsError, code: int) -> None:
        """What went wrong and what to do: for people, or as one JSON object."""
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
        """Write out what is buffered."""
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            _reader_gone()


class LogHandler(logging.Handler):
    """Shows the library's own log: warnings and errors; a worker's steps; all with --verbose.

    What a processor logs about an item is stored and shown by `logs`; it would drown the rest.
    """

    def __init__(self, output: Output) -> None:
        super().__init__(logging.INFO)
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        """Show one record."""
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
        os.dup2(nothing.fileno(), sys.stdout.fileno())  # what is still buffered goes nowhere
    raise ReaderGone
