"""The listening sockets of jobs: real sockets, and programs that accept connections from them."""

import asyncio
import math
import os
import resource
import selectors
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gaffer.errors import StartFailed
from gaffer.jobs.names import JobName
from gaffer.loop import new_loop
from gaffer.processes.connections import seconds_since_use
from gaffer.processes.sockets import JobSockets
from support import turnable
from support.needs import needs_linux, needs_root
from support.poll import eventually_async
from support.strangers import STRANGER, stranger
from support.writable import let_everybody_write

pytestmark = needs_linux

WEB, API = JobName("default", "web"), JobName("default", "api")

SERVER = """
import contextlib, os, socket, sys
listening = socket.socket(fileno=int(sys.argv[1]))
while True:
    connection, _ = listening.accept()
    with connection, contextlib.suppress(ConnectionError):
        connection.sendall(str(os.getpid()).encode())
"""


@contextmanager
def opened_sockets(loop: asyncio.AbstractEventLoop) -> Iterator[JobSockets]:
    sockets = JobSockets(loop)
    try:
        yield sockets
    finally:
        sockets.close_all()


@pytest.fixture
async def sockets() -> Any:
    with opened_sockets(asyncio.get_running_loop()) as sockets:
        yield sockets


@contextmanager
def server(fd: int) -> Iterator[int]:
    """A program that accepts connections from the descriptor; its pid."""
    with subprocess.Popen([sys.executable, "-I", "-c", SERVER, str(fd)], pass_fds=[fd]) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def connect(sockets: JobSockets, index: int = 0, job: JobName = WEB) -> socket.socket:
    place = sockets.addresses(job)[index]
    if "path" in place:
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(place["path"]))
        return client
    return socket.create_connection((str(place["address"]), int(place["port"])), timeout=10)


def ask(client: socket.socket) -> int:
    """The pid of the program that answers."""
    client.settimeout(10)
    with client:
        return int(client.recv(100))


def is_refused(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=10).close()
    except ConnectionRefusedError:
        return True
    return False


def address(sockets: JobSockets, index: int = 0, job: JobName = WEB) -> tuple[str, int]:
    place = sockets.addresses(job)[index]
    return str(place["address"]), int(place["port"])


def failure(sockets: JobSockets, *specs: str, job: JobName = WEB, **owner: Any) -> StartFailed:
    with pytest.raises(StartFailed) as raised:
        sockets.open(job, specs, **owner)
    assert raised.value.reason == "socket_failed"
    assert raised.value.hint
    return raised.value


# Opening and closing


@pytest.mark.parametrize("spec", ["tcp:127.0.0.1:0", "tcp:[::1]:0", "unix:{}/app.sock"])
async def test_no_connection_is_refused_while_programs_come_and_go(
    sockets: JobSockets, spec: str, tmp_path: Path
) -> None:
    [(_, fd)] = sockets.open(WEB, [spec.format(tmp_path)])
    for _ in range(2):
        clients = [connect(sockets) for _ in range(20)]
        with server(fd) as pid:
            assert {ask(client) for client in clients} == {pid}
            assert ask(connect(sockets)) == pid


async def test_descriptors_are_for_the_programs_that_get_them(sockets: JobSockets) -> None:
    [(_, fd)] = sockets.open(WEB, ["tcp:127.0.0.1:0"])
    assert not os.get_inheritable(fd)
    assert os.get_blocking(fd)
    with socket.socket(fileno=os.dup(fd)) as listening:
        assert listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        assert listening.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)


async def test_names_and_addresses_are_in_the_order_of_the_setting(sockets: JobSockets, tmp_path: Path) -> None:
    path = f"{tmp_path}/app.sock"
    opened = sockets.open(WEB, ["http=tcp:127.0.0.1:0", f"ctl=unix:{path}", "tcp:[::1]:0"])
    assert [name for name, _ in opened] == ["http", "ctl", "tcp"]
    http, ctl, tcp = sockets.addresses(WEB)
    assert (http["name"], http["address"]) == ("http", "127.0.0.1")
    assert ctl == {"name": "ctl", "path": path}
    assert (tcp["name"], tcp["address"]) == ("tcp", "::1")
    for place, (_, fd) in zip((http, tcp), (opened[0], opened[2]), strict=True):
        with socket.socket(fileno=os.dup(fd)) as listening:
            assert listening.getsockname()[:2] == (place["address"], place["port"])


async def test_all_addresses_of_both_families(sockets: JobSockets) -> None:
    sockets.open(WEB, ["tcp:*:0"])
    port = sockets.addresses(WEB)[0]["port"]
    for host in ("127.0.0.1", "::1"):
        assert not is_refused((host, int(port)))
    # 0.0.0.0 and [::] have a socket each.
    sockets.open(API, ["a=tcp:0.0.0.0:0"])
    other = sockets.addresses(API)[0]["port"]
    assert is_refused(("::1", int(other)))
    sockets.open(API, ["a=tcp:0.0.0.0:0", f"b=tcp:[::]:{other}"])
    assert not is_refused(("::1", int(other)))


async def test_unchanged_sockets_stay_open(sockets: JobSockets, tmp_path: Path) -> None:
    a, b, c = "a=tcp:127.0.0.1:0", "b=tcp:127.0.0.1:0", f"c=unix:{tmp_path}/c.sock"
    before = dict(sockets.open(WEB, [a, b, c]))
    first = address(sockets)
    clients = [connect(sockets, 1), connect(sockets, 2)]
    assert dict(sockets.open(WEB, [a, b, c])) == before
    after = dict(sockets.open(WEB, ["d=tcp:127.0.0.1:0", c.replace("c=", "e="), b]))
    assert (after["b"], after["e"]) == (before["b"], before["c"])
    assert is_refused(first)
    for name, client in zip("be", clients, strict=True):
        with server(after[name]) as pid:
            assert ask(client) == pid


async def test_a_fixed_port_is_the_same_socket_under_another_name(sockets: JobSockets) -> None:
    sockets.open(WEB, ["tcp:127.0.0.1:0"])
    port = address(sockets)[1]
    sockets.close(WEB)
    [(_, fd)] = sockets.open(WEB, [f"a=tcp:127.0.0.1:{port}"])
    assert sockets.open(WEB, [f"b=tcp:localhost:{port}"]) == [("b", fd)]
    assert sockets.addresses(WEB) == [{"name": "b", "address": "127.0.0.1", "port": port}]


async def test_an_address_can_be_widened(sockets: JobSockets) -> None:
    sockets.open(WEB, ["tcp:127.0.0.1:0"])
    port = address(sockets)[1]
    sockets.open(WEB, [f"tcp:*:{port}"])
    assert not is_refused(("::1", port))


async def test_closing(sockets: JobSockets, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    assert not sockets.is_open(WEB)
    sockets.open(WEB, ["tcp:127.0.0.1:0", f"unix:{path}"])
    sockets.open(API, ["tcp:127.0.0.1:0"])
    web, api = address(sockets), address(sockets, job=API)
    assert sockets.is_open(WEB)
    sockets.close(WEB)
    assert not sockets.is_open(WEB)
    assert sockets.addresses(WEB) == []
    assert is_refused(web)
    assert not path.exists()
    assert not is_refused(api)
    sockets.close(WEB)
    sockets.close_all()
    assert is_refused(api)


async def test_a_port_can_be_opened_again_at_once(sockets: JobSockets) -> None:
    [(_, fd)] = sockets.open(WEB, ["tcp:127.0.0.1:0"])
    port = address(sockets)[1]
    with server(fd):
        ask(connect(sockets))  # leaves a socket in TIME_WAIT on our side
    sockets.close(WEB)
    sockets.open(WEB, [f"tcp:127.0.0.1:{port}"])


# Failures


async def test_the_port_of_another_job(sockets: JobSockets) -> None:
    sockets.open(API, ["tcp:*:0"])
    port = sockets.addresses(API)[0]["port"]
    error = failure(sockets, "tcp:127.0.0.1:0", f"tcp:127.0.0.1:{port}")
    assert error.message == f"can't open the socket tcp:127.0.0.1:{port}: the job default.api has it open"
    assert error.path == "$.socket[1]"
    assert not sockets.is_open(WEB)


async def test_the_port_of_another_program(sockets: JobSockets) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        error = failure(sockets, f"tcp:127.0.0.1:{port}")
    assert error.message == f"can't open the socket tcp:127.0.0.1:{port}: another program listens on it"
    sockets.open(WEB, [f"tcp:127.0.0.1:{port}"])


async def test_a_failure_opens_nothing_and_keeps_what_is_open(sockets: JobSockets, tmp_path: Path) -> None:
    path = tmp_path / "new.sock"
    [(_, fd)] = sockets.open(WEB, ["a=tcp:127.0.0.1:0"])
    failure(sockets, f"unix:{path}", "a=tcp:127.0.0.1:0", f"b=unix:{tmp_path}/nowhere/b.sock")
    assert not path.exists()
    assert [place["name"] for place in sockets.addresses(WEB)] == ["a"]
    assert sockets.open(WEB, ["a=tcp:127.0.0.1:0"]) == [("a", fd)]
    assert not is_refused(address(sockets))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tcp:192.0.2.1:80", "this host has no such address"),
        ("tcp:[fe80::1%nothing0]:80", "this host has no such address"),
        ("unix:/nowhere/app.sock", "there is no directory /nowhere"),
        ("unix:/etc/passwd/app.sock", "there is no directory /etc/passwd"),
    ],
)
async def test_an_address_that_does_not_exist(sockets: JobSockets, spec: str, message: str) -> None:
    assert failure(sockets, spec).message == f"can't open the socket {spec}: {message}"


@needs_root
async def test_a_user_that_does_not_exist(sockets: JobSockets, tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="unknown user 'nobody-here'") as raised:
        sockets.open(WEB, [f"unix:{tmp_path}/app.sock"], uid="nobody-here")
    assert (raised.value.reason, raised.value.path) == ("unknown_user", "$.uid")
    assert not sockets.is_open(WEB)
    sockets.open(WEB, ["tcp:127.0.0.1:0"], uid="nobody-here")  # it owns no socket


# Unix sockets


async def test_a_stale_socket_is_replaced(sockets: JobSockets, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
        error = failure(sockets, f"unix:{path}")
        assert error.message == f"can't open the socket unix:{path}: another program listens on it"
        connect_to(path).close()
    [(_, fd)] = sockets.open(WEB, [f"unix:{path}"])
    with server(fd) as pid:
        assert ask(connect(sockets)) == pid


def connect_to(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    return client


async def test_what_is_no_socket_is_left_alone(sockets: JobSockets, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    path.write_text("data")
    error = failure(sockets, f"unix:{path}")
    assert error.message == f"can't open the socket unix:{path}: the file exists and is not a socket"
    assert path.read_text() == "data"
    link = tmp_path / "link.sock"
    for target in (tmp_path / "real.sock", tmp_path / "nothing"):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(tmp_path / "real.sock"))
        link.symlink_to(target)
        assert "not a socket" in failure(sockets, f"unix:{link}").message
        assert link.is_symlink()
        link.unlink()
        (tmp_path / "real.sock").unlink()


async def test_the_path_of_another_job(sockets: JobSockets, tmp_path: Path) -> None:
    sockets.open(API, [f"unix:{tmp_path}/app.sock"])
    error = failure(sockets, f"unix:{tmp_path}/./app.sock")
    assert "the job default.api has it open" in error.message
    assert "unload default.api" in str(error.hint)


@needs_root
async def test_a_stale_socket_of_another_user_is_left_alone(sockets: JobSockets, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    os.chown(path, STRANGER, STRANGER)
    assert f"the socket of the user {STRANGER} is in the way" in failure(sockets, f"unix:{path}").message
    assert path.is_socket()


async def test_a_unix_socket_is_for_its_user_and_group(sockets: JobSockets, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    before = os.umask(0o077)
    try:
        sockets.open(WEB, [f"unix:{path}"])
    finally:
        os.umask(before)
    status = path.stat()
    assert stat.S_IMODE(status.st_mode) == 0o660
    assert (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid())


@needs_root
async def test_a_unix_socket_belongs_to_the_user_of_the_job(sockets: JobSockets, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    os.chown(tmp_path, 65534, 0)  # the user's own directory
    sockets.open(WEB, [f"unix:{path}"], uid="nobody")
    assert owner(path) == (65534, 65534)
    sockets.open(WEB, [f"unix:{path}"], uid="nobody", gid=0)
    assert owner(path) == (65534, 0)
    # A later manager replaces the socket of one that was killed.
    os.link(path, tmp_path / "kept")
    sockets.close(WEB)
    os.rename(tmp_path / "kept", path)
    sockets.open(WEB, [f"unix:{path}"], uid="nobody")


def owner(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_uid, status.st_gid


@needs_root
async def test_other_users_can_not_connect(sockets: JobSockets, tmp_path: Path) -> None:
    path = Path("/tmp") / f"gaffer-test-{os.getpid()}.sock"  # which every user reaches
    sockets.open(WEB, [f"unix:{path}"])
    connects = f"""
s = socket.socket(socket.AF_UNIX)
try:
    s.connect({str(path)!r})
except PermissionError:
    print("refused", flush=True)
"""
    with stranger(connects) as process:
        assert process.stdout is not None
        assert process.stdout.read() == "refused\n"
    sockets.open(WEB, [f"unix:{path}"], gid=0, uid=65534)
    with stranger(connects, uid=65534) as process:
        assert process.stdout is not None
        assert process.stdout.read() == ""


async def test_a_directory_that_others_can_write_to(sockets: JobSockets, tmp_path: Path) -> None:
    let_everybody_write(tmp_path)
    error = failure(sockets, f"unix:{tmp_path}/app.sock")
    assert "everyone can write to it" in error.message
    assert "chmod" in str(error.hint)
    os.chmod(tmp_path, 0o1777)
    sockets.open(WEB, [f"unix:{tmp_path}/app.sock"])


async def test_a_removed_socket_is_opened_again(sockets: JobSockets, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    sockets.open(WEB, [f"unix:{path}"])
    path.unlink()
    [(_, fd)] = sockets.open(WEB, [f"unix:{path}"])
    with server(fd) as pid:
        assert ask(connect(sockets)) == pid


async def test_a_socket_that_replaced_ours_is_left_alone(sockets: JobSockets, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    sockets.open(WEB, [f"unix:{path}"])
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        assert "another program listens on it" in failure(sockets, f"unix:{path}").message
        sockets.close(WEB)
        connect_to(path).close()


@needs_root
@pytest.mark.expects_errors("can't remove the socket .*: Operation not permitted")
async def test_a_socket_that_can_not_be_removed_is_reported(sockets: JobSockets, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    sockets.open(WEB, [f"unix:{path}"])
    if subprocess.run(["chattr", "+a", str(tmp_path)], check=False, capture_output=True).returncode:
        pytest.skip("the file system has no append-only directories")
    try:
        sockets.close(WEB)
    finally:
        subprocess.run(["chattr", "-a", str(tmp_path)], check=True)
    assert path.is_socket()


# The first connection


@pytest.mark.parametrize("kind", ["uvloop", "asyncio"])
def test_a_connection_is_reported_once(kind: str, tmp_path: Path) -> None:
    loop = new_loop(kind)
    calls: list[int] = []
    with opened_sockets(loop) as sockets:
        opened = sockets.open(WEB, ["tcp:127.0.0.1:0", f"unix:{tmp_path}/app.sock"])
        sockets.await_connection(WEB, lambda: calls.append(1))
        turns(loop)
        assert calls == []
        with connect(sockets, 1):
            loop.run_until_complete(eventually_async(lambda: calls == [1]))
            connect(sockets, 0).close()
            turns(loop)
            assert calls == [1]
            assert all(os.get_blocking(fd) for _, fd in opened), "the programs share the flag"
            sockets.await_connection(WEB, lambda: calls.append(2))
            loop.run_until_complete(eventually_async(lambda: calls == [1, 2], message="they still wait"))
        with server(opened[0][1]) as pid, server(opened[1][1]):
            assert ask(connect(sockets)) == pid
            ask(connect(sockets, 1))
        sockets.await_connection(WEB, lambda: calls.append(3))
        turns(loop)
        assert calls == [1, 2], "none waits any more"
        sockets.stop_awaiting(WEB)
        sockets.stop_awaiting(WEB)
        with connect(sockets):
            turns(loop)
        assert calls == [1, 2]
    loop.close()


def turns(loop: asyncio.AbstractEventLoop) -> None:
    """Let the loop see what the kernel has for it."""

    async def turn() -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    loop.run_until_complete(turn())


async def test_changed_sockets_are_watched_too(sockets: JobSockets) -> None:
    calls: list[int] = []
    [(_, old)] = sockets.open(WEB, ["old=tcp:127.0.0.1:0"])
    with server(old):  # still holds the socket
        sockets.await_connection(WEB, lambda: calls.append(1))
        before = address(sockets)
        sockets.open(WEB, ["new=tcp:127.0.0.1:0"])
        ask(socket.create_connection(before))
        await asyncio.sleep(0)
        assert calls == []
        with connect(sockets):
            await eventually_async(lambda: calls == [1])


async def test_a_closed_job_reports_nothing(sockets: JobSockets) -> None:
    calls: list[int] = []
    [(_, fd)] = sockets.open(WEB, ["tcp:127.0.0.1:0"])
    where = address(sockets)
    with server(fd):
        sockets.await_connection(WEB, lambda: calls.append(1))
        sockets.close(WEB)
        ask(socket.create_connection(where))
        await asyncio.sleep(0)
    assert calls == []


async def test_sockets_that_are_opened_later_are_watched(sockets: JobSockets) -> None:
    calls: list[int] = []
    sockets.await_connection(WEB, lambda: calls.append(1))
    sockets.open(WEB, ["tcp:127.0.0.1:0"])
    with connect(sockets):
        await eventually_async(lambda: calls == [1])


# Idleness


class Idle:
    """A job on a loop whose clock is turned, with a socket and a timeout."""

    def __init__(self, sockets: JobSockets, spec: str, timeout: float) -> None:
        self.sockets = sockets
        self.calls: list[float] = []
        self.timeout = timeout
        loop = asyncio.get_running_loop()
        self.listening = self.open(spec)
        self.started = loop.time()
        sockets.await_idle(WEB, timeout, lambda: self.calls.append(loop.time() - self.started))

    def open(self, spec: str) -> socket.socket:
        """A copy of the socket, with a port that was not used lately: the kernel's clock can't be turned."""
        while True:
            [(_, fd)] = self.sockets.open(WEB, [spec])
            listening = socket.socket(fileno=os.dup(fd))
            if seconds_since_use(listening, 0) == math.inf:
                return listening
            listening.close()
            self.sockets.close(WEB)

    async def pass_time(self, seconds: float) -> None:
        """Turn the clock in small steps, and let what is due happen."""
        for _ in range(100):
            turnable.turn(seconds / 100)
            for _ in range(3):
                await asyncio.sleep(0)


def idle_test(spec: str, timeout: float, test: Callable[[Idle], Any], tmp_path: Path) -> None:
    async def main() -> None:
        with opened_sockets(asyncio.get_running_loop()) as sockets:
            idle = Idle(sockets, spec.format(tmp_path), timeout)
            with idle.listening:
                await test(idle)

    turnable.run(main())


SPECS = pytest.mark.parametrize("spec", ["tcp:127.0.0.1:0", "tcp:[::1]:0", "tcp:*:0", "unix:{}/app.sock"])


def reset(end: socket.socket) -> None:
    """Close a connection so that the kernel forgets it at once."""
    if end.family != socket.AF_UNIX:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()


@SPECS
def test_a_job_without_connections_is_idle_after_the_timeout(spec: str, tmp_path: Path) -> None:
    async def test(idle: Idle) -> None:
        await idle.pass_time(59)
        assert idle.calls == []
        await idle.pass_time(2)
        assert len(idle.calls) == 1
        await idle.pass_time(300)
        assert len(idle.calls) == 1
        assert turnable.timers() == []

    idle_test(spec, 60, test, tmp_path)


@SPECS
def test_a_job_with_a_connection_is_not_idle(spec: str, tmp_path: Path) -> None:
    async def test(idle: Idle) -> None:
        client = connect(idle.sockets)
        await idle.pass_time(200)
        assert idle.calls == [], "the client waits to be accepted"
        accepted, _ = idle.listening.accept()
        await idle.pass_time(200)
        assert idle.calls == []
        reset(client)
        accepted.close()
        await idle.pass_time(58)
        assert idle.calls == []
        await idle.pass_time(60 - 58 + 5 + 1)
        assert len(idle.calls) == 1

    idle_test(spec, 60, test, tmp_path)


@SPECS
def test_a_connection_between_two_checks_counts(spec: str, tmp_path: Path) -> None:
    async def test(idle: Idle) -> None:
        for _ in range(10):
            await idle.pass_time(30)
            client = connect(idle.sockets)
            for _ in range(3):
                await asyncio.sleep(0)  # the loop sees it arrive
            accepted, _ = idle.listening.accept()
            reset(client)
            accepted.close()
        assert idle.calls == []

    idle_test(spec, 40, test, tmp_path)


class CountingSelector(selectors.DefaultSelector):
    """Counts the turns of a loop."""

    turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.turns += 1
        return super().select(timeout)


def test_a_client_that_waits_does_not_keep_the_loop_busy() -> None:
    selector = CountingSelector()
    loop = asyncio.SelectorEventLoop(selector)
    with closing(loop), opened_sockets(loop) as sockets:
        sockets.open(WEB, ["tcp:127.0.0.1:0"])
        sockets.await_idle(WEB, 10, lambda: None)
        with connect(sockets):
            loop.run_until_complete(asyncio.sleep(0.3))
        assert selector.turns < 20


def test_stopping_ends_the_watch(tmp_path: Path) -> None:
    async def test(idle: Idle) -> None:
        idle.sockets.stop_awaiting(WEB)
        assert turnable.timers() == []
        await idle.pass_time(100)
        assert idle.calls == []

    idle_test("tcp:127.0.0.1:0", 60, test, tmp_path)


@SPECS
@pytest.mark.expects_errors("can't look for the connections of jobs, which are never idle then: .*Too many open files")
def test_a_job_is_not_idle_while_its_connections_can_not_be_seen(spec: str, tmp_path: Path) -> None:
    async def test(idle: Idle) -> None:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
        try:
            await idle.pass_time(200)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert idle.calls == []
        await idle.pass_time(70)
        assert len(idle.calls) == 1

    idle_test(spec, 60, test, tmp_path)


@pytest.mark.parametrize("timeout", [0.01, 0.3])
async def test_short_timeouts(sockets: JobSockets, timeout: float) -> None:
    loop = asyncio.get_running_loop()
    sockets.open(WEB, ["tcp:127.0.0.1:0"])
    started, idle = loop.time(), asyncio.Event()
    sockets.await_idle(WEB, timeout, idle.set)
    await asyncio.wait_for(idle.wait(), 10)
    assert loop.time() - started >= timeout


async def test_connections_of_a_real_program(sockets: JobSockets) -> None:
    """The server closes first here, so that its end of each connection stays in TIME_WAIT."""
    loop = asyncio.get_running_loop()
    [(_, fd)] = sockets.open(WEB, ["tcp:127.0.0.1:0"])
    with server(fd):
        ask(connect(sockets))
        started, idle = loop.time(), asyncio.Event()
        sockets.await_idle(WEB, 0.5, idle.set)
        last = started
        while loop.time() < started + 1.5:
            assert not idle.is_set()
            await asyncio.to_thread(lambda: ask(connect(sockets)))
            last = loop.time()
            await asyncio.sleep(0.1)
        await asyncio.wait_for(idle.wait(), 10)
        assert loop.time() - last >= 0.5
