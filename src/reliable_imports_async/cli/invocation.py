"""One invocation of the command: its global options, its output and its manager."""

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
    """The context that every command receives.

    Attributes:
        output: The streams for results and notes.
        actor: The user of the operating system, for the batch's log.
    """

    def __init__(self, options: Mapping[str, Any], output: Output) -> None:
        self.output = output
        self.actor = _user()
        self._processors: list[str] | None = options["processors"]
        self._url_file: Path | None = options["database_url_file"]

    def settings(
        self, *, url: str | None = None, concurrency: int | None = None, discover: bool = True
    ) -> Settings:
        """The settings of the environment, overridden by the command line.

        Args:
            url: The database, if the command takes it as an argument of its own.
            concurrency: How many items run at once.
            discover: False imports no processors, so that the failures of a broken processor can
                still be shown.
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
        """Open a manager."""
        settings = self.settings(concurrency=concurrency, discover=discover)
        if discover:
            make_working_directory_importable()
        async with BatchManager(settings=settings) as manager:
            yield manager

    @property
    def repeated(self) -> str:
        """The global options that a suggested command must repeat, to be appended to it."""
        packages = self._packages()
        return f" --processors {','.join(packages)}" if packages else ""

    def confirm(self, action: str, *, yes: bool) -> None:
        """Ask the user to confirm an action.

        Args:
            action: What is about to happen, as the beginning of a sentence in lower case.
            yes: Whether the user has confirmed already.

        Raises:
            UsageRefused: There is no terminal to ask on.
            Stopped: The user declined.
        """
        if yes:
            return
        if not sys.stdin.isatty():
            raise UsageRefused(
                f"Refusing to {action} without confirmation (no terminal).",
                hint="pass --yes to confirm.",
            )
        if not typer.confirm(f"{action[0].upper()}{action[1:]}?", err=True):
            raise Stopped("Nothing was changed.")

    def _note_unknown_variables(self) -> None:
        for name, meant in unknown_variables(os.environ).items():
            question = f" Did you mean {meant}?" if meant else ""
            self.output.note(f"{name} is not a setting and has no effect.{question}")

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
                f"{self._url_file} must contain one database URL.",
                hint="write a single line: postgresql://user:password@host:5432/database",
            )
        return url


def make_working_directory_importable() -> None:
    """Put the working directory on the import path, as `python -m` does, for --processors."""
    here = str(Path.cwd())
    if not sys.flags.safe_path and here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return os.environ.get("USERNAME") or "cli"
