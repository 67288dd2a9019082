"""Processes go on whatever happens to gafferd and its keeper: hanging, full disks, long absences."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from support.kept import is_gone, is_zombie
from support.needs import needs_mount
from support.plugins import plugin_tree
from support.poll import eventually
from support.survival import (
    NO_LINES,
    TIMEOUT,
    Lines,
    Node,
    count_lines,
    feeds,
    kept_node,
    kill_and_wait,
    ping,
    without_gafferd,
    writers,
)


def end_and_count(node: Node, name: str, slots: int) -> Lines:
    """Unload a job of writers; return what its logs have, which must be complete."""
    node.unload(name)
    found = sum((count_lines(node.ended_log(name, slot)) for slot in range(1, slots + 1)), NO_LINES)
    assert found.ended == slots
    assert found.flaws == (0, 0, 0)
    return found


def let_hang(tmp_path: Path, watchdog: float, children: int) -> None:
    config = tmp_path / "gafferd.ini"
    config.write_text(f"[gaffer]\nwatchdog = {watchdog:g}\n")
    with kept_node(tmp_path, str(config)) as node:
        node.load(writers("w", children))
        before, first = node.running("w", children), node.pid
        begin = time.monotonic()
        os.kill(first, signal.SIGSTOP)
        # Before it aborts, it may still accept a connection.
        eventually(lambda: ping(node.url) and node.pid != first, timeout=watchdog + 20, retry_on=(OSError,))
        took = time.monotonic() - begin
        assert node.instances("w") == before
        assert node.info("w")["restarts"] == 0
        node.keeper.wait_for_line("Fatal Python error: Aborted")
        lines = end_and_count(node, "w", children)
        print(f"gafferd stopped: replaced after {took:.1f} s (watchdog {watchdog:g} s), {lines.written} lines, 0 lost")


def test_a_gafferd_that_hangs_is_replaced_and_its_processes_go_on(tmp_path: Path) -> None:
    let_hang(tmp_path, watchdog=1, children=3)


@pytest.mark.faults
@pytest.mark.timeout(120)
def test_a_gafferd_that_hangs_with_the_usual_watchdog(tmp_path: Path) -> None:
    let_hang(tmp_path, watchdog=10, children=50)


def stop_and_kill_the_keeper(tmp_path: Path, seconds: float, children: int) -> None:
    with kept_node(tmp_path) as node:
        node.load(writers("w", children))
        before, first = node.running("w", children), node.pid
        node.keeper.signal(signal.SIGSTOP)
        until, slowest = time.monotonic() + seconds, 0.0
        while True:
            begin = time.monotonic()
            assert node.instances("w") == before
            slowest = max(slowest, time.monotonic() - begin)
            if begin > until:
                break
        node.load({"name": "new", "cmd": "sleep 1000"})  # also what happens meanwhile is protected afterwards
        new = node.running("new", 1)
        node.keeper.signal(signal.SIGCONT)
        assert node.get("/health")["keeper"]["error"] is None
        assert node.pid == first
        node.kill()
        assert (node.instances("w"), node.instances("new")) == (before, new)

        os.kill(node.keeper.pid, signal.SIGKILL)
        begin = time.monotonic()

        def other() -> bool:
            found = node.get("/health")["keeper"]
            return found["error"] is None and found["pid"] != node.keeper.pid

        eventually(other, timeout=TIMEOUT, retry_on=(OSError,), message="there is no new keeper")
        protected = time.monotonic() - begin
        assert (node.instances("w"), node.instances("new")) == (before, new)
        node.kill()
        assert (node.instances("w"), node.instances("new")) == (before, new)
        assert node.info("w")["restarts"] == 0
        lines = end_and_count(node, "w", children)
        print(
            f"keeper stopped for {seconds:g} s: slowest answer {slowest:.2f} s; killed: protected again after "
            f"{protected:.2f} s; {lines.written} lines, 0 lost"
        )
        node.stop()


def test_the_keeper_may_stop_and_die(tmp_path: Path) -> None:
    stop_and_kill_the_keeper(tmp_path, seconds=0.5, children=3)


@pytest.mark.faults
@pytest.mark.timeout(180)
def test_the_keeper_may_stop_for_a_minute(tmp_path: Path) -> None:
    stop_and_kill_the_keeper(tmp_path, seconds=60, children=50)


def be_away(tmp_path: Path, seconds: float, quiet: int, loud: int) -> None:
    """No gafferd can start for long; then one takes up all that was written meanwhile."""
    config = tmp_path / "gafferd.ini"
    config.write_text("[gaffer]\n")
    with kept_node(tmp_path, str(config)) as node:
        node.load(writers("quiet", quiet))
        node.load(writers("loud", loud, pause=0.001, fill=1000))
        before = node.running("quiet", quiet), node.running("loud", loud)
        with feeds(node, [before[0][0], before[1][0]]) as following:
            with without_gafferd(node, config):
                time.sleep(seconds)  # the absence
                if quiet:
                    blocked = psutil.Process(before[0][0].os_pid)
                    eventually(lambda: blocked.status() == psutil.STATUS_SLEEPING)
            begin = time.monotonic()
            assert ping(node.url)
            back = time.monotonic() - begin
            assert (node.instances("quiet"), node.instances("loud")) == before
            lines = end_and_count(node, "quiet", quiet) + end_and_count(node, "loud", loud)
            for feed in following:
                assert feed.over.wait(TIMEOUT)
        assert count_lines(bytes(following[0].data)).flaws == (0, 0, 0)
        assert following[0].gaps == []
        print(f"away for {seconds:g} s, back {back:.2f} s later: {lines.written} lines, 0 lost, 0 twice")


def test_output_is_kept_while_no_gafferd_can_start(tmp_path: Path) -> None:
    be_away(tmp_path, seconds=2.0, quiet=2, loud=1)


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_output_is_kept_for_a_minute(tmp_path: Path) -> None:
    be_away(tmp_path, seconds=60.0, quiet=490, loud=10)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", path], check=True)
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


@needs_mount
def test_a_full_disk_costs_no_process(disk: Path) -> None:
    with kept_node(disk) as node:
        node.load(writers("w", 2))
        before = node.running("w", 2)
        with feeds(node, before) as following:
            for _ in range(2):
                fill(disk)
                node.kill()
                assert node.instances("w") == before
            assert node.info("w")["restarts"] == 0
            (disk / "fill").unlink()
            node.unload("w")
            for feed in following:
                assert feed.over.wait(TIMEOUT)
        assert [count_lines(bytes(feed.data)).flaws for feed in following] == [(0, 0, 0)] * 2
        for feed, slot in zip(following, (1, 2), strict=True):
            # Every line that the log lacks is accounted for there.
            log = node.ended_log("w", slot)
            parts = [int(line.split()[1]) for line in log.splitlines() if line.startswith(b"[gaffer: ")]
            rest = b"".join(line + b"\n" for line in log.splitlines() if not line.startswith(b"[gaffer: "))
            assert len(rest) + sum(parts) == len(feed.data)


@pytest.mark.parametrize("killed", [False, True], ids=["ours", "of init"])
def test_without_gafferd_sigterm_ends_whole_trees(tmp_path: Path, killed: bool) -> None:
    config = tmp_path / "gafferd.ini"
    config.write_text("[gaffer]\n")
    script = tmp_path / "tree.sh"
    script.write_text("trap '' TERM\nsleep 1000 &\nsetsid sleep 1000 &\ntrap - TERM\nsleep 1000 & wait\n")
    with kept_node(tmp_path, str(config)) as node:
        node.load({"name": "tree", "cmd": f"sh {script}", "graceful_timeout": 0.5})
        node.load({"name": "apart", "cmd": "sleep 1000", "detach": True})
        [leader], [apart] = node.running("tree", 1), node.running("apart", 1)
        children = eventually(lambda: len(found := psutil.Process(leader.os_pid).children()) == 3 and found)
        keeper = psutil.Process(node.keeper.pid)
        if killed:
            node.kill()  # which makes the processes children of the keeper, and its end those of process 1
            keeper.kill()
            eventually(lambda: node.get("/health")["keeper"]["pid"] != keeper.pid, timeout=TIMEOUT, retry_on=(OSError,))
            keeper = psutil.Process(node.get("/health")["keeper"]["pid"])
        try:
            with without_gafferd(node, config):
                keeper.terminate()
                eventually(lambda: is_gone(keeper.pid) or is_zombie(keeper.pid), timeout=TIMEOUT)
                assert [each.pid for each in children if each.is_running()] == []
                assert not psutil.pid_exists(leader.os_pid)
                assert psutil.pid_exists(apart.os_pid)
        finally:
            os.kill(apart.os_pid, signal.SIGKILL)


def test_a_rolling_restart_goes_on(tmp_path: Path) -> None:
    with kept_node(tmp_path) as node:
        node.load({"name": "r", "cmd": "sleep 1000", "numprocesses": 2, "startsecs": 0.5})
        before = {each.os_pid for each in node.running("r", 2)}
        eventually(lambda: node.info("r")["state"] == "running", timeout=TIMEOUT)
        requests.post(f"{node.url}/jobs/default/r/restart?rolling=true", timeout=TIMEOUT).raise_for_status()
        node.kill()
        eventually(lambda: not before & {each.os_pid for each in node.running("r", 2)}, timeout=TIMEOUT)
        eventually(lambda: node.info("r")["rollout"]["state"] == "done", timeout=TIMEOUT)


def test_a_plugin_that_no_longer_works_costs_no_process(tmp_path: Path) -> None:
    tree, config = plugin_tree(tmp_path), tmp_path / "gafferd.ini"
    tree.add("needed")
    config.write_text(f"[gaffer]\nmandatory = needed\nplugin_dir = {tree.path}\n[job:s]\ncmd = sleep 1000\n")
    with kept_node(tmp_path, str(config)) as node:
        before = node.running("s", 1)
        tree.add("needed", start="raise ValueError('broken')")
        kill_and_wait(node.pid)
        node.keeper.wait_for_line("exited with status 1: starting it again")
        tree.add("needed")
        node.keeper.signal(signal.SIGHUP)  # wait no longer
        assert node.instances("s") == before
        assert node.info("s")["restarts"] == 0


def test_a_process_with_a_long_name_of_a_stream_goes_on(tmp_path: Path) -> None:
    with kept_node(tmp_path) as node:
        node.load(writers("w", 1, custom_streams=["\N{SNOWMAN}" * 63 + "\N{GRINNING FACE}"]))
        before = node.running("w", 1)
        node.kill()
        assert node.instances("w") == before
        assert end_and_count(node, "w", 1).written


def test_the_working_directory_may_be_removed(tmp_path: Path) -> None:
    config, here = tmp_path / "gafferd.ini", tmp_path / "here"
    config.write_text("[job:s]\ncmd = sleep 1000\n")
    here.mkdir()
    with kept_node(tmp_path, str(config), enter=("env", "--chdir", str(here))) as node:
        before = node.running("s", 1)
        here.rmdir()
        node.kill()
        assert node.instances("s") == before
