"""What a process gets from us, and what happens when it can't be started."""

import contextlib
import grp
import os
import pwd
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from gaffer.errors import StartFailed
from gaffer.jobs.names import JobName
from gaffer.process import ProcessConfig
from gaffer.processes import launch
from gaffer.runtime import descriptors
from support.dispositions import ignored
from support.managers import Recording, last_exit, running_manager
from support.needs import needs_root
from support.poll import eventually

row = pytest.mark.row

PARENT = {
    "PATH": "/bin",
    "HOME": "/home/x",
    "LANG": "C",
    "LC_ALL": "C",
    "TZ": "UTC",
    "MINE": "1",
    "GAFFER_API_KEY": "secret",
    "GAFFER_CLUSTER_KEY_FILE": "/secret",
    "GAFFER_PROCESS": "n0:1",
    "GAFFER_JOB": "outer.job",
    "GAFFER_SESSION": "outer",
    "GAFFER_INSTANCE": "7",
    "NOTIFY_SOCKET": "/run/x",
    "WATCHDOG_USEC": "1",
    "LISTEN_FDS": "1",
}


@row("TPL-09", "CHG-09")
@pytest.mark.parametrize(
    ("os_env", "expected"),
    [
        (False, {"PATH", "HOME", "LANG", "LC_ALL", "TZ", "OWN", "EXTRA"}),
        (True, {"PATH", "HOME", "LANG", "LC_ALL", "TZ", "OWN", "EXTRA", "MINE"}),
    ],
)
def test_which_variables_pass(os_env: bool, expected: set[str]) -> None:
    config = ProcessConfig("j", "true", os_env=os_env)
    assert launch.environment(config, {"OWN": "1", "EXTRA": "1"}, PARENT).keys() == expected


def test_there_is_always_a_path() -> None:
    assert "/bin" in launch.environment(ProcessConfig("j", "true"), {}, {})["PATH"]


@row("TPL-09")
def test_the_job_and_the_order_go_over_the_system() -> None:
    config = ProcessConfig("j", "true", os_env=True, env={"MINE": "2", "HOME": "/h"})
    given = launch.variables(config, {"HOME": "/extra"}, job=JobName("default", "j"))
    env = launch.environment(config, given, PARENT)
    assert (env["MINE"], env["HOME"]) == ("2", "/extra")


@row("TPL-26", "CHG-12")
def test_variables_in_the_command_line() -> None:
    config = ProcessConfig("j", "prog-$A", args=["${A}b", "$UNKNOWN", "$$"])
    assert launch.arguments(config, {"A": "x"}) == ["prog-x", "xb", "$UNKNOWN", "$$"]


@row("TPL-03", "TPL-26")
@pytest.mark.parametrize(
    ("cmd", "args"),
    [
        ("sh -c 'echo \"$A\"'", ()),
        ("sh", "-c 'echo \"$A\"'"),
        ('sh -c "echo \\"\\$A\\""', ()),
    ],
)
def test_a_quoted_dollar_is_no_variable_however_the_job_is_described(cmd: str, args: Any) -> None:
    config = ProcessConfig.from_dict({"name": "j", "cmd": cmd, "args": args}, lax=True)
    again = ProcessConfig.from_dict(config.to_dict())
    assert launch.arguments(again, {"A": '"; rm -rf /; "'}) == ["sh", "-c", 'echo "$A"']


@row("TPL-08")
def test_a_shell_gets_a_command_that_only_a_shell_can_read() -> None:
    config = ProcessConfig("j", "run ${NAME:-it's} # don't", shell=True)
    assert launch.arguments(config, {}) == ["/bin/sh", "-c", "run ${NAME:-it's} # don't"]


@row("TPL-08")
def test_a_shell_gets_the_command_as_it_is() -> None:
    config = ProcessConfig("j", "echo $A | cat", args=["a b"], shell=True)
    assert launch.arguments(config, {"A": "x"}) == ["/bin/sh", "-c", "echo $A | cat 'a b'"]


@contextlib.contextmanager
def no_descriptors_left() -> Iterator[Callable[[int], contextlib.AbstractContextManager[None]]]:
    """Take every descriptor there is; gives a function that gives some back for a while."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/dev/fd"))) + 20, hard))

    def take() -> None:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(taken[0]))

    @contextlib.contextmanager
    def free(count: int) -> Iterator[None]:
        for _ in range(count):
            os.close(taken.pop())
        try:
            yield
        finally:
            take()

    try:
        take()
        yield free
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def count_open() -> int:
    """How many descriptors are open, without opening one to see."""
    found = 0
    for fd in range(resource.getrlimit(resource.RLIMIT_NOFILE)[0]):
        with contextlib.suppress(OSError):
            os.fstat(fd)
            found += 1
    return found


def idle_user() -> str:
    """A user who has no process."""
    busy = {process.uids().real for process in psutil.process_iter()}
    return next(account.pw_name for account in pwd.getpwall() if account.pw_uid not in busy)


def failing(tmp_path: Path) -> dict[str, tuple[dict[str, Any], str]]:
    plain = tmp_path / "plain.txt"
    plain.write_text("no program\n")
    executable = tmp_path / "noexec"
    executable.write_bytes(b"\x00\x01 no format\n")
    executable.chmod(0o755)
    lost = tmp_path / "lost"
    lost.write_text("#!/no/such/interpreter\n")
    lost.chmod(0o755)
    return {
        "missing": ({"cmd": "no-such-program-at-all"}, "program_not_found"),
        "missing path": ({"cmd": "/no/such/program"}, "program_not_found"),
        "not executable": ({"cmd": str(plain)}, "not_executable"),
        "no format": ({"cmd": str(executable)}, "not_executable"),
        "interpreter": ({"cmd": str(lost)}, "bad_interpreter"),
        "cwd": ({"cmd": "true", "cwd": "/no/such/dir"}, "bad_cwd"),
        "cwd is a file": ({"cmd": "true", "cwd": str(plain)}, "bad_cwd"),
        "user": ({"cmd": "true", "uid": "no-such-user"}, "unknown_user"),
        "group": ({"cmd": "true", "gid": "no-such-group"}, "unknown_user"),
    }


@row("PROC-05")
@pytest.mark.expects_errors("default.j can't be started")
@pytest.mark.parametrize("streams", [[], ["x"]], ids=["direct", "by the stub"])
@pytest.mark.parametrize(
    "case",
    ["missing", "missing path", "not executable", "no format", "interpreter", "cwd", "cwd is a file", "user", "group"],
)
def test_a_start_that_fails_is_an_event_and_a_state_and_is_tried_again(
    tmp_path: Path, case: str, streams: list[str]
) -> None:
    settings, reason = failing(tmp_path)[case]
    settings["custom_streams"] = streams
    recording = Recording()
    with running_manager([recording]) as manager:
        manager.load(ProcessConfig("j", settings.pop("cmd"), **settings))
        eventually(lambda: len(recording.of("proc.j.start_failed")) >= 2)
        message = recording.of("start_failed")[0]
        assert message["reason"] == reason
        assert message["message"]
        info = manager.info("j")
        assert info["state"] in ("backoff", "starting")
        assert last_exit(manager, "j")["reason"] == reason
        manager.stop_job("j")
        assert manager.info("j")["state"] == "stopped"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"redirect_input": True, "redirect_output": ["a", "b"]},
        {"custom_streams": ["x", "y"], "custom_channels": [0]},
    ],
    ids=["plain", "pipes", "custom"],
)
def test_no_descriptors_left_is_a_reason_and_loses_none_at_any_point(settings: dict[str, Any]) -> None:
    config = ProcessConfig("j", "/bin/true", **settings)
    capture = launch.CAPTURE if config.redirect_output else launch.DISCARD
    reasons = set()
    with no_descriptors_left() as free:
        for left in range(40):
            before = count_open()
            with free(left):
                try:
                    child = launch.launch(config, ["/bin/true"], {}, stdout=capture, stderr=capture)
                except StartFailed as error:
                    reasons.add(error.reason)
                else:
                    launch.close(child)
                    assert child.popen is not None
                    child.popen.wait()
                    break
            assert count_open() == before
    assert reasons == {"no_descriptors"}
    assert left >= 2


@row("PROC-05")
@pytest.mark.expects_errors("default.j can't be started: out of descriptors", "fds are gone")
def test_a_job_starts_once_there_are_descriptors_again() -> None:
    recording = Recording()
    config = ProcessConfig("j", "/bin/sleep 1000", redirect_output=["a", "b"], backoff=0, startsecs=0)
    with running_manager([recording]) as manager:
        with no_descriptors_left():
            began = time.monotonic()
            manager.load(config)
            eventually(lambda: len(recording.of("start_failed")) >= 4)
            assert time.monotonic() - began > 0.2  # it does not spin, whatever `backoff` says
            assert recording.of("start_failed")[0]["reason"] == "no_descriptors"
            assert manager.info("j")["state"] in ("backoff", "starting")
        eventually(lambda: manager.info("j")["state"] == "running")


@row("PROC-05")
@needs_root
@pytest.mark.expects_errors("default.j can't be started: the system can't start more processes")
@pytest.mark.parametrize("streams", [[], ["x"]], ids=["direct", "by the stub"])
def test_the_process_limit_of_a_user_is_a_reason(streams: list[str]) -> None:
    recording = Recording()
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    # Root has no limit; the limit counts for the user that the processes become.
    resource.setrlimit(resource.RLIMIT_NPROC, (2, hard))
    try:
        with running_manager([recording]) as manager:
            config = ProcessConfig("j", "/bin/sleep 1000", numprocesses=4, custom_streams=streams, startsecs=0)
            manager.load(config.replace(uid=idle_user()))
            eventually(lambda: recording.of("start_failed"))
            assert recording.of("start_failed")[0]["reason"] == "process_limit"
            eventually(lambda: 0 < len(manager.pids("j")) < 4)
            assert manager.info("j")["state"] == "running"
            resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
            eventually(lambda: len(manager.pids("j")) == 4)
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))


def test_two_thousand_processes_come_and_go_and_leave_no_descriptor() -> None:
    recording = Recording("exit")
    with running_manager([recording], capture_all=True, subreaper=True) as manager:
        manager.load(ProcessConfig("j", "/bin/true", numprocesses=8, backoff=0, startsecs=0))
        eventually(lambda: len(recording.seen) >= 50)
        before = len(os.listdir("/dev/fd"))
        eventually(lambda: len(recording.seen) >= 2050, 60)
        manager.scale("j", "=0")
        eventually(lambda: not manager.running)
        assert len(os.listdir("/dev/fd")) <= before


@row("TPL-05", "TPL-06")
@needs_root
@pytest.mark.parametrize("given", ["name", "number", "text"])
def test_user_and_group_by_name_or_number(given: str, tmp_path: Path) -> None:
    user, group = pwd.getpwnam("nobody"), grp.getgrnam("daemon")
    uids: dict[str, int | str] = {"name": user.pw_name, "number": user.pw_uid, "text": str(user.pw_uid)}
    gids: dict[str, int | str] = {"name": group.gr_name, "number": group.gr_gid, "text": str(group.gr_gid)}
    uid, gid = uids[given], gids[given]
    with running_manager() as manager:
        manager.load(ProcessConfig("j", "/bin/sleep 1000", uid=uid, gid=gid))
        manager.load(ProcessConfig("group", "/bin/sleep 1000", uid="", gid=gid))
        eventually(lambda: len(manager.pids()) == 2)
        ids = [psutil.Process(process.os_pid) for process in manager.list()]
        assert [(process.uids().effective, process.gids().effective) for process in ids] == [
            (user.pw_uid, group.gr_gid),
            (os.geteuid(), group.gr_gid),
        ]


@row("TPL-05", "TPL-06")
@pytest.mark.expects_errors("default.j can't be started: unknown (user|group)")
@pytest.mark.parametrize("key", ["uid", "gid"])
@pytest.mark.parametrize("unknown", ["no-such-account", 4294967])
def test_an_unknown_account_is_an_error_when_the_process_starts(key: str, unknown: int | str) -> None:
    with running_manager() as manager:
        settings: dict[str, Any] = {key: unknown}
        manager.load(ProcessConfig("j", "/bin/sleep 1000", **settings))
        eventually(lambda: manager.info("j")["last_exit"])
        info = manager.info("j")
        assert (info["state"], last_exit(manager, "j")["reason"]) == ("backoff", "unknown_user")
        assert str(unknown) in (info["reason"] or "")


@row("PROC-05", "TPL-07", "TPL-05")
@needs_root
def test_directory_user_group_and_supplementary_groups(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    command = "sh -c 'id -u > out; id -g >> out; id -G >> out; pwd >> out; echo $HOME $USER >> out; sleep 1000'"
    account = pwd.getpwnam("nobody")
    groups = " ".join(map(str, os.getgrouplist("nobody", account.pw_gid)))
    with running_manager() as manager:
        manager.load(ProcessConfig("j", command, uid="nobody", cwd=str(tmp_path)))
        lines = eventually(
            lambda: (text := (tmp_path / "out").read_text()).count("\n") == 5 and text.splitlines(),
            retry_on=(FileNotFoundError,),
        )
    assert lines == [str(account.pw_uid), str(account.pw_gid), groups, str(tmp_path), f"{account.pw_dir} nobody"]


def test_a_process_gets_its_own_group_a_null_stdin_and_no_descriptor_of_ours(tmp_path: Path) -> None:
    secret = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(secret, True)
    code = (
        "import os, time\n"
        "fds = sorted(os.listdir('/proc/self/fd'), key=int)[:-1]\n"
        f"print(os.getpgrp() == os.getpid(), os.readlink('/proc/self/fd/0'), fds, file=open('{tmp_path}/out', 'w'))\n"
        "time.sleep(1000)\n"
    )
    try:
        with running_manager() as manager:
            manager.load(ProcessConfig("j", sys.executable, args=["-I", "-c", code]))
            text = eventually(lambda: (tmp_path / "out").read_text(), retry_on=(FileNotFoundError,))
    finally:
        os.close(secret)
    assert text == "True /dev/null ['0', '1', '2']\n"


def test_the_cookie_marks_the_process() -> None:
    from gaffer.processes import procfs

    with running_manager(node_id="node-1") as manager:
        manager.load(ProcessConfig("j", "/bin/sleep 1000"))
        eventually(lambda: manager.pids("j"))
        process = manager.running[1]
        eventually(lambda: procfs.read_variable(process.os_pid, "GAFFER_PROCESS") == "node-1:1")
        record = process.record()
        stat = procfs.read_stat(process.os_pid)
        assert stat is not None
        assert (record.os_pid, record.pgid, record.start_time) == (process.os_pid, stat.pgrp, stat.start_time)
        assert record.boot_id == procfs.boot_id() != ""


SHOW_INHERITED = """
import resource, signal
names = {line.split(":")[0]: line.split()[1] for line in open("/proc/self/status") if line.startswith("Sig")}
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], names["SigBlk"], names["SigIgn"], flush=True)
"""


def inherited(**settings: Any) -> list[str]:
    """The soft limit on descriptors, the mask and the ignored signals of a child."""
    config = ProcessConfig("j", sys.executable, args=["-I", "-S", "-c", SHOW_INHERITED], **settings)
    child = launch.launch(config, config.command(), dict(os.environ), stdout=launch.CAPTURE)
    try:
        assert child.popen is not None
        assert child.stdout is not None
        os.set_blocking(child.stdout, True)
        with os.fdopen(os.dup(child.stdout)) as output:
            words = output.read().split()
        child.popen.wait()
        return words
    finally:
        launch.close(child)


@pytest.mark.parametrize("streams", [[], ["x"]], ids=["direct", "by the stub"])
def test_a_child_starts_with_the_original_limit_however_many_descriptors_are_open(
    monkeypatch: pytest.MonkeyPatch, streams: list[str]
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    original = max(map(int, os.listdir("/dev/fd"))) + 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (original, hard))
    for name, value in (("_before", None), ("_reserved", [])):
        monkeypatch.setattr(descriptors, name, value)
    taken: list[int] = []
    try:
        descriptors.raise_descriptors()
        launch.null_device()
        taken += (os.dup(0) for _ in range(2 * original))
        for _ in range(5):
            assert inherited(custom_streams=streams)[0] == str(original)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard
    finally:
        for fd in (*taken, *descriptors._reserved):
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# SIGPIPE and SIGXFSZ are ignored by the Python that shows it.
PYTHON_IGNORES = 1 << 12 | 1 << 24


def test_a_child_starts_with_an_empty_mask_and_ignores_nothing() -> None:
    usual = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        _, blocked, ignoring = inherited()
        assert (blocked, ignored(ignoring)) == ("0" * 16, PYTHON_IGNORES)
    finally:
        signal.signal(signal.SIGUSR2, usual)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    try:
        _, blocked, ignoring = inherited()
        assert (blocked, ignored(ignoring)) == ("0" * 16, PYTHON_IGNORES)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
