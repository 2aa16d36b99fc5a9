"""What a piece of work takes: seconds, and processor time of client and server."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil


@dataclass(slots=True)
class Spent:
    """What a piece of work took, filled in when it ends.

    On a machine that has other work too, the processor time is what can be compared.

    Attributes:
        seconds: By the clock on the wall.
        client: Processor seconds of this process and of those that it waited for.
        server: Processor seconds of PostgreSQL, all of its processes.
    """

    seconds: float = 0.0
    client: float = 0.0
    server: float = 0.0


@contextmanager
def spending(postmaster: psutil.Process) -> Iterator[Spent]:
    """Measure what is done inside."""
    spent = Spent()
    client, server, began = _own_time(), _server_time(postmaster), time.perf_counter()
    yield spent
    spent.seconds = time.perf_counter() - began
    spent.client, spent.server = _own_time() - client, _server_time(postmaster) - server


def _own_time() -> float:
    waited_for = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + waited_for.ru_utime + waited_for.ru_stime


def _server_time(postmaster: psutil.Process) -> float:
    """Processes that have ended count too: the postmaster has waited for them."""
    own = postmaster.cpu_times()
    total = own.user + own.system + own.children_user + own.children_system
    for child in postmaster.children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return float(total)
