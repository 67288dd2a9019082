"""Jobs whose listening sockets the manager opens: real programs that accept connections from them."""

import os
import shlex
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gaffer import Manager
from gaffer.process import ProcessConfig
from support.managers import Recording, running_manager
from support.needs import needs_linux
from support.poll import eventually

pytestmark = needs_linux

# Answers each connection with its pid and what it was passed, as sd_listen_fds(3) describes.
PROGRAM = """
import contextlib, os, select, socket
passed = [os.environ[name] for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")]
sockets = [socket.socket(fileno=3 + index) for index in range(int(passed[1]))]
while True:
    for ready in select.select(sockets, [], [])[0]:
        with ready.accept()[0] as connection, contextlib.suppress(ConnectionError):
            connection.sendall(" ".join([str(os.getpid()), *passed]).encode())
            while connection.recv(100):
                pass
"""


UNDONE = ("rollback", "done")


@pytest.fixture
def events() -> Recording:
    return Recording()


@pytest.fixture
def manager(events: Recording) -> Iterator[Manager]:
    with running_manager([events]) as manager:
        yield manager


@pytest.fixture
def program(tmp_path: Path) -> str:
    (tmp_path / "server.py").write_text(PROGRAM)
    return shlex.join([sys.executable, "-I", str(tmp_path / "server.py")])


def load(manager: Manager, program: str, **settings: Any) -> None:
    manager.load(ProcessConfig("web", program, **{"socket": "tcp:127.0.0.1:0", **settings}))


def places(manager: Manager) -> list[dict[str, Any]]:
    return manager.info("web")["sockets"]


def connect(manager: Manager, index: int = 0) -> socket.socket:
    place = eventually(lambda: places(manager))[index]
    return socket.create_connection((place["address"], place["port"]), timeout=10)


def answer(client: socket.socket) -> list[str]:
    with client:
        return client.recv(1000).decode().split(" ")


def os_pids(manager: Manager) -> set[int]:
    return {instance["os_pid"] for instance in manager.info("web")["instances"] if instance["os_pid"]}


def two_others(manager: Manager, before: set[int]) -> set[int]:
    """The system's pids of two processes that are not in `before`, once they run."""
    return eventually(lambda: len(found := os_pids(manager) - before) == 2 and found)


def test_a_program_finds_its_sockets(manager: Manager, program: str, tmp_path: Path) -> None:
    path = f"{tmp_path}/web.sock"
    load(manager, program, socket=f"http=tcp:127.0.0.1:0, tcp:[::1]:0, ctl=unix:{path}")
    for index in (0, 1):
        pid, *passed = answer(connect(manager, index))
        assert passed == [pid, "3", "http:tcp:ctl"]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        assert answer(client)[0] == pid
    assert {int(pid)} == os_pids(manager)
    assert [place["name"] for place in places(manager)] == ["http", "tcp", "ctl"]
    manager.stop_job("web")
    eventually(lambda: not Path(path).exists())
    assert places(manager) == []


def test_crashes_and_restarts_refuse_no_connection(manager: Manager, program: str) -> None:
    load(manager, program, numprocesses=2)
    failures: list[OSError] = []
    over = threading.Event()

    def keep_connecting() -> None:
        while not over.is_set():
            try:
                connect(manager).close()
            except OSError as error:
                failures.append(error)

    def crash() -> None:
        for os_pid in os_pids(manager):
            os.kill(os_pid, signal.SIGKILL)

    client = threading.Thread(target=keep_connecting)
    client.start()
    try:
        for disturb in (crash, lambda: manager.restart_job("web"), lambda: manager.restart_job("web", rolling=True)):
            before = two_others(manager, set())
            disturb()
            two_others(manager, before)
    finally:
        over.set()
        client.join()
    assert failures == []
    assert int(answer(connect(manager))[0]) in os_pids(manager)


def test_a_job_starts_on_a_connection_and_stops_when_idle(manager: Manager, program: str, events: Recording) -> None:
    load(manager, program, start="on-connection", idle_timeout=0.4)
    eventually(lambda: places(manager))
    assert os_pids(manager) == set()
    served = set()
    for _ in range(2):
        with connect(manager) as client:
            served.add(client.recv(1000).split(b" ")[0])
            eventually(lambda: manager.info("web")["state"] == "running")
        eventually(lambda: os_pids(manager) == set())
    assert len(served) == 2
    assert len(events.of("spawn")) == 2


@pytest.mark.expects_errors("can't open the socket")
def test_sockets_that_can_not_be_opened_are_the_reason(manager: Manager, program: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        load(manager, program, socket=f"tcp:127.0.0.1:{port}", start="on-connection")
        info = eventually(lambda: (info := manager.info("web"))["state"] == "failed" and info)
        assert f"can't open the socket tcp:127.0.0.1:{port}: another program listens on it" in str(info["reason"])


def test_an_update_closes_the_sockets_that_the_job_no_longer_has(manager: Manager, program: str) -> None:
    load(manager, program)
    answer(connect(manager))
    address = places(manager)[0]
    manager.update(ProcessConfig("web", "sleep 1000"))
    eventually(lambda: manager.info("web")["state"] == "running" and not places(manager))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address["address"], address["port"]), timeout=10)


def test_an_update_opens_the_sockets_of_a_job_that_waits_for_a_connection(manager: Manager, program: str) -> None:
    load(manager, program, start="on-connection")
    before = eventually(lambda: places(manager))
    manager.update(ProcessConfig("web", program, socket="other=tcp:127.0.0.1:0", start="on-connection"))
    eventually(lambda: [each["name"] for each in places(manager)] == ["other"])
    assert answer(connect(manager))[3] == "other"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((before[0]["address"], before[0]["port"]), timeout=10)


def test_an_update_is_undone_while_processes_still_use_its_sockets(manager: Manager, program: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    load(manager, program, socket=f"tcp:127.0.0.1:{port}", numprocesses=2, auto_rollback=True, startsecs=0.1)
    eventually(lambda: len(os_pids(manager)) == 2 and manager.info("web")["state"] == "running")
    manager.update(
        ProcessConfig("web", "false", socket="tcp:127.0.0.1:0", numprocesses=2, auto_rollback=True, startsecs=0.1)
    )
    eventually(lambda: (found := manager.info("web")["rollout"]) and (found["kind"], found["state"]) == UNDONE)
    assert [place["port"] for place in places(manager)] == [port]
    assert answer(connect(manager))[2] == "1"
    manager.stop_job("web")
    eventually(lambda: not os_pids(manager))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=10)
