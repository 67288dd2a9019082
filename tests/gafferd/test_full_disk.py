"""A disk without space: gafferd starts, answers and ends on it, and says what it could not write."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from support.daemons import Daemon, gafferd
from support.metrics import parse_metrics
from support.needs import needs_linux, needs_mount
from support.poll import eventually

pytestmark = [needs_linux, needs_mount]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", path], check=True)
    yield path
    subprocess.run(["umount", path], check=True)


def fill(disk: Path) -> None:
    """Write until nothing more fits."""
    with open(disk / "fill", "ab", buffering=0) as file:
        for size in (4096, 1):
            while True:
                try:
                    file.write(b"x" * size)
                except OSError:
                    break


def lost(node: Daemon) -> float:
    return parse_metrics(requests.get(f"{node.url}/metrics").text)["gaffer_log_lost_bytes_total", frozenset()]


def test_gafferd_runs_and_starts_on_a_full_disk(disk: Path, tmp_path: Path) -> None:
    config = tmp_path / "gafferd.ini"
    config.write_text("[process:loud]\ncmd = sh -c 'while echo 0123456789; do sleep 0.01; done'\n")
    state = disk / "state"
    with gafferd(str(config), state_dir=state) as node:
        eventually(lambda: os.listdir(state / "logs"), retry_on=(OSError,))
        fill(disk)
        node.wait_for_line(".log: No space left on device")
        assert eventually(lambda: lost(node)) > 0
        answer = requests.post(f"{node.url}/jobs/default", json={"name": "b", "cmd": "sleep 1000"})
        assert (answer.status_code, answer.json()["error"]) == (507, "not_stored")
        assert "No space left on device" in answer.json()["message"]
        assert requests.get(f"{node.url}/jobs").json() == {"jobs": ["default.loud"]}
        assert "No space left on device" in requests.get(f"{node.url}/health").json()["state_error"]
        answer = requests.post(f"{node.url}/keys", json={"scopes": ["read"]})
        assert (answer.status_code, answer.json()["error"]) == (507, "key_store")
        assert "No space left on device" in answer.json()["message"]
        node.stop()
        fill(disk)
        options = [f"--pidfile={disk}/pid", f"--error-log={disk}/log"]
        again = Daemon("gafferd", str(config), "--bind=127.0.0.1:0", f"--state-dir={state}", *options)
        again.wait_for_line("listening on ")
        assert requests.get(f"{again.url}/ping").status_code == 200
        assert eventually(lambda: requests.get(f"{again.url}/jobs/default/loud").json()["running"]) == 1
        own = parse_metrics(requests.get(f"{again.url}/metrics").text)
        assert own["gaffer_own_log_lost_lines_total", frozenset()] > 0
        again.stop()
        assert "Traceback" not in again.stderr
