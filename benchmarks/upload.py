"""A large upload, and how much memory the server takes for it: `make bench NAME=upload`."""

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from urllib.parse import urlsplit

import uvloop

from reliable_imports_async.database.embedded import EmbeddedServer

from .api import _database as database
from .api import serving

BAR_MB = 100
ROW = "{n},c{n}@example.org,Customer {n},Zürich,{filler}\n"
FILLER = "a longer text, as addresses and remarks are; " * 4


def main(megabytes: int = 1024, chunked: bool = False) -> None:  # noqa: FBT001, FBT002
    """Upload a CSV file.

    Args:
        megabytes: Its size.
        chunked: Do not say the size in advance.
    """
    uvloop.run(_measure(megabytes, chunked=chunked))


async def _measure(megabytes: int, *, chunked: bool) -> None:
    async with EmbeddedServer() as server, database(server) as (dsn, _):
        with serving("ours", dsn) as (url, process):
            watch = Memory(process)
            with watch:
                began = perf_counter()
                status, answer = _upload(url, megabytes * 1_000_000, chunked=chunked)
                seconds = perf_counter() - began
    print(f"HTTP {status}: {answer[:200]}")
    print(f"{megabytes} MB in {seconds:.1f} s: {megabytes / seconds:.1f} MB/s")
    print(f"RSS before {watch.before:.0f} MB, peak {watch.peak:.0f} MB: ", end="")
    print(f"grew by {watch.peak - watch.before:.0f} MB (bar: {BAR_MB})")


def _upload(url: str, size: int, *, chunked: bool) -> tuple[int, str]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=600)
    headers = {"Content-Type": "text/csv"}
    if not chunked:
        headers["Content-Length"] = str(size)
    path = "/api/batches/upload?batch_type=customer&process=false&name=large.csv"
    connection.request("POST", path, _csv(size), headers, encode_chunked=chunked)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def _csv(size: int) -> Iterator[bytes]:
    """Rows of a file of exactly this size."""
    chunk, number = [b"n,email,name,city,remark\n"], 0
    left = size - len(chunk[0])
    while left:
        number += 1
        row = ROW.format(n=number, filler=f'"{FILLER}"').encode()[:left]
        left -= len(row)
        chunk.append(row)
        if len(chunk) > 500 or not left:
            yield b"".join(chunk)
            chunk.clear()


class Memory:
    """Watches the resident memory of a process, in MB (Linux)."""

    def __init__(self, process: int) -> None:
        self._file = Path(f"/proc/{process}/statm")
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.before = self.peak = self._now()

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self.peak = max(self.peak, self._now())

    def _now(self) -> float:
        return int(self._file.read_text().split()[1]) * 4096 / 1e6
