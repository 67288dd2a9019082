"""gafferd makes way for the program on disk."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest
import requests

from gaffer.runtime.version import __version__
from support.daemons import gafferd, kill_leftovers, lookupd, run_command
from support.kept_node import JOB, TIMEOUT, Node, gone, kept_node
from support.plugins import plugin_tree
from support.poll import eventually


def upgrade(node: Node, query: str = "", **headers: str) -> requests.Response:
    return requests.post(f"{node.url}/upgrade{query}", timeout=TIMEOUT, headers=headers)


def await_successor(node: Node, first: int) -> None:
    eventually(lambda: node.get("/health")["pid"] != first, retry_on=(requests.RequestException,))


def history(node: Node) -> list[tuple[str, str | None, str]]:
    entries = node.get("/history")["entries"]
    return [(each["action"], each["route"], each["outcome"]) for each in entries if each["kind"] != "job"]


def sources(body: Any) -> list[list[int]]:
    """The pids on each node that a lookup lists for a job."""
    return [sorted(each["pids"]) for each in body["sources"]]


def node_status(lookup: str) -> str:
    [node] = requests.get(f"{lookup}/nodes", timeout=TIMEOUT).json()["nodes"]
    return str(node["status"])


class Poller(threading.Thread):
    """Connects and asks, again and again; `failures` are what a client should not see: errors, and other answers."""

    def __init__(self, url: str, find: Callable[[Any], object]) -> None:
        super().__init__()
        self._url = url
        self._find = find
        self._expected = find(requests.get(url, timeout=TIMEOUT).json())
        self._ended = threading.Event()
        self.failures: list[object] = []
        self.answers = 0

    def run(self) -> None:
        while not self._ended.is_set():
            try:
                found = self._find(requests.get(self._url, timeout=TIMEOUT).json())
            except requests.RequestException as error:
                self.failures.append(repr(error))
            else:
                self.answers += 1
                if found != self._expected:
                    self.failures.append(found)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._ended.set()
        self.join(TIMEOUT)


def test_the_next_gafferd_continues_with_the_processes(tmp_path: Path) -> None:
    with lookupd("--ttl", "5", "--interval", "1") as registry:
        args = ("--lookupd-address", registry.url, "--node-name", "one")
        with kept_node(tmp_path, *args) as node:
            node.load(JOB)
            first, pids = node.pid, eventually(lambda: node.instances(2))
            assert node.get("/health")["pid"] == first
            found = f"{registry.url}/findJob?name=default.j"
            eventually(lambda: sources(requests.get(found, timeout=TIMEOUT).json()) == [[1, 2]])
            with Poller(f"{node.url}/jobs", lambda body: body) as api, Poller(found, sources) as lookup:
                answer = upgrade(node)
                assert (answer.status_code, answer.json()) == (
                    202,
                    {"version": __version__, "pid": first, "processes": 2, "checked": True},
                )
                await_successor(node, first)
                eventually(lambda: node_status(registry.url) == "alive")
                seen = lookup.answers
                eventually(lambda: lookup.answers > seen + 1)
            assert (api.failures, lookup.failures, api.answers > 1) == ([], [], True)
            assert node.instances(2) == pids
            assert node.get("/jobs/default/j")["restarts"] == 0
            assert gone(first)
            assert node.get("/health")["keeper"]["pid"] == node.keeper.pid
            node.keeper.wait_for_line(f"gafferd (pid {first}) exited with status 75 to be replaced")
            assert history(node)[:2] == [("start", None, "ok"), ("POST", "/upgrade", "ok")]


@pytest.mark.expects_errors("not upgraded, and nothing has changed")
def test_who_may_not_upgrade_and_to_what(tmp_path: Path) -> None:
    config = tmp_path / "gafferd.ini"
    config.write_text("")
    with kept_node(tmp_path, str(config)) as node:
        node.load(JOB)
        first, pids = node.pid, eventually(lambda: node.instances(2))
        scopes = {"scopes": ["define"], "sessions": ["default"]}
        key = requests.post(f"{node.url}/keys", json=scopes, timeout=TIMEOUT).json()["key"]
        answer = upgrade(node, **{"X-Api-Key": key, "Via": "x"})
        assert (answer.status_code, answer.json()["error"]) == (403, "forbidden")
        assert answer.json()["message"].startswith("an upgrade affects all sessions of the node")
        config.write_text("[gaffer]\nwatchdog = soon\n")
        answer = upgrade(node)
        assert (answer.status_code, answer.json()["error"]) == (409, "check_failed")
        assert "--check-config` ended with 2: " in answer.json()["message"]
        assert "'soon'" in answer.json()["message"]
        assert "force=true" in answer.json()["hint"]
        node.keeper.signal(signal.SIGUSR2)
        node.keeper.wait_for_line("not upgraded, and nothing has changed: the program on disk can't take over")
        assert ("upgrade", None, "failed") in eventually(lambda: history(node))
        assert (node.pid, node.instances(2)) == (first, pids)
        assert node.get("/health")["status"] == "ok"
        # Without the check, the jobs go on under the keeper, until the program can start again.
        assert upgrade(node, "?force=true").json()["checked"] is False
        node.keeper.wait_for_line("exited with status 2: starting it again")
        assert not any(map(gone, pids))
        config.write_text("")
        await_successor(node, first)
        assert node.instances(2) == pids


def test_a_stop_during_the_handover_ends_the_processes(tmp_path: Path) -> None:
    with kept_node(tmp_path) as node:
        node.load({**JOB, "cmd": """sh -c "trap '' TERM; echo ok; exec sleep 1000" """, "graceful_timeout": 60})
        first, pids = node.pid, eventually(lambda: node.instances(2))
        node.keeper.signal(signal.SIGUSR2)
        node.keeper.wait_for_line("handing over to the program on disk")
        node.keeper.signal(signal.SIGTERM)
        node.keeper.wait_for_line("ending 2 processes without gafferd")
        node.keeper.signal(signal.SIGINT)  # kills them
        assert node.keeper.wait() == 0
        assert all(map(gone, (first, *pids)))


@pytest.mark.expects_errors("not upgraded, and nothing has changed")
def test_without_a_keeper_there_is_nothing_to_upgrade_with() -> None:
    with gafferd("--no-keeper") as node:
        answer = requests.post(f"{node.url}/upgrade", timeout=TIMEOUT)
        assert (answer.status_code, answer.json()["error"]) == (409, "no_keeper")
        assert answer.json()["hint"] == "start it without --no-keeper or `keeper = no`"
        node.signal(signal.SIGUSR2)
        node.wait_for_line("gafferd runs without a keeper; start it without --no-keeper")
        assert requests.get(f"{node.url}/health", timeout=TIMEOUT).json()["pid"] == node.pid


def test_a_plugin_that_blocks_does_not_hold_the_handover(tmp_path: Path) -> None:
    tree = plugin_tree(tmp_path)
    blocked = tmp_path / "blocked"
    blocked.touch()
    tree.add(
        "slow",
        stop=f"import os, time; [time.sleep(0.05) for _ in iter(lambda: os.path.exists({str(blocked)!r}), False)]",
    )
    with kept_node(tmp_path, f"--plugins-dir={tree.path}") as node:
        node.load(JOB)
        first, pids = node.pid, eventually(lambda: node.instances(2))
        began = time.monotonic()
        assert upgrade(node).status_code == 202
        await_successor(node, first)
        assert time.monotonic() - began < TIMEOUT
        node.keeper.wait_for_line("the handover took longer than 2 s")
        assert node.instances(2) == pids
        with socket.socket(socket.AF_UNIX) as own:
            own.connect(str(node.state / "gafferd.sock"))
        blocked.unlink()


def test_by_sigusr2_in_the_background(tmp_path: Path) -> None:
    state, pidfile, log = tmp_path / "state", tmp_path / "pid", tmp_path / "log"
    config = tmp_path / "gafferd.ini"
    config.write_text("[process:j]\ncmd = sleep 1000\n")
    options = [f"--pidfile={pidfile}", f"--error-log={log}", f"--state-dir={state}", "--bind=127.0.0.1:0"]
    try:
        result = run_command("gafferd", str(config), "--keeper", "--daemon", *options)
        assert result.returncode == 0, result.stderr
        url = result.stderr.split()[2]

        def get(path: str) -> Any:
            return requests.get(url + path, timeout=TIMEOUT).json()

        keeper, first = int(pidfile.read_text()), get("/health")["pid"]
        [job] = eventually(lambda: get("/jobs/default/j")["instances"])
        os.kill(keeper, signal.SIGUSR2)
        while get("/health")["pid"] == first:
            assert int(pidfile.read_text()) == keeper
        assert [each["os_pid"] for each in get("/jobs/default/j")["instances"]] == [job["os_pid"]]
        eventually(lambda: int(pidfile.read_text()) == keeper)
        noted = [(each["action"], each["caller"], each["outcome"]) for each in get("/history")["entries"]]
        assert ("upgrade", "signal", "ok") in noted
        assert "handing over to the program on disk; 1 processes keep running" in log.read_text()
        os.kill(keeper, signal.SIGTERM)
        eventually(lambda: gone(keeper))
        assert gone(job["os_pid"])
        assert not pidfile.exists()
    finally:
        kill_leftovers(state)
