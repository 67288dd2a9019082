"""A control group holds what sheds group, session and environment."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gaffer.process import ProcessConfig
from gaffer.processes import procfs
from gaffer.processes.cgroups import Cgroups, own_cgroup
from support.managers import running_manager
from support.needs import needs_cgroup
from support.poll import eventually

# At once leaves the group and the session and sheds the environment.
ESCAPE = """
import os, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve(sys.executable, [sys.executable, "-I", "-c", sys.argv[2], sys.argv[1]], {})
    os._exit(0)
os.wait()
while not os.path.exists(sys.argv[1]):
    os.sched_yield()
if sys.argv[3] == "leaves":
    os._exit(0)
os.execv("/bin/sleep", ["sleep", "1000"])
"""
HIDDEN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open(sys.argv[1] + ".new", "w") as file:
    file.write(str(os.getpid()))
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(1000)
"""


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Path]:
    mount = next(
        line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if "- cgroup2 " in line
    )
    path = Path(mount) / f"gaffer-test-{os.getpid()}"
    path.mkdir()
    yield path
    eventually(lambda: path.rmdir() is None, retry_on=(OSError,))


def alive(pid: int) -> bool:
    stat = procfs.read_stat(pid)
    return stat is not None and stat.state not in "ZX"


@needs_cgroup
@pytest.mark.parametrize("ending", ["stop", "leaves"])
@pytest.mark.parametrize("subreaper", [False, True])
def test_nothing_escapes_a_control_group(group: Path, tmp_path: Path, ending: str, subreaper: bool) -> None:
    with running_manager(subreaper=subreaper, cgroup=group, node_id="n1") as manager:
        args = ["-c", ESCAPE, str(tmp_path / "pid"), HIDDEN, ending]
        manager.load(ProcessConfig("j", sys.executable, args=args, graceful_timeout=0.3, backoff=100, startsecs=100))
        hidden = eventually(lambda: int((tmp_path / "pid").read_text()), retry_on=(FileNotFoundError, ValueError))
        if ending == "stop":
            assert alive(hidden)
            manager.stop_job("j")
        eventually(lambda: manager.info("j")["state"] in ("stopped", "backoff"))
        assert not alive(hidden)
        eventually(lambda: not list(group.glob("gaffer-*")))


@needs_cgroup
@pytest.mark.expects_errors("default.j can't be started")
def test_a_start_that_fails_leaves_no_group(group: Path) -> None:
    with running_manager(cgroup=group) as manager:
        manager.load(ProcessConfig("j", "/no/such/program"))
        eventually(lambda: manager.info("j")["last_exit"])
        assert not list(group.glob("gaffer-*"))


@needs_cgroup
def test_what_an_earlier_daemon_left_is_cleaned(group: Path) -> None:
    earlier, other, nameless = Cgroups(group, "n1"), Cgroups(group, "n10"), Cgroups(group)
    pids = [os.spawnv(os.P_NOWAIT, "/bin/sleep", ["sleep", "1000"]) for _ in range(3)]
    for pid, cgroups in zip(pids, (earlier, other, nameless), strict=True):
        cgroups.add(pid)
        assert cgroups.members(pid) == {pid}
    for cgroups in (Cgroups(group, "n1"), Cgroups(group), Cgroups(group, "*")):
        cgroups.clean()
    os.waitpid(pids[0], 0)
    Cgroups(group, "n1").clean()
    assert [alive(pid) for pid in pids] == [False, True, True]  # the others live: only their manager ends them
    for pid, cgroups in zip(pids[1:], (other, nameless), strict=True):
        cgroups.kill(pid)
        os.waitpid(pid, 0)
        eventually(lambda: not cgroups.members(pid))  # noqa: B023
        cgroups.remove(pid)
    eventually(lambda: not list(group.glob("gaffer-*")))


MOUNT = "30 25 0:27 / {point} rw,nosuid - cgroup2 cgroup2 rw\n"


@pytest.mark.parametrize(
    ("membership", "expected"),
    [
        ("0::/\n", None),
        ("12:cpu:/x\n0::/system.slice/gafferd.service\n", "system.slice/gafferd.service"),
        ("12:cpu:/x\n", None),
        ("0::/not/there\n", None),
    ],
)
def test_which_group_is_ours(tmp_path: Path, membership: str, expected: str | None) -> None:
    ours = tmp_path / "system.slice/gafferd.service"
    ours.mkdir(parents=True)
    (ours / "cgroup.procs").touch()
    found = own_cgroup(mountinfo=MOUNT.format(point=tmp_path), membership=membership)
    assert found == (None if expected is None else tmp_path / expected)


def test_without_version_2_there_is_none() -> None:
    assert own_cgroup(mountinfo="", membership="0::/x\n") is None
