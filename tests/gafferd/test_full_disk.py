"""A disk without space: gafferd starts, answers and ends on it, and says what it could not write."""

import itertools
import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from support.daemons import Daemon, gafferd
from support.metrics import parse_metrics
from support.needs import needs_linux, needs_mount
from support.poll import eventually
from support.webhooks import receiver

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


def test_webhooks_on_a_full_disk_wait_in_memory(disk: Path, tmp_path: Path) -> None:
    config = tmp_path / "gafferd.ini"

    def webhook(node: Daemon) -> dict[str, Any]:
        found: dict[str, Any] = requests.get(f"{node.url}/health").json()["webhooks"][0]
        return found

    numbers = itertools.count()

    def unsaved_after_a_call(node: Daemon) -> int:
        # There may be room in the last block.
        requests.post(f"{node.url}/jobs/default/none{next(numbers)}/state", data=b"1")
        unsaved: int = webhook(node)["unsaved"]
        return unsaved

    with receiver() as server:
        config.write_text(f"[gaffer]\nwebhook_queue = disk\n[webhooks]\naudit = {server.url}/\n")
        server.status = 503
        with gafferd(str(config), state_dir=disk / "state") as node:
            fill(disk)
            unsaved = eventually(partial(unsaved_after_a_call, node))
            node.wait_for_line("its events wait in memory: No space left on device")
            server.status = 200
            eventually(lambda: not webhook(node)["pending"])
            assert webhook(node)["delivered"] >= unsaved
            metrics = parse_metrics(requests.get(f"{node.url}/metrics").text)
            assert metrics["gaffer_webhook_unsaved_total", frozenset({("url", f"{server.url}/")})] >= unsaved


def test_calls_are_served_when_the_history_can_not_be_written(disk: Path) -> None:
    with gafferd(state_dir=disk / "state") as node:
        fill(disk)
        node.wait_for_line("listening on unix")

        numbers = itertools.count()

        def lost() -> float:
            url = f"{node.url}/jobs/default/none{next(numbers)}/state"
            assert requests.post(url, data=b"1").status_code == 404
            metrics = parse_metrics(requests.get(f"{node.url}/metrics").text)
            return metrics["gaffer_history_lost_entries_total", frozenset()]

        eventually(lost)
        node.wait_for_line("history.jsonl, entries of the history are lost: No space left on device")
        (disk / "fill").unlink()
        eventually(lambda: requests.get(f"{node.url}/history?limit=1").json()["entries"])
        assert requests.post(f"{node.url}/jobs/default/none/state", data=b"1").status_code == 404
        entries = requests.get(f"{node.url}/history").json()["entries"]
        assert entries[0]["action"] == "POST"
        assert [entry["count"] >= 1 for entry in entries if entry["action"] == "lost"] == [True]
