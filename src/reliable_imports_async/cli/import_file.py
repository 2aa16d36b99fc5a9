"""import, process: the commands that run a batch for the first time."""

import io
import os
import select
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer
from anyio import to_thread

from .. import exact_json
from ..loading.sources import read_file
from ..manager import BatchManager
from .exit_codes import UsageRefused
from .formatting import tail
from .invocation import Invocation
from .options import (
    BatchName,
    ExpectCount,
    ExpectSum,
    File,
    IdempotencyKey,
    ImportedType,
    Metadata,
    OnSameFile,
    ReadingOptions,
    RunOptions,
    SameFileChoice,
    Trial,
    Unchanged,
)
from .run import Run

Background = Annotated[
    bool,
    typer.Option("--background", help="Queue the batch for the workers and return immediately."),
]

STDIN_SECONDS = 0.2
STDIN_BYTES = 1 << 18


async def import_file(  # noqa: PLR0913 - the command's options
    cli: Invocation,
    *,
    file: File,
    type: ImportedType,  # noqa: A002 - the option's name
    metadata: Metadata = None,
    idempotency_key: IdempotencyKey = None,
    on_same_file: SameFileChoice = OnSameFile.REFUSE,
    no_skip_unchanged: Unchanged = False,
    dry_run: Trial = False,
    expect_count: ExpectCount = None,
    expect_sum: ExpectSum = None,
    reading: ReadingOptions,
    running: RunOptions,
) -> int:
    """Import a file as a new batch and process it."""
    _refuse_processes(running, dry_run and "--dry-run")
    source = read_file(
        _stdin() if file == "-" else Path(file),
        name=reading.name,
        format=reading.format,
        delimiter=_delimiter(reading.delimiter),
        encoding=reading.encoding,
        columns=_names(reading.columns),
        skip_rows=reading.skip_rows,
        header_row=reading.header_row,
        skip_footer=reading.skip_footer,
        comment=reading.comment,
        member=reading.member,
    )
    options: dict[str, Any] = {
        "metadata": _metadata(metadata),
        "idempotency_key": idempotency_key,
        "on_same_file": on_same_file.value,
        "allow_empty": reading.allow_empty,
        "skip_unchanged": False if no_skip_unchanged else None,
        "expect": _expected(expect_count, expect_sum),
        **running.thresholds,
    }
    async with cli.manager(concurrency=running.concurrency, discover=True) as manager:
        run = Run(cli, manager, tolerate=running.tolerate or 0.0, processes=running.processes)
        if dry_run:
            return await run.load_and_try(source, type, options)
        return await run.load_and_process(source, type, options)


async def process(
    cli: Invocation,
    *,
    batch: BatchName,
    background: Background = False,
    dry_run: Trial = False,
    running: RunOptions,
) -> int:
    """Process a batch, or continue it after it was stopped."""
    _refuse_processes(running, (dry_run and "--dry-run") or (background and "--background"))
    if dry_run and background:
        raise UsageRefused(
            "A dry run cannot be queued for the workers.", hint="leave out --background."
        )
    async with cli.manager(concurrency=running.concurrency, discover=not background) as manager:
        batch_id = await manager.find_batch(batch)
        run = Run(cli, manager, tolerate=running.tolerate or 0.0, processes=running.processes)
        if dry_run:
            return await run.try_batch(batch_id)
        if not background:
            return await run.process(batch_id, running.thresholds)
        await manager.set_thresholds(batch_id, **running.thresholds)
        await manager.enqueue_batch(batch_id)
    if cli.output.json:
        cli.output.record({"batch_id": batch_id, "enqueued": True})
    else:
        cli.output.show(
            f"Batch {tail(batch_id)} is queued. To start a worker: reliable-imports worker"
        )
    return 0


async def full_group(manager: BatchManager, batch: str, name: str) -> str:
    """The full name of a failure group of a batch or its lineage, given the beginning of the name.

    Raises:
        UsageRefused: No group or more than one group begins with `name`.
    """
    batch_id = await manager.find_batch(batch)
    groups = (
        *await manager.failure_groups(batch_id, values=1),
        *await manager.outstanding_failures(batch_id, values=1),
    )
    matching = {group.group for group in groups if group.group.startswith(name)}
    if len(matching) == 1:
        return matching.pop()
    quantity = "several" if matching else "no"
    raise UsageRefused(
        f"Batch {batch} has {quantity} failure groups that begin with {name}.",
        hint=f"`reliable-imports show {batch}` lists the groups.",
    )


def json_object(option: str, text: str, example: str) -> dict[str, Any]:
    """The JSON object in the value of an option.

    Raises:
        UsageRefused: The value is not a JSON object.
    """
    try:
        value = exact_json.read_unchecked(text)
    except ValueError as exc:
        raise UsageRefused(f"{option} is not JSON: {exc}") from None
    if not isinstance(value, dict):
        raise UsageRefused(f"{option} must be a JSON object.", hint=f"write '{example}'.")
    return value


def _expected(count: int | None, sums: list[str] | None) -> dict[str, Any] | None:
    """The control totals given on the command line."""
    if count is None and not sums:
        return None
    pairs = [text.partition("=") for text in sums or ()]
    if wrong := [name for name, _, value in pairs if not (name and value)]:
        raise UsageRefused(f"--expect-sum {wrong[0]} has no sum.", hint="write NAME=SUM.")
    return {"count": count, "sum": {name: value for name, _, value in pairs}}


def _metadata(text: str | None) -> dict[str, Any] | None:
    return None if text is None else json_object("--metadata", text, '{"year": 2013}')


def _delimiter(text: str | None) -> str | None:
    return "\t" if text in {"tab", r"\t"} else text


def _refuse_processes(running: RunOptions, option: str | bool) -> None:  # noqa: FBT001
    """Refuse several processes together with an option that leaves them nothing to do."""
    if option and running.processes > 1:
        raise UsageRefused(f"--processes has no effect with {option}.", hint="leave it out.")


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",")]


def _stdin() -> BinaryIO | AsyncIterator[bytes]:
    """Stdin as bytes; Ctrl-C interrupts the wait for a pipe or a terminal."""
    try:
        descriptor = sys.stdin.fileno()
    except io.UnsupportedOperation:
        return sys.stdin.buffer
    if sys.platform == "win32" or stat.S_ISREG(os.fstat(descriptor).st_mode):
        return sys.stdin.buffer
    return _received(descriptor)


async def _received(descriptor: int) -> AsyncIterator[bytes]:
    """The bytes of a pipe or a terminal.

    The event loop's reader would make a terminal that is shared with the shell non-blocking, and a
    blocking read would keep the process from ending; hence the threads with a timeout.
    """
    while (data := await to_thread.run_sync(_read_soon, descriptor)) != b"":
        if data is not None:
            yield data


def _read_soon(descriptor: int) -> bytes | None:
    ready, _, _ = select.select([descriptor], [], [], STDIN_SECONDS)
    return os.read(descriptor, STDIN_BYTES) if ready else None
