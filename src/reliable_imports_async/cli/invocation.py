"""One call of the command: its global options, its output, and the manager it works with."""

import getpass
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import typer
from pydantic import SecretStr

from ..errors import ConfigurationError
from ..manager import BatchManager
from ..sanitize import password_of, redactor
from ..settings import Settings, unknown_variables
from .exit_codes import Stopped, UsageRefused
from .output import Output


class Invocation:
    """What every command is given.

    Attributes:
        output: Where results and notes go.
        actor: Who is at the keyboard, for the log.
    """

    def __init__(self, options: Mapping[str, Any], output: Output) -> None:
        self.output = output
        self.actor = _user()
        self._processors: list[str] | None = options["processors"]
        self._url_file: Path | None = options["database_url_file"]

    def settings(
        self, *, url: str | None = None, concurrency: int | None = None, discover: bool = True
    ) -> Settings:
        """The settings of the environment, with what the command line says.

        Args:
            url: The database, where a command names it itself.
            concurrency: Items at once.
            discover: False leaves the processors alone: a broken one must not hide what it did.
        """
        self._note_unknown_variables()
        url = url or self._url_from_file()
        settings = Settings.from_environment(
            database_url=None if url is None else SecretStr(url),
            concurrency=concurrency,
            processors=self._packages(),
        )
        secret = settings.database_url
        password = password_of(secret.get_secret_value()) if secret else None
        self.output.redact = redactor([password] if password else [])
        return settings if discover else settings.model_copy(update={"processors": ()})

    @asynccontextmanager
    async def manager(
        self, *, concurrency: int | None = None, discover: bool = False
    ) -> AsyncIterator[BatchManager]:
        """An open manager."""
        settings = self.settings(concurrency=concurrency, discover=discover)
        if discover:
            make_working_directory_importable()
        async with BatchManager(settings=settings) as manager:
            yield manager

    @property
    def repeated(self) -> str:
        """What a next command must repeat of this one's global options, to be put behind it."""
        packages = self._packages()
        return f" --processors {','.join(packages)}" if packages else ""

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask before something that cannot be undone or was never meant.

        Raises:
            UsageRefused: There is nobody to ask.
            Stopped: The answer is no.
        """
        if yes:
            return
        if not sys.stdin.isatty():
            raise UsageRefused(
                f"This needs a confirmation, and there is no terminal to ask on: {question}",
                hint="pass --yes to confirm.",
            )
        if not typer.confirm(question, err=True):
            raise Stopped("Nothing was changed.")

    def _note_unknown_variables(self) -> None:
        for name, meant in unknown_variables(os.environ).items():
            perhaps = f" Perhaps meant: {meant}." if meant else ""
            self.output.note(f"There is no setting {name}; the variable has no effect.{perhaps}")

    def _packages(self) -> tuple[str, ...] | None:
        if self._processors is None:
            return None
        names = [name.strip() for given in self._processors for name in given.split(",")]
        return tuple(name for name in names if name)

    def _url_from_file(self) -> str | None:
        if self._url_file is None:
            return None
        try:
            url = self._url_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigurationError(f"{self._url_file} cannot be read: {exc}") from None
        if not url or "\n" in url:
            raise ConfigurationError(
                f"{self._url_file} does not hold one database URL.",
                hint="write one line: postgresql://user:password@host:5432/database",
            )
        return url


def make_working_directory_importable() -> None:
    """As `python -m` does, so that --processors finds the project one stands in."""
    here = str(Path.cwd())
    if not sys.flags.safe_path and here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return os.environ.get("USERNAME") or "cli"
