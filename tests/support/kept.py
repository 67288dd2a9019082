"""A keeper whose gafferd is a small program that the test directs."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from gafferd import keeper
from support.daemons import clean_env
from support.poll import eventually

TIMEOUT = 20.0

_DIRECTED = """
import json, os, signal, socket, subprocess, sys, time
control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
control.connect(sys.argv[1])
socket.send_fds(control, [str(os.getpid()).encode()], [int(os.environ[sys.argv[2]])])
names = dict(globals())
while code := control.recv(65536):
    names["result"] = None
    exec(code, names)
    control.send(json.dumps(names["result"]).encode())
"""


class Dump(NamedTuple):
    """What the keeper sends of its own: descriptors by name, lines but times, and the fields of the last message."""

    descriptors: dict[str, list[int]]
    lines: list[str]
    fields: dict[str, str]

    def __enter__(self) -> "Dump":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptors."""
        for descriptors in self.descriptors.values():
            for each in descriptors:
                os.close(each)


class Directed:
    """A gafferd that executes what the test sends; the test itself speaks with the keeper, by `connection`."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        control.settimeout(TIMEOUT)
        data, descriptors, _, _ = socket.recv_fds(control, 100, 1, socket.MSG_CMSG_CLOEXEC)
        self.pid = int(data)
        self.connection = socket.socket(fileno=descriptors[0])
        self.connection.settimeout(TIMEOUT)

    def do(self, code: str) -> Any:
        """Execute Python; return what it assigned to `result`."""
        self._control.send(code.encode())
        return json.loads(self._control.recv(65536))

    def spawn(self, *command: str) -> int:
        """Start a process in a group of its own; return its pid."""
        return int(self.do(f"result = subprocess.Popen({command!r}, process_group=0).pid"))

    def python(self, code: str) -> int:
        """Start a Python program in a group of its own; return its pid."""
        return self.spawn(sys.executable, "-I", "-S", "-c", code)

    def send(self, text: str, descriptors: Sequence[int] = ()) -> None:
        """Send a datagram to the keeper."""
        socket.send_fds(self.connection, [text.encode()], descriptors)

    def receive(self) -> str:
        """The next datagram of the keeper."""
        return self.connection.recv(65536).decode()

    def dump(self, end: str = "DUMPED=1") -> Dump:
        """Ask for everything, up to a message that begins so. The descriptors are the caller's to close."""
        self.send("DUMP=1")
        found: dict[str, list[int]] = {}
        lines: list[str] = []
        while True:
            data, descriptors, flags, _ = socket.recv_fds(self.connection, 65536, 253, socket.MSG_CMSG_CLOEXEC)
            assert data, "the keeper has closed the connection"
            assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
            new = data.decode().split("\n")
            if new[0] == end:
                return Dump(found, lines, dict(line.split("=", 1) for line in new))
            names = [line.removeprefix("FDNAME=") for line in new if line.startswith("FDNAME=")]
            for name, descriptor in zip(names, descriptors, strict=True):
                found.setdefault(name, []).append(descriptor)
            lines += [line for line in new if not line.startswith(("FD", "AT="))]

    def kill(self) -> None:
        """SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)
        self.close()  # afterwards: it would exit at the end of its orders

    def exit(self, status: int) -> None:
        """Let it exit."""
        self._control.send(f"os._exit({status})".encode())
        self.close()

    def close(self) -> None:
        """Close what the test has of it."""
        self._control.close()
        self.connection.close()


class Kept:
    """A running keeper."""

    def __init__(self, directory: Path, mode: str, log: str, env: Mapping[str, str], code: Path) -> None:
        self.script = directory / "directed.py"
        self.script.write_text(_DIRECTED)
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._server.settimeout(TIMEOUT)
        self._server.bind(str(directory / "control"))
        self._server.listen()
        self._daemons: list[Directed] = []
        program = [sys.executable, "-I", "-S", str(self.script), str(directory / "control"), keeper.VARIABLE]
        self.messages = directory / "stderr"
        with self.messages.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(code), "-1", "0", mode, log, *program],
                env=clean_env(env),
                stdin=subprocess.DEVNULL,
                stderr=stderr,
            )
        self.pid = self._process.pid

    def gafferd(self) -> Directed:
        """The next gafferd that the keeper starts."""
        connection, _ = self._server.accept()
        self._daemons.append(Directed(connection))
        return self._daemons[-1]

    def signal(self, signum: int) -> None:
        """Send a signal to the keeper."""
        self._process.send_signal(signum)

    def wait(self) -> int:
        """Wait for its end; return the exit status, negative for a signal."""
        return self._process.wait(TIMEOUT)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    @property
    def descriptors(self) -> int:
        """The number of its open descriptors."""
        return psutil.Process(self.pid).num_fds()

    def close(self) -> None:
        """Kill it and all that it and its gafferd started."""
        if self.running:
            self._process.send_signal(signal.SIGSTOP)  # it starts nothing any more
            family = psutil.Process(self.pid).children(recursive=True)
            self._process.kill()
            for each in family:
                try:
                    each.kill()
                except psutil.NoSuchProcess:
                    continue
        self._process.wait()
        for daemon in self._daemons:
            daemon.close()
        self._server.close()


@contextmanager
def kept(
    mode: str = "foreground",
    log: str = "",
    env: Mapping[str, str] | None = None,
    code: Path = Path(keeper.__file__),
) -> Iterator[Kept]:
    """A keeper, which has started its gafferd for the first time, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="kept-") as directory:
        running = Kept(Path(directory), mode, log, env or {}, code)
        try:
            yield running
        finally:
            running.close()


def is_gone(pid: int) -> bool:
    """Whether there is no such process, not even a zombie."""
    return not psutil.pid_exists(pid)


def is_zombie(pid: int) -> bool:
    """Whether the process has exited and is not reaped."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def await_zombie(pid: int) -> None:
    """Wait until the process has exited."""
    eventually(lambda: is_zombie(pid), message=f"process {pid} has not exited")


@contextmanager
def pipe(data: bytes) -> Iterator[int]:
    """The reading end of a pipe with some data and no writer."""
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    try:
        yield reader
    finally:
        os.close(reader)
