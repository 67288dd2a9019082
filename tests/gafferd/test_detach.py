"""A detached process outlives its daemon, graceful or not, and the next one counts it again."""

import os
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from gaffer.processes import procfs
from support.daemons import Daemon, gafferd
from support.poll import eventually

CONFIG = """
[process:keeper]
cmd = /bin/sleep 1000
detach = true
startsecs = 0

[process:plain]
cmd = /bin/sleep 1000
startsecs = 0
"""


def os_pids(node: Daemon, job: str) -> list[int]:
    info: Any = requests.get(f"{node.url}/jobs/default/{job}", timeout=10).json()
    return [each["os_pid"] for each in info["instances"] if each["state"] == "ready" and each["os_pid"]]


@pytest.mark.row("TPL-10")
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL], ids=str)
def test_the_next_daemon_counts_it_again(tmp_path: Path, signum: signal.Signals) -> None:
    config = tmp_path / "gaffer.ini"
    config.write_text(CONFIG)
    with gafferd(str(config), state_dir=tmp_path / "state") as first:
        (kept,) = eventually(lambda: os_pids(first, "keeper"))
        (plain,) = eventually(lambda: os_pids(first, "plain"))
        if signum == signal.SIGKILL:
            first.kill()
        else:
            first.stop()
        assert procfs.read_stat(kept) is not None

        with gafferd(str(config), state_dir=tmp_path / "state") as second:
            eventually(lambda: os_pids(second, "keeper") == [kept])
            assert eventually(lambda: os_pids(second, "plain")) != [plain]
            os.kill(kept, signal.SIGKILL)
            (new,) = eventually(lambda: [pid for pid in os_pids(second, "keeper") if pid != kept])
            requests.delete(f"{second.url}/jobs/default/keeper", timeout=10).raise_for_status()
            eventually(lambda: procfs.read_stat(new) is None)


def test_a_copy_of_the_state_directory_is_another_node(tmp_path: Path) -> None:
    """Started while the original runs, as a second node, it leaves the processes of that one alone."""
    config = tmp_path / "gaffer.ini"
    config.write_text(CONFIG)
    with gafferd(str(config), state_dir=tmp_path / "state") as first:
        before = [eventually(partial(os_pids, first, job)) for job in ("keeper", "plain")]
        shutil.copytree(tmp_path / "state", tmp_path / "copy", ignore=shutil.ignore_patterns("*.sock"))
        with gafferd(str(config), state_dir=tmp_path / "copy") as second:
            assert "the node gets a new id" in second.stderr
            assert all(eventually(partial(os_pids, second, job)) for job in ("keeper", "plain"))
            second.kill()
            with gafferd(str(config), state_dir=tmp_path / "copy") as third:
                assert eventually(lambda: os_pids(third, "plain"))
                requests.delete(f"{third.url}/jobs/default/keeper", timeout=10).raise_for_status()
        assert [os_pids(first, job) for job in ("keeper", "plain")] == before
        requests.delete(f"{first.url}/jobs/default/keeper", timeout=10).raise_for_status()


@pytest.mark.parametrize("content", [b"", b'{"processes": []', b"\0" * 100])
def test_damaged_state_neither_ends_it_nor_starts_it_twice(tmp_path: Path, content: bytes) -> None:
    config, state = tmp_path / "gaffer.ini", tmp_path / "state"
    config.write_text(CONFIG)
    with gafferd(str(config), state_dir=state) as first:
        (kept,) = eventually(lambda: os_pids(first, "keeper"))
        (plain,) = eventually(lambda: os_pids(first, "plain"))
        first.kill()
        for name in ("node.json", "processes.json"):
            (state / name).write_bytes(content)
        with gafferd(str(config), state_dir=state) as second:
            eventually(lambda: os_pids(second, "keeper") == [kept])
            assert eventually(lambda: os_pids(second, "plain")) != [plain]
            assert procfs.read_stat(plain) is None
            assert f"{state}/processes.json is damaged" in second.stderr
            requests.delete(f"{second.url}/jobs/default/keeper", timeout=10).raise_for_status()
