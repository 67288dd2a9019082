"""gafferd below its keeper."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from gaffer.errors import ConfigError
from gafferd.config.settings import resolve
from gafferd.keeping.starting import join_keeper
from support.daemons import Daemon, clean_env, command_path, gafferd, kill_leftovers, run_command
from support.needs import needs_pidns
from support.poll import eventually

TIMEOUT = 20
JOB = {"name": "j", "cmd": "sleep 1000", "numprocesses": 2}


class Node:
    """A gafferd with a keeper; `keeper.pid` is the pid that the user started."""

    def __init__(self, keeper: Daemon, state: Path) -> None:
        self.keeper = keeper
        self.state = state
        self.url = keeper.url

    @property
    def pid(self) -> int:
        """The pid of gafferd."""
        return int((self.state / "lock").read_text().split()[0])

    def get(self, path: str) -> Any:
        response = requests.get(self.url + path, timeout=TIMEOUT)
        response.raise_for_status()
        return response.json()

    def load(self, job: dict[str, Any]) -> None:
        requests.post(f"{self.url}/jobs/default", json=job, timeout=TIMEOUT).raise_for_status()

    def instances(self, number: int) -> list[int]:
        """The pids of the running processes, once there are so many."""
        found: list[int] = [each["os_pid"] for each in self.get("/jobs/default/j")["instances"] if each["os_pid"]]
        assert len(found) == number
        return found


@contextmanager
def kept_node(tmp_path: Path, *args: str, env: dict[str, str] | None = None) -> Iterator[Node]:
    state = tmp_path / "state"
    with gafferd("--keeper", *args, state_dir=state, env=env) as keeper:
        node = Node(keeper, state)
        try:
            node.get("/health")  # its loop runs, so the keeper knows that it is ready
            yield node
        except BaseException:
            with suppress(ProcessLookupError):
                keeper.signal(signal.SIGSTOP)  # it is killed later, and must not start another gafferd before
                os.kill(node.pid, signal.SIGKILL)
            raise


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid)


def test_a_killed_gafferd_is_back_with_its_jobs_and_connections_wait(tmp_path: Path) -> None:
    with kept_node(tmp_path) as node:
        before = node.get("/health")["keeper"]
        assert before == {"pid": node.keeper.pid, "since": before["since"], "error": None}
        node.load(JOB)
        first, pids = node.pid, eventually(lambda: node.instances(2))
        os.kill(first, signal.SIGSTOP)
        local = requests.Session()
        with socket.create_connection(("127.0.0.1", node.keeper.port), TIMEOUT) as waiting:
            waiting.sendall(b"GET /ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            os.kill(first, signal.SIGKILL)
            assert b"200 OK" in waiting.recv(4096)
        assert node.get("/jobs") == {"jobs": ["default.j"]}
        assert node.pid != first
        after = node.get("/health")["keeper"]
        assert (after["pid"], after["error"]) == (before["pid"], None)
        assert abs(after["since"] - before["since"]) < 2
        assert eventually(lambda: node.instances(2)) == pids
        with socket.socket(socket.AF_UNIX) as own:
            own.connect(str(node.state / "gafferd.sock"))
            own.sendall(b"GET /ping HTTP/1.0\r\n\r\n")
            assert b"200 OK" in own.recv(4096)
        node.keeper.wait_for_line(f"started again by the keeper (pid {node.keeper.pid}): gafferd (pid {first}) was")
        local.close()
    assert not (node.state / "gafferd.sock").exists()


def test_processes_know_nothing_of_the_keeper(tmp_path: Path) -> None:
    with kept_node(tmp_path) as node:
        assert os.getpgid(node.pid) == node.pid != os.getpgid(node.keeper.pid)
        node.load({**JOB, "os_env": True})
        eventually(lambda: node.instances(2))
        os.kill(node.pid, signal.SIGKILL)
        eventually(lambda: "started again" in node.keeper.stderr)
        assert os.getpgid(node.pid) == node.pid  # what a terminal sends to the group of the keeper is forwarded once
        for pid in eventually(lambda: node.instances(2)):
            assert b"KEEPER" not in Path(f"/proc/{pid}/environ").read_bytes()
            assert {each.name for each in Path(f"/proc/{pid}/fd").iterdir()} == {"0", "1", "2"}
            limits = Path(f"/proc/{pid}/limits").read_text()
            assert limits == Path("/proc/self/limits").read_text()


def test_a_gafferd_that_hangs_is_replaced(tmp_path: Path) -> None:
    config = tmp_path / "gafferd.ini"
    config.write_text("[gaffer]\nkeeper = true\nwatchdog = 1\n")
    with kept_node(tmp_path, str(config)) as node:
        first = node.pid
        os.kill(first, signal.SIGSTOP)
        # Before it aborts, it may still accept a connection.
        eventually(lambda: node.get("/health")["status"] == "ok" and node.pid != first, retry_on=(OSError,))
        node.keeper.wait_for_line(f"gafferd (pid {first}) has been hanging for 1 s")
        node.keeper.wait_for_line("Fatal Python error: Aborted")


def test_sigusr2_starts_the_program_on_disk(tmp_path: Path) -> None:
    with kept_node(tmp_path) as node:
        node.load(JOB)
        first, pids = node.pid, eventually(lambda: node.instances(2))
        node.keeper.signal(signal.SIGUSR2)
        eventually(lambda: gone(first))
        assert node.get("/jobs") == {"jobs": ["default.j"]}
        node.keeper.wait_for_line("exited with status 75 to be replaced")
        assert eventually(lambda: node.instances(2)) == pids


def test_a_stop_ends_an_upgrade(tmp_path: Path) -> None:
    with kept_node(tmp_path) as node:
        job = {
            **JOB,
            "cmd": """sh -c "trap '' TERM; echo ok; exec sleep 1000" """,
            "ready": "log:ok",
            "graceful_timeout": 60,
        }
        node.load(job)
        eventually(lambda: node.get("/jobs/default/j")["state"] == "running")
        node.keeper.signal(signal.SIGUSR2)
        node.keeper.signal(signal.SIGTERM)
        node.keeper.signal(signal.SIGINT)  # kills the jobs
        assert node.keeper.wait() == 0


def test_a_gafferd_without_its_keeper_goes_on_and_says_so(tmp_path: Path) -> None:
    with gafferd("--keeper", state_dir=tmp_path / "state") as keeper:
        node = Node(keeper, tmp_path / "state")
        pid = node.pid
        node.get("/health")
        os.kill(keeper.pid, signal.SIGKILL)
        state = eventually(lambda: (found := node.get("/health")["keeper"])["error"] and found)
        message = f"the keeper (pid {keeper.pid}) does not protect this node: it has ended"
        assert state["error"] == message
        keeper.wait_for_line(f"ERROR gafferd.keeping.link: {message}")
        node.load(JOB)
        eventually(lambda: node.instances(2))
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: gone(pid))
        keeper.wait()


def test_an_invalid_configuration_ends_the_keeper_too(tmp_path: Path) -> None:
    config = tmp_path / "gafferd.ini"
    config.write_text("[gaffer]\nkeeper = true\nwatchdog = 0.2\n")
    result = run_command("gafferd", str(config), "--state-dir", str(tmp_path / "state"))
    assert result.returncode == 2
    assert "expected at least 1 second, got '0.2'" in result.stderr
    result = run_command("gafferd", "--keeper", "--bind", "0.0.0.0:0", "--state-dir", str(tmp_path / "state"))
    assert result.returncode == 2
    assert "the node has no API key" in result.stderr


def test_keys_from_a_descriptor_can_not_be_read_again(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("k" * 43)
    with key.open("rb") as file, pytest.raises(ConfigError) as caught:
        resolve({"--keeper": True, "--api-key-file": f"/dev/fd/{file.fileno()}"}, {}, {})
    assert [(each.path, each.hint) for each in caught.value.problems] == [("--api-key-file", "use a file")]


def test_a_start_that_fails_ends_the_keeper_with_the_same_status(tmp_path: Path) -> None:
    with kept_node(tmp_path) as node:
        result = run_command("gafferd", "--keeper", "--bind", "127.0.0.1:0", "--state-dir", str(node.state))
        assert result.returncode == 1
        assert f"in use by another gafferd (pid {node.pid})" in result.stderr


def test_a_configuration_that_breaks_later_does_not_end_the_keeper(tmp_path: Path) -> None:
    config = tmp_path / "gafferd.ini"
    config.write_text("")
    with kept_node(tmp_path, str(config)) as node:
        first = node.pid
        config.write_text("[gaffer]\nnonsense = 1\n")
        os.kill(first, signal.SIGKILL)
        node.keeper.wait_for_line("exited with status 2: starting it again")
        config.write_text("")
        assert node.get("/health")["keeper"]["error"] is None


def test_an_essential_job_ends_the_keeper_with_its_status(tmp_path: Path) -> None:
    config = tmp_path / "gafferd.ini"
    config.write_text("[process:a]\ncmd = sh -c 'sleep 0.1; exit 7'\nessential = true\nrestart = never\n")
    command = [
        command_path("gafferd"),
        "--keeper",
        str(config),
        "--bind=127.0.0.1:0",
        f"--state-dir={tmp_path / 'state'}",
    ]
    result = subprocess.run(command, env=clean_env(), capture_output=True, timeout=60, check=False)
    assert result.returncode == 7, result.stderr


def test_in_the_background_the_pidfile_names_the_keeper(tmp_path: Path) -> None:
    state, pidfile, log = tmp_path / "state", tmp_path / "pid", tmp_path / "log"
    options = ["--daemon", f"--pidfile={pidfile}", f"--error-log={log}", f"--state-dir={state}", "--bind=127.0.0.1:0"]
    try:
        result = run_command("gafferd", "--keeper", *options)
        assert result.returncode == 0, result.stderr
        keeper, first = int(pidfile.read_text()), int((state / "lock").read_text().split()[0])
        assert psutil.Process(first).ppid() == keeper
        os.kill(first, signal.SIGKILL)
        eventually(lambda: "started again by the keeper" in log.read_text())
        eventually(lambda: int(pidfile.read_text()) == keeper)
        assert f"keeper: gafferd (pid {first}) was killed by signal 9" in log.read_text()
        os.kill(keeper, signal.SIGTERM)
        eventually(lambda: gone(keeper))
        assert not pidfile.exists()
    finally:
        kill_leftovers(state)


def test_the_service_manager_sees_the_keeper_as_the_main_process(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        with kept_node(tmp_path, env={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as node:
            for _ in range(2):
                while b"READY=1" not in (message := manager.recv(999)):
                    assert b"STOPPING" not in message
                assert b"MAINPID=%d\n" % node.keeper.pid in message
                node.keeper.signal(signal.SIGUSR2)
            while b"READY=1" not in manager.recv(999):
                pass


def test_a_wrong_descriptor_of_the_keeper() -> None:
    reader, writer = os.pipe()
    for value in ("x", "999999", str(reader)):
        environ = {"GAFFERD_KEEPER_FD": value}
        with pytest.raises(ConfigError, match=f"expected the descriptor of a socket, got '{value}'"):
            join_keeper(environ, 10)
        assert environ == {}
    os.close(reader)
    os.close(writer)
    assert join_keeper({}, 10) is None


@needs_pidns
def test_the_keeper_as_process_1_of_a_container(tmp_path: Path) -> None:
    enter = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child=TERM")
    with gafferd("--keeper", state_dir=tmp_path / "state", enter=enter) as outside:
        [keeper] = psutil.Process(outside.pid).children()
        url = outside.url
        assert requests.get(f"{url}/health", timeout=TIMEOUT).json()["keeper"]["pid"] == 1
        [first] = keeper.children()
        first.kill()
        assert requests.get(f"{url}/health", timeout=TIMEOUT).json()["keeper"]["pid"] == 1
        keeper.terminate()
        assert outside.wait() == 0
