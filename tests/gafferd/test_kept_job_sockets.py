"""Listening sockets of jobs over a SIGKILL of a gafferd that has a keeper."""

import os
import shlex
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from support.daemons import Daemon, gafferd
from support.poll import eventually

TIMEOUT = 20

# Answers each connection with its pid.
PROGRAM = """
import contextlib, os, select, socket
sockets = [socket.socket(fileno=3 + index) for index in range(int(os.environ["LISTEN_FDS"]))]
while True:
    for ready in select.select(sockets, [], [])[0]:
        with ready.accept()[0] as connection, contextlib.suppress(ConnectionError):
            connection.sendall(str(os.getpid()).encode())
"""


class Node:
    """A gafferd below a keeper, and its configuration."""

    def __init__(self, daemon: Daemon, folder: Path) -> None:
        self.daemon, self.folder = daemon, folder

    @property
    def pid(self) -> int:
        """The pid of gafferd."""
        return int((self.folder / "state/lock").read_text().split()[0])

    @property
    def kept_sockets(self) -> int:
        """The number of sockets that the keeper has open."""
        return self._count("socket:")

    @property
    def kept_processes(self) -> int:
        """The number of processes that the keeper has a pidfd of."""
        return self._count("pidfd")

    def _count(self, kind: str) -> int:
        """The number of open descriptors of the keeper of a kind."""
        return sum(kind in os.readlink(each) for each in Path(f"/proc/{self.daemon.pid}/fd").iterdir())

    def kill(self) -> None:
        """Kill gafferd, and wait until the next one serves."""
        before = self.pid
        os.kill(before, signal.SIGKILL)
        eventually(lambda: self.pid != before and self.get("/health")["status"] == "ok", retry_on=(OSError,))

    def get(self, path: str) -> Any:
        response = requests.get(self.daemon.url + path, timeout=TIMEOUT)
        response.raise_for_status()
        return response.json()

    def sockets(self, job: str) -> list[dict[str, Any]]:
        """Where a job listens."""
        found: list[dict[str, Any]] = self.get(f"/jobs/default/{job}")["sockets"]
        return found

    def start(self, job: str) -> None:
        """Start a job."""
        requests.post(f"{self.daemon.url}/jobs/default/{job}/state", data="1", timeout=TIMEOUT).raise_for_status()

    def stop(self, job: str) -> None:
        """Stop a job."""
        requests.post(f"{self.daemon.url}/jobs/default/{job}/state", data="0", timeout=TIMEOUT).raise_for_status()


@contextmanager
def kept_node(folder: Path, config: str) -> Iterator[Node]:
    (folder / "server.py").write_text(PROGRAM)
    (folder / "gaffer.ini").write_text(config)
    with gafferd("--keeper", str(folder / "gaffer.ini"), state_dir=folder / "state") as daemon:
        node = Node(daemon, folder)
        try:
            node.get("/health")  # its loop runs, so the keeper knows that it is ready
            yield node
        except BaseException:
            with suppress(ProcessLookupError):
                daemon.signal(signal.SIGSTOP)  # it is killed later, and must not start another gafferd before
                os.kill(node.pid, signal.SIGKILL)
            raise


@pytest.fixture
def program(tmp_path: Path) -> str:
    return shlex.join([sys.executable, "-I", str(tmp_path / "server.py")])


def connect(place: dict[str, Any]) -> socket.socket:
    client = socket.socket(socket.AF_UNIX if "path" in place else socket.AF_INET)
    client.settimeout(TIMEOUT)
    try:
        client.connect(place["path"] if "path" in place else (place["address"], place["port"]))
    except BaseException:
        client.close()
        raise
    return client


def ask(place: dict[str, Any]) -> int:
    """The pid of the process that answers."""
    with connect(place) as client:
        return int(client.recv(100))


def is_refused(place: dict[str, Any]) -> bool:
    try:
        connect(place).close()
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    return False


def are_refused(places: list[dict[str, Any]]) -> bool:
    return all(map(is_refused, places))


def test_clients_wait_for_the_next_gafferd(tmp_path: Path, program: str) -> None:
    """Even when no process of the job is there: it has not connected before, or has exited."""
    config = f"""
[process:web]
cmd = {program}
socket = tcp:127.0.0.1:0, u=unix:{tmp_path}/web.sock
survive = false
[process:lazy]
cmd = {program}
socket = tcp:127.0.0.1:0, u=unix:{tmp_path}/lazy.sock
start = on-connection
"""
    with kept_node(tmp_path, config) as node:
        web, lazy = eventually(lambda: node.sockets("web")), eventually(lambda: node.sockets("lazy"))
        inodes = [os.stat(each["path"]).st_ino for each in (web[1], lazy[1])]
        for _ in range(2):
            first = ask(web[0])
            os.kill(node.pid, signal.SIGSTOP)
            os.kill(first, signal.SIGKILL)
            waiting = [connect(place) for place in (*web, *lazy)]
            os.kill(node.pid, signal.SIGCONT)
            node.kill()
            for client in waiting:
                assert int(client.recv(100)) != first
                client.close()
            assert (node.sockets("web"), node.sockets("lazy")) == (web, lazy)
            assert [os.stat(each["path"]).st_ino for each in (web[1], lazy[1])] == inodes
        node.stop("lazy")
        eventually(lambda: are_refused(lazy))
    assert are_refused(web)


def test_an_upgrade_keeps_the_sockets(tmp_path: Path, program: str) -> None:
    sockets = f"tcp:127.0.0.1:0, u=unix:{tmp_path}/lazy.sock"
    lazy = f"[process:lazy]\ncmd = {program}\nsocket = {sockets}\nstart = on-connection\n"
    with kept_node(tmp_path, lazy) as node:
        before, pid = eventually(lambda: node.sockets("lazy")), node.pid
        node.daemon.signal(signal.SIGUSR2)
        for place in before:
            ask(place)
        eventually(lambda: node.pid != pid and node.sockets("lazy") == before, retry_on=(OSError,))
        assert not any(map(is_refused, before))


def test_sockets_that_no_job_uses_any_more_are_closed(tmp_path: Path, program: str) -> None:
    job = "[process:{0}]\ncmd = {1}\nsocket = {2}\nstart = on-connection\n"
    listens = {
        "same": "tcp:127.0.0.1:0",
        "other": f"tcp:127.0.0.1:0, unix:{tmp_path}/other.sock",
        "gone": f"tcp:127.0.0.1:0, unix:{tmp_path}/gone.sock",
        "stopped": f"tcp:127.0.0.1:0, unix:{tmp_path}/stopped.sock",
    }
    texts = {name: job.format(name, program, each) for name, each in listens.items()}
    with kept_node(tmp_path, "".join(texts.values())) as node:
        places = {name: eventually(partial(node.sockets, name)) for name in listens}
        before = node.kept_sockets
        os.kill(node.pid, signal.SIGSTOP)
        texts["other"] = job.format("other", program, "other=tcp:127.0.0.1:0")
        del texts["gone"]
        texts["stopped"] = job.format("stopped", program, listens["stopped"]).replace("on-connection", "no")
        (tmp_path / "gaffer.ini").write_text("".join(texts.values()))
        node.kill()
        assert eventually(lambda: node.sockets("same")) == places["same"]
        for name in ("other", "gone", "stopped"):
            eventually(partial(are_refused, places[name]))
            assert not (tmp_path / f"{name}.sock").exists()
        [new] = eventually(lambda: node.sockets("other"))
        eventually(lambda: node.kept_sockets == before - 5)
        assert ask(new)
        node.kill()
        assert eventually(lambda: node.sockets("other")) == [new]


def test_a_job_that_has_to_wait_keeps_its_sockets(tmp_path: Path, program: str) -> None:
    """It has no processes when gafferd is killed, and must not start any until another job is ready."""
    config = f"""
[process:db]
cmd = sleep 1000
ready = exec:test -e {tmp_path}/ready
ready_interval = 0.05
start_timeout = 5m
survive = false
[process:web]
cmd = {program}
socket = tcp:127.0.0.1:0
after = db
startsecs = 5m
backoff = 5m
"""
    (tmp_path / "ready").touch()
    with kept_node(tmp_path, config) as node:
        [place] = eventually(lambda: node.sockets("web"))
        for last in (False, True):
            os.kill(ask(place), signal.SIGKILL)
            eventually(lambda: node.get("/jobs/default/web")["state"] == "backoff")
            eventually(
                lambda: node.kept_processes == 0
            )  # so there is nothing to adopt; db, which must not survive, has none
            (tmp_path / "ready").unlink()
            node.kill()
            eventually(lambda: node.get("/jobs/default/web")["state"] == "backoff")  # it goes on
            if last:
                node.stop("web")
                eventually(lambda: is_refused(place))
                return
            with connect(place) as waiting:
                (tmp_path / "ready").touch()
                eventually(lambda: node.get("/jobs/default/db")["state"] == "running")
                node.start("web")
                assert waiting.recv(100)
