"""The worker processes: started, and started again when they were killed."""

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import suppress
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

    def __init__(self, number: int, log: Path) -> None:
        self.number = number
        self.log = log
        self.pid: int | None = None
        self.worker_id: str | None = None
        self.frozen = False
        self.killed = False
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @property
    def able(self) -> bool:
        """Whether it can be harmed: it works, is not frozen, and nobody has killed it."""
        named = self.pid is not None and self.worker_id is not None
        return named and not (self.frozen or self.killed or self.ended.done())

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it is dead."""
        if self.pid is not None and not self.ended.done():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Crew:
    """The workers that live now.

    Attributes:
        suicides: How many were killed by an item.
        broken: What workers wrote that ended by themselves otherwise than asked.
        done: A file whose existence says that no more batches will come.
    """

    def __init__(
        self, dsn: str, directory: Path, workers: int, slots: int, *, foreground: bool
    ) -> None:
        self._arguments = (dsn, str(slots), str(directory), *(["foreground"] if foreground else []))
        self._directory = directory
        self._members: dict[int, Member] = {}
        self._started = 0
        self.size = workers
        self.broken: list[str] = []
        self.suicides = 0
        self.done = directory / "done"
        self.history = directory / "acknowledged"

    def pick(self, choice: float) -> Member | None:
        """A worker that can be harmed, and is not the last who could go on."""
        able = [one for one in self._members.values() if one.able]
        return able[int(choice * len(able))] if len(able) > 1 else None

    async def work(self) -> None:
        """Keep every place filled until all have left in peace."""
        nursery = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.torture.nursery"),
            *self._arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            env=os.environ | ENVIRONMENT,
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                listening = tasks.create_task(self._listen(nursery.stdout))
                async with asyncio.TaskGroup() as places:
                    for _ in range(self.size):
                        places.create_task(self._fill(nursery.stdin))
                listening.cancel()
        finally:
            for member in self._members.values():
                member.send(signal.SIGKILL)
            nursery.kill()
            await nursery.wait()
            nursery._transport.close()

    async def _listen(self, told: asyncio.StreamReader) -> None:
        """Learn what the nursery says about its workers."""
        while line := await told.readline():
            what, number, value = line.decode().split()
            member = self._members[int(number)]
            match what:
                case "started":
                    member.pid = int(value)
                case "named":
                    member.worker_id = value
                case "ended":
                    member.ended.set_result(int(value))
        raise RuntimeError("the nursery has ended")

    async def _fill(self, nursery: asyncio.StreamWriter) -> None:
        while True:
            self._started += 1
            log = self._directory / f"worker-{self._started}.log"
            member = self._members[self._started] = Member(self._started, log)
            nursery.write(f"{member.number}\n".encode())
            code = await asyncio.shield(member.ended)  # it says who is dead, cancelled or not
            del self._members[member.number]
            if code == 0:
                return
            self.suicides += code == -9 and not member.killed
            if code != -9:
                self.broken.append(f"exit {code}\n{log.read_text()[-6000:]}")
            if len(self.broken) >= ENOUGH:
                return
