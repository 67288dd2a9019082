"""A process that became another user can't be signalled: neither a stop nor the next start hangs or fails."""

import contextlib
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from gaffer.processes import procfs
from support.daemons import Daemon, gafferd
from support.needs import needs_root
from support.poll import eventually

NOBODY = 65534
# As nobody, who may read what only root can: the checkout may be in root's home.
AS_NOBODY = (
    *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
    *("--inh-caps=+dac_override", "--ambient-caps=+dac_override"),
)
BECOME_ROOT = "import os, time; os.setgid(0); os.setuid(0); time.sleep(1000)"


@pytest.fixture
def setuid_python() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        python = Path(folder) / "python"
        shutil.copy(os.path.realpath("/usr/bin/python3"), python)
        python.chmod(0o4755)
        yield python
        for pid in procfs.all_pids():
            with contextlib.suppress(OSError):
                # Not /proc/PID/exe, which takes CAP_SYS_PTRACE to read for a setuid program.
                if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(os.fsencode(python)):
                    os.kill(pid, signal.SIGKILL)


def instances(node: Daemon) -> list[dict[str, Any]]:
    info: Any = requests.get(f"{node.url}/jobs/a/n", timeout=10).json()
    return [each for each in info["instances"] if each["os_pid"]]


def became_root(node: Daemon) -> int:
    (instance,) = instances(node)
    uids = re.search(r"Uid:(.*)", Path(f"/proc/{instance['os_pid']}/status").read_text())
    assert uids is not None
    assert uids[1].split() == ["0"] * 4
    return int(instance["os_pid"])


@needs_root
def test_neither_a_stop_nor_the_next_start_fails(setuid_python: Path) -> None:
    config = setuid_python.with_name("gaffer.ini")
    config.write_text(
        f"[process:a:n]\ncmd = {setuid_python} -I -S -c '{BECOME_ROOT}'\ngraceful_timeout = 0.3\nstartsecs = 0\n"
    )
    state = setuid_python.with_name("state")
    state.mkdir(mode=0o700)
    os.chown(state, NOBODY, NOBODY)
    with gafferd(str(config), state_dir=state, enter=AS_NOBODY) as first:
        stray = eventually(lambda: became_root(first), retry_on=(ValueError,))
        (instance,) = instances(first)
        refused = requests.post(f"{first.url}/{instance['pid']}/signal", json={"signal": "HUP"}, timeout=10)
        assert refused.status_code == 409, refused.text
        assert "not permitted" in refused.text
        requests.post(f"{first.url}/jobs/a/n/state", data="0", timeout=10).raise_for_status()
        first.wait_for_line("not permitted")
        info = requests.get(f"{first.url}/jobs/a/n", timeout=10).json()
        assert info["state"] == "stopping"
        assert "not permitted" in info["reason"]
        first.stop(timeout=10)
        assert procfs.read_stat(stray) is not None

        with gafferd(str(config), state_dir=state, enter=AS_NOBODY) as second:
            second.wait_for_line("can't end process")
            assert [each["os_pid"] for each in instances(second)] == [stray], "a second one was started beside it"
            eventually(
                lambda: "not permitted" in (requests.get(f"{second.url}/jobs/a/n", timeout=10).json()["reason"] or "")
            )
            os.kill(stray, signal.SIGKILL)
            requests.post(f"{second.url}/jobs/a/n/state", data="1", timeout=10).raise_for_status()
            eventually(lambda: became_root(second) != stray, retry_on=(ValueError, OSError))
            assert "Traceback" not in second.stderr
            second.stop(timeout=10)


@needs_root
def test_an_action_that_became_another_user_is_given_up(setuid_python: Path) -> None:
    config = setuid_python.with_name("gaffer.ini")
    become = f"{setuid_python} -I -S -c 'import os; print(os.getpid(), flush=True); {BECOME_ROOT}'"
    config.write_text(
        f"[process:a:n]\ncmd = sleep 1000\nstart = false\ngraceful_timeout = 0.3\naction.become = {become}\n"
    )
    state = setuid_python.with_name("state")
    state.mkdir(mode=0o700)
    os.chown(state, NOBODY, NOBODY)
    with gafferd(str(config), state_dir=state, enter=AS_NOBODY) as node:
        url = f"{node.url}/jobs/a/n/actions/become?stream=false&timeout=3"
        ended = requests.post(url, timeout=20).json()
        assert (ended["outcome"], ended["exit_code"], ended["term_signal"]) == ("timed_out", None, None)
        node.wait_for_line("not permitted")
        assert procfs.read_stat(int(ended["output"])) is not None
        assert "Traceback" not in node.stderr
        node.stop(timeout=10)
