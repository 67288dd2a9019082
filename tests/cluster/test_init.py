"""Daemons as process 1, as in a container: signals, orphans, exit status."""

import os
import re
import signal
import subprocess
import sys
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


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
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


def test_orphans_in_the_group_of_process_1_are_reaped(tmp_path: Path) -> None:
    """A script that starts a container may leave a helper behind, whose processes are in our group."""
    orders = tmp_path / "orders"
    os.mkfifo(orders)
    helper = "while read line; do (sleep 1000 &); done"
    script = ["sh", "-c", f'sh -c "{helper}" <"{orders}" & exec "$@"', "sh"]
    with gafferd(enter=[*ENTER, *script]) as node, orders.open("w") as order:
        init = init_of(node)
        before = children(init)
        order.write("start one\n")
        order.flush()
        [orphan] = eventually(lambda: children(init).keys() - before.keys())
        assert os.getpgid(orphan) == os.getpgid(init)
        os.kill(orphan, signal.SIGKILL)
        eventually(lambda: orphan not in children(init))
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


def test_process_1_does_not_go_to_the_background() -> None:
    daemon = Daemon("gaffer_lookupd", "--daemon", "--bind=127.0.0.1:0", enter=ENTER)
    assert daemon.wait() == 2
    assert "--daemon: " in daemon.stderr
    assert "container" in daemon.stderr


# Prints the exit codes of its own children, once an orphan that became a zombie after them has been reaped.
EMBEDDED = """
import asyncio, multiprocessing, os, signal, subprocess, sys
from gaffer import Manager
from gaffer.loop import new_loop
from gaffer.processes import procfs

def zombies():
    return {pid for pid in procfs.children() if (stat := procfs.read_stat(pid)) and stat.state == "Z"}

async def until(condition):
    while not condition():
        await asyncio.sleep(0.01)

async def watch():
    popen = subprocess.Popen(["sh", "-c", "exit 4"])
    spawned = multiprocessing.get_context("spawn").Process(target=sys.exit, args=(3,))
    spawned.start()
    await until(lambda: zombies() >= {popen.pid, spawned.pid})
    before = procfs.children()
    subprocess.run(["sh", "-c", "(sleep 1000 &)"])
    await until(lambda: procfs.children() - before)
    os.kill(*procfs.children() - before, signal.SIGKILL)
    await until(lambda: not procfs.children() - before)
    spawned.join(0)
    print(popen.wait(), spawned.exitcode)
    manager.stop()

loop = new_loop()
manager = Manager(loop, subreaper=True)
manager.start()
watching = loop.create_task(watch())
manager.run()
"""


def test_children_of_other_code_keep_their_exit_codes() -> None:
    done = subprocess.run(
        [*ENTER, sys.executable, "-c", EMBEDDED], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "4 3\n")
