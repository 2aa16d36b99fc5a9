"""Processors that other processes can import, and that show which process did what."""

import os
import signal
import time
from pathlib import Path

import anyio

from reliable_imports_async import BaseProcessor

from .trying import PATIENCE


def processes_in(directory: Path) -> set[int]:
    """The processes that have worked with a directory as their meeting place."""
    return {int(file.name) for file in directory.glob("[0-9]*")}


class MeetingProcessor(BaseProcessor):
    """Notes its process in the directory that the batch names, and waits for another one there."""

    async def process_item(self, item, ctx):
        meeting = Path(ctx.batch.metadata["directory"])
        (meeting / str(os.getpid())).touch()
        until = time.monotonic() + PATIENCE
        while len(processes_in(meeting)) < 2 and time.monotonic() < until:
            await anyio.sleep(0.01)
        await ctx.execute("INSERT INTO ledger (n) VALUES ($1)", item.source_data["n"])


class KilledOnceProcessor(MeetingProcessor):
    """The first process beside the parent is killed in the middle of an item."""

    async def process_item(self, item, ctx):
        await super().process_item(item, ctx)
        mark = Path(ctx.batch.metadata["directory"], "killed")
        if os.getpid() != ctx.batch.metadata["parent"] and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class EndlessProcessor(MeetingProcessor):
    """Its items do not end by themselves."""

    async def process_item(self, item, ctx):
        meeting = Path(ctx.batch.metadata["directory"])
        (meeting / str(os.getpid())).touch()
        await anyio.sleep_forever()
