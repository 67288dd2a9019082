"""gafferd below its keeper."""

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from gaffer.errors import ConfigError
from gafferd.config.settings import resolve
from gafferd.keeping.starting import join_keeper
from support.daemons import clean_env, command_path, gafferd, kill_leftovers, run_command
from support.kept_node import JOB, TIMEOUT, Node, gone, kept_node
from support.needs import needs_pidns
from support.poll import eventually
from support.survival import serve_below_tostop


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
        first = eventually(lambda: node.instances(2))[0]
        os.kill(first, signal.SIGKILL)
        eventually(lambda: first not in node.instances(2))
        threads = os.listdir(f"/proc/{node.pid}/task")
        assert {os.getpriority(os.PRIO_PROCESS, int(thread)) for thread in threads} == {os.nice(0)}
        assert os.getpgid(node.pid) == node.pid  # what a terminal sends to the group of the keeper is forwarded once
        for pid in eventually(lambda: node.instances(2)):
            assert b"KEEPER" not in Path(f"/proc/{pid}/environ").read_bytes()
            assert {each.name for each in Path(f"/proc/{pid}/fd").iterdir()} == {"0", "1", "2"}
            assert psutil.Process(pid).nice() == os.nice(0)
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


def test_a_gafferd_whose_keeper_was_killed_takes_its_place(tmp_path: Path) -> None:
    with kept_node(tmp_path) as node:
        node.load(JOB)
        first, pids = node.pid, eventually(lambda: node.instances(2))
        os.kill(first, signal.SIGKILL)  # its processes become those of the keeper
        eventually(lambda: node.pid != first)
        node.load({**JOB, "name": "own"})
        eventually(lambda: node.get("/jobs/default/own")["running"] == 2)
        assert node.instances(2) == pids
        second = node.pid
        node.keeper.signal(signal.SIGKILL)
        try:
            # A connection that this process has accepted ends when it becomes the keeper.
            state = eventually(
                lambda: (found := node.get("/health")["keeper"])["pid"] == second and found, retry_on=(OSError,)
            )
            assert state["error"] is None
            assert node.pid != second
            assert node.get("/jobs/default/own")["running"] == 2
            assert node.instances(2) == pids
            os.kill(pids[0], signal.SIGKILL)  # nobody's child
            eventually(lambda: pids[0] not in node.instances(2))
            third = node.pid
            os.kill(third, signal.SIGKILL)  # it is protected
            eventually(lambda: node.pid != third)
            assert len(eventually(lambda: node.instances(2), retry_on=(OSError,))) == 2
        finally:
            os.kill(second, signal.SIGTERM)
            eventually(lambda: gone(second))
        assert all(map(gone, pids))


@pytest.mark.parametrize("later", [False, True])
def test_nothing_goes_on_when_the_state_directory_is_removed_with_the_keeper(tmp_path: Path, later: bool) -> None:
    with kept_node(tmp_path) as node:
        node.load(JOB)
        first = node.pid
        running = [first, *eventually(lambda: node.instances(2))]
        # What ends a node for good, although its gafferd would take the place of the keeper.
        if not later:
            os.kill(first, signal.SIGSTOP)
        node.keeper.signal(signal.SIGKILL)
        if later:
            running.append(eventually(lambda: (pid := node.pid) != first and pid))
            assert node.get("/health")["keeper"]["pid"] == first
        (tmp_path / "state").rename(tmp_path / "removed")
        shutil.rmtree(tmp_path / "removed")
        os.kill(first, signal.SIGCONT)
        eventually(lambda: all(map(gone, running)))
        node.keeper.wait_for_line("the keeper was killed, and the state directory removed: ending")
    assert not (tmp_path / "state").exists()


def test_a_gafferd_without_its_keeper_goes_on_and_says_so(tmp_path: Path) -> None:
    env = {"NOTIFY_SOCKET": str(tmp_path / "nobody")}
    with gafferd("--keeper", state_dir=tmp_path / "state", env=env) as keeper:
        node = Node(keeper, tmp_path / "state")
        pid = node.pid
        node.get("/health")
        os.kill(keeper.pid, signal.SIGKILL)
        state = eventually(lambda: (found := node.get("/health")["keeper"])["error"] and found)
        reason = "the service manager can't be told of another one"
        message = f"the keeper (pid {keeper.pid}) has ended and has no successor: {reason}"
        assert state["error"] == message
        keeper.wait_for_line(f"ERROR gafferd.keeping.link: {message}")
        assert f"warning: {message}" in run_command("gafferctl", "status", "--connect", node.url).stderr
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
    assert "at least 1 and at most 86400, got '0.2'" in result.stderr
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
        health = requests.get(f"{url}/health", timeout=TIMEOUT).json()
        assert health["keeper"]["pid"] == 1
        requests.post(f"{url}/jobs/default", json=JOB, timeout=TIMEOUT).raise_for_status()

        def job() -> dict[str, Any]:
            found: dict[str, Any] = requests.get(f"{url}/jobs/default/j", timeout=TIMEOUT).json()
            return found

        pids = eventually(lambda: job()["running"] == 2 and [each["os_pid"] for each in job()["instances"]])
        assert requests.post(f"{url}/upgrade", timeout=TIMEOUT).json()["pid"] == health["pid"]
        eventually(lambda: requests.get(f"{url}/health", timeout=TIMEOUT).json()["pid"] != health["pid"])
        assert [each["os_pid"] for each in job()["instances"]] == pids
        keeper.terminate()
        assert outside.wait() == 0


def test_a_terminal_that_stops_background_writers(tmp_path: Path) -> None:
    serve_below_tostop(tmp_path / "state")
