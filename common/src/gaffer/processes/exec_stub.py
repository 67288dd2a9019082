"""A script that runs in a new process and executes a program that needs more setup than subprocess.Popen offers.

    python -I -S exec_stub.py CONTROL

It reads a marshalled request from the descriptor CONTROL until its end, sets the process up accordingly and executes
the program. On success, the peer of CONTROL reads DONE and then the end; otherwise the errno and the name of the step
that failed (`cwd`, `descriptors`, `nice`, `rlimit_...`, `user`, `exec`). It imports builtin modules only, except for
`resource` if the job has resource limits: each file read would delay the job by a millisecond.
"""

import _signal  # type: ignore[import-not-found]
import errno
import marshal
import posix
import sys

DONE = b"done"


class _Failed(Exception):
    def __init__(self, step: str, error: OSError) -> None:
        super().__init__(f"{error.errno} {step}")


def main(control: int) -> None:
    """Execute the program that CONTROL describes, or write to it what failed and exit with status 127."""
    posix.set_inheritable(control, False)
    request = marshal.loads(_read_all(control))
    _restore_signals()
    try:
        _enter(request["cwd"])
        _move(request["descriptors"])
        if request["umask"] is not None:
            posix.umask(request["umask"])
        _set_nice(request["nice"])
        _set_limits(request["limits"])
        # Last, because the user may not be permitted any of this.
        _become(request["uid"], request["gid"], request["groups"])
        posix.write(control, DONE)
        _execute(request["programs"], request["argv"], _environment(request["env"], request["listens"]))
    except _Failed as failed:
        # This supersedes what was written before: the reader evaluates the last line.
        posix.write(control, b"\n" + str(failed).encode())
    posix._exit(127)


def _read_all(descriptor: int) -> bytes:
    parts = []
    while part := posix.read(descriptor, 65536):
        parts.append(part)
    return b"".join(parts)


def _restore_signals() -> None:
    # Signals ignored by the interpreter or by inheritance would stay ignored in the program.
    for number in range(1, _signal.NSIG):
        if _signal.getsignal(number) == _signal.SIG_IGN:
            _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def _enter(directory: bytes | None) -> None:
    if directory is not None:
        try:
            posix.chdir(directory)
        except OSError as error:
            raise _Failed("cwd", error) from None


def _move(descriptors: list[int]) -> None:
    """Make `descriptors` 3, 4, and so on."""
    try:
        for target, source in enumerate(descriptors, 3):
            posix.dup2(source, target)
            posix.close(source)
    except OSError as error:
        raise _Failed("descriptors", error) from None


def _set_nice(nice: int | None) -> None:
    if nice is not None:
        try:
            posix.setpriority(posix.PRIO_PROCESS, 0, nice)
        except OSError as error:
            raise _Failed("nice", error) from None


def _set_limits(limits: dict[str, tuple[int, int, int]]) -> None:
    """Set resource limits, given as number of the resource, soft and hard limit."""
    if limits:
        import resource

        for name, (number, soft, hard) in limits.items():
            try:
                resource.setrlimit(number, (soft, hard))
            except OSError as error:
                raise _Failed(f"rlimit_{name}", error) from None
            except ValueError:  # which it makes of EPERM
                raise _Failed(f"rlimit_{name}", PermissionError(errno.EPERM, "")) from None
            except OverflowError:
                raise _Failed(f"rlimit_{name}", OSError(errno.EINVAL, "")) from None


def _environment(env: dict[bytes, bytes], listens: bool) -> dict[bytes, bytes]:
    return {**env, b"LISTEN_PID": b"%d" % posix.getpid()} if listens else env


def _become(uid: int | None, gid: int | None, groups: list[int] | None) -> None:
    try:
        if groups is not None:
            posix.setgroups(groups)
        if gid is not None:
            posix.setgid(gid)
        if uid is not None:
            posix.setuid(uid)
    except OSError as error:
        raise _Failed("user", error) from None


def _execute(programs: list[bytes], argv: list[bytes], env: dict[bytes, bytes]) -> None:
    """Try the programs in turn; report the first error other than "not found", if any."""
    notable = last = None
    for program in programs:
        try:
            posix.execve(program, argv, env)
        except OSError as error:
            last = error
            if notable is None and error.errno not in (errno.ENOENT, errno.ENOTDIR):
                notable = error
    found = notable or last
    if found is not None:
        raise _Failed("exec", found)


if __name__ == "__main__":
    main(int(sys.argv[1]))
