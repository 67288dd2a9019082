"""A gafferd below its keeper, with a job whose processes can be told apart."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import requests

from support.daemons import Daemon, gafferd

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
