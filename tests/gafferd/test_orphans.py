"""Processes that outlived their gafferd and have no keeper: adopted or ended, and never those of somebody else."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests

from gaffer.jobs.config import JobConfig
from gaffer.process import ProcessRecord
from gaffer.processes import procfs
from gafferd.state.directory import Node, StateDir
from support.daemons import Daemon, gafferd
from support.needs import needs_pidns
from support.poll import eventually
from support.survival import Node as KeptNode
from support.survival import without_gafferd

Spawn = Callable[..., subprocess.Popen[bytes]]

pytestmark = pytest.mark.expects_errors("left by an earlier gafferd")

TIMEOUT = 20
JOBS = "quiet policy ends opted piped input streams".split()
CONFIG = """
[process:quiet]
cmd = sh -c 'sleep 1001 & exec sleep 1000 >> {0}/quiet.log 2>&1'
[process:policy]
cmd = sh -c 'exec sleep 1000 > /dev/null 2>&1'
orphans = {1}
[process:ends]
cmd = sh -c 'exec sleep 1000 > /dev/null 2>&1'
orphans = end
[process:opted]
cmd = sh -c 'exec sleep 1000 > /dev/null 2>&1'
survive = false
[process:piped]
cmd = sh -c 'exec sleep 1000 > /dev/null'
[process:input]
cmd = sh -c 'exec sleep 1000 > /dev/null 2>&1'
redirect_input = true
[process:streams]
cmd = sh -c 'exec sleep 1000 > /dev/null 2>&1'
custom_streams = control
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Starts children in a group of their own, as the manager does, whose output is a file."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(*argv: str, cookie: str | None = None, **options: Any) -> subprocess.Popen[bytes]:
        env = {**os.environ, **({"GAFFER_PROCESS": cookie} if cookie else {})}
        files = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        processes.append(subprocess.Popen(argv, env=env, **{"process_group": 0, **files, **options}))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def record_of(process: subprocess.Popen[bytes], node: Node, pid: int = 1, **changes: Any) -> ProcessRecord:
    stat = procfs.read_stat(process.pid)
    assert stat is not None
    record = ProcessRecord(
        pid=pid,
        job="default.web",
        slot=1,
        os_pid=process.pid,
        pgid=process.pid,
        start_time=stat.start_time,
        boot_id=procfs.boot_id(),
        cookie=f"{node.mark}:{pid}",
        graceful_timeout=10.0,
        detach=False,
        orphans=None,
    )
    return msgspec.structs.replace(record, **changes)


def node_of(path: Path) -> Node:
    """The node whose gafferd is killed after it started the processes."""
    state = StateDir.open(path)
    state.close()
    return state.node


async def write(path: Path, *records: ProcessRecord) -> None:
    state = StateDir.open(path)
    for record in records:
        state.spawned(record)
    state.close()


def recover(path: Path, **options: Any) -> tuple[list[int], int]:
    """What the next gafferd does: the OS pids that it adopts, and the number of processes that it ended."""
    state = StateDir.open(path)
    try:
        ended = state.end_leftovers(**options)
        return [record.os_pid for record in (*state.detached, *state.orphans)], ended
    finally:
        state.close()


# A node


def running(node: Daemon, job: str) -> int:
    """The OS pid of its process if that executes its program by now, else 0."""
    info: Any = requests.get(f"{node.url}/jobs/default/{job}", timeout=TIMEOUT).json()
    found = [int(each["os_pid"]) for each in info["instances"] if each["state"] in ("ready", "starting")]
    return next((pid for pid in found if (procfs.read_cmdline(pid) or "").startswith("sleep")), 0)


@pytest.mark.parametrize(("policy", "keeper"), [("adopt", False), ("end", False), ("adopt", True)])
def test_processes_that_write_to_files_go_on(tmp_path: Path, policy: str, keeper: bool) -> None:
    config, state = tmp_path / "gaffer.ini", tmp_path / "state"
    other = {"adopt": "end", "end": "adopt"}[policy]
    config.write_text(f"[gaffer]\norphans = {policy}\n{CONFIG.format(tmp_path, other)}")
    with gafferd(*(["--keeper"] if keeper else []), str(config), state_dir=state) as first:
        before = {job: eventually(partial(running, first, job)) for job in JOBS}
        eventually(lambda: {each["os_pid"] for each in processes_of(state)} == {*before.values()})
        if keeper:
            kill_both(first, state)
        else:
            first.kill()
        with gafferd(str(config), state_dir=state) as second:
            after = {job: eventually(partial(running, second, job)) for job in JOBS}
            adopted = ["quiet"] if policy == "adopt" else ["policy"]
            assert [job for job in JOBS if before[job] == after[job]] == adopted
            assert all(procfs.read_stat(before[job]) is None for job in JOBS if job not in adopted)
            assert procfs.read_stat(before[adopted[0]]) is not None
            for job in JOBS:
                exits = requests.get(f"{second.url}/jobs/default/{job}/exits", timeout=TIMEOUT).json()["exits"]
                found = [(each["exit_code"], each["term_signal"], each["reason"]) for each in exits]
                assert found == ([] if job in adopted else [(None, None, "unknown")])
            if policy == "adopt":
                second.wait_for_line("of default.piped is not adopted: its standard error was not a file")
                second.wait_for_line("of default.input is not adopted: its standard input was not a file")
                check_adopted(second, before["quiet"])


def test_without_gafferd_sigterm_ends_adopted_processes(tmp_path: Path) -> None:
    config, state = tmp_path / "gaffer.ini", tmp_path / "state"
    config.write_text("[process:quiet]\ncmd = sh -c 'exec sleep 1000 > /dev/null 2>&1'\n")
    with gafferd("--keeper", str(config), state_dir=state) as first:
        pid = eventually(partial(running, first, "quiet"))
        eventually(lambda: [each["os_pid"] for each in processes_of(state)] == [pid])
        kill_both(first, state)
        with gafferd("--keeper", str(config), state_dir=state) as second:
            assert running(second, "quiet") == pid
            with without_gafferd(KeptNode(second, state), config):
                second.stop()
                stat = procfs.read_stat(pid)
                assert stat is None or stat.state in "ZX"


def kill_both(keeper: Daemon, state: Path) -> None:
    """Kill a keeper and its gafferd at once: stopped, neither can take notice of the end of the other."""
    pids = (keeper.pid, int((state / "lock").read_text().split()[0]))
    for signum in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            os.kill(pid, signum)
    keeper.kill()


def check_adopted(node: Daemon, pid: int) -> None:
    [instance] = requests.get(f"{node.url}/jobs/default/quiet", timeout=TIMEOUT).json()["instances"]
    assert (instance["slot"], instance["os_pid"]) == (1, pid)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: running(node, "quiet") not in (0, pid))
    [last] = requests.get(f"{node.url}/jobs/default/quiet/exits", timeout=TIMEOUT).json()["exits"]
    assert (last["exit_code"], last["term_signal"]) == (None, None)


def processes_of(state: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = msgspec.json.decode((state / "processes.json").read_bytes())["processes"]
    return found


def test_a_changed_policy_applies_to_running_processes(tmp_path: Path) -> None:
    config, state = tmp_path / "gaffer.ini", tmp_path / "state"
    config.write_text("[process:web]\ncmd = sh -c 'exec sleep 1000 > /dev/null 2>&1'\nstartsecs = 0\n")
    with gafferd(str(config), state_dir=state) as first:
        pid = eventually(lambda: running(first, "web"))
        eventually(lambda: [(each["state"], each["orphans"]) for each in processes_of(state)] == [("ready", None)])
        config.write_text(f"{config.read_text()}orphans = end\n")
        requests.post(f"{first.url}/reload", timeout=TIMEOUT).raise_for_status()
        eventually(lambda: [each["orphans"] for each in processes_of(state)] == ["end"])
        assert running(first, "web") == pid
        config.write_text(config.read_text().replace("orphans = end", "survive = false"))
        requests.post(f"{first.url}/reload", timeout=TIMEOUT).raise_for_status()
        assert running(first, "web") == pid
        first.kill()
        with gafferd(str(config), state_dir=state) as second:
            assert eventually(lambda: running(second, "web")) != pid


@pytest.mark.parametrize(
    ("launched", "current", "expected"),
    [
        ({}, {}, None),
        ({}, {"orphans": "adopt"}, "adopt"),
        ({"orphans": "adopt"}, {"orphans": "end"}, "end"),
        ({}, {"orphans": "adopt", "survive": False}, "end"),
        ({"socket": "tcp:8000"}, {"orphans": "adopt"}, "end"),
        ({"custom_streams": "a"}, {"orphans": "adopt"}, "end"),
    ],
)
def test_the_policy_of_a_process(launched: dict[str, Any], current: dict[str, Any], expected: str | None) -> None:
    before, after = (JobConfig.from_dict({"name": "a", "cmd": "b", **each}) for each in (launched, current))
    assert after.orphan_policy(before) == expected


# What is adopted


@pytest.mark.parametrize("kind", ["file", "null", "closed", "pipe", "socket", "terminal", "zero"])
@pytest.mark.parametrize("stream", ["stdin", "stdout", "stderr"])
async def test_what_a_process_can_do_without_its_gafferd(path: Path, spawn: Spawn, kind: str, stream: str) -> None:
    node = node_of(path)
    ours, theirs = open_pair(kind, path)
    close = {"stdin": "<&-", "stdout": ">&-", "stderr": "2>&-"}[stream] if kind == "closed" else ""
    command = ("sh", "-c", f"exec sleep 60 {close}")
    process = spawn(*command, cookie=f"{node.mark}:1", **({} if kind == "closed" else {stream: theirs}))
    for descriptor in {ours, theirs}:
        os.close(descriptor)
    eventually(lambda: (procfs.read_cmdline(process.pid) or "").startswith("sleep"))
    await write(path, record_of(process, node))
    if kind in ("file", "null", "closed"):
        assert recover(path) == ([process.pid], 0)
        assert [each["os_pid"] for each in processes_of(path)] == [process.pid]  # should it be killed again
    else:
        assert recover(path) == ([], 1)


def open_pair(kind: str, path: Path) -> tuple[int, int]:
    """Our end and the end of a process."""
    match kind:
        case "pipe":
            return os.pipe()
        case "socket":
            ours, theirs = socket.socketpair()
            return ours.detach(), theirs.detach()
        case "terminal":
            return os.openpty()
    place = {"file": str(path.with_name("file")), "zero": "/dev/zero"}.get(kind, os.devnull)
    descriptor = os.open(place, os.O_RDWR | os.O_CREAT, 0o600)
    return descriptor, descriptor


async def test_a_record_without_a_policy_is_that_of_an_earlier_version(path: Path, spawn: Spawn) -> None:
    """Which ended such processes: it is not known what they need."""
    node = node_of(path)
    process = spawn("sleep", "60", cookie=f"{node.mark}:1")
    await write(path, record_of(process, node))
    for name in ("processes.json", "processes.json.copy"):
        fields = msgspec.json.decode((path / name).read_bytes())
        del fields["format"], fields["serial"], fields["checksum"], fields["processes"][0]["orphans"]
        (path / name).write_bytes(msgspec.json.encode(fields))
    assert recover(path) == ([], 1)


async def test_a_program_that_hides_its_mark_is_adopted(path: Path, spawn: Spawn) -> None:
    """Servers that show a title overwrite their environment with it."""
    node = node_of(path)
    process = spawn("sleep", "60")
    await write(path, record_of(process, node))
    assert recover(path) == ([process.pid], 0)


async def test_the_tree_of_an_adopted_process_goes_on(path: Path, spawn: Spawn) -> None:
    node = node_of(path)
    code = """
        sleep 61 &
        env -u GAFFER_PROCESS sleep 62 &
        setsid sleep 63 &
        exec sleep 60
    """
    process = spawn("sh", "-c", textwrap.dedent(code), cookie=f"{node.mark}:1")
    eventually(lambda: is_complete(process.pid))
    tree = {process.pid, *procfs.children(process.pid)}
    await write(path, record_of(process, node))
    assert recover(path) == ([process.pid], 0)
    assert {process.pid, *procfs.children(process.pid)} == tree
    for pid in tree:
        os.kill(pid, signal.SIGKILL)


def is_complete(pid: int) -> bool:
    return sorted(names(pid)) == ["sleep 60", "sleep 61", "sleep 62", "sleep 63"]


def names(pid: int) -> list[str]:
    return [procfs.read_cmdline(each) or "" for each in (pid, *procfs.children(pid))]


# What is not


async def test_nothing_is_adopted_after_a_boot(path: Path, spawn: Spawn) -> None:
    node = node_of(path)
    process = spawn("sleep", "60")
    await write(path, record_of(process, node, boot_id="earlier"))
    assert recover(path) == ([], 0)
    assert process.poll() is None


@pytest.mark.parametrize("detach", [False, True])
async def test_the_pid_of_a_stranger(path: Path, spawn: Spawn, detach: bool) -> None:
    """With another start time, with the mark of another process, and in a record that no gafferd of this node wrote."""
    node = node_of(path)
    strangers = [spawn("sleep", "60"), spawn("sleep", "60", cookie="node:1:x:9")]
    late = record_of(strangers[0], node, 1)
    await write(
        path,
        msgspec.structs.replace(late, start_time=late.start_time - 1, detach=detach),
        record_of(strangers[1], node, 2),
    )
    assert recover(path) == ([], 0)
    assert [stranger.poll() for stranger in strangers] == [None, None]


async def test_a_record_with_the_mark_of_another_node(path: Path, spawn: Spawn) -> None:
    node_of(path)
    other = node_of(path.with_name("other"))
    process = spawn("sleep", "60", cookie=f"{other.mark}:1")
    await write(path, record_of(process, other))
    assert recover(path)[0] == []


@pytest.mark.expects_errors("this state directory is a copy", "to their own gafferd")
async def test_a_copy_adopts_nothing_of_the_original(path: Path, spawn: Spawn) -> None:
    original = StateDir.open(path)
    process = spawn("sleep", "60", cookie=f"{original.node.mark}:1")
    original.spawned(record_of(process, original.node))
    original.close()
    with gafferd(state_dir=path.with_name("other")) as owner:
        copy = path.with_name("copy")
        shutil.copytree(path, copy)
        shutil.copy(path.with_name("other") / "lock", copy / "lock")
        assert recover(copy) == ([], 0)
        assert owner.url
    assert recover(path) == ([process.pid], 0)


REUSE = """
import asyncio, os, subprocess, sys
from pathlib import Path
from gaffer.process import ProcessRecord
from gaffer.processes import procfs
from gafferd.state.directory import StateDir

def spawn(*command):
    null = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=null, stdout=null, stderr=null, process_group=0)

async def main():
    path = Path(sys.argv[1])
    state = StateDir.open(path)
    first = spawn("sleep", "60")
    for pid, detach in ((1, False), (2, True)):
        os_pid = first.pid + pid - 1
        if pid == 2:
            second = spawn("sleep", "60")
            assert second.pid == os_pid
        start_time = procfs.read_stat(os_pid).start_time
        state.spawned(ProcessRecord(pid, "default.web", 1, os_pid, os_pid, start_time, procfs.boot_id(),
            f"{state.node.mark}:{pid}", 10.0, detach, orphans="adopt"))
    state.close()
    for process in (first, second):
        process.kill()
        process.wait()
    while procfs.clock_ticks() <= start_time:
        pass
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(first.pid - 1))
    strangers = [spawn("sleep", "60") for _ in range(2)]
    assert [each.pid for each in strangers] == [first.pid, second.pid]
    state = StateDir.open(path)
    print(state.end_leftovers(), state.detached, state.orphans, [each.poll() for each in strangers])
    state.close()

asyncio.run(main())
"""


@needs_pidns
def test_no_signal_reaches_a_process_with_a_reused_pid(path: Path) -> None:
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-c", REUSE, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout == "0 [] [] [None, None]\n", result.stderr


# What a keeper holds


async def test_processes_that_the_keeper_holds_are_left_alone(path: Path, spawn: Spawn) -> None:
    """With their trees, whether they are recorded here or not; the others are ended."""
    node = node_of(path)
    kept = [f"{node.mark}:1", f"{node.mark}:2:detached"]
    tree = "sleep 61 & env -u GAFFER_PROCESS sleep 62 & setsid sleep 63 & exec sleep 60"
    session = {"start_new_session": True, "process_group": None}
    held = [spawn("sh", "-c", tree, cookie=kept[0]), spawn("sh", "-c", tree, cookie=kept[1], **session)]
    for each in held:
        eventually(partial(is_complete, each.pid))
    trees = {pid for each in held for pid in (each.pid, *procfs.children(each.pid))}
    in_group = spawn("sleep", "60", cookie=f"{node.mark}:8", process_group=held[0].pid)
    others = [spawn("sleep", "60", cookie=f"{node.mark}:{pid}") for pid in (3, 4)]
    await write(path, record_of(held[0], node, 1), record_of(others[0], node, 3, orphans="end"))
    assert recover(path, spare_pids=[each.pid for each in held], spare_cookies=kept) == ([], 2)
    assert {pid for each in held for pid in (each.pid, *procfs.children(each.pid))} == trees
    assert in_group.poll() is None
    assert [each["os_pid"] for each in processes_of(path)] == [held[0].pid]  # should both be killed now
    for pid in trees:
        os.kill(pid, signal.SIGKILL)
