"""Kill gafferd or its keeper at a chosen system call.

Nothing of this is in the programs: the test starts gafferd by `python failpoints.py GAFFERD ARGUMENT...`. This replaces
functions of the standard library in that process and in the keeper that it becomes, so that each call of one passes a
place before and after it. A `FailPoint` arms one place, and the process that passes it for the n-th time from then on
gets SIGKILL. A place is armed once: the next gafferd passes it unharmed.

The places, where WORD begins a datagram and NAME is that of a file:

- `fork`: starting a program
- `send:WORD`: a datagram to the other side
- `receive:WORD`: a datagram from gafferd, in the keeper
- `rename:NAME`: replacing a file
- `reap`: waiting for a process whose status is taken
- `splice`, `header`, `append`, `mark`, `cut`: moving output or input, noting that in a journal, writing to a log file,
  noting its place or times, cutting it off
- `exec`: becoming another program

Only what an isolated interpreter has is imported before the places are set: the keeper runs in one.
"""

import os
import sys

VARIABLE = "FAILPOINT_FILE"
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_state: dict[str, object] = {"armed": "", "left": 0}


def passing(role: str, when: str, place: str) -> None:
    """Die here if this is the place that is armed."""
    path = os.environ[VARIABLE]
    try:
        record = os.open(f"{path}.passed", os.O_WRONLY | os.O_APPEND)
    except FileNotFoundError:
        pass
    else:
        os.write(record, f"{role} {when} {place}\n".encode())
        os.close(record)
    try:
        with open(path, encoding="ascii") as file:
            armed = file.read()
    except FileNotFoundError:
        return
    _identity, wanted, number = armed.split("\n")
    if wanted != f"{role} {when} {place}":
        return
    if _state["armed"] != armed:
        _state.update(armed=armed, left=int(number))
    left = _state["left"] = int(str(_state["left"])) - 1
    if left == 0:
        os.unlink(path)
        os.kill(os.getpid(), 9)


def watch(role: str, owner: "Any", name: str, place: "Callable[..., str | None]") -> None:
    """Pass the place that `place` says, with the arguments of the function, before and after each call of it."""
    function = getattr(owner, name)

    def watched(*args: "Any", **kwargs: "Any") -> "Any":
        here = place(*args, **kwargs)
        if here is None:
            return function(*args, **kwargs)
        passing(role, "before", here)
        result = function(*args, **kwargs)
        passing(role, "after", here)
        return result

    setattr(owner, name, watched)


def _word(data: bytes) -> str:
    return bytes(data).split(b"=")[0].decode("ascii", "replace")


def _file(_source: "Any", target: "Any", **_options: "Any") -> str:
    return f"rename:{os.path.basename(os.fspath(target))}"


def _reaped(kind: int, pid: int, options: int) -> "str | None":
    return None if options & os.WNOWAIT else "reap"


def watch_common(role: str) -> None:
    """Watch what both programs may call."""
    for name in ("rename", "replace"):
        watch(role, os, name, _file)
    watch(role, os, "waitid", _reaped)
    watch(role, os, "waitpid", lambda *args: "reap")
    watch(role, os, "splice", lambda *args, **kwargs: "splice")
    for name, place in (("pwrite", "header"), ("writev", "append"), ("setxattr", "mark"), ("ftruncate", "cut")):
        watch(role, os, name, lambda *args, place=place: place)
    watch(role, os, "execv", lambda *args: "exec")
    watch(role, os, "posix_spawn", lambda *args, **kwargs: "fork")


def watch_keeper() -> None:
    """Watch the keeper, before it is imported."""
    import _socket

    class Socket(_socket.socket):
        def recvmsg(self, *args: "Any") -> "Any":
            result = super().recvmsg(*args)
            passing("keeper", "after", f"receive:{_word(result[0])}")
            return result

        def sendmsg(self, buffers: "Any", *args: "Any") -> int:
            place = f"send:{_word(next(iter(buffers)))}"
            passing("keeper", "before", place)
            result = super().sendmsg(buffers, *args)
            passing("keeper", "after", place)
            return result

    def socketpair(*args: "Any") -> "tuple[Socket, Socket]":
        ours, theirs = pair(*args)
        return Socket(fileno=ours.detach()), Socket(fileno=theirs.detach())

    pair = _socket.socketpair
    _socket.socket = Socket  # type: ignore[misc]
    _socket.socketpair = socketpair
    watch_common("keeper")


def watch_gafferd() -> None:
    """Watch gafferd, and have the keeper watched that it becomes."""
    import socket
    import subprocess

    from gafferd.keeping import starting

    watch_common("gafferd")
    watch("gafferd", subprocess, "_fork_exec", lambda *args: "fork")
    watch("gafferd", socket, "send_fds", lambda connection, buffers, *args: f"send:{_word(buffers[0])}")
    begin = (
        f"import sys; sys.path.append({os.path.dirname(__file__)!r}); import failpoints; failpoints.watch_keeper(); "
    )
    starting._BOOT = begin + starting._BOOT


class FailPoint:
    """Arms places of one node; `enter` and `env` are what its gafferd is to be started with."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._number = 0
        self.enter = (sys.executable, __file__)
        self.env = {VARIABLE: path}

    def arm(self, place: str, number: int = 1) -> None:
        """Kill the process that passes `ROLE before|after PLACE` for the n-th time."""
        self._number += 1
        with open(f"{self._path}.new", "w", encoding="ascii") as file:
            file.write(f"{self._number}\n{place}\n{number}")
        os.rename(f"{self._path}.new", self._path)

    @property
    def armed(self) -> bool:
        """Whether nobody has died yet."""
        return os.path.exists(self._path)

    def record(self) -> None:
        """Record which places are passed from now on."""
        open(f"{self._path}.passed", "w").close()

    def recorded(self) -> dict[str, int]:
        """Stop recording; return how often each place was passed."""
        with open(f"{self._path}.passed", encoding="ascii") as file:
            lines = file.read().splitlines()
        os.unlink(f"{self._path}.passed")
        return {line: lines.count(line) for line in sorted(set(lines))}

    def disarm(self) -> None:
        """Let all live."""
        if self.armed:
            os.unlink(self._path)


if __name__ == "__main__":
    from gafferd.entry import main

    watch_gafferd()
    sys.argv = sys.argv[1:]
    main()
