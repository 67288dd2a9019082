"""Launch one OS process: its environment, its command line, the system calls. Knows nothing of jobs and events."""

import contextlib
import errno
import os
import pwd
import re
import shlex
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from gaffer.config import ProcessConfig
from gaffer.errors import StartFailed
from gaffer.util import check_gid, check_uid, substitute_env

# Variables of the daemon that are secrets, or promises made to it alone (design section 7).
_PRIVATE = re.compile(r"GAFFER_\w*KEY\w*|GAFFER_PROCESS|GAFFER_INSTANCE|NOTIFY_SOCKET|WATCHDOG_\w+|LISTEN_\w+")
_BASIC = re.compile(r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LC_\w+|TZ|TMPDIR")
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

CAPTURE = subprocess.PIPE
DISCARD = subprocess.DEVNULL
MERGE = subprocess.STDOUT


@dataclass(slots=True)
class Child:
    """A running OS process and our ends of its pipes; `popen` is None for one we did not start ourselves."""

    os_pid: int
    pidfd: int | None
    popen: "subprocess.Popen[bytes] | None" = None
    stdin: int | None = None
    stdout: int | None = None
    stderr: int | None = None


def environment(
    config: ProcessConfig, extra: Mapping[str, str], parent: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment of a process: what `parent` (default: ours) passes on, the account, the job's `env`, `extra`."""
    parent = os.environ if parent is None else parent
    passed = _PRIVATE.fullmatch if config.os_env else lambda name: not _BASIC.fullmatch(name)
    env = {name: value for name, value in parent.items() if not passed(name)}
    env.setdefault("PATH", _DEFAULT_PATH)
    if config.uid is not None:
        with contextlib.suppress(KeyError, ValueError):
            account = pwd.getpwuid(check_uid(config.uid))
            env.update(HOME=account.pw_dir, USER=account.pw_name, LOGNAME=account.pw_name, SHELL=account.pw_shell)
    return {**env, **config.env, **extra}


def arguments(config: ProcessConfig, env: Mapping[str, str]) -> list[str]:
    """The words to execute; `$VAR` is replaced from `env`, by the shell itself where one is asked for (TPL-26)."""
    if config.shell:
        return ["/bin/sh", "-c", " ".join([config.cmd, *(shlex.quote(arg) for arg in config.args)])]
    return [substitute_env(word, env) for word in config.command()]


def launch(config: ProcessConfig, env: Mapping[str, str], *, stdout: int = DISCARD, stderr: int = DISCARD) -> Child:
    """Start the process in a group of its own (in a session of its own when detached).

    `stdout` and `stderr` are CAPTURE, DISCARD or, for stderr, MERGE. Raises StartFailed; nothing is left open then.
    """
    argv = arguments(config, env)
    uid, gid, groups = _account(config)
    try:
        popen = subprocess.Popen(
            argv,
            env=dict(env),
            cwd=config.cwd,
            stdin=subprocess.PIPE if config.redirect_input else subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            bufsize=0,
            user=uid,
            group=gid,
            extra_groups=groups,
            start_new_session=config.detach,
            process_group=None if config.detach else 0,
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise _why(error, argv[0], config) from None
    child = Child(popen.pid, None, popen)
    child.stdin, child.stdout, child.stderr = (_own_fd(pipe) for pipe in (popen.stdin, popen.stdout, popen.stderr))
    try:
        child.pidfd = os.pidfd_open(popen.pid) if hasattr(os, "pidfd_open") else None
    except OSError as error:
        close(child)
        os.killpg(popen.pid, signal.SIGKILL)
        popen.wait()
        raise StartFailed(f"the process can't be watched: {error.strerror}", reason="no_descriptors") from None
    return child


def close(child: Child) -> None:
    """Close every descriptor of `child` that is still open."""
    for name in ("pidfd", "stdin", "stdout", "stderr"):
        fd = getattr(child, name)
        if fd is not None:
            os.close(fd)
            setattr(child, name, None)


def _own_fd(pipe: "object | None") -> int | None:
    """Take the descriptor out of the file object that Popen made, so that nobody else closes it."""
    if pipe is None:
        return None
    fd = os.dup(pipe.fileno())  # type: ignore[attr-defined]
    pipe.close()  # type: ignore[attr-defined]
    os.set_blocking(fd, False)
    return fd


def _account(config: ProcessConfig) -> tuple[int | None, int | None, list[int] | None]:
    """The uid, gid and supplementary groups to switch to; None for what stays as it is."""
    if config.uid is None and config.gid is None:
        return None, None, None
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
        # Only root may switch; becoming who we are needs no call that only root may make.
        if uid in (None, os.geteuid()) and gid in (None, os.getegid()):
            return None, None, None
        name = config.uid if uid not in (None, os.geteuid()) else config.gid
        raise StartFailed(f"only root may run a process as {name!r}", reason="not_permitted", path="$.uid")
    return uid, gid, groups


def _why(error: Exception, program: str, config: ProcessConfig) -> StartFailed:
    """Turn what Popen raised into a reason."""
    if not isinstance(error, OSError):
        return StartFailed(str(error), reason="start_failed")
    if config.cwd is not None and error.filename == config.cwd:
        return StartFailed(f"can't enter {config.cwd!r}: {error.strerror}", reason="bad_cwd", path="$.cwd")
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
            return StartFailed(f"{program!r} is no program and has no #! line", reason="not_executable", path="$.cmd")
        case errno.EAGAIN | errno.ENOMEM:
            return StartFailed(f"the system starts no more processes: {error.strerror}", reason="process_limit")
        case errno.EMFILE | errno.ENFILE:
            return StartFailed(f"no descriptors are left: {error.strerror}", reason="no_descriptors")
        case errno.EPERM:
            return StartFailed(f"not allowed to start {program!r}: {error.strerror}", reason="not_permitted")
        case _:
            return StartFailed(f"{program!r} can't be started: {error.strerror}", reason="start_failed")
