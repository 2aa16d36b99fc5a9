"""Forks worker processes: they have everything imported already, so that one lives within milliseconds.

Commands come line by line on stdin: the number of a worker to start. What happens is told on stdout:
`started NUMBER PID`, `named NUMBER WORKER_ID`, `ended NUMBER CODE`.
"""

import asyncio
import os
import signal
import sys
import traceback
from pathlib import Path
from uuid import UUID

from . import worker


def say(*words: object) -> None:
    """One line in one write, so that several processes can share the pipe."""
    os.write(1, f"{' '.join(map(str, words))}\n".encode())


class Nursery:
    """Attributes: `children` are the numbers of the living, by process id."""

    def __init__(self, dsn: str, slots: int, directory: Path, *, foreground: bool) -> None:
        self._foreground = foreground
        self._dsn = dsn
        self._slots = slots
        self._directory = directory
        self.children: dict[int, int] = {}

    def start(self, number: int) -> None:
        """Fork a worker; nobody is reaped before it is known."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        pid = os.fork()
        if pid == 0:
            self._live(number)
        self.children[pid] = number
        say("started", number, pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})

    def reap(self, *_: object) -> None:
        """Tell of those that have ended."""
        while self.children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            say("ended", self.children.pop(pid), os.waitstatus_to_exitcode(status))

    def _live(self, number: int) -> None:
        """Be a worker; never returns."""
        code = 1
        try:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            log = os.open(self._directory / f"worker-{number}.log", os.O_WRONLY | os.O_CREAT)
            os.dup2(log, 2)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            self._work(number)
            code = 0
        except BaseException:  # noqa: BLE001 - the harness reads it in the log
            traceback.print_exc()
        finally:
            os._exit(code)

    def _work(self, number: int) -> None:
        def name(worker_id: UUID) -> None:
            say("named", number, worker_id)

        done = self._directory / "done"
        asyncio.run(worker.main(self._dsn, self._slots, done, name, foreground=self._foreground))


def main(dsn: str, slots: str, directory: str, foreground: str = "") -> None:
    """Start workers until nobody asks for any more; then kill them."""
    worker.prepare(Path(directory) / "acknowledged")
    nursery = Nursery(dsn, int(slots), Path(directory), foreground=bool(foreground))
    signal.signal(signal.SIGCHLD, nursery.reap)
    while line := sys.stdin.readline():
        nursery.start(int(line))
    for pid in list(nursery.children):
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
