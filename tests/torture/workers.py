"""The worker processes: started, and started again when they were killed."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

LEASE_SECONDS = 1.5
ENOUGH = 5  # workers that broke by themselves; nobody is started any more
ENVIRONMENT = {
    "RELIABLE_IMPORTS_LEASE_SECONDS": str(LEASE_SECONDS),
    "RELIABLE_IMPORTS_ITEM_TIMEOUT": "20",
    "RELIABLE_IMPORTS_COMMIT_TIMEOUT": "5",
    "RELIABLE_IMPORTS_CONNECT_TIMEOUT": "5",
}


class Member:
    """One worker process."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self.log = log
        self.worker_id: str | None = None
        self.frozen = False
        self.killed = False

    async def life(self) -> int:
        """Until its end; it names itself whenever it has opened its manager."""
        while line := await self.process.stdout.readline():
            self.worker_id = line.decode().strip()
        return await self.process.wait()


class Crew:
    """The workers that live now.

    Attributes:
        suicides: How many were killed by an item.
        broken: What workers wrote that ended by themselves otherwise than asked.
        done: A file whose existence says that no more batches will come.
    """

    def __init__(self, dsn: str, directory: Path, workers: int, slots: int) -> None:
        self._dsn = dsn
        self._directory = directory
        self._slots = slots
        self._members: dict[int, Member] = {}
        self._started = 0
        self.size = workers
        self.broken: list[str] = []
        self.suicides = 0
        self.done = directory / "done"
        self.history = directory / "acknowledged"

    def pick(self, choice: float) -> Member | None:
        """A worker that can be harmed: opened, not frozen, and not the last who could go on."""
        able = [
            one
            for one in self._members.values()
            if one.worker_id and not one.frozen and not one.killed
        ]
        return able[int(choice * len(able))] if len(able) > 1 else None

    async def work(self) -> None:
        """Keep every place filled until all have left in peace."""
        try:
            async with asyncio.TaskGroup() as places:
                for place in range(self.size):
                    places.create_task(self._fill(place))
        finally:
            for member in self._members.values():
                member.process.kill()

    async def _fill(self, place: int) -> None:
        while True:
            member = self._members[place] = await self._start()
            code = await member.life()
            del self._members[place]
            member.process._transport.close()
            if code == 0:
                return
            self.suicides += code == -9 and not member.killed
            if code != -9:
                self.broken.append(f"exit {code}\n{member.log.read_text()[-6000:]}")
            if len(self.broken) >= ENOUGH:
                return

    async def _start(self) -> Member:
        self._started += 1
        log = self._directory / f"worker-{self._started}.log"
        arguments = (self._dsn, str(self._slots), str(self.done), str(self.history))
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.torture.worker"),
                *arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=Path(__file__).parents[2],
                env=os.environ | ENVIRONMENT,
            )
        return Member(process, log)
