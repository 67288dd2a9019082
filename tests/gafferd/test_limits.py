"""Descriptors: the daemon takes what it may have, its processes get what they would have had."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from support.daemons import gafferd
from support.poll import eventually


@pytest.fixture
def few_descriptors() -> Iterator[int]:
    """Daemons that are started meanwhile have this soft limit."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    yield 256
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_low_soft_limit_does_not_limit_the_processes_in_number_and_reaches_them(few_descriptors: int) -> None:
    with gafferd() as node:
        job = {"name": "j", "cmd": "/bin/sleep 1000", "numprocesses": 150, "redirect_output": ["out", "err"]}
        requests.post(f"{node.url}/jobs/default", json=job, timeout=10).raise_for_status()
        info = eventually(
            lambda: (found := requests.get(f"{node.url}/jobs/default/j", timeout=10).json())["running"] == 150 and found
        )
        assert len(list(Path(f"/proc/{node.pid}/fd").iterdir())) > few_descriptors
        for instance in info["instances"]:
            assert resource.prlimit(instance["os_pid"], resource.RLIMIT_NOFILE)[0] == few_descriptors
