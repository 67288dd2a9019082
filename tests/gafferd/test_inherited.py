"""What gafferd inherited of limits and signals does not reach its jobs in another form than the usual one."""

from pathlib import Path

import requests

from support.daemons import gafferd
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
        assert set(lines) == {f"512 4096 SigBlk: {0:016x} SigIgn: {0:016x}"}
        requests.delete(f"{node.url}/jobs/default/j", timeout=10).raise_for_status()
