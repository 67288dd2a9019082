"""Daemons as process 1, as in a container: signals, orphans, exit status."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
import requests

from support.daemons import Daemon, gafferd, lookupd
from support.needs import needs_pidns
from support.poll import eventually

pytestmark = needs_pidns

# Container runtimes start each program in a session of its own.
ENTER = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "setsid"]


def children(pid: int) -> dict[int, str]:
    """The state of each child of a process."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            found[int(child)] = Path(f"/proc/{child}/stat").read_text().rpartition(") ")[2][0]
        except FileNotFoundError:
            continue
    return found


def init_of(daemon: Daemon) -> int:
    """The pid, here, of the daemon that is process 1 in its namespace."""
    [pid] = children(daemon.pid)
    assert re.search(r"^NSpid:\s+\d+\s+1$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return pid


def leave_orphan(init: int) -> int:
    """Start a process in the namespace whose parent ends, as `docker exec` does; return its pid here."""
    before = children(init)
    subprocess.run(
        ["nsenter", f"--target={init}", "--pid", "setsid", "sh", "-c", "sleep 1000 &"], check=True, timeout=20
    )
    [orphan] = eventually(lambda: children(init).keys() - before.keys())
    return int(orphan)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_signals_stop_the_jobs_and_the_container(tmp_path: Path, signum: signal.Signals) -> None:
    config = tmp_path / "gafferd.ini"
    config.write_text("[process:a]\ncmd = sh -c 'trap \"echo bye; exit\" TERM; echo set; sleep 1000 & wait'\n")
    with gafferd(str(config), state_dir=tmp_path / "state", enter=ENTER) as node:
        init, log = init_of(node), tmp_path / "state/logs/default.a.1.out.log"
        eventually(lambda: log.read_text() == "set\n", retry_on=(OSError,))
        os.kill(init, signum)
        assert node.wait() == 0
        assert log.read_text() == "set\nbye\n"


def test_orphans_are_reaped_and_jobs_go_on(tmp_path: Path) -> None:
    config = tmp_path / "gafferd.ini"
    config.write_text("[process:a]\ncmd = sleep 1000\n")
    with gafferd(str(config), enter=ENTER) as node:
        init = init_of(node)
        job = eventually(lambda: set(children(init)))
        orphan = leave_orphan(init)
        os.kill(orphan, signal.SIGKILL)
        eventually(lambda: orphan not in children(init))
        assert set(children(init)) == job
        assert requests.get(f"{node.url}/jobs/default/a", timeout=10).json()["restarts"] == 0
        os.kill(init, signal.SIGTERM)
        assert node.wait() == 0


def test_the_exit_status_of_an_essential_job_is_that_of_the_container(tmp_path: Path) -> None:
    config = tmp_path / "gafferd.ini"
    config.write_text("[process:a]\ncmd = sh -c 'exit 3'\nrestart = never\nessential = true\n")
    daemon = Daemon("gafferd", f"--state-dir={tmp_path}/state", "--bind=127.0.0.1:0", str(config), enter=ENTER)
    assert daemon.wait() == 3


def test_lookupd_reaps_orphans_too() -> None:
    with lookupd(enter=ENTER) as registry:
        init = init_of(registry)
        os.kill(leave_orphan(init), signal.SIGKILL)
        eventually(lambda: children(init) == {})
        os.kill(init, signal.SIGTERM)
        assert registry.wait() == 0


@pytest.mark.parametrize("name", ["gafferd", "gaffer_lookupd"])
def test_process_1_does_not_go_to_the_background(tmp_path: Path, name: str) -> None:
    state = [f"--state-dir={tmp_path}/state"] if name == "gafferd" else []
    daemon = Daemon(name, "--daemon", "--bind=127.0.0.1:0", *state, enter=ENTER)
    assert daemon.wait() == 2
    assert "--daemon: " in daemon.stderr
    assert "container" in daemon.stderr
