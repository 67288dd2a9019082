"""The streams of a process, in a process that may be killed; the journals and pipes are held here, as by the keeper.

`KeptStreams` runs this file as a program, which forks the process that reads: so it starts in a moment. Requests are
JSON and come with the descriptors that they name; its messages are `PID number`, `KEEP name` with a descriptor,
`DROP name`, `ENDED`, `ACCEPTED offset` at the start and after each write to stdin, and after the end of the output
`DONE epoch start end`.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from gaffer.jobs.config import JobConfig
from gaffer.loop import new_loop
from gaffer.processes import launch
from gaffer.streams.log_files import LogFile, LogWriter
from gaffer.streams.log_formats import make_formatter
from gaffer.streams.process_streams import ProcessStreams, Stream
from gaffer.streams.rings import Cursor
from gaffer.streams.rotation import Rotation

_MAX_MESSAGE = 65536


class KeptStreams:
    """Holds `descriptors` (`stdout`, `stdin`), which it closes, and journals, while `start` and `kill` are called."""

    def __init__(self, directory: Path, descriptors: dict[str, int], **options: Any) -> None:
        self.descriptors = descriptors
        self._options = {"directory": str(directory), **options}
        self._pid = 0
        self._killed = False
        self._input: socket.socket | None = None
        if "stdin" in descriptors:
            self._input, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            descriptors["input"] = end.detach()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._program = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()]
            )

    def __enter__(self) -> "KeptStreams":
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._pid:
            self.kill()
        self._socket.close()
        if self._input is not None:
            self._input.close()
        self._program.wait()
        for fd in self.descriptors.values():
            os.close(fd)

    def start(self) -> None:
        """Start a process that reads."""
        self._killed = False
        request = {**self._options, "names": list(self.descriptors)}
        socket.send_fds(self._socket, [json.dumps(request).encode()], list(self.descriptors.values()))
        while not self._pid:
            self._receive()

    def kill(self) -> None:
        """Kill it at once, and take what it still wanted to be kept."""
        self._killed = True
        os.kill(self._pid, signal.SIGKILL)
        while self._pid:
            self._receive()

    def kill_after(self, seconds: float) -> None:
        """Kill it while `accepted` or `write` wait."""
        self._killed = True
        timer = threading.Timer(seconds, os.kill, (self._pid, signal.SIGKILL))
        timer.start()
        self._timer = timer

    def accepted(self) -> int | None:
        """Wait for the next number of accepted bytes; None if it was killed."""
        while self._pid:
            word, *arguments = self._receive()
            if word == "ACCEPTED":
                return int(arguments[0])
        return None

    def write(self, offset: int, data: bytes) -> int | None:
        """Write to stdin what follows on what was accepted; return as `accepted`. No data closes it."""
        assert self._input is not None
        self._input.send(b"%d " % offset + data)
        return self.accepted()

    def finish(self) -> tuple[str, int, int]:
        """Wait until it has read and written all; return the epoch, start and end of the ring."""
        while True:
            word, *arguments = self._receive()
            if word == "DONE":
                self.kill()
                return arguments[0], int(arguments[1]), int(arguments[2])

    def _receive(self) -> list[str]:
        data, fds, _, _ = socket.recv_fds(self._socket, _MAX_MESSAGE, 1)
        words = data.decode().split()
        match words:
            case ["PID", number]:
                self._pid = int(number)
            case ["ENDED"]:
                assert self._killed, "the process has failed"
                self._pid = 0
            case ["KEEP", name]:
                self.descriptors[name] = fds.pop()
            case ["DROP", name] if name in self.descriptors:
                os.close(self.descriptors.pop(name))
            case []:
                raise AssertionError("the program has ended")
        return words


class _Keeper:
    """Sends what is to be kept to a `KeptStreams`."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer

    def keep(self, name: str, fd: int) -> None:
        socket.send_fds(self._peer, [f"KEEP {name}".encode()], [fd])

    def drop(self, name: str) -> None:
        self._peer.send(f"DROP {name}".encode())


def _read_all(peer: socket.socket, request: dict[str, Any], descriptors: dict[str, int]) -> None:
    loop = new_loop()
    asyncio.set_event_loop(loop)
    writer = LogWriter(loop, Path(request["directory"]))
    writer.start()
    config = JobConfig("job", "true", redirect_output=["out"], redirect_input="stdin" in descriptors)
    streams = ProcessStreams(loop, config, {"name": "job", "pid": 1}, capture_all=False)
    child = launch.Child(stdout=descriptors.pop("stdout", None), stdin=descriptors.pop("stdin", None))
    given = descriptors.pop("input", None)
    child.journals = descriptors

    def log_file(kind: str) -> LogFile:
        formatter = make_formatter(request["format"], kind, 1)
        return writer.file(f"{kind}.log", Rotation(request["max_bytes"], 100), formatter)

    streams.connect(child, log_file, _Keeper(peer))
    [ring] = streams.captured
    if given is not None:
        os.set_blocking(given, False)
        _write_input(loop, peer, given, streams.writable("stdin"))

    async def finish() -> None:
        cursor = Cursor(ring)
        while await cursor.next() is not None:
            pass

    loop.run_until_complete(finish())
    writer.close()
    peer.send(f"DONE {ring.epoch} {ring.start} {ring.end}".encode())
    signal.pause()


def _write_input(loop: asyncio.AbstractEventLoop, peer: socket.socket, given: int, stream: Stream) -> None:
    """Write to `stream` what comes on the socket `given`."""
    stdin = stream.input
    assert stdin is not None

    def close() -> None:
        if stdin.waiting:  # which would be lost
            loop.call_later(0.01, close)
        else:
            stream.close()

    def write() -> None:
        offset, _, data = os.read(given, _MAX_MESSAGE).partition(b" ")
        if int(offset) <= stdin.accepted < int(offset) + len(data):
            stream.write(data[stdin.accepted - int(offset) :])
        elif not data:
            close()
        peer.send(f"ACCEPTED {stdin.accepted}".encode())

    peer.send(f"ACCEPTED {stdin.accepted}".encode())
    loop.add_reader(given, write)


def _main() -> None:
    peer = socket.socket(fileno=int(sys.argv[1]))
    while True:
        data, fds, _, _ = socket.recv_fds(peer, _MAX_MESSAGE, 64)
        if not data:
            return
        request = json.loads(data)
        pid = os.fork()
        if not pid:
            try:
                _read_all(peer, request, dict(zip(request["names"], fds, strict=True)))
            finally:
                traceback.print_exc()
                os._exit(1)
        peer.send(f"PID {pid}".encode())
        for fd in fds:
            os.close(fd)
        os.waitpid(pid, 0)
        peer.send(b"ENDED")


if __name__ == "__main__":
    _main()
