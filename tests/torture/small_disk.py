"""A file system of a few megabytes for one table, where this user may mount one."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


@asynccontextmanager
async def small_disk(directory: Path, server: Path) -> AsyncIterator[Path | None]:
    """A mounted tmpfs with a directory ``space`` for the server's user; None where not allowed."""
    place = directory / "small"
    place.mkdir()
    owner = (server / "data").stat()
    if await _run("mount", "-t", "tmpfs", "-o", "size=32m,mode=0755", "tmpfs", str(place)):
        yield None
        return
    try:
        (place / "space").mkdir(mode=0o700)
        os.chown(place / "space", owner.st_uid, owner.st_gid)
        yield place
    finally:
        await _run("umount", "--lazy", str(place))


async def _run(*command: str) -> int:
    if shutil.which(command[0]) is None:
        return 127
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    return await process.wait()
