"""A client in a process of its own: wrk where it is installed, else one written in Python."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from urllib.parse import urlsplit

WRK = shutil.which("wrk")
SECONDS_IN = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked for, over and over.

    Attributes:
        path: Where.
        body: What is posted; None for GET.
        clients: Connections at once.
    """

    path: str
    body: bytes | None
    clients: int


@dataclass(frozen=True, slots=True)
class Answered:
    """Requests a second, the seconds within which 99 % were answered, and how many they were."""

    rate: float
    p99: float
    requests: int


def measure(url: str, load: Load, seconds: float) -> Answered:
    """Put a load on a server, from another process.

    Raises:
        RuntimeError: An answer was no success.
    """
    with tempfile.TemporaryDirectory() as directory:
        body = Path(directory) / "body.json"
        body.write_bytes(load.body or b"")
        if WRK is not None:
            return _wrk(url, load, seconds, body)
        command = [sys.executable, "-m", __name__, url + load.path, str(load.clients)]
        command += [str(seconds), str(body) if load.body else ""]
        return Answered(**json.loads(subprocess.check_output(command)))


def _wrk(url: str, load: Load, seconds: float, body: Path) -> Answered:
    script = body.with_name("request.lua")
    if load.body is not None:
        script.write_text(
            f'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n'
            f'wrk.body = io.open("{body}"):read("*a")\n'
        )
    else:
        script.write_text('wrk.method = "GET"\n')
    command = [str(WRK), "--latency", "-t1", f"-c{load.clients}", f"-d{seconds:g}s"]
    said = subprocess.check_output([*command, "-s", str(script), url + load.path], text=True)
    if "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(said)
    rate = re.search(r"Requests/sec: +([\d.]+)", said)
    p99 = re.search(r"99% +([\d.]+)(us|ms|s|m)\b", said)
    total = re.search(r"(\d+) requests in", said)
    if rate is None or p99 is None or total is None:
        raise RuntimeError(said)
    return Answered(float(rate[1]), float(p99[1]) * SECONDS_IN[p99[2]], int(total[1]))


async def _python(url: str, clients: int, seconds: float, body: bytes | None) -> Answered:
    parts = urlsplit(url)
    head = f"{'GET' if body is None else 'POST'} {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    request = head.encode() + b"\r\n" + (body or b"")
    until, times = perf_counter() + seconds, []

    async def ask() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        while perf_counter() < until:
            began = perf_counter()
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", answer.lower())
            if not answer.startswith(b"HTTP/1.1 2") or length is None:
                raise RuntimeError(answer.decode())
            await reader.readexactly(int(length[1]))
            times.append(perf_counter() - began)
        writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(ask())
    return Answered(len(times) / seconds, sorted(times)[int(len(times) * 0.99)], len(times))


if __name__ == "__main__":
    url, clients, seconds, file = sys.argv[1:]
    posted = Path(file).read_bytes() if file else None
    found = asyncio.run(_python(url, int(clients), float(seconds), posted))
    print(json.dumps(asdict(found)))
