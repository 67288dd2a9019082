"""Limits, signals and closed standard streams that a daemon inherits change nothing for it and its jobs."""

import os
import subprocess
from pathlib import Path

import pytest
import requests

from support.daemons import clean_env, command_path, gafferd
from support.dispositions import ignored
from support.poll import eventually

ENTER = (
    *("prlimit", "--nofile=512:4096"),
    *("env", "--ignore-signal=USR1", "--ignore-signal=TTOU", "--ignore-signal=CHLD", "--block-signal=USR2"),
)
SHOW = "echo $(ulimit -Sn) $(ulimit -Hn) $(grep -h Sig[BI] /proc/self/status) >> shown; exec sleep 1000"


def test_jobs_start_with_the_inherited_limit_and_default_signals(tmp_path: Path) -> None:
    with gafferd(state_dir=tmp_path / "state", enter=ENTER) as node:
        job = {"name": "j", "cmd": "/bin/sh", "args": ["-c", SHOW], "cwd": str(tmp_path), "numprocesses": 20}
        requests.post(f"{node.url}/jobs/default", json=job, timeout=10).raise_for_status()
        lines = eventually(
            lambda: len(lines := (tmp_path / "shown").read_text().splitlines()) == 20 and lines, retry_on=(OSError,)
        )
        for line in lines:
            *rest, ignoring = line.split()
            assert (rest, ignored(ignoring)) == (["512", "4096", "SigBlk:", "0" * 16, "SigIgn:"], 0)
        requests.delete(f"{node.url}/jobs/default/j", timeout=10).raise_for_status()


@pytest.mark.parametrize(
    "command", ["gafferd --state-dir {0}/state --bind unix:{0}/sock", "gaffer_lookupd --bind unix:{0}/sock"]
)
def test_a_daemon_without_standard_streams_runs_and_stops_as_others_do(tmp_path: Path, command: str) -> None:
    name, options = command.split(" ", 1)
    line = f"exec {command_path(name)} {options.format(tmp_path)} <&- >&- 2>&-"
    with subprocess.Popen(["/bin/sh", "-c", line], env=clean_env({"HOME": str(tmp_path)})) as daemon:
        eventually((tmp_path / "sock").exists)
        assert {os.readlink(f"/proc/{daemon.pid}/fd/{fd}") for fd in range(3)} == {"/dev/null"}
        daemon.terminate()
        assert daemon.wait(10) == 0
