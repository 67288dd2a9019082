"""Nothing of a job is left after its stop, and nobody else is touched: groups, daemons, orphans, zombies."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from gaffer import Manager
from gaffer.loop import new_loop
from gaffer.process import ProcessConfig
from gaffer.processes import procfs, reaper
from support.managers import Recording, last_exit, running_manager
from support.poll import eventually

row = pytest.mark.row

# Starts a child in the way that its first argument names, writes the pids and waits.
FAMILY = """
import os, signal, sys, time
kind, out = sys.argv[1:3]
def note(name):
    with open(out, "a") as file:
        file.write(f"{name} {os.getpid()}\\n")
def child():
    if "stubborn" in kind:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note("child")
    time.sleep(1000)
if os.fork() == 0:
    if "daemon" in kind:
        os.setsid()
        if os.fork() == 0:
            child()
        os._exit(0)
    child()
if "daemon" in kind:
    os.wait()
while not os.path.exists(out) or "child" not in open(out).read():
    time.sleep(0.01)
note("leader")
if "leaves" in kind:
    os._exit(7)
if "stubborn" in kind:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(1000)
"""


@pytest.fixture
def family(tmp_path: Path) -> Path:
    path = tmp_path / "family.py"
    path.write_text(FAMILY)
    return path


def members(out: Path) -> dict[str, int]:
    pids = dict(line.split() for line in out.read_text().splitlines())
    assert {"child", "leader"} <= pids.keys()
    return {name: int(pid) for name, pid in pids.items()}


def alive(pid: int) -> bool:
    stat = procfs.read_stat(pid)
    return stat is not None and stat.state not in "ZX"


def load(manager: Manager, family: Path, kind: str, out: Path, **settings: Any) -> dict[str, int]:
    settings = {"graceful_timeout": 0.3, "backoff": 100, **settings}
    manager.load(ProcessConfig("j", f"{sys.executable} {family} {kind} {out}", **settings))
    return eventually(lambda: members(out), retry_on=(FileNotFoundError, ValueError))


@row("SUP-03")
@pytest.mark.parametrize("kind", ["group", "group-stubborn"])
@pytest.mark.parametrize("subreaper", [False, True])
def test_a_stop_ends_the_whole_group(family: Path, tmp_path: Path, kind: str, subreaper: bool) -> None:
    with running_manager(subreaper=subreaper, node_id="n1") as manager:
        pids = load(manager, family, kind, tmp_path / "out")
        manager.stop_job("j")
        eventually(lambda: manager.info("j")["state"] == "stopped" and not any(map(alive, pids.values())))


def test_processes_without_a_mark_pass_for_nobodys_descendants() -> None:
    """A manager without `node_id` marks nothing: a child that the embedder started itself is none of its jobs'."""
    with subprocess.Popen(["sleep", "60"], process_group=0) as other, running_manager(subreaper=True) as manager:
        manager.load(ProcessConfig("j", "sleep 60", startsecs=0))
        eventually(lambda: manager.info("j")["state"] == "running")
        manager.stop_job("j")
        eventually(lambda: manager.info("j")["state"] == "stopped")
        assert other.poll() is None
        other.kill()


@pytest.mark.parametrize("kind", ["daemon", "daemon-stubborn"])
def test_a_stop_ends_daemons_that_left_the_group(family: Path, tmp_path: Path, kind: str) -> None:
    with running_manager(subreaper=True, node_id="n1") as manager:
        pids = load(manager, family, kind, tmp_path / "out")
        assert os.getpgid(pids["child"]) != pids["leader"]
        manager.stop_job("j")
        eventually(lambda: manager.info("j")["state"] == "stopped" and not any(map(alive, pids.values())))


def test_daemons_that_left_the_group_are_asked_before_they_are_killed(family: Path, tmp_path: Path) -> None:
    with running_manager(subreaper=True, node_id="n1") as manager:
        pids = load(manager, family, "daemon", tmp_path / "out", graceful_timeout=1000)
        manager.stop_job("j")
        eventually(lambda: manager.info("j")["state"] == "stopped" and not any(map(alive, pids.values())))


@pytest.mark.parametrize("kind", ["group-leaves", "daemon-leaves", "group-leaves-stubborn"])
def test_a_leader_that_dies_takes_its_tree_with_it_before_it_is_replaced(
    family: Path, tmp_path: Path, kind: str
) -> None:
    recording = Recording()
    with running_manager([recording], subreaper=True, node_id="n1") as manager:
        pids = load(manager, family, kind, tmp_path / "out")
        eventually(lambda: recording.of("exit"))
        eventually(lambda: manager.info("j")["state"] == "backoff")
        assert not alive(pids["child"])
        assert last_exit(manager, "j")["exit_code"] == 7


def test_the_leader_stays_a_zombie_while_its_group_lives(family: Path, tmp_path: Path) -> None:
    with running_manager(subreaper=True, node_id="n1") as manager:
        pids = load(manager, family, "group-leaves-stubborn", tmp_path / "out", graceful_timeout=100)
        eventually(lambda: (stat := procfs.read_stat(pids["leader"])) and stat.state == "Z")
        assert alive(pids["child"])
        eventually(lambda: manager.info("j")["state"] == "stopping")
        os.kill(pids["child"], signal.SIGKILL)
        eventually(lambda: procfs.read_stat(pids["leader"]) is None)


def test_by_opt_out_only_the_leader_is_signalled(family: Path, tmp_path: Path) -> None:
    with running_manager(subreaper=True, node_id="n1") as manager:
        pids = load(manager, family, "group", tmp_path / "out", kill_group=False)
        manager.stop_job("j")
        eventually(lambda: manager.info("j")["state"] == "stopped")
        assert not alive(pids["leader"])
        assert alive(pids["child"])
        os.kill(pids["child"], signal.SIGKILL)
        eventually(lambda: procfs.read_stat(pids["child"]) is None)


def test_a_stop_never_touches_another_job(family: Path, tmp_path: Path) -> None:
    with running_manager(subreaper=True, node_id="n1") as manager:
        load(manager, family, "daemon", tmp_path / "out")
        manager.load(ProcessConfig("other", f"{sys.executable} {family} daemon {tmp_path}/other"))
        others = eventually(lambda: members(tmp_path / "other"), retry_on=(FileNotFoundError, ValueError))
        manager.stop_job("j")
        eventually(lambda: manager.info("j")["state"] == "stopped")
        assert all(map(alive, others.values()))


# Ignores SIGTERM, and so does what it starts: in sessions of their own, one below the other, without the cookie.
NESTED = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for depth in range(3):
    if os.fork() == 0:
        os.setsid()
        continue
    break
with open(sys.argv[1], "a") as file:
    file.write(f"{os.getpid()}\\n")
time.sleep(1000)
"""


@pytest.mark.parametrize("settings", [{"subreaper": True, "node_id": "n1"}, {}], ids=["daemon", "embedded"])
def test_sigkill_ends_sessions_below_sessions(tmp_path: Path, settings: dict[str, Any]) -> None:
    out = tmp_path / "out"
    with running_manager(**settings) as manager:
        manager.load(ProcessConfig("j", sys.executable, args=["-c", NESTED, str(out)], graceful_timeout=0.2))
        eventually(lambda: len(out.read_text().split()) == 4, retry_on=(FileNotFoundError,))
        manager.stop_job("j")
        eventually(lambda: manager.info("j")["state"] == "stopped")
        assert not any(alive(int(pid)) for pid in out.read_text().split())


# Forks a successor in a session of its own and ends, again and again; several at once. Nothing is left of it after a
# while in any case: it would take the machine from all tests that follow.
STORM = """
import os, signal, sys, time
end = time.monotonic() + 40
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(3):
    if os.fork() == 0:
        while time.monotonic() < end:
            os.setsid() if os.getsid(0) != os.getpid() else None
            if os.fork():
                os._exit(0)
        os._exit(0)
signal.pause()
"""


def test_a_storm_of_forks_ends(tmp_path: Path) -> None:
    before = set(procfs.children())
    with running_manager(subreaper=True, node_id="storm") as manager:
        manager.load(ProcessConfig("j", sys.executable, args=["-c", STORM], graceful_timeout=0.2))
        (leader,) = eventually(lambda: manager.list("j"))
        eventually(lambda: len(procfs.children()) > 1)
        manager.stop_job("j")
        eventually(lambda: manager.info("j")["state"] == "stopped", timeout=20)
        cookie = f"storm:{leader.pid}"
        assert not [pid for pid in procfs.all_pids() if procfs.read_variable(pid, "GAFFER_PROCESS") == cookie]
        eventually(lambda: not set(procfs.children()) - before, message="not all were reaped")


SAVES = """
trap 'echo saved > saved; exit 0' TERM
touch up
while :; do sleep 0.05; done
"""


@pytest.mark.parametrize("order", ["stop", "stop of the leader alone", "kill"])
def test_a_paused_process_is_asked_to_end(tmp_path: Path, order: str) -> None:
    with running_manager() as manager:
        settings: dict[str, Any] = {
            "cwd": str(tmp_path),
            "graceful_timeout": 100,
            "kill_group": order == "stop",
            "backoff": 100,
        }
        manager.load(ProcessConfig("j", "/bin/sh", args=["-c", SAVES], **settings))
        eventually((tmp_path / "up").exists)
        (process,) = manager.list("j")
        os.kill(process.os_pid, signal.SIGSTOP)
        eventually(lambda: (stat := procfs.read_stat(process.os_pid)) and stat.state == "T")
        if order == "kill":
            manager.kill(process.pid, "TERM")
        else:
            manager.stop_job("j")
        eventually(lambda: manager.info("j")["state"] in ("stopped", "backoff"))
        assert (tmp_path / "saved").read_text() == "saved\n"


def test_orders_by_pid_reach_a_job_whose_name_was_loaded_anew(tmp_path: Path) -> None:
    recording = Recording("job.default.j.kill")
    config = ProcessConfig("j", "/bin/sh", args=["-c", "trap '' TERM; touch up; read x"], redirect_input=True)
    config = config.replace(cwd=str(tmp_path), graceful_timeout=100)
    with running_manager([recording]) as manager:
        manager.load(config)
        eventually((tmp_path / "up").exists)
        (old,) = manager.pids("j")
        manager.unload("j")
        manager.load(config)
        assert manager.info("j")["state"] == "waiting"
        manager.stop_process(old)
        manager.kill(old, "WINCH")
        manager.send(old, b"end\n")
        (new,) = eventually(lambda: manager.pids("j"))
        assert new != old
        eventually(lambda: recording.of("job.default.j.kill"))
        assert recording.of("job.default.j.kill")[0]["pid"] == old


# Makes 300 orphans that end at once: in the group, in sessions of daemons, or leading groups of their own.
ORPHANS = """
import os, sys, time
for _ in range(300):
    middle = os.fork()
    if middle == 0:
        if sys.argv[1] == "session":
            os.setsid()
        if os.fork() == 0 and sys.argv[1] == "leaders":
            os.setpgid(0, 0)
        os._exit(0)
    os.waitpid(middle, 0)
time.sleep(1000)
"""


@pytest.mark.parametrize("kind", ["group", "session", "leaders"])
def test_orphans_are_reaped_while_foreign_subprocesses_keep_their_exit_codes(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run in the main thread, where SIGCHLD is heard."""
    monkeypatch.setattr(reaper, "_FORK_TIMEOUT", 1000.0)
    monkeypatch.setenv(reaper.COOKIE, "outer:1")  # as if this were a process of another Gaffer
    loop = new_loop()
    manager = Manager(loop, subreaper=True, node_id="n1")
    codes: list[int] = []
    late = subprocess.Popen(["/bin/sh", "-c", "exit 3"], process_group=0)

    def foreign() -> None:
        for session in (False, True) * 20:
            done = subprocess.run(["/bin/sh", "-c", "exit 3"], check=False, start_new_session=session)
            codes.append(done.returncode)

    manager.start()
    forked = os.fork()
    if forked == 0:
        os.setsid()
        os._exit(3)
    before = procfs.children()
    manager.load(ProcessConfig("j", sys.executable, args=["-c", ORPHANS, kind]))
    thread = threading.Thread(target=foreign)
    thread.start()
    deadline = time.monotonic() + 20
    zombies: list[int] = []

    def finish() -> None:
        leaders = {process.os_pid for process in manager.running.values()}
        zombies[:] = [pid for pid in procfs.children() - before - leaders if _is_zombie(pid)]
        done = not thread.is_alive() and not zombies and _is_asleep(leaders)
        if done or time.monotonic() > deadline:
            manager.stop(now=True)
        else:
            loop.call_later(0.02, finish)

    loop.call_soon(finish)
    manager.run()
    thread.join()
    assert not zombies
    assert codes == [3] * 40
    assert late.wait() == 3
    assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 3
    loop.close()


def _is_asleep(pids: set[int]) -> bool:
    """Whether the program that makes orphans is through with them."""
    return bool(pids) and all("nanosleep" in Path(f"/proc/{pid}/wchan").read_text() for pid in pids)


def _is_zombie(pid: int) -> bool:
    stat = procfs.read_stat(pid)
    return stat is not None and stat.state == "Z"


def test_the_process_is_left_as_it_was_found() -> None:
    handler = signal.getsignal(signal.SIGCHLD)
    loop = new_loop()
    manager = Manager(loop, subreaper=True)
    manager.start()
    manager.stop()
    manager.run()
    loop.close()
    assert signal.getsignal(signal.SIGCHLD) is handler


@row("TPL-10")
def test_a_detached_process_has_its_own_session_and_outlives_the_manager() -> None:
    with running_manager() as manager:
        manager.load(ProcessConfig("j", "/bin/sleep 1000", detach=True))
        eventually(lambda: manager.pids("j"))
        pid = manager.running[1].os_pid
        assert os.getsid(pid) == pid
    assert alive(pid)
    psutil.Process(pid).kill()
    os.waitpid(pid, 0)


@row("SUP-01")
def test_many_processes_come_and_go_without_a_trace() -> None:
    recording = Recording("exit")
    with running_manager([recording]) as manager:
        manager.load(ProcessConfig("j", "/bin/true", numprocesses=4, backoff=0, startsecs=0))
        eventually(lambda: len(recording.of("exit")) >= 500, timeout=30)
        manager.stop_job("j")
        eventually(lambda: not manager.running)
