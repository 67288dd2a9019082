import asyncio
import os
import signal
import subprocess
import sys
import textwrap

import msgspec
import psutil
import pytest

from gaffer import procfs
from gaffer.process import ProcessRecord
from gafferd.leftovers import is_alive
from gafferd.state import StateDir, StateDirError, default_path
from support.poll import eventually

pytestmark = pytest.mark.expects_errors("left by an earlier gafferd", "ignored SIGTERM")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state"


@pytest.fixture
def spawn():
    """Starts children in a group of their own, as the manager does, and collects them at the end."""
    processes = []

    def start(*argv, cookie=None):
        env = {**os.environ, **({"GAFFER_PROCESS": cookie} if cookie else {})}
        process = subprocess.Popen(argv, env=env, process_group=0, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def python(code):
    return (sys.executable, "-c", textwrap.dedent(code))


def record_of(process, pid=1, node_id="node", **changes):
    stat = procfs.read_stat(process.pid)
    fields = {
        "pid": pid,
        "job": "default.web",
        "slot": 1,
        "os_pid": process.pid,
        "pgid": process.pid,
        "start_time": stat.start_time,
        "boot_id": procfs.boot_id(),
        "cookie": f"{node_id}:{pid}",
        "graceful_timeout": 10.0,
        "detach": False,
    }
    return ProcessRecord(**{**fields, **changes})


async def write(path, *records):
    """What a gafferd does that started the processes of `records` and is killed then."""
    state = StateDir.open(path)
    for record in records:
        state.spawned(record)
    state.close()
    return state.node


def end_leftovers(path):
    state = StateDir.open(path)
    try:
        return state.end_leftovers()
    finally:
        state.close()


def processes_of(path):
    return msgspec.json.decode((path / "state.json").read_bytes())["processes"]


# The directory


def test_the_directory_is_private(path):
    StateDir.open(path).close()
    assert path.stat().st_mode & 0o777 == 0o700
    assert {p.name: p.stat().st_mode & 0o777 for p in path.iterdir()} == {"lock": 0o600, "node.json": 0o600}


def test_an_open_directory_is_closed_to_others_only_when_it_is_ours(path):
    path.mkdir(mode=0o755)
    StateDir.open(path).close()
    path.chmod(0o755)
    StateDir.open(path).close()
    assert path.stat().st_mode & 0o777 == 0o700

    shared = path.with_name("shared")
    shared.mkdir(mode=0o755)
    (shared / "file").touch()
    with pytest.raises(StateDirError, match="holds other files"):
        StateDir.open(shared)
    assert shared.stat().st_mode & 0o777 == 0o755


def test_what_can_not_be_a_state_directory(path):
    path.write_text("")
    for wrong in (path, path / "below"):
        with pytest.raises(StateDirError, match=r"is a file|Not a directory"):
            StateDir.open(wrong)


def test_two_gafferds_can_not_share_it(path):
    state = StateDir.open(path)
    with pytest.raises(StateDirError, match=rf"another gafferd \(pid {os.getpid()}\)") as caught:
        StateDir.open(path)
    assert "--state-dir" in caught.value.hint
    state.close()
    StateDir.open(path).close()


def test_where_it_is_by_default(tmp_path):
    assert str(default_path(True, tmp_path, "/x")) == "/var/lib/gaffer"
    assert default_path(False, tmp_path, None) == tmp_path / ".local/state/gaffer"
    assert str(default_path(False, tmp_path, "/x")) == "/x/gaffer"


# The node


def identity(path):
    state = StateDir.open(path)
    state.close()
    return state.node


def test_the_id_stays_and_the_incarnation_grows(path):
    first, second, third = identity(path), identity(path), identity(path)
    assert first.id == second.id == third.id
    assert [first.incarnation, second.incarnation, third.incarnation] == [1, 2, 3]
    assert identity(path.with_name("other")).id != first.id


@pytest.mark.expects_errors("the node gets a new id")
@pytest.mark.parametrize("change", [{"hostname": "elsewhere"}, {"machine_id": "0123"}])
def test_a_copy_on_another_machine_is_another_node(path, change):
    first = identity(path)
    file = path / "node.json"
    file.write_bytes(msgspec.json.encode({**msgspec.json.decode(file.read_bytes()), **change}))
    copy = identity(path)
    assert copy.id != first.id
    assert copy.incarnation == 1


@pytest.mark.expects_errors("is damaged")
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"id": 3}', b"\xff"])
def test_damaged_files_do_not_stop_the_start(path, content):
    first = identity(path)
    (path / "node.json").write_bytes(content)
    (path / "state.json").write_bytes(content)
    state = StateDir.open(path)
    assert state.node.id != first.id
    assert state.end_leftovers() == 0
    state.close()


# The records


async def test_records_follow_the_processes(path, spawn):
    first, second = spawn("sleep", "60"), spawn("sleep", "60")
    state = StateDir.open(path)
    state.spawned(record_of(first, 1))
    state.spawned(record_of(second, 2))
    state.ended(1)
    state.ended(99)
    assert not (path / "state.json").exists()  # one write for all that happens in one turn of the loop
    await asyncio.sleep(0.01)
    assert [p["os_pid"] for p in processes_of(path)] == [second.pid]
    state.ended(2)
    state.close()
    assert processes_of(path) == []


@pytest.mark.expects_errors("can't write")
async def test_a_state_file_that_can_not_be_written_stops_nothing(path, spawn, caplog):
    process = spawn("sleep", "60")
    state = StateDir.open(path)
    blocker = path / "state.json"
    blocker.mkdir()
    for pid in (1, 2):
        state.spawned(record_of(process, pid))
        await asyncio.sleep(0.02)
    assert caplog.text.count("can't write") == 1
    blocker.rmdir()
    state.spawned(record_of(process, 3))
    state.close()
    assert len(processes_of(path)) == 3


# Leftovers


async def test_leftovers_are_ended_with_their_group(path, spawn):
    leader = spawn("sh", "-c", "env -i sleep 60 & echo $!; wait")
    member = psutil.Process(int(leader.stdout.readline()))
    await write(path, record_of(leader))
    assert end_leftovers(path) == 2
    assert leader.wait() == -signal.SIGTERM
    eventually(lambda: not member.is_running())
    assert processes_of(path) == []
    assert end_leftovers(path) == 0


async def test_what_ignores_sigterm_is_killed_after_its_own_timeout(path, spawn):
    ignorer = python("""
        import signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("ready", flush=True)
        while True:
            signal.pause()
    """)
    stubborn, polite = spawn(*ignorer), spawn("sleep", "60")
    stubborn.stdout.readline()
    await write(path, record_of(stubborn, 1, graceful_timeout=0.3), record_of(polite, 2, graceful_timeout=30))
    assert end_leftovers(path) == 2
    assert stubborn.wait() == -signal.SIGKILL
    assert polite.wait() == -signal.SIGTERM


async def test_a_recycled_pid_is_never_touched(path, spawn):
    """The start time tells a stranger that got the recorded pid from the process that had it."""
    stranger = spawn("sleep", "60")
    started = procfs.read_stat(stranger.pid).start_time
    await write(path, record_of(stranger, start_time=started - 1))
    assert end_leftovers(path) == 0
    assert stranger.poll() is None


async def test_records_of_an_earlier_boot_mean_nothing(path, spawn):
    stranger = spawn("sleep", "60")
    await write(path, record_of(stranger, boot_id="earlier"))
    assert end_leftovers(path) == 0
    assert stranger.poll() is None


@pytest.mark.expects_errors("is damaged")
def test_without_records_the_cookie_finds_leftovers(path, spawn):
    node = identity(path)
    ours = spawn("sleep", "60", cookie=f"{node.id}:7")
    others = spawn("sleep", "60", cookie=f"{node.id}0:7")
    (path / "state.json").write_bytes(b'{"processes": [{"pid')
    assert end_leftovers(path) == 1
    assert ours.wait() == -signal.SIGTERM
    assert others.poll() is None


async def test_a_daemon_that_left_its_group_is_found_by_its_cookie(path, spawn):
    node = identity(path)
    forker = python("""
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                print(os.getpid(), flush=True)
                time.sleep(60)
            os._exit(0)
        os.wait()
    """)
    leader = spawn(*forker, cookie=f"{node.id}:1")
    daemon = psutil.Process(int(leader.stdout.readline()))
    record = record_of(leader, node_id=node.id)
    leader.wait()
    await write(path, record)
    assert end_leftovers(path) == 1
    eventually(lambda: not daemon.is_running())


async def test_what_a_leftover_starts_while_it_ends_is_ended_too(path, spawn):
    node = identity(path)
    respawner = python("""
        import signal, subprocess, sys
        def respawn(*_):
            child = subprocess.Popen(["sleep", "60"], start_new_session=True)
            print(child.pid, flush=True)
            sys.exit()
        signal.signal(signal.SIGTERM, respawn)
        print("ready", flush=True)
        while True:
            signal.pause()
    """)
    leader = spawn(*respawner, cookie=f"{node.id}:1")
    leader.stdout.readline()
    await write(path, record_of(leader, node_id=node.id))
    assert end_leftovers(path) == 2
    assert not psutil.pid_exists(int(leader.stdout.readline()))


@pytest.mark.expects_errors("was detached and runs on")
async def test_detached_processes_live_on_and_keep_their_records(path, spawn):
    node = identity(path)
    detached = spawn("sleep", "60", cookie=f"{node.id}:1")
    await write(path, record_of(detached, node_id=node.id, detach=True))
    for _ in range(2):
        assert end_leftovers(path) == 0
        assert [p["os_pid"] for p in processes_of(path)] == [detached.pid]
    detached.kill()
    detached.wait()
    assert end_leftovers(path) == 0
    assert processes_of(path) == []


def test_a_zombie_is_not_alive(spawn):
    process = spawn("sleep", "60")
    record = record_of(process)
    assert is_alive(record)
    os.kill(process.pid, signal.SIGKILL)
    assert eventually(lambda: procfs.read_stat(process.pid).state == "Z")
    assert not is_alive(record)
