"""What the daemons tell a service manager, sd_notify(3), and how a second signal hurries the stop of gafferd."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from gaffer.runtime.service_manager import ServiceManager
from support.daemons import Daemon, gafferd, lookupd
from support.peer import peer
from support.poll import eventually

JOB = {"name": "j", "cmd": "sleep 1000", "startsecs": 0}


class Receiver:
    """A service manager that remembers what it was told."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.socket.settimeout(10)

    def message(self, **wanted: str) -> dict[str, str]:
        """The next message with these fields."""
        passed = []
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            passed.append(fields := dict(line.split("=", 1) for line in self.socket.recv(4096).decode().splitlines()))
            if wanted.items() <= fields.items():
                return fields
        raise AssertionError(f"no message with {wanted}, but {passed}")


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    made = Receiver(str(tmp_path / "notify"))
    yield made
    made.socket.close()


def test_the_life_of_the_daemon(tmp_path: Path, receiver: Receiver) -> None:
    config = tmp_path / "gafferd.ini"
    config.write_text("[process:a]\ncmd = sleep 1000\n")
    variables = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000"}
    with gafferd(str(config), env=variables) as node:
        ready = receiver.message(READY="1")
        assert ready["MAINPID"] == str(node.pid)
        assert ready["STATUS"].startswith("1 job, ")
        receiver.message(WATCHDOG="1")
        receiver.message(WATCHDOG="1")
        assert requests.post(f"{node.url}/jobs/default", json=JOB, timeout=10).ok
        receiver.message(STATUS="2 jobs, 2 processes")
        os.kill(node.pid, signal.SIGHUP)
        assert int(receiver.message(RELOADING="1")["MONOTONIC_USEC"]) > 0
        receiver.message(READY="1")
        node.stop()
        receiver.message(STOPPING="1")


def test_jobs_know_nothing_of_the_service_manager(tmp_path: Path, receiver: Receiver) -> None:
    with gafferd(env={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}) as node:
        shows = {"name": "j", "cmd": "sh -c 'env; sleep 1000'", "os_env": True, "restart": "never"}
        assert requests.post(f"{node.url}/jobs/default", json=shows, timeout=10).ok
        [process] = eventually(lambda: requests.get(f"{node.url}/jobs/default/j", timeout=10).json()["instances"])
        environ = Path(f"/proc/{process['os_pid']}/environ").read_bytes()
        assert b"NOTIFY_SOCKET" not in environ
        assert b"WATCHDOG" not in environ
        node.stop()


def test_a_watchdog_for_another_process_is_not_ours() -> None:
    environ = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1", "HOME": "/"}
    services = ServiceManager.take(environ)
    assert (services.present, services.watchdog) == (True, None)
    assert environ == {"HOME": "/"}
    services.notify(READY=1)  # nobody listens
    services.close()
    assert not ServiceManager.take({}).present


@pytest.mark.parametrize(("first", "second"), [("SIGTERM", "SIGTERM"), ("SIGTERM", "SIGINT"), ("SIGINT", "SIGTERM")])
def test_a_second_signal_hurries_the_stop(first: str, second: str) -> None:
    with gafferd() as node:
        stubborn = {**JOB, "cmd": "sh -c 'trap \"\" TERM; echo set; sleep 1000'", "redirect_output": ["out"]}
        assert requests.post(f"{node.url}/jobs/default", json=stubborn, timeout=10).ok
        eventually(lambda: _ignores_term(node))
        began = time.monotonic()
        os.kill(node.pid, signal.Signals[first])
        eventually(lambda: requests.get(f"{node.url}/health", timeout=10).json()["status"] == "stopping")
        os.kill(node.pid, signal.Signals[second])
        assert node.wait() == 0
        assert time.monotonic() - began < 20, "its graceful timeout is 30 s"


def _ignores_term(node: Daemon) -> bool:
    [instance] = requests.get(f"{node.url}/jobs/default/j", timeout=10).json()["instances"] or [{"os_pid": None}]
    if instance["os_pid"] is None:
        return False
    status = Path(f"/proc/{instance['os_pid']}/status").read_text()
    ignored = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigIgn"))
    return bool(ignored & 1 << signal.SIGTERM - 1)


@pytest.mark.row("GD-20")
def test_the_title_shows_the_node_its_jobs_and_the_arguments(tmp_path: Path) -> None:
    """`ps` shows all of it, and the name of the process stays, by which `pkill` finds it."""
    config = tmp_path / "gafferd.ini"
    config.write_text("[process:a]\ncmd = sleep 1000\n")
    with gafferd(f"--config={config}", "--node-name=web1") as node:
        eventually(lambda: title(node).startswith("gafferd: node web1, 1 job, 1 process ("))
        assert f"--config={config}" in title(node)
        assert requests.post(f"{node.url}/jobs/default", json=JOB, timeout=10).ok
        eventually(lambda: title(node).startswith("gafferd: node web1, 2 jobs, 2 processes ("))
        assert Path(f"/proc/{node.pid}/comm").read_text() == "gafferd\n"


def title(daemon: Daemon) -> str:
    return Path(f"/proc/{daemon.pid}/cmdline").read_text().partition("\0")[0]


def test_lookupd_reports_its_nodes(tmp_path: Path, receiver: Receiver) -> None:
    variables = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000"}
    with lookupd(env=variables) as registry:
        ready = receiver.message(READY="1")
        assert (ready["MAINPID"], ready["STATUS"]) == (str(registry.pid), "0 nodes")
        receiver.message(WATCHDOG="1")
        receiver.message(WATCHDOG="1")
        with peer(registry.url) as node:
            node.identify(id="a1", incarnation=1)
            receiver.message(STATUS="1 node")
            eventually(lambda: title(registry).startswith("gaffer_lookupd: 1 node ("))
        receiver.message(STATUS="1 node, 1 suspect")
        registry.stop()
        receiver.message(STOPPING="1")
