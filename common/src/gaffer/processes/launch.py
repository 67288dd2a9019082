"""Launch one OS process: its environment, its command line, the system calls. Independent of job states and events."""

import contextlib
import errno
import fcntl
import functools
import marshal
import os
import pwd
import re
import resource
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self
from urllib.parse import quote

from msgspec import Struct, field

from gaffer.errors import ConfigError, StartFailed
from gaffer.jobs.config import JobConfig
from gaffer.jobs.limits import parse_limit
from gaffer.jobs.names import JobName
from gaffer.processes import exec_stub
from gaffer.processes.cgroups import Cgroups
from gaffer.runtime import descriptors, dispositions
from gaffer.runtime.accounts import check_gid, check_uid
from gaffer.runtime.env_files import read_env_file

# Variables of the daemon that are secret or meant for the daemon alone.
_PRIVATE = re.compile(r"GAFFER_\w*KEY\w*|GAFFER_(?:PROCESS|JOB|SESSION|INSTANCE)|NOTIFY_SOCKET|WATCHDOG_\w+|LISTEN_\w+")
_BASIC = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR")
_LOCALE = re.compile(r"LC_\w+")
_RESOURCES = {
    name.removeprefix("RLIMIT_").lower(): number
    for name, number in vars(resource).items()
    if name.startswith("RLIMIT_")
}
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

JOURNAL = ".journal"  # suffix of the name of a journal

CAPTURE = subprocess.PIPE
DISCARD = subprocess.DEVNULL
MERGE = subprocess.STDOUT


class Child(Struct):
    """A running OS process and our ends of its pipes; `popen` is None if we did not start it.

    `streams` are our ends of the custom streams, in the order of their labels; `stream_inputs` has a second descriptor
    for each, so that reading and writing can be closed separately. `journals` are those of an adopted process, by name,
    such as `stdout.journal`.
    """

    os_pid: int = 0
    pidfd: int | None = None
    popen: "subprocess.Popen[bytes] | None" = None
    stdin: int | None = None
    stdout: int | None = None
    stderr: int | None = None
    streams: list[int] = field(default_factory=list)
    stream_inputs: list[int] = field(default_factory=list)
    journals: dict[str, int] = field(default_factory=dict)

    def descriptors(self, labels: Sequence[str]) -> dict[str, int]:
        """Return our descriptors by name; `labels` are those of the custom streams."""
        found = {"pidfd": self.pidfd, "stdin": self.stdin, "stdout": self.stdout, "stderr": self.stderr}
        found |= {stream_name(label): fd for label, fd in zip(labels, self.streams, strict=False)}
        return {name: fd for name, fd in found.items() if fd is not None} | self.journals

    @classmethod
    def of(cls, os_pid: int, descriptors: Mapping[str, int], labels: Sequence[str]) -> Self:
        """Return a process that an earlier manager started, with its descriptors by name; others are closed."""
        left, names = dict(descriptors), [stream_name(label) for label in labels]
        child = cls(os_pid, left.pop("pidfd", None))
        child.stdin, child.stdout, child.stderr = (left.pop(name, None) for name in ("stdin", "stdout", "stderr"))
        child.streams = [left.pop(name) for name in names] if left.keys() >= set(names) else []
        child.stream_inputs = [os.dup(fd) for fd in child.streams]
        child.journals = {name: left.pop(name) for name in list(left) if name.endswith(JOURNAL)}
        for fd in left.values():
            os.close(fd)
        return child


def stream_name(label: str) -> str:
    """Return the name of the descriptor of a custom stream."""
    return f"stream:{quote(label, safe='')}"


class _SetupFailed(OSError):
    """A step of the exec stub that failed."""

    def __init__(self, number: int, step: str) -> None:
        super().__init__(number, os.strerror(number))
        self.step = step


class _Account(NamedTuple):
    """The user and groups to switch to; None for those that stay unchanged."""

    uid: int | None = None
    gid: int | None = None
    groups: list[int] | None = None


def variables(
    config: JobConfig, extra: Mapping[str, str], *, job: JobName, slot: int = 0, port: int | None = None
) -> dict[str, str]:
    """Return the variables that the job `job` gives its process in slot `slot` (0: in none), see `environment`.

    Those of its env files, of `env` and `extra`; later ones win. PORT is `port` unless they set it. Raises StartFailed
    (`bad_env_file`) for an env file that can't be read or has an invalid line.
    """
    given: dict[str, str] = {}
    for index, name in enumerate(config.env_file):
        try:
            given |= read_env_file(os.path.join(config.cwd or "", name))
        except ConfigError as error:
            message = f"env_file: {error.path}: {error.message}"
            raise StartFailed(message, reason="bad_env_file", path=f"$.env_file[{index}]", hint=error.hint) from None
    given |= {**config.env, **extra}
    if port is not None:
        given.setdefault("PORT", str(port))
    given |= {"GAFFER_JOB": str(job), "GAFFER_SESSION": job.session}
    if slot:
        given["GAFFER_INSTANCE"] = str(slot)
    return given


def environment(config: JobConfig, given: Mapping[str, str], parent: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a process: that of `parent` (default: ours), the account's, and `given`.

    Later ones win. `given` has the variables of the job and these:

    - `GAFFER_JOB`: the qualified name of the job, such as `default.web`
    - `GAFFER_SESSION`: its session
    - `GAFFER_INSTANCE`: the slot of the process, from 1; missing for a committed process
    - `PORT`: its port, if it has one

    A Manager with a `node_id` adds `GAFFER_PROCESS`, which identifies the process. The same variables replace `$VAR` in
    the command line, see `arguments`.
    """
    parent = os.environ if parent is None else parent
    if config.os_env:
        env = {name: value for name, value in parent.items() if not _PRIVATE.fullmatch(name)}
    else:
        names = [name for name in parent if name in _BASIC or _LOCALE.match(name)]
        env = {name: parent[name] for name in names}
    env.setdefault("PATH", _DEFAULT_PATH)
    if config.uid is not None:
        with contextlib.suppress(KeyError, ValueError):
            account = pwd.getpwuid(check_uid(config.uid))
            env.update(HOME=account.pw_dir, USER=account.pw_name, LOGNAME=account.pw_name, SHELL=account.pw_shell)
    return {**env, **given}


def arguments(config: JobConfig, env: Mapping[str, str]) -> list[str]:
    """Return the argument vector; `$VAR` is expanded from `env`, or by the shell if the job uses one."""
    if config.shell:
        return ["/bin/sh", "-c", " ".join([config.cmd, *(shlex.quote(arg) for arg in config.args)])]
    return config.arguments(env)


def launch(
    config: JobConfig,
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    stdout: int = DISCARD,
    stderr: int = DISCARD,
    cgroups: Cgroups | None = None,
    sockets: Sequence[tuple[str, int]] = (),
) -> Child:
    """Start the process in its own process group, or in its own session if detached.

    `stdout` and `stderr` are CAPTURE, DISCARD or, for stderr, MERGE. With `cgroups`, the process is moved into a
    control group before it executes its program. `sockets` are names and descriptors of listening sockets, which it
    gets from descriptor 3 on as described by sd_listen_fds(3); ours stay open. Its signal mask is empty, all
    dispositions are the default, and its limit on descriptors is the one we were started with unless the job sets it.
    Raises StartFailed, leaving nothing open.
    """
    account = _account(config)
    child = Child()
    child_ends: list[int] = []
    stdin = DISCARD
    try:
        # Popen's own pipes are file objects, which some versions leak when descriptors run out.
        if config.redirect_input:
            stdin, child.stdin = os.pipe()
            child_ends.append(stdin)
            os.set_blocking(child.stdin, False)
        if stdout == CAPTURE:
            child.stdout, stdout = os.pipe()
            child_ends.append(stdout)
            os.set_blocking(child.stdout, False)
        if stderr == CAPTURE:
            child.stderr, stderr = os.pipe()
            child_ends.append(stderr)
            os.set_blocking(child.stderr, False)
        options: dict[str, Any] = {
            "stdin": null_device() if stdin == DISCARD else stdin,
            "stdout": null_device() if stdout == DISCARD else stdout,
            "stderr": null_device() if stderr == DISCARD else stderr,
            "start_new_session": config.detach,
            "process_group": None if config.detach else 0,
        }
        passed = [fd for _, fd in sockets]
        passed += [_socket_pair(child, child_ends) for _ in config.custom_streams]
        passed += [_descriptor(channel) for channel in config.custom_channels]
        umask = int(config.umask, 8) if config.umask is not None else None
        limits = config.resource_limits
        if passed or limits or config.nice is not None or cgroups is not None or not dispositions.are_default():
            request = {
                "cwd": None if config.cwd is None else os.fsencode(config.cwd),
                "umask": umask,
                "nice": config.nice,
                "limits": {name: (_RESOURCES[name], *_bounds(limit)) for name, limit in limits.items()},
                "listens": bool(sockets),
                **account._asdict(),
            }
            child.popen = _popen_by_stub(passed, argv, {**env, **_listening(sockets)}, request, options, cgroups)
        else:
            with descriptors.original_descriptors():
                child.popen = subprocess.Popen(
                    argv,
                    env=env,
                    cwd=config.cwd,
                    user=account.uid,
                    group=account.gid,
                    extra_groups=account.groups,
                    umask=-1 if umask is None else umask,
                    **options,
                )
        child.os_pid = child.popen.pid
        child.pidfd = os.pidfd_open(child.os_pid) if hasattr(os, "pidfd_open") else None
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        if child.popen is not None:
            # It is running, but can't be watched.
            os.killpg(child.popen.pid, signal.SIGKILL)
            child.popen.wait()
            if cgroups is not None:
                cgroups.remove(child.popen.pid)
        close(child)
        raise _start_failed(error, argv[0], config) from None
    finally:
        for fd in child_ends:
            os.close(fd)
    return child


@functools.cache
def null_device() -> int:
    """Return a descriptor of /dev/null, shared by all processes; Popen would open one for each."""
    return os.open(os.devnull, os.O_RDWR)


def close(child: Child) -> None:
    """Close every descriptor of `child` that is still open."""
    for name in ("pidfd", "stdin", "stdout", "stderr"):
        fd = getattr(child, name)
        if fd is not None:
            os.close(fd)
            setattr(child, name, None)
    for fds in (child.streams, child.stream_inputs):
        while fds:
            os.close(fds.pop())
    while child.journals:
        os.close(child.journals.popitem()[1])


def _socket_pair(child: Child, child_ends: list[int]) -> int:
    ours, other = (end.detach() for end in socket.socketpair())
    child.streams.append(ours)
    child_ends.append(other)
    os.set_blocking(ours, False)
    child.stream_inputs.append(os.dup(ours))
    return other


def _descriptor(channel: Any) -> int:
    return channel if isinstance(channel, int) else int(channel.fileno())


def _listening(sockets: Sequence[tuple[str, int]]) -> dict[str, str]:
    """Return the variables that describe passed sockets; the stub adds LISTEN_PID."""
    if not sockets:
        return {}
    return {"LISTEN_FDS": str(len(sockets)), "LISTEN_FDNAMES": ":".join(name for name, _ in sockets)}


def _bounds(limit: str) -> tuple[int, int]:
    """Return the soft and the hard limit as setrlimit(2) takes them."""
    soft, hard = (resource.RLIM_INFINITY if value is None else value for value in parse_limit(limit))
    return soft, hard


def _popen_by_stub(
    passed: Sequence[int],
    argv: Sequence[str],
    env: Mapping[str, str],
    setup: Mapping[str, Any],
    options: Mapping[str, Any],
    cgroups: Cgroups | None,
) -> "subprocess.Popen[bytes]":
    """Start a process through gaffer.processes.exec_stub, with `passed` as its descriptors 3, 4, and so on.

    `setup` is the rest of the request. While the stub waits for it, it is moved into its control group and its
    original limit on descriptors is restored. Starting the interpreter takes about 10 ms. Raises like Popen, or
    _SetupFailed.
    """
    request = {
        **setup,
        "programs": [os.fsencode(program) for program in _candidates(argv[0], env)],
        "argv": [os.fsencode(word) for word in argv],
        "env": {os.fsencode(name): os.fsencode(value) for name, value in env.items()},
    }
    sources: list[int] = []
    ours, theirs = socket.socketpair()
    with ours:
        try:
            # Above their final numbers, so that none is overwritten before it is moved.
            lowest = 3 + len(passed)
            for fd in (theirs.fileno(), *passed):
                sources.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest))
            command = [sys.executable, "-I", "-S", exec_stub.__file__, str(sources[0])]
            library_path = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
            popen = subprocess.Popen(command, env=library_path, pass_fds=sources, **options)
        finally:
            theirs.close()
            for fd in sources:
                os.close(fd)
        try:
            if cgroups is not None:
                cgroups.add(popen.pid)
            descriptors.restore_descriptors(popen.pid)
            response = _request(ours, marshal.dumps({**request, "descriptors": sources[1:]}))
        except BaseException:
            _discard(popen, cgroups)
            raise
    if response == exec_stub.DONE:
        return popen
    _discard(popen, cgroups)
    number, _, step = response.rpartition(b"\n")[2].partition(b" ")
    if not number.isdigit():
        raise subprocess.SubprocessError(f"the launcher of {argv[0]!r} exited with status {popen.returncode}")
    raise _SetupFailed(int(number), step.decode())


def _discard(popen: "subprocess.Popen[bytes]", cgroups: Cgroups | None) -> None:
    popen.kill()
    popen.wait()
    if cgroups is not None:
        cgroups.remove(popen.pid)


def _request(peer: socket.socket, request: bytes) -> bytes:
    """Send `request`, shut down, and return the response; a partial one if the peer resets the connection."""
    parts = []
    with contextlib.suppress(ConnectionError):
        peer.sendall(request)
        peer.shutdown(socket.SHUT_WR)
        while part := peer.recv(4096):
            parts.append(part)
    return b"".join(parts)


def _candidates(program: str, env: Mapping[str, str]) -> list[str]:
    """Return the paths to try for `program`, as execvp(3) does."""
    if os.path.dirname(program):
        return [program]
    return [os.path.join(folder, program) for folder in os.get_exec_path(env)]


def _account(config: JobConfig) -> _Account:
    if config.uid is None and config.gid is None:
        return _Account()
    uid = gid = None
    try:
        if config.uid is not None:
            uid = check_uid(config.uid)
        if config.gid is not None:
            gid = check_gid(config.gid)
    except ValueError as error:
        raise StartFailed(str(error), reason="unknown_user", path="$.uid") from None
    if uid is not None:
        account = pwd.getpwuid(uid)
        gid = account.pw_gid if gid is None else gid
        groups = os.getgrouplist(account.pw_name, gid)
    else:
        groups = None
    if os.geteuid() != 0:
        # Only root may switch users; switching to our own needs no system call.
        if uid in (None, os.geteuid()) and gid in (None, os.getegid()):
            return _Account()
        name = config.uid if uid not in (None, os.geteuid()) else config.gid
        raise StartFailed(f"only root can run a process as {name!r}", reason="not_permitted", path="$.uid")
    return _Account(uid, gid, groups)


def _start_failed(error: Exception, program: str, config: JobConfig) -> StartFailed:
    """Convert an exception of Popen or the exec stub to StartFailed."""
    if not isinstance(error, OSError):
        return StartFailed(str(error), reason="start_failed")
    step = error.step if isinstance(error, _SetupFailed) else ""
    if step == "cwd" or (config.cwd is not None and error.filename == config.cwd):
        return StartFailed(
            f"can't change directory to {config.cwd!r}: {error.strerror}", reason="bad_cwd", path="$.cwd"
        )
    if step == "nice" or step.startswith("rlimit_"):
        return _limit_failed(error, step, config)
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            found = os.path.exists(os.path.join(config.cwd or "", program)) if "/" in program else False
            if found:
                return StartFailed(
                    f"the interpreter of {program!r} does not exist", reason="bad_interpreter", path="$.cmd"
                )
            return StartFailed(f"there is no program {program!r}", reason="program_not_found", path="$.cmd")
        case errno.EACCES:
            return StartFailed(f"{program!r} is not executable", reason="not_executable", path="$.cmd")
        case errno.ENOEXEC:
            return StartFailed(
                f"{program!r} is not a program and has no #! line", reason="not_executable", path="$.cmd"
            )
        case errno.EAGAIN | errno.ENOMEM:
            return StartFailed(f"the system can't start more processes: {error.strerror}", reason="process_limit")
        case errno.EMFILE | errno.ENFILE:
            return StartFailed(f"out of descriptors: {error.strerror}", reason="no_descriptors")
        case errno.EPERM:
            return StartFailed(f"not permitted to start {program!r}: {error.strerror}", reason="not_permitted")
        case _:
            return StartFailed(f"can't start {program!r}: {error.strerror}", reason="start_failed")


def _limit_failed(error: OSError, step: str, config: JobConfig) -> StartFailed:
    """Convert an error of setpriority(2) or setrlimit(2), called for the setting `step`."""
    refused = error.errno in (errno.EPERM, errno.EACCES)
    hint = "use a lower limit"
    if step == "nice":
        hint = f"use {os.getpriority(os.PRIO_PROCESS, 0)} or more"
    elif (hard := resource.getrlimit(_RESOURCES[step.removeprefix("rlimit_")])[1]) != resource.RLIM_INFINITY:
        hint = f"use at most {hard}"
    if refused and os.geteuid() != 0:
        hint += ", or run the manager as root"
    return StartFailed(
        f"can't set {step} to {config[step]}: {error.strerror}",
        reason="not_permitted" if refused else "bad_limit",
        path=f"$.{step}",
        hint=hint,
    )
